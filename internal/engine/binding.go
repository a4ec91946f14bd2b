package engine

import (
	"io"
	"net/http"
	"net/url"
	"sync"

	"github.com/zishang520/engine.io-go-parser/packet"
	library "github.com/zishang520/engine.io/v2/engine"
	"github.com/zishang520/engine.io/v2/events"
	"github.com/zishang520/engine.io/v2/types"
)

// Socket presents a Conn to the Socket.IO library as the library's own engine.Socket. It has the methods that the library's
// client calls; the rest of the interface is that of an inert socket, which all share.
//
// Of the three events that the client listens to "error" never fires here; the other two have one listener each, so two slots
// replace an emitter with its maps. The client removes its listeners from whatever goroutine closes it, hence mu.
type Socket struct {
	library.Socket
	conn *Conn

	// Outgoing, if not nil, may change a text that the library sends, and keeps it. It is set before the library has the
	// socket.
	Outgoing func(text []byte) []byte

	mu     sync.Mutex // guards what follows; no listener is called under it
	data   events.Listener
	close  events.Listener
	closed bool
}

// NewSocket wraps conn for the library.
func NewSocket(conn *Conn) *Socket { return &Socket{Socket: inertSocket(), conn: conn} }

// Deliver hands one incoming packet to the library, in the caller's goroutine. What packet may be is up to the decoder that the
// library was given. It does nothing once the library has let go of the socket.
func (s *Socket) Deliver(packet any) {
	s.mu.Lock()
	listener := s.data
	s.mu.Unlock()
	if listener != nil {
		listener(packet)
	}
}

// Closed tells the library that the connection has ended. Only the first call counts.
func (s *Socket) Closed(reason string) {
	s.mu.Lock()
	listener := s.close
	s.data, s.close, s.closed = nil, nil, true
	s.mu.Unlock()
	if listener != nil {
		listener(reason)
	}
}

// On registers the listener of data or close.
func (s *Socket) On(event events.EventName, listeners ...events.Listener) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
	case event == "data":
		s.data = listeners[0]
	case event == "close":
		s.close = listeners[0]
	}
	return nil
}

// Once is On: close fires once anyway, and the library asks for nothing else once.
func (s *Socket) Once(event events.EventName, listeners ...events.Listener) error {
	return s.On(event, listeners...)
}

// RemoveListener takes the event's only listener away.
func (s *Socket) RemoveListener(event events.EventName, _ events.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch event {
	case "data":
		s.data = nil
	case "close":
		s.close = nil
	}
	return true
}

// Write sends one packet as an encoder made it: a bytes buffer is an attachment, a string buffer is text.
func (s *Socket) Write(r io.Reader, _ *packet.Options, _ library.SendCallback) library.Socket {
	switch b := r.(type) {
	case *types.BytesBuffer:
		_ = s.conn.Send(BinaryFrame(b.Bytes())) // fails only on a connection whose end the library is about to hear of
	case *types.StringBuffer:
		text := b.Bytes()
		if s.Outgoing != nil {
			text = s.Outgoing(text)
		}
		_ = s.conn.Send(TextFrame(text))
	}
	return s
}

// Close ends the connection politely, whatever discard says: queued output is always flushed first.
func (s *Socket) Close(discard bool) { s.conn.Close(ReasonForcedClose) }

// ReadyState is "open", "closing" or "closed".
func (s *Socket) ReadyState() string {
	s.mu.Lock()
	closed := s.closed
	s.mu.Unlock()
	switch {
	case closed:
		return "closed"
	case s.conn.Open():
		return "open"
	}
	return "closing"
}

// Id returns the session id.
func (s *Socket) Id() string { return s.conn.ID() }

// Protocol is 4: other revisions are refused at the handshake.
func (s *Socket) Protocol() int { return 4 }

// RemoteAddress returns the address of the handshake request.
func (s *Socket) RemoteAddress() string { return s.conn.RemoteAddr() }

// Request returns one empty request context that all sockets share: what a handshake carried is judged before the library sees
// the connection, and copies of its headers would be kept for as long as that lives.
func (s *Socket) Request() *types.HttpContext { return emptyContext() }

// What all sockets share of the library's own.
var (
	inertSocket  = sync.OnceValue(library.MakeSocket)
	emptyContext = sync.OnceValue(func() *types.HttpContext {
		ctx := types.NewHttpContext(noResponse{}, &http.Request{Method: http.MethodGet, URL: &url.URL{Path: "/socket.io/"}})
		ctx.Flush() // ends the goroutine that it has started
		return ctx
	})
)

// noResponse is the ResponseWriter of the empty context; nothing is ever written to it.
type noResponse struct{ http.ResponseWriter }

func (noResponse) Header() http.Header { return http.Header{} }

// Binding is the engine server that io.Bind wants: the library listens for "connection" on it, and asks no more. The rest is
// that of an inert server; connections are closed by Server.Shutdown.
type Binding struct {
	library.BaseServer
	accept events.Listener // set by io.Bind, before the first Accept
}

// NewBinding returns a binding for io.Bind.
func NewBinding() *Binding { return &Binding{BaseServer: library.MakeBaseServer()} }

// Accept hands a new socket to the library, in the caller's goroutine. When it returns the library's listeners are in place.
func (b *Binding) Accept(s library.Socket) { b.accept(s) }

// On registers the listener of "connection"; other events never fire.
func (b *Binding) On(event events.EventName, listeners ...events.Listener) error {
	if event == "connection" {
		b.accept = listeners[0]
	}
	return nil
}
