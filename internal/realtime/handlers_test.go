package realtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"jobwire/internal/events"
)

func TestAcksOfHandlers(t *testing.T) {
	type payload struct {
		Token string `json:"token"`
		N     int    `json:"n"`
	}
	s := newStand(t, Config{}, func(_ *recorder, h *Hub) {
		Handle(h, "take", func(_ context.Context, s *Session, p payload) (any, error) {
			return map[string]any{"user": s.UserID(), "token": p.Token, "n": p.N}, nil
		})
		Handle(h, "none", func(context.Context, *Session, struct{}) (any, error) { return []int{1, 2}, nil })
		Handle(h, "nothing", func(context.Context, *Session, struct{}) (any, error) { return nil, nil })
		Handle(h, "maybe", func(_ context.Context, _ *Session, p *payload) (any, error) { return p, nil })
		Handle(h, "raw", func(context.Context, *Session, struct{}) (any, error) {
			return json.RawMessage("{\"a\":\"<&>\u2028\"}"), nil
		})
		Handle(h, "fail", func(_ context.Context, _ *Session, how string) (any, error) {
			return nil, map[string]error{
				"own": &events.Error{Code: "teapot", Detail: "no coffee"}, "wrapped": fmt.Errorf("x: %w", &events.Error{Code: "token_expired", Detail: "late"}),
				"unknown": errors.New("the secret is 42"),
			}[how]
		})
		Handle(h, "broken", func(context.Context, *Session, struct{}) (any, error) { return make(chan int), nil })
		handleEcho(h)
	})
	c := s.connect(t, "alice")
	for event, want := range map[string]string{
		`["take",{"token":"t","n":3}]`: `[{"n":3,"token":"t","user":"alice"}]`,
		`["take",{"token":"t","x":1}]`: `[{"error":{"code":"invalid_payload","message":"The argument does not fit: an unknown or invalid member."}}]`,
		`["take",{"TOKEN":"t","n":3}]`: `[{"error":{"code":"invalid_payload","message":"The argument does not fit: an unknown or invalid member."}}]`,
		`["take",{"n":1,"n":2}]`:       `[{"error":{"code":"invalid_payload","message":"The argument does not fit: an unknown or invalid member."}}]`,
		`["maybe",{"N":2}]`:            `[{"error":{"code":"invalid_payload","message":"The argument does not fit: an unknown or invalid member."}}]`,
		`["take",{"token":5}]`:         `[{"error":{"code":"invalid_payload","message":"The argument does not fit: \"token\" must not be a JSON number."}}]`,
		`["take","x"]`:                 `[{"error":{"code":"invalid_payload","message":"The argument does not fit: it must not be a JSON string."}}]`,
		`["take"]`:                     `[{"error":{"code":"invalid_payload","message":"Exactly one argument is expected."}}]`,
		`["take",null]`:                `[{"error":{"code":"invalid_payload","message":"Exactly one argument is expected."}}]`,
		`["take",{},{}]`:               `[{"error":{"code":"invalid_payload","message":"Exactly one argument is expected."}}]`,
		`["none"]`:                     `[[1,2]]`,
		`["none",null]`:                `[[1,2]]`,
		`["none",{}]`:                  `[[1,2]]`,
		`["none",1]`:                   `[{"error":{"code":"invalid_payload","message":"No argument is expected."}}]`,
		`["nothing"]`:                  `[null]`,
		`["maybe"]`:                    `[null]`,
		`["maybe",null]`:               `[null]`,
		`["maybe",{"n":2}]`:            `[{"token":"","n":2}]`,
		`["maybe",{"x":2}]`:            `[{"error":{"code":"invalid_payload","message":"The argument does not fit: an unknown or invalid member."}}]`,
		`["maybe",null,null]`:          `[{"error":{"code":"invalid_payload","message":"Exactly one argument is expected."}}]`,
		`["raw"]`:                      "[{\"a\":\"<&>\u2028\"}]",
		`["fail","own"]`:               `[{"error":{"code":"teapot","message":"no coffee"}}]`,
		`["fail","wrapped"]`:           `[{"error":{"code":"token_expired","message":"late"}}]`,
		`["fail","unknown"]`:           `[{"error":{"code":"internal","message":"The server could not handle this event."}}]`,
		`["broken"]`:                   `[{"error":{"code":"internal","message":"The server could not handle this event."}}]`,
		`["who knows"]`:                `[{"error":{"code":"unknown_event","message":"The server does not handle this event."}}]`,
		`["echo",1.00,"ü",{"b":1,"a":12345678901234567890}]`: `[1.00,"ü",{"b":1,"a":12345678901234567890}]`,
	} {
		c.write("427" + event)
		if got := c.read(); got != "437"+want {
			t.Errorf("%s:\n got %s\nwant 437%s", event, got, want)
		}
	}
	c.write(`451-8["take",{"_placeholder":true,"num":0}]`)
	c.writeBinary([]byte{1})
	c.expect(`438[{"error":{"code":"invalid_payload","message":"Binary arguments are not accepted."}}]`)

	c.write(`42["who knows"]`, `42["fail","own"]`, `42["none"]`, `429["none"]`) // no ack asked: none given
	c.expect(`439[[1,2]]`)
	if st := s.Stats(); st.UnknownEvents != 2 {
		t.Errorf("%d unknown events", st.UnknownEvents)
	}
}

