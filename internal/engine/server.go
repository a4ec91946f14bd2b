package engine

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"jobwire/internal/timers"
)

// Config holds a server's knobs. A zero or negative value means the default.
type Config struct {
	// PingInterval is the time between a pong and the next heartbeat ping (25 s).
	PingInterval time.Duration
	// PingTimeout is how long the pong to a heartbeat may take (20 s).
	PingTimeout time.Duration
	// UpgradeTimeout bounds a websocket probe, from its handshake to the upgrade packet (10 s).
	UpgradeTimeout time.Duration
	// WriteTimeout bounds every write, and how long a closing session may take to hand over what is queued (10 s).
	WriteTimeout time.Duration
	// MaxPayload is the largest message, POST body and poll answer, in bytes (64 KiB). Clients are told. A single packet of the
	// server's own that is larger still goes out, alone in its poll answer.
	MaxPayload int
	// MaxQueue is how many bytes may wait for one client before it is closed as a "slow client" (4 MiB).
	MaxQueue int
	// MaxConns caps the sessions of the server, closing ones included; a handshake above it is answered 503 (0: no cap).
	MaxConns int
	// Refuse answers the handshake of a client whose Handler is nil (403 "Forbidden").
	Refuse func(http.ResponseWriter)
	// Logger gets facts that an operator should see; never payloads, never session ids (nil: nothing is logged).
	Logger *slog.Logger

	portable bool // tests: never write from the caller's goroutine
}

// WithDefaults fills in the defaults.
func (cfg Config) WithDefaults() Config {
	setDefault(&cfg.PingInterval, 25*time.Second)
	setDefault(&cfg.PingTimeout, 20*time.Second)
	setDefault(&cfg.UpgradeTimeout, 10*time.Second)
	setDefault(&cfg.WriteTimeout, 10*time.Second)
	setDefault(&cfg.MaxPayload, 64<<10)
	setDefault(&cfg.MaxQueue, 4<<20)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return cfg
}

func setDefault[T int | time.Duration](field *T, value T) {
	if *field <= 0 {
		*field = value
	}
}

// closeGrace is how long a peer gets to answer the end of a session with its own, and a polling client to come back for its
// close packet while the server shuts down.
const closeGrace = time.Second

// Handler is told what happens on one connection. All calls for one connection are made one at a time, in order, under no lock
// of the engine. A call that panics is logged and closes its connection.
type Handler interface {
	// Message is called for every message of the client; data is valid only during the call. A client that sends faster than
	// Message returns is held back by TCP. While it runs nothing else is read, pongs neither: what may take long belongs into
	// the Task that it returns.
	Message(data []byte, binary bool) Task
	// Pong is called when the client has answered the ping with that seq: a heartbeat's or one of Conn.Ping.
	Pong(seq uint32)
	// Closed is called exactly once, after the last Message and Pong.
	Closed(reason string) Task
}

// Task is what a call of a Handler leaves to do; nil is nothing. It runs at once, beside the next calls and tasks of the same
// connection, which it has to expect. Shutdown waits for it. When it panics, that is logged and closes the connection.
type Task interface {
	Run()
}

// Server speaks Engine.IO 4 to any number of clients.
type Server struct {
	cfg     Config
	accept  func(*Conn, *http.Request) Handler
	count   counters
	beats   *timers.List[*beating]
	epoch   time.Time
	runners runners

	// wg counts sessions until their Closed has returned and their descriptor is closed, and every goroutine besides.
	wg sync.WaitGroup

	mu      sync.RWMutex     // guards what follows; never held together with a Conn's lock
	conns   map[string]*Conn // by session id, closing ones included
	closing bool
	stop    chan struct{} // closed by Shutdown
}

// NewServer returns a server. accept runs once for every new session before anything is read from its client, with the
// handshake request, and returns the session's handler; what it sends follows the open packet in the same write. A nil Handler
// refuses the client, see Config.Refuse.
func NewServer(cfg Config, accept func(*Conn, *http.Request) Handler) *Server {
	s := &Server{cfg: cfg.WithDefaults(), accept: accept, epoch: time.Now(), conns: make(map[string]*Conn), stop: make(chan struct{})}
	s.beats = timers.New[*beating](s.clock)
	return s
}

