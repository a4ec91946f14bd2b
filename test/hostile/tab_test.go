//go:build linux

package hostile

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// link is a transport of Engine.IO packets.
type link interface {
	read() (string, error)
	write(packets ...string) error
	close(abruptly bool)
}

// link opens an Engine.IO session on a transport.
func (n *node) link(transport string) (link, error) {
	if transport == "polling" {
		return n.polling()
	}
	return n.direct()
}

// visit says how a tab connects.
type visit struct {
	user        string
	transport   string // "websocket" (also when empty) or "polling"
	token       string // a good one of the user when empty
	pid, offset string // of an earlier visit

	heard func(packet string) // gets every EVENT packet, on the reader's goroutine; nil: the inbox does
	acked func(id int)        // is told of every ack, likewise
}

// tab is an honest client: it answers pings, and hears what it is told.
type tab struct {
	link
	visit
	sid, pid string // of the CONNECT reply

	inbox   chan string   // EVENT packets, when nobody else hears them
	connect chan error    // the answer to CONNECT
	gone    chan struct{} // closed when the connection has ended; err is set then
	err     error

	mu    sync.Mutex
	acks  map[int]chan json.RawMessage
	calls int
}

// refusal is a CONNECT_ERROR.
type refusal struct {
	Message string
	Data    struct{ Code, Message string }
}

func (r *refusal) Error() string { return r.Message + ": " + r.Data.Code }

// open connects and waits for the answer to CONNECT: a *refusal is an error.
func (n *node) open(v visit) (*tab, error) {
	l, err := n.link(v.transport)
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	t := &tab{
		link: l, visit: v, inbox: make(chan string, 4096), connect: make(chan error, 1), gone: make(chan struct{}),
		acks: map[int]chan json.RawMessage{},
	}
	if err := l.write("40" + v.auth()); err != nil {
		l.close(true)
		return nil, fmt.Errorf("CONNECT: %w", err)
	}
	go t.run()
	select {
	case err = <-t.connect:
	case <-t.gone:
		select {
		case err = <-t.connect:
		default:
			err = fmt.Errorf("CONNECT was not answered: %w", t.err)
		}
	case <-time.After(patience):
		err = errors.New("CONNECT is not answered: the connection hangs")
	}
	if err != nil {
		l.close(true)
		<-t.gone
		return nil, err
	}
	return t, nil
}

// auth is the payload of CONNECT.
func (v visit) auth() string {
	payload := map[string]string{"token": v.token}
	if v.token == "" {
		payload["token"] = token(v.user)
	}
	if v.pid != "" {
		payload["pid"], payload["offset"] = v.pid, v.offset
	}
	text, err := json.Marshal(payload)
	if err != nil {
		panic(err)
	}
	return string(text)
}

func (t *tab) run() {
	defer close(t.gone)
	defer t.link.close(false)
	for {
		packet, err := t.read()
		if err == nil {
			err = t.take(packet)
		}
		if err != nil {
			t.err = err
			return
		}
	}
}

// errClosed is the end of a connection that the server announced on polling, as a close frame does on websocket.
var errClosed = errors.New("close packet")

// take handles one Engine.IO packet.
func (t *tab) take(packet string) error {
	switch {
	case packet == "2":
		return t.write("3")
	case packet == "6":
		return nil
	case packet == "1":
		return errClosed
	case len(packet) < 2 || packet[0] != '4':
		return fmt.Errorf("unexpected packet %.80q", packet)
	}
	packet = packet[1:]
	switch packet[0] {
	case '0':
		var reply struct{ SID, PID string }
		if err := json.Unmarshal([]byte(packet[1:]), &reply); err != nil {
			return fmt.Errorf("CONNECT reply %.80q: %w", packet, err)
		}
		t.sid, t.pid = reply.SID, reply.PID
		t.connect <- nil
	case '1':
		return errors.New("disconnected by the server")
	case '2':
		if t.heard != nil {
			t.heard(packet)
			return nil
		}
		select {
		case t.inbox <- packet:
		default:
			return errors.New("nobody empties the inbox")
		}
	case '3':
		start := strings.IndexByte(packet, '[')
		id, err := strconv.Atoi(packet[1:max(start, 1)])
		if err != nil {
			return fmt.Errorf("ack %.80q: %w", packet, err)
		}
		if t.acked != nil {
			t.acked(id)
		}
		t.mu.Lock()
		reply := t.acks[id]
		delete(t.acks, id)
		t.mu.Unlock()
		if reply != nil {
			reply <- json.RawMessage(packet[start:])
		}
	case '4':
		why := &refusal{}
		if err := json.Unmarshal([]byte(packet[1:]), why); err != nil {
			return fmt.Errorf("CONNECT_ERROR %.80q: %w", packet, err)
		}
		t.connect <- why
	default:
		return fmt.Errorf("unexpected Socket.IO packet %.80q", packet)
	}
	return nil
}

// event is one that a client heard.
type event struct {
	name string
	data json.RawMessage
	id   string // "" when it is not a stored one
}

// parseEvent reads an EVENT packet.
func parseEvent(packet string) (event, error) {
	var args []json.RawMessage
	var e event
	if err := json.Unmarshal([]byte(packet[1:]), &args); err != nil || len(args) < 2 || len(args) > 3 {
		return e, fmt.Errorf("not an event: %.200q", packet)
	}
	if err := json.Unmarshal(args[0], &e.name); err != nil {
		return e, err
	}
	e.data = args[1]
	if len(args) == 3 {
		return e, json.Unmarshal(args[2], &e.id)
	}
	return e, nil
}

// wait returns the next event of that name from the inbox.
func (t *tab) wait(name string) (event, error) {
	deadline := time.After(patience)
	for {
		select {
		case packet := <-t.inbox:
			e, err := parseEvent(packet)
			if err != nil || e.name == name {
				return e, err
			}
		case <-t.gone:
			select {
			case packet := <-t.inbox: // what came before the end counts
				if e, err := parseEvent(packet); err == nil && e.name == name {
					return e, nil
				}
			default:
				return event{}, fmt.Errorf("waiting for %s: %w", name, t.err)
			}
		case <-deadline:
			return event{}, fmt.Errorf("no %s within %s", name, patience)
		}
	}
}

// call emits an event and returns its ack, a JSON array.
func (t *tab) call(event string, args ...any) (json.RawMessage, error) {
	reply := make(chan json.RawMessage, 1)
	t.mu.Lock()
	id := t.calls
	t.calls++
	t.acks[id] = reply
	t.mu.Unlock()
	text, err := json.Marshal(append([]any{event}, args...))
	if err != nil {
		return nil, err
	}
	if err := t.write("42" + strconv.Itoa(id) + string(text)); err != nil {
		return nil, err
	}
	select {
	case ack := <-reply:
		return ack, nil
	case <-t.gone:
		return nil, fmt.Errorf("%s was not acked: %w", event, t.err)
	case <-time.After(patience):
		return nil, fmt.Errorf("%s was not acked within %s", event, patience)
	}
}

// leave disconnects as a page does that calls socket.disconnect().
func (t *tab) leave() {
	_ = t.write("41", "1") // the server may have closed by itself
	select {
	case <-t.gone:
	case <-time.After(patience):
		t.link.close(true)
		<-t.gone
	}
}

// vanish ends the connection without a word, with a reset if abruptly.
func (t *tab) vanish(abruptly bool) {
	t.link.close(abruptly)
	<-t.gone
}

// must stops the test on an error.
func must[T any](tb testing.TB) func(T, error) T {
	return func(value T, err error) T {
		tb.Helper()
		if err != nil {
			tb.Fatal(err)
		}
		return value
	}
}
