package realtime

import (
	"context"
	"encoding/json"
	"log/slog"
	"time"

	"jobwire/internal/auth"
	"jobwire/internal/engine"
	"jobwire/internal/events"
)

// Config holds a hub's knobs. The zero value of every field means its default.
type Config struct {
	// HandshakeTimeout is how long a connection may exist before its CONNECT was answered (10 s).
	HandshakeTimeout time.Duration
	// MaxUnauthenticated caps the connections without a session; handshakes above it are answered 503 (10,000).
	MaxUnauthenticated int
	// MaxSocketsPerUser caps the sessions of one user; a CONNECT above it is refused as too_many_sockets (1,000).
	MaxSocketsPerUser int
	// EventRate and EventBurst bound the Socket.IO packets of one connection: a burst, refilled at the rate per second (1,000,
	// 5,000). Clients send what they buffered while offline in one burst. A connection that exceeds both is closed.
	EventRate  float64
	EventBurst int
	// HandlerTimeout is how long a handler of client events may take before its context ends (10 s).
	HandlerTimeout time.Duration
	// ReceiptInterval is how long messages wait to be asked for together (200 ms), behind a first one that is asked for at once.
	ReceiptInterval time.Duration
	// MaxHeldBytes bounds what is kept back for a session until Live; beyond it the socket is closed as "slow replay", so that
	// it comes back with its offset (Engine.MaxQueue, at least 1 MiB).
	MaxHeldBytes int
	// NoRecovery leaves the pid out of CONNECT replies. Clients then keep no offset to reconnect with.
	NoRecovery bool
	// Engine holds the settings of the transports below. Its Logger defaults to this Logger.
	Engine engine.Config
	// Logger gets facts that an operator should see; never payloads or tokens (nil: slog.Default).
	Logger *slog.Logger
}

// WithDefaults fills in the defaults, but for those of Engine.
func (c Config) WithDefaults() Config {
	setDefault(&c.HandshakeTimeout, 10*time.Second)
	setDefault(&c.MaxUnauthenticated, 10_000)
	setDefault(&c.MaxSocketsPerUser, 1_000)
	setDefault(&c.EventRate, 1_000)
	setDefault(&c.EventBurst, 5_000)
	setDefault(&c.HandlerTimeout, 10*time.Second)
	setDefault(&c.ReceiptInterval, 200*time.Millisecond)
	setDefault(&c.MaxHeldBytes, max(1<<20, c.Engine.MaxQueue))
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Engine.Logger == nil {
		c.Engine.Logger = c.Logger
	}
	return c
}

func setDefault[T int | float64 | time.Duration](field *T, value T) {
	if *field <= 0 {
		*field = value
	}
}

const (
	// closeGrace is how long a connection stays after a refused CONNECT, so that the client can read why, and after the client
	// left the namespace, so that it can close by itself.
	closeGrace = time.Second
	// maxForeignConnects is how many CONNECTs to other namespaces one connection may have answered.
	maxForeignConnects = 3
	// maxPending and maxPendingBytes bound what waits for a session's task. A client that is faster is not read from.
	maxPending      = 256
	maxPendingBytes = 256 << 10
	// maxCorked is how many bytes Lifecycle.Connected may emit before they begin to leave, and the CONNECT reply with them. A
	// long replay waits for the client to take it, which could not happen while everything is held back.
	maxCorked = 16 << 10
	// maxAuthorization is what is kept of an Authorization header, in bytes. More than the longest token that auth accepts, so
	// a clipped one is refused as malformed.
	maxAuthorization = 16 << 10
	// maxOffset is the longest recovery offset that is looked at, in bytes.
	maxOffset = 64
)

// Handshake is what a client says about itself before it has a session.
type Handshake struct {
	Auth          json.RawMessage // CONNECT's payload, a JSON object; nil when there was none
	Authorization string          // the Authorization header of the handshake request
	RemoteAddr    string          // of the handshake request
}

// The codes that the hub itself answers with.
const (
	CodeTooManySockets = "too_many_sockets" // CONNECT_ERROR: Config.MaxSocketsPerUser
	CodeUserMismatch   = "user_mismatch"    // Session.Refresh: the token is somebody else's
	CodeUnknownEvent   = "unknown_event"    // ack: nobody handles this event
	CodeInvalidPayload = "invalid_payload"  // ack: the arguments do not fit the handler
	CodeDisconnected   = "disconnected"     // unauthorized: a worker has closed the user's sockets
	CodeInternal       = "internal"         // ack or CONNECT_ERROR: the server's fault, see its log
)

// Lifecycle is told what happens to sessions. Its methods are called without any lock held, for one session one at a time.
type Lifecycle interface {
	// Authenticate says who is connecting. An error that is an *events.Error is told to the client; any other is logged and
	// answered as internal. It may take as long as Config.HandshakeTimeout.
	Authenticate(Handshake) (auth.Identity, error)
	// Connected is called before the client can see its CONNECT reply. What it emits, up to 16 KiB, follows that reply in the
	// same write. It may take long, for a replay: the client's events wait until it has returned. ctx ends with the session.
	Connected(ctx context.Context, s *Session)
	// Disconnected is called exactly once for every Connected, after it has returned and after the last handler of the session.
	// The session is in no room any more.
	Disconnected(s *Session, reason string)
	// Confirmed says that a socket of the user has received everything with Confirm that was sent to it up to id.
	Confirmed(userID string, id events.ID)
}

// Reasons for which the hub closes connections, beside those of package engine. Disconnected and Stats get them.
const (
	ReasonHandshakeTimeout  = "handshake timeout"           // no CONNECT, or no answer to it, in time
	ReasonRefused           = "refused"                     // CONNECT was answered CONNECT_ERROR
	ReasonClientDisconnect  = "client namespace disconnect" // the client left by itself
	ReasonServerDisconnect  = "server namespace disconnect" // Hub.DisconnectUser
	ReasonTokenExpired      = "token expired"               // Identity.ExpiresAt has passed
	ReasonUnsupportedParser = "unsupported parser"          // CONNECT in binary: socket.io-msgpack-parser
	ReasonProtocol          = "protocol violation"          // a well-formed packet that may not come now
	ReasonEventRate         = "event rate"                  // Config.EventRate
	ReasonSlowReplay        = "slow replay"                 // Config.MaxHeldBytes
	ReasonMissedEvents      = "missed events"               // Hub.ReconnectUser: the store has failed and works again
	ReasonInternal          = "internal error"              // a handler or the lifecycle panicked
)