// ServeHTTP serves polling requests and websocket handshakes. The path is not looked at. Origins are checked, and CORS headers
// set, by the handlers in front.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodOptions {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	query := r.URL.Query()
	transport, sid := query.Get("transport"), query.Get("sid")
	switch {
	case transport != "polling" && transport != "websocket":
		s.reject(w, errTransport)
		return
	case query.Get("EIO") != "4":
		s.reject(w, errVersion)
		return
	case query.Has("j"): // JSONP would let any page read the answer
		s.reject(w, errRequest)
		return
	}
	var c *Conn
	if sid != "" {
		s.mu.RLock()
		c = s.conns[sid]
		s.mu.RUnlock()
		if c == nil {
			s.reject(w, errSession)
			return
		}
	}
	switch {
	case c == nil && r.Method != http.MethodGet:
		s.reject(w, errMethod)
	case transport == "websocket":
		s.serveWebSocket(w, r, c)
	case c == nil:
		s.openPolling(w, r)
	case r.Method == http.MethodGet:
		s.servePoll(w, r, c)
	case r.Method == http.MethodPost:
		s.servePost(w, r, c)
	default:
		s.reject(w, errRequest)
	}
}

// refusal is an answer of the reference server to a request it does not serve.
type refusal struct {
	status  int
	code    int
	message string
}

var (
	errTransport = &refusal{http.StatusBadRequest, 0, "Transport unknown"}
	errSession   = &refusal{http.StatusBadRequest, 1, "Session ID unknown"}
	errMethod    = &refusal{http.StatusBadRequest, 2, "Bad handshake method"}
	errRequest   = &refusal{http.StatusBadRequest, 3, "Bad request"}
	errForbidden = &refusal{http.StatusForbidden, 4, "Forbidden"}
	errVersion   = &refusal{http.StatusBadRequest, 5, "Unsupported protocol version"}

	// The reference server has no code for these three; clients look at the status only.
	errTooLarge    = &refusal{http.StatusRequestEntityTooLarge, 3, "Payload too large"}
	errUpgrade     = &refusal{http.StatusUpgradeRequired, 3, "Unsupported websocket version"}
	errUnavailable = &refusal{http.StatusServiceUnavailable, 4, "Service unavailable"}
)

// reject answers a request that is not served.
func (s *Server) reject(w http.ResponseWriter, why *refusal) {
	if why == errUnavailable {
		s.count.refused.Add(1)
	} else {
		s.count.rejected.Add(1)
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(why.status)
	w.Write([]byte(`{"code":` + strconv.Itoa(why.code) + `,"message":"` + why.message + `"}`)) //nolint:gosec // all of it is ours
}

// open registers a new session, its open packet queued and its output corked, and asks for its handler. It answers the request
// itself when it returns nil.
func (s *Server) open(w http.ResponseWriter, r *http.Request, websocket bool) *Conn {
	c := &Conn{srv: s, id: newID(), remote: r.RemoteAddr, corked: 1}
	if websocket {
		c.on = webSocket
	} else {
		c.poll = &poll{wake: make(chan struct{}, 1), done: make(chan struct{})}
	}
	s.mu.Lock()
	if s.closing || s.cfg.MaxConns > 0 && len(s.conns) >= s.cfg.MaxConns || s.conns[c.id] != nil {
		s.mu.Unlock()
		s.reject(w, errUnavailable)
		return nil
	}
	s.conns[c.id] = c
	s.wg.Add(1)
	s.mu.Unlock()

	c.mu.Lock()
	c.pushLocked(newFrame(opText, nil, s.openPacket(c.id, websocket)))
	c.mu.Unlock()
	accepted := false
	defer func() { // also when accept panics, which net/http recovers
		if !accepted {
			c.discard()
		}
	}()
	if c.handler = s.accept(c, r); c.handler == nil {
		if s.cfg.Refuse == nil {
			s.reject(w, errForbidden)
			return nil
		}
		s.count.rejected.Add(1)
		s.cfg.Refuse(w)
		return nil
	}
	accepted = true
	return c
}

// openPacket is the first packet of a session.
func (s *Server) openPacket(id string, websocket bool) []byte {
	upgrades := `"websocket"`
	if websocket {
		upgrades = ""
	}
	return fmt.Appendf(nil, `0{"sid":"%s","upgrades":[%s],"pingInterval":%d,"pingTimeout":%d,"maxPayload":%d}`,
		id, upgrades, s.cfg.PingInterval.Milliseconds(), s.cfg.PingTimeout.Milliseconds(), s.cfg.MaxPayload)
}

// forget ends a session's registration: its Closed has returned and its descriptor is closed.
func (s *Server) forget(c *Conn) {
	s.mu.Lock()
	delete(s.conns, c.id)
	last := len(s.conns) == 0
	s.mu.Unlock()
	if last {
		s.runners.leave()
	}
	s.wg.Done()
}

// track adds a goroutine that Shutdown waits for; false when it would come too late. The goroutine ends with wg.Done.
func (s *Server) track() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closing {
		return false
	}
	s.wg.Add(1)
	return true
}

