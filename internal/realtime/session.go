package realtime

import (
	"context"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zishang520/socket.io/v2/socket"

	"jobwire/internal/auth"
	"jobwire/internal/engine"
	"jobwire/internal/events"
	"jobwire/internal/timers"
)

// state is where a session is on its way. It only moves forward.
type state uint8

const (
	stateWaiting  state = iota // no CONNECT yet
	stateOpening               // CONNECT is being judged
	stateAdmitted              // judged, a seat is reserved, the library is building its socket
	stateLive                  // in the user's room; Connected is being called, or was
	stateRefused               // CONNECT_ERROR was sent; closes soon
	stateLeft                  // the client left the namespace; closes soon
)

// Session is one client's connection to the main namespace: one tab of one user. Its methods may be called from any goroutine.
// Those that send do nothing once the client has gone.
type Session struct {
	hub  *Hub
	conn *engine.Conn

	userID string // set before the session is in any room, then constant
	id     string // likewise
	offset string // likewise; what the client has seen last, if recovers
	// recovers says that the CONNECT payload carried a pid.
	recovers bool

	// What follows belongs to the session's task, see ingress.go.
	socket        *engine.Socket // the connection as the library knows it; nil before CONNECT
	authorization string         // until CONNECT
	handshake     *Handshake     // while CONNECT is judged
	decoder       decoder
	foreign       uint8 // CONNECTs to other namespaces so far
	broken        bool  // the connection was closed for what it sent: drop what is still queued

	spent   int64 // the reader's: when the token bucket will be full again, Unix ns
	flooded bool  // the reader's: the bucket ran dry

	timer timers.Timer // of the deadline

	held     atomic.Pointer[replayBuffer] // nil when nothing is kept back; written under mu
	answered atomic.Bool                  // the CONNECT reply is on its way; written under mu

	mu       sync.Mutex // guards what follows; leaf but for the locks of rooms, deadlines and asks
	state    state
	closed   bool   // the connection is gone
	reason   string // why
	identity auth.Identity
	ready    chan *socket.Socket // while the library builds its socket; nil comes when the connection is gone
	user     seat                // in the user's room
	other    seat                // in that of Join
	inbox    inbox
	cancel   context.CancelFunc // of the context of the call that the task makes; nil when it makes none
	receipts receipts
}

// ID returns the Socket.IO id of the session, as the client knows it.
func (s *Session) ID() string { return s.id }

// UserID returns whose session it is. It never changes.
func (s *Session) UserID() string { return s.userID }

// Identity returns what the session's token says, the last one if it was refreshed.
func (s *Session) Identity() auth.Identity {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.identity
}

// Offset returns the offset from which the client wants to go on, as it sent it, if it was connected before. It is at most 64
// bytes and otherwise unchecked; empty when it was another user who was connected.
func (s *Session) Offset() (offset string, has bool) { return s.offset, s.recovers }

// Buffered returns how many bytes wait for this client.
func (s *Session) Buffered() int { return s.conn.Buffered() }

// Emit sends m to this session only, past what is kept back. It reports whether the connection took it.
func (s *Session) Emit(m Message) bool {
	return s.isLive() && s.send([]*engine.Frame{engine.TextFrame(m.Packet)}, m.Place, m.Confirm)
}

// Send sends frames to this session only, past what is kept back.
func (s *Session) Send(frames ...*engine.Frame) bool {
	return s.isLive() && s.send(frames, events.ID{}, false)
}

// isLive reports whether the client is in the namespace: before, nothing may reach it, and afterwards nothing need.
func (s *Session) isLive() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state == stateLive && !s.closed
}

// answer lets go of what has been held back since the CONNECT was admitted. From now on the client may send.
func (s *Session) answer() {
	s.mu.Lock()
	again := s.answered.Swap(true)
	s.open()
	s.mu.Unlock()
	if !again {
		s.conn.Uncork()
	}
}

// open lets the messages for the user's room go to the connection without a look at the session, if it keeps none back: to a
// fan-out the session is a cache line that nobody else needs. The caller holds mu.
func (s *Session) open() {
	if s.held.Load() == nil && s.answered.Load() {
		s.hub.users.change(s, func(m *member) { m.open = s.conn })
	}
}

// Join puts the session into a room beside its user's, of which it has one at most: that of presence.
func (s *Session) Join(room string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed && s.state == stateLive && s.other.room == nil { // or it would stay in the room for ever
		s.hub.rooms.join(room, s, false, events.ID{})
	}
}

// vacate takes the session out of its rooms. The caller holds mu.
func (s *Session) vacate() {
	s.hub.users.leave(s)
	s.hub.rooms.leave(s)
}

// Refresh replaces the session's identity with that of a newer token and moves the moment at which it expires. A token of
// another user, or of the same user in another tenant, is refused as user_mismatch.
func (s *Session) Refresh(identity auth.Identity) error {
	s.mu.Lock()
	if identity.UserID != s.identity.UserID || identity.Tenant != s.identity.Tenant {
		s.mu.Unlock()
		return &events.Error{Code: CodeUserMismatch, Detail: "The token belongs to somebody else than this connection."}
	}
	s.identity = identity
	if s.state == stateLive {
		s.setDeadline(identity.ExpiresAt)
	}
	s.mu.Unlock()
	return nil
}

// Close ends the session by closing its transport, after what is queued. The client comes back by itself.
func (s *Session) Close(reason string) { s.conn.Close(reason) }

// setDeadline moves the moment at which something must have happened: the CONNECT before the handshake timeout, the close after
// a refusal, a fresh token before the old one expires. A session that is over has none. The caller holds mu.
func (s *Session) setDeadline(at time.Time) {
	switch {
	case s.closed:
	case at.IsZero(): // a token that does not expire
		s.hub.deadlines.Cancel((*deadline)(s))
	default:
		s.hub.deadlines.Set((*deadline)(s), unixNano(at))
	}
}

// latest is the last moment that Unix nanoseconds can tell, in the year 2262. Tokens may live longer.
var latest = time.Unix(0, math.MaxInt64)

func unixNano(at time.Time) int64 {
	if at.After(latest) {
		return math.MaxInt64
	}
	return at.UnixNano()
}

// deadline is a Session that waits in Hub.deadlines.
type deadline Session

func (d *deadline) Timer() *timers.Timer { return &d.timer }

// Expired closes the connection for what it has not done in time.
func (d *deadline) Expired() {
	s := (*Session)(d)
	s.mu.Lock()
	state := s.state
	if expires := s.identity.ExpiresAt; state == stateLive && (expires.IsZero() || expires.After(time.Now())) {
		s.setDeadline(expires) // refreshed, or connected, just now
		s.mu.Unlock()
		return
	}
	s.mu.Unlock()
	switch state {
	case stateRefused:
		s.conn.Close(ReasonRefused)
	case stateLeft:
		s.conn.Close(ReasonClientDisconnect)
	case stateLive:
		s.conn.Send(expiredFrame)
		s.conn.Close(ReasonTokenExpired)
	default:
		s.conn.Close(ReasonHandshakeTimeout)
	}
}

// expiredFrame tells the client why the transport closes. A namespace disconnect would stop it from reconnecting; as it is, a
// client whose auth is a callback comes back with a fresh token.
var expiredFrame = engine.TextFrame(events.Encode(events.Unauthorized,
	[]byte(`{"code":"token_expired","message":"The token has expired."}`), events.ID{}))
