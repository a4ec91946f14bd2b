package engine

import (
	"io"
	"net/http"
	"net/url"
	"sync"

	"github.com/zishang520/engine.io-go-parser/packet"
	"github.com/zishang520/engine.io/v2/config"
	library "github.com/zishang520/engine.io/v2/engine"
	"github.com/zishang520/engine.io/v2/events"
	"github.com/zishang520/engine.io/v2/transports"
	"github.com/zishang520/engine.io/v2/types"
)

var (
	_ library.Socket     = (*Socket)(nil)
	_ library.BaseServer = (*Binding)(nil)
)

// Socket presents a Conn to the Socket.IO library as the library's own engine.Socket.
//
// The library's Client listens to three events, each once, so three slots replace an emitter with its maps. It removes its
// listeners from whatever goroutine closes it, hence mu.
type Socket struct {
	emitter
	conn *Conn

	// Outgoing, if not nil, may change a text that the library sends, and keeps it. It is set before the library has the socket.
	Outgoing func(text []byte) []byte

	mu     sync.Mutex // guards what follows; no listener is called under it
	data   events.Listener
	fail   events.Listener
	close  events.Listener
	closed bool
}

// NewSocket wraps conn for the library.
func NewSocket(conn *Conn) *Socket { return &Socket{conn: conn} }

// Conn returns the connection underneath.
func (s *Socket) Conn() *Conn { return s.conn }

// Deliver hands one incoming packet to the library, in the caller's goroutine. What packet may be is up to the decoder that
// the library was given. It does nothing once the library has let go of the socket.
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
	s.data, s.fail, s.close, s.closed = nil, nil, nil, true
	s.mu.Unlock()
	if listener != nil {
		listener(reason)
	}
}

// slot returns where the listener of an event lives, nil for events that never fire here. The caller holds mu.
func (s *Socket) slot(event events.EventName) *events.Listener {
	switch event {
	case "data":
		return &s.data
	case "error":
		return &s.fail
	case "close":
		return &s.close
	}
	return nil
}

// On registers the listener of data, error or close; other events never fire, so their listeners are dropped.
func (s *Socket) On(event events.EventName, listeners ...events.Listener) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if slot := s.slot(event); slot != nil && len(listeners) > 0 && !s.closed {
		*slot = listeners[0]
	}
	return nil
}

// Once is On: close fires once anyway, and the library asks for nothing else once.
func (s *Socket) Once(event events.EventName, listeners ...events.Listener) error {
	return s.On(event, listeners...)
}

// AddListener is On.
func (s *Socket) AddListener(event events.EventName, listeners ...events.Listener) error {
	return s.On(event, listeners...)
}

// RemoveListener empties the event's slot. Functions cannot be compared, and there is only one.
func (s *Socket) RemoveListener(event events.EventName, _ events.Listener) bool {
	return s.RemoveAllListeners(event)
}

// RemoveAllListeners empties the event's slot.
func (s *Socket) RemoveAllListeners(event events.EventName) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	slot := s.slot(event)
	if slot == nil || *slot == nil {
		return false
	}
	*slot = nil
	return true
}

// Write sends one packet as the library encoded it: a bytes buffer is an attachment, anything else is text.
func (s *Socket) Write(r io.Reader, _ *packet.Options, sent library.SendCallback) library.Socket {
	var frame *Frame
	switch b := r.(type) {
	case *types.BytesBuffer:
		frame = BinaryFrame(b.Bytes())
	case interface{ Bytes() []byte }:
		text := b.Bytes()
		if s.Outgoing != nil {
			text = s.Outgoing(text)
		}
		frame = TextFrame(text)
	default:
		// Not met with the library's own encoder. A reader that fails has no packet in it to send.
		text, err := io.ReadAll(r)
		if err != nil {
			return s
		}
		frame = TextFrame(text)
	}
	if s.conn.Send(frame) == nil && sent != nil {
		sent(s.Transport())
	}
	return s
}