// Shutdown refuses new sessions, closes all others politely, so that clients reconnect by themselves, and waits for all
// goroutines of the server. When ctx ends first, what is left is cut off and ctx's error returned.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	if !s.closing {
		s.closing = true
		close(s.stop)
	}
	s.mu.Unlock()
	for _, c := range s.sessions() {
		c.Close(ReasonShuttingDown)
	}
	done := make(chan struct{})
	go func() { // ends with the last session
		s.wg.Wait()
		s.runners.leave()
		s.runners.wg.Wait()
		s.beats.Stop()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	left := s.sessions()
	s.cfg.Logger.Warn("engine: shutdown cuts sessions off", "sessions", len(left))
	for _, c := range left {
		c.cut()
	}
	select { // only a Handler that does not return is left now
	case <-done:
	case <-time.After(closeGrace):
	}
	return ctx.Err()
}

func (s *Server) sessions() []*Conn {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.Collect(maps.Values(s.conns))
}

// newID returns 120 random bits in 20 characters: a session id is a secret between server and client.
func newID() string {
	var b [15]byte
	rand.Read(b[:])
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// Stats is a snapshot of a server's counters and gauges. Counters only grow; gauges say so.
type Stats struct {
	Polling   int64 // gauge: open sessions on HTTP long-polling
	WebSocket int64 // gauge: open sessions on websocket
	Buffered  int64 // gauge: bytes queued for all clients, not yet handed to the kernel

	Opened   uint64 // sessions opened
	Refused  uint64 // handshakes answered 503: MaxConns, or shutting down
	Rejected uint64 // requests answered 400, 403, 413 or 426
	Upgrades uint64 // sessions that moved from polling to websocket
	// UpgradesFailed counts websocket probes that ended without an upgrade.
	UpgradesFailed uint64

	PacketsIn  uint64 // Engine.IO packets received
	PacketsOut uint64 // Engine.IO packets accepted for sending
	BytesIn    uint64 // bytes of received packets, without framing
	BytesOut   uint64 // bytes accepted for sending, websocket framing included

	SlowClients    uint64 // sessions closed because the client did not read: MaxQueue or WriteTimeout
	ProtocolErrors uint64 // sessions closed because the client broke RFC 6455 or Engine.IO 4
	Panics         uint64 // handler calls that panicked; each closed its session
}

// counters are the server's live numbers behind Stats.
type counters struct {
	polling, websocket, buffered                     atomic.Int64
	opened, refused, rejected, upgrades, upgradeFail atomic.Uint64
	packetsIn, packetsOut, bytesIn, bytesOut         atomic.Uint64
	slow, protocol, panics                           atomic.Uint64
}

// Stats returns the server's numbers. They are read one by one, so they agree with each other only when nothing moves.
func (s *Server) Stats() Stats {
	n := &s.count
	return Stats{
		Polling: n.polling.Load(), WebSocket: n.websocket.Load(), Buffered: n.buffered.Load(),
		Opened: n.opened.Load(), Refused: n.refused.Load(), Rejected: n.rejected.Load(),
		Upgrades: n.upgrades.Load(), UpgradesFailed: n.upgradeFail.Load(),
		PacketsIn: n.packetsIn.Load(), PacketsOut: n.packetsOut.Load(),
		BytesIn: n.bytesIn.Load(), BytesOut: n.bytesOut.Load(),
		SlowClients: n.slow.Load(), ProtocolErrors: n.protocol.Load(), Panics: n.panics.Load(),
	}
}
