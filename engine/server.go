package engine

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"time"
)

// Config holds a server's knobs. The zero value of every field means its default.
type Config struct {
	// PingInterval is the time between a pong and the next heartbeat ping (25 s).
	PingInterval time.Duration
	// PingTimeout is how long the pong to a heartbeat may take (20 s).
	PingTimeout time.Duration
	// UpgradeTimeout bounds a websocket probe, from its handshake to the upgrade packet (10 s).
	UpgradeTimeout time.Duration
	// WriteTimeout bounds every write, and how long a closing session may take to hand over what is queued (10 s).
	WriteTimeout time.Duration
	// MaxPayload is the largest message, POST body and poll answer, in bytes (1,000,000). Clients are told.
	MaxPayload int
	// MaxQueue is how many bytes may wait for one client before it is closed as a "slow client" (1 MiB).
	MaxQueue int
	// MaxConns caps the sessions of the server; a handshake above it is answered 503 (0: no cap).
	MaxConns int
	// Logger gets facts that an operator should see; never payloads (nil: nothing is logged).
	Logger *slog.Logger

	portable bool // tests: never write from the caller's goroutine
}

// Handler is told what happens on one connection. All calls for one connection are made one at a time, in order.
type Handler interface {
	// Message is called for every message of the client; data is valid only during the call. A client that sends faster
	// than Message returns is held back by TCP.
	Message(data []byte, binary bool)
	// Pong is called when the client has answered the ping with that seq: a heartbeat's or one of Conn.Ping.
	Pong(seq uint32)
	// Closed is called exactly once, after the last Message and Pong.
	Closed(reason string)
}

// ErrClosed is returned by Send on a connection that is closed or closing.
var ErrClosed = errors.New("engine: connection is closed")

// Reasons for which a session ends, as Handler.Closed gets them. Conn.Close may give any other.
const (
	ReasonTransportClose = "transport close"
	ReasonTransportError = "transport error"
	ReasonPingTimeout    = "ping timeout"
	ReasonParseError     = "parse error"
	ReasonSlowClient     = "slow client"
	ReasonShuttingDown   = "server shutting down"
	ReasonForcedClose    = "forced close"
)

var reasons = [...]string{
	ReasonTransportClose, ReasonTransportError, ReasonPingTimeout, ReasonParseError,
	ReasonSlowClient, ReasonShuttingDown, ReasonForcedClose,
}

// Server speaks Engine.IO 4 to any number of clients.
type Server struct {
	count counters
}

// NewServer returns a server. accept runs once for every new session before anything is read from its client, with the
// handshake request, and returns the session's handler; what it sends follows the open packet in the same write. A nil
// Handler refuses the client (403).
func NewServer(cfg Config, accept func(*Conn, *http.Request) Handler) *Server { return nil }

// ServeHTTP serves polling requests and websocket handshakes. The path is not looked at.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {}

// Shutdown refuses new sessions, closes all others politely, so that clients reconnect by themselves, and waits for all
// goroutines of the server. When ctx ends first, what is left is cut off and ctx's error returned.
func (s *Server) Shutdown(ctx context.Context) error { return nil }

// Conn is one session with one client, on whichever transport it currently is. Its methods may be called from any
// goroutine, also from inside its Handler.
type Conn struct {
	id, remote string
	mu         sync.Mutex
}

// ID returns the session id, known only to this client.
func (c *Conn) ID() string { return c.id }

// RemoteAddr returns the RemoteAddr of the handshake request.
func (c *Conn) RemoteAddr() string { return c.remote }

// Transport returns "polling" or "websocket".
func (c *Conn) Transport() string { return "" }

// Open reports whether Send would still accept something.
func (c *Conn) Open() bool { return false }

// Send hands the frames over, adjacent and in order. It never blocks: what the socket does not take at once is queued.
// It returns ErrClosed when the connection is closed or closing, and when the queue would pass MaxQueue, which closes the
// connection as a "slow client".
func (c *Conn) Send(frames ...*Frame) error { return nil }

// Cork holds output back until as many Uncork calls have followed, which write it all at once.
func (c *Conn) Cork() {}

// Uncork ends Cork.
func (c *Conn) Uncork() {}

// Ping sends a ping now and returns its seq, which Handler.Pong gets back when the client has answered; 0 when the
// connection is closed.
func (c *Conn) Ping() uint32 { return 0 }

// Buffered returns how many bytes are queued, not yet handed to the kernel.
func (c *Conn) Buffered() int { return 0 }

// Close ends the session: what is queued is still written, bounded by WriteTimeout, then the client is told. It returns at
// once; only the first call counts.
func (c *Conn) Close(reason string) {}

// newID returns 120 random bits in 20 characters: a session id is a secret between server and client.
func newID() string {
	var b [15]byte
	rand.Read(b[:])
	return base64.RawURLEncoding.EncodeToString(b[:])
}