func TestAHandlerMaySayWhenItsAckIsSent(t *testing.T) {
	s := newStand(t, Config{}, func(_ *recorder, h *Hub) {
		handleEcho(h)
		HandleInOrder(h, "between", func(_ context.Context, s *Session, fails bool, ack func(any, error)) {
			var elsewhere sync.WaitGroup
			elsewhere.Go(func() {
				s.Emit(message("before", `1`, 0))
				if fails {
					ack(nil, &events.Error{Code: "teapot", Detail: "no coffee"})
				} else {
					ack([]int{1}, nil)
				}
				s.Emit(message("after", `1`, 0))
			})
			elsewhere.Wait()
		})
	})
	c := s.connect(t, "alice")
	c.write(`421["between",false]`, `422["between",true]`, `423["between",7]`, `42["between",false]`, `424["echo"]`)
	c.expect(`42["before",1]`, `431[[1]]`, `42["after",1]`,
		`42["before",1]`, `432[{"error":{"code":"teapot","message":"no coffee"}}]`, `42["after",1]`,
		`433[{"error":{"code":"invalid_payload","message":"The argument does not fit: it must not be a JSON number."}}]`,
		`42["before",1]`, `42["after",1]`, `434[]`)
}

func TestBinaryArgumentsAndAcks(t *testing.T) {
	s := newStand(t, Config{}, func(_ *recorder, h *Hub) {
		handleEcho(h)
		HandleInOrder(h, "back", func(_ context.Context, s *Session, args Args, ack func(any, error)) {
			s.Send(frames(`51-["here",`, args)...)
			ack("done", nil)
		})
	})
	c := s.connect(t, "alice")
	c.write(`452-5["echo",{"_placeholder":true,"num":0},"x",{"_placeholder":true,"num":1}]`)
	c.writeBinary([]byte{1, 2})
	c.writeBinary([]byte{3})
	c.expect(`462-5[{"_placeholder":true,"num":0},"x",{"_placeholder":true,"num":1}]`, "\x01\x02", "\x03")
	c.write(`451-6["back",{"_placeholder":true,"num":0}]`)
	c.writeBinary([]byte{4})
	c.expect(`451-["here",{"_placeholder":true,"num":0}]`, "\x04", `436["done"]`)
}

func TestHandlerPanicClosesThatConnectionOnly(t *testing.T) {
	s := newStand(t, Config{}, func(_ *recorder, h *Hub) {
		handleEcho(h)
		Handle(h, "boom", func(context.Context, *Session, struct{}) (any, error) { panic("boom") })
	})
	alice, eve := s.connect(t, "alice"), s.connect(t, "eve")
	eve.write(`421["boom"]`)
	eve.expectClosed()
	if d := s.waitLeft(t); d.user != "eve" || d.reason != ReasonInternal {
		t.Errorf("%+v", d)
	}
	alice.write(`421["echo"]`)
	alice.expect(`431[]`)
}

func TestHandlerContextEnds(t *testing.T) {
	s := newStand(t, Config{HandlerTimeout: 50 * time.Millisecond}, func(_ *recorder, h *Hub) {
		Handle(h, "wait", func(ctx context.Context, _ *Session, _ struct{}) (any, error) {
			<-ctx.Done()
			return nil, &events.Error{Code: "timeout", Detail: ctx.Err().Error()}
		})
	})
	c := s.connect(t, "alice")
	c.write(`421["wait"]`)
	if got := c.read(); !strings.Contains(got, `"timeout"`) {
		t.Error(got)
	}
}

// A call that a session has begun is not waited for when its client has gone: its context has ended with the session.
func TestHandlerContextEndsWithTheSession(t *testing.T) {
	begun, ended := make(chan struct{}), make(chan error, 2)
	s := newStand(t, Config{HandlerTimeout: time.Hour}, func(_ *recorder, h *Hub) {
		Handle(h, "wait", func(ctx context.Context, _ *Session, first bool) (any, error) {
			if first {
				close(begun)
			}
			select {
			case <-ctx.Done():
				ended <- ctx.Err()
			case <-time.After(patience):
				ended <- errors.New("the context goes on")
			}
			return nil, ctx.Err()
		})
	})
	c := s.connect(t, "alice")
	c.write(`421["wait",true]`, `422["wait",false]`) // the second is handled when the client has gone
	<-begun
	c.vanish()
	for range 2 {
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
	s.waitLeft(t)
}

func TestHandlerNamesAreChecked(t *testing.T) {
	h := New(Config{}, newRecorder())
	defer h.Shutdown(t.Context())
	fn := func(context.Context, *Session, struct{}) (any, error) { return nil, nil }
	Handle(h, "once", fn)
	for _, name := range []string{"once", "disconnect"} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%q was registered", name)
				}
			}()
			Handle(h, name, fn)
		}()
	}
}
