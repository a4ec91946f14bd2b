package engine

import (
	"bytes"
	"strings"
	"sync"
	"testing"

	"github.com/zishang520/engine.io/v2/types"
	"github.com/zishang520/socket.io/v2/socket"
)

// libraryServer is the unmodified library over our engine, with its own parser and adapter.
func libraryServer(t *testing.T) (*testServer, *socket.Server) {
	binding := NewBinding()
	io := socket.NewServer(nil, nil)
	io.Bind(binding)
	s := newTestServer(t, Config{})
	var mu sync.Mutex
	sockets := make(map[*Conn]*Socket)
	of := func(c *Conn) *Socket {
		mu.Lock()
		defer mu.Unlock()
		if sockets[c] == nil {
			sockets[c] = NewSocket(c)
			binding.Accept(sockets[c])
		}
		return sockets[c]
	}
	s.onMessage(func(c *Conn, b []byte, binary bool) {
		if binary {
			of(c).Deliver(types.NewBytesBuffer(bytes.Clone(b)))
		} else {
			of(c).Deliver(types.NewStringBuffer(bytes.Clone(b)))
		}
	})
	s.whenClosed = func(c *Conn, reason string) { of(c).Closed(reason) }
	return s, io
}

func TestUnmodifiedLibraryOverTheEngine(t *testing.T) {
	s, io := libraryServer(t)
	reasons := make(chan any, 1)
	io.On("connection", func(args ...any) {
		sock := args[0].(*socket.Socket)
		sock.On("message", func(data ...any) { sock.Emit("message-back", data...) })
		sock.On("disconnect", func(args ...any) { reasons <- args[0] })
		sock.Emit("hello", "wörld")
	})
	c, rec := s.openWebSocket(t)
	c.text("40{}")
	if p := c.packet(); !strings.HasPrefix(p, `40{"sid":"`) {
		t.Fatalf("CONNECT answered %q", p)
	}
	c.wantPacket(`42["hello","wörld"]`)
	c.text(`42["message",1,"two",{"3":[true]}]`)
	c.wantPacket(`42["message-back",1,"two",{"3":[true]}]`)

	// An attachment in, and out again.
	c.text(`451-["message",{"_placeholder":true,"num":0}]`)
	c.write(clientFrame(0x82, "\x01\x02\x03"))
	c.wantPacket(`451-["message-back",{"_placeholder":true,"num":0}]`)
	if b0, payload, err := c.frame(); b0 != 0x82 || string(payload) != "\x01\x02\x03" {
		t.Fatalf("%#x %q %v", b0, payload, err)
	}
	c.Close()
	rec.wantClosed(t, ReasonTransportClose)
	if reason := recv(t, reasons, "disconnect"); reason != ReasonTransportClose {
		t.Errorf("disconnect with %v", reason)
	}
}

func TestLibraryClosesTheConnection(t *testing.T) {
	s, io := libraryServer(t)
	io.On("connection", func(args ...any) {
		sock := args[0].(*socket.Socket)
		sock.On("bye", func(...any) { sock.Disconnect(true) })
		sock.Emit("ready") // the library answers CONNECT, and loses events, before this handler has run
	})
	c, rec := s.openWebSocket(t)
	c.text("40{}")
	c.packet()
	c.wantPacket(`42["ready"]`)
	c.text(`42["bye"]`)
	c.wantPacket("41") // the library's last words are flushed
	c.wantClose(1000)
	c.Close()
	rec.wantClosed(t, ReasonForcedClose)

	c, rec = s.openWebSocket(t)
	c.text("42[\"event before CONNECT\"]")
	c.wantClose(1000)
	c.Close()
	rec.wantClosed(t, ReasonForcedClose)
}

func TestSocketAnswersWhatTheLibraryAsks(t *testing.T) {
	s := newTestServer(t, Config{})
	c, rec := s.openWebSocket(t)
	sock := NewSocket(rec.Conn)
	if sock.Id() != rec.ID() || sock.Protocol() != 4 || sock.RemoteAddress() != rec.RemoteAddr() || sock.ReadyState() != "open" ||
		sock.Request() == nil {
		t.Error("wrong answers")
	}
	if sock.Request() != NewSocket(rec.Conn).Request() || !sock.Request().IsDone() {
		t.Error("the request context is not shared and flushed")
	}
	calls := make(chan string, 10)
	listener := func(name string) func(...any) {
		return func(args ...any) { calls <- name + " " + args[0].(string) }
	}
	sock.On("data", listener("data"))
	sock.On("error", listener("error"))
	sock.Once("close", listener("close"))
	sock.On("drain", listener("drain"))
	sock.Deliver("a")
	if got := recv(t, calls, "call"); got != "data a" {
		t.Error(got)
	}
	sock.RemoveListener("data", nil)
	sock.Deliver("b")
	sock.Write(types.NewStringBufferString("text"), nil, nil)
	c.wantPacket("4text")
	sock.Close(false)
	if got := sock.ReadyState(); got != "closing" {
		t.Errorf("ready state %q", got)
	}
	rec.wantClosed(t, ReasonForcedClose)
	sock.Closed("one")
	sock.Closed("two")
	if got := recv(t, calls, "call"); got != "close one" || len(calls) != 0 {
		t.Error(got, len(calls))
	}
	if got := sock.ReadyState(); got != "closed" {
		t.Errorf("ready state %q", got)
	}
	sock.On("close", listener("late"))
	sock.Closed("three")
	if len(calls) != 0 {
		t.Error(<-calls)
	}
}

func TestListenersMayBeRemovedWhileTheyAreCalled(t *testing.T) {
	s := newTestServer(t, Config{})
	_, rec := s.openWebSocket(t)
	for range 100 {
		sock := NewSocket(rec.Conn)
		sock.On("data", func(...any) {})
		sock.Once("close", func(...any) { sock.RemoveListener("data", nil) })
		done := make(chan struct{}, 2)
		go func() { sock.Closed("x"); done <- struct{}{} }()
		go func() { sock.RemoveListener("data", nil); done <- struct{}{} }()
		for range 10 {
			sock.Deliver("x")
		}
		<-done
		<-done
	}
}