// Send is Write.
func (s *Socket) Send(r io.Reader, o *packet.Options, sent library.SendCallback) library.Socket {
	return s.Write(r, o, sent)
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

// Request returns one empty request context that all sockets share: what a handshake carried is judged before the library
// sees the connection, and copies of its headers would cost 4 kB a connection.
func (s *Socket) Request() *types.HttpContext { return sharedContext() }

// Transport answers whether volatile packets may be sent, which is all the library asks a transport.
func (s *Socket) Transport() transports.Transport { return transport{sharedTransport(), s.conn} }

// Upgraded reports whether the connection is on websocket.
func (s *Socket) Upgraded() bool { return s.conn.Transport() == "websocket" }

// Upgrading is false: upgrades are the engine's own business.
func (s *Socket) Upgrading() bool { return false }

// SetReadyState does nothing: the engine keeps the state.
func (s *Socket) SetReadyState(string) {}

// Construct does nothing: NewSocket has done it.
func (s *Socket) Construct(string, library.BaseServer, transports.Transport, *types.HttpContext, int) {
}

// MaybeUpgrade does nothing: upgrades are the engine's own business.
func (s *Socket) MaybeUpgrade(transports.Transport) {}

// transport is the library's view of a connection's transport: an inert one of the library's, with the facts replaced.
type transport struct {
	transports.Transport
	conn *Conn
}

func (t transport) Name() string   { return t.conn.Transport() }
func (t transport) Sid() string    { return t.conn.ID() }
func (t transport) Protocol() int  { return 4 }
func (t transport) Writable() bool { return t.conn.Open() && t.conn.Buffered() == 0 }

var sharedTransport = sync.OnceValue(transports.MakeTransport)

// sharedContext is flushed at once, which ends the goroutine that an HttpContext starts.
var sharedContext = sync.OnceValue(func() *types.HttpContext {
	ctx := types.NewHttpContext(discard{}, &http.Request{
		Method: http.MethodGet,
		URL:    &url.URL{Path: "/socket.io/"},
		Header: http.Header{},
	})
	ctx.Flush()
	return ctx
})

// discard is the ResponseWriter of the shared context; nothing is ever written to it.
type discard struct{}

func (discard) Header() http.Header         { return http.Header{} }
func (discard) Write(b []byte) (int, error) { return len(b), nil }
func (discard) WriteHeader(int)             {}

// Binding is the engine server that io.Bind wants: the library listens for "connection" on it, and asks no more.
type Binding struct {
	emitter
	mu        sync.Mutex
	accept    events.Listener
	unclients types.Map[string, library.Socket]
}

// NewBinding returns a binding for io.Bind.
func NewBinding() *Binding { return &Binding{} }

// Accept hands a new socket to the library, in the caller's goroutine. When it returns the library's listeners are in place.
func (b *Binding) Accept(s library.Socket) {
	b.mu.Lock()
	accept := b.accept
	b.mu.Unlock()
	if accept != nil {
		accept(s)
	}
}

// On registers the listener of "connection"; other events never fire.
func (b *Binding) On(event events.EventName, listeners ...events.Listener) error {
	if event == "connection" && len(listeners) > 0 {
		b.mu.Lock()
		b.accept = listeners[0]
		b.mu.Unlock()
	}
	return nil
}

// The rest of the library's interface belongs to its own servers. Of these only Close is called on a bound one, by the
// library's Server.Close; the connections are closed by Server.Shutdown here.

func (b *Binding) Prototype(library.BaseServer)                            {}
func (b *Binding) Proto() library.BaseServer                               { return b }
func (b *Binding) Opts() config.ServerOptionsInterface                     { return config.DefaultServerOptions() }
func (b *Binding) Clients() *types.Map[string, library.Socket]             { return &b.unclients }
func (b *Binding) ClientsCount() uint64                                    { return 0 }
func (b *Binding) Middlewares() []library.Middleware                       { return nil }
func (b *Binding) Construct(any)                                           {}
func (b *Binding) Init()                                                   {}
func (b *Binding) ComputePath(config.AttachOptionsInterface) string        { return "/socket.io/" }
func (b *Binding) Upgrades(string) *types.Set[string]                      { return types.NewSet[string]() }
func (b *Binding) Use(library.Middleware)                                  {}
func (b *Binding) ApplyMiddlewares(_ *types.HttpContext, next func(error)) { next(nil) }
func (b *Binding) Close() library.BaseServer                               { return b }
func (b *Binding) Cleanup()                                                {}
func (b *Binding) GenerateId(*types.HttpContext) (string, error)           { return newID(), nil }
func (b *Binding) Verify(*types.HttpContext, bool) (*types.CodeMessage, map[string]any) {
	return nil, nil
}
func (b *Binding) Handshake(string, *types.HttpContext) (*types.CodeMessage, transports.Transport) {
	return nil, nil
}
func (b *Binding) CreateTransport(string, *types.HttpContext) (transports.Transport, error) {
	return nil, http.ErrNotSupported
}

// emitter is the part of the library's EventEmitter that Socket and Binding have no use for.
type emitter struct{}

func (emitter) AddListener(events.EventName, ...events.Listener) error { return nil }
func (emitter) Emit(events.EventName, ...any)                          {}
func (emitter) EventNames() []events.EventName                         { return nil }
func (emitter) GetMaxListeners() uint                                  { return 0 }
func (emitter) ListenerCount(events.EventName) int                     { return 0 }
func (emitter) Listeners(events.EventName) []events.Listener           { return nil }
func (emitter) On(events.EventName, ...events.Listener) error          { return nil }
func (emitter) Once(events.EventName, ...events.Listener) error        { return nil }
func (emitter) RemoveAllListeners(events.EventName) bool               { return false }
func (emitter) RemoveListener(events.EventName, events.Listener) bool  { return false }
func (emitter) Clear()                                                 {}
func (emitter) SetMaxListeners(uint)                                   {}
func (emitter) Len() int                                               { return 0 }
