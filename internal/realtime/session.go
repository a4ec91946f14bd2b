package realtime

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zishang520/socket.io/v2/socket"

	"jobwire/internal/auth"
	"jobwire/internal/engine"
	"jobwire/internal/events"
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

// Session is one client's connection to the main namespace: one tab of one user. Its methods may be called from any
// goroutine. Those that send do nothing once the client has gone.
type Session struct {
	hub  *Hub
	conn *engine.Conn

	userID string // set before the session is in any room, then constant
	id     string // likewise
	offset string // likewise; what the client has seen last, if recovers
	// recovers says that the CONNECT payload carried a pid and an offset.
	recovers bool
	pid      string // until Connected: the one that came with the offset

	// What follows belongs to the session's task, see ingress.go.
	socket        *engine.Socket // the connection as the library knows it; nil before CONNECT
	authorization string         // until CONNECT
	handshake     *Handshake     // while CONNECT is judged
	decoder       decoder
	foreign       uint8 // CONNECTs to other namespaces so far
	broken        bool  // the connection was closed for what it sent: drop what is still queued

	spent   int64 // the reader's: when the token bucket will be full again, Unix ns
	flooded bool  // the reader's: the bucket ran dry

	deadline deadline // guarded by hub.deadlines.mu

	holding  atomic.Bool // whether held is to be asked; written under mu
	greeting atomic.Bool // Connected runs and its output is held back; written under mu

	mu       sync.Mutex // guards what follows; leaf but for the locks of rooms, deadlines and asks
	state    state
	answered bool   // the CONNECT reply is on its way
	closed   bool   // the connection is gone
	reason   string // why
	identity auth.Identity
	ready    chan *socket.Socket // while the library builds its socket; nil comes when the connection is gone
	user     seat                // in the user's room
	others   []*seat             // in other rooms
	inbox    inbox
	held     *replayBuffer      // nil when nothing is held back
	cancel   context.CancelFunc // of the context of Connected; nil when it does not run
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

// Offset returns the offset from which the client wants to go on, as it sent it, if it was connected before. It is at most
// 64 bytes and otherwise unchecked; empty when it was another user who was connected.
func (s *Session) Offset() (offset string, has bool) { return s.offset, s.recovers }

// Transport returns "polling" or "websocket": what the session is on now.
func (s *Session) Transport() string { return s.conn.Transport() }

// Buffered returns how many bytes wait for this client.
func (s *Session) Buffered() int { return s.conn.Buffered() }

// Emit sends m to this session only, past what is kept back. It reports whether the connection took it.
func (s *Session) Emit(m Message) bool {
	return s.isLive() && s.send([]*engine.Frame{engine.TextFrame(m.Packet)}, m.Place, m.Confirm)
}

// EmitArgs sends an event with arguments as a client would send it, attachments included, to this session only.
func (s *Session) EmitArgs(event string, args Args) bool {
	return s.isLive() && s.send(args.frames(packetEvent, event, 0), events.ID{}, false)
}

// isLive reports whether the client is in the namespace: before, nothing may reach it, and afterwards nothing need.
func (s *Session) isLive() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state == stateLive && !s.closed
}

// send hands the frames to the connection, and asks for a receipt if it should. No lock is held while sending.
func (s *Session) send(frames []*engine.Frame, id events.ID, confirm bool) bool {
	sent := false
	switch {
	case confirm && s.beginReceipt(id):
		sent = s.pinged(s.conn.SendPing(frames...))
	case s.conn.Send(frames...) == nil:
		sent = true
		if confirm {
			s.askReceipt(id)
		}
	}
	if sent && s.greeting.Load() && s.conn.Buffered() > maxCorked {
		s.answer()
	}
	return sent
}

// answer lets go of what has been held back since the CONNECT was admitted. From now on the client may send.
func (s *Session) answer() {
	s.mu.Lock()
	again := s.answered
	s.answered = true
	s.greeting.Store(false)
	s.open()
	s.mu.Unlock()
	if !again {
		s.conn.Uncork()
	}
}

// open lets the messages for the user's room pass the session by, if it keeps none back. The caller holds mu.
func (s *Session) open() {
	if s.held == nil && s.answered && s.user.room != nil {
		s.hub.rooms.open(&s.user)
	}
}

// Join puts the session into the rooms; those it is in already are left alone. Rooms named "user:…" are the hub's own.
func (s *Session) Join(rooms ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.state != stateLive {
		return // or it would stay in the room for ever
	}
	for _, name := range rooms {
		if s.seatIn(name) == nil {
			taken := &seat{session: s}
			s.hub.rooms.join(name, taken, false, events.ID{})
			s.others = append(s.others, taken)
		}
	}
}

// Leave takes the session out of the rooms.
func (s *Session) Leave(rooms ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range rooms {
		for i, taken := range s.others {
			if taken.room.name == name {
				s.hub.rooms.leave(taken)
				s.others = append(s.others[:i], s.others[i+1:]...)
				break
			}
		}
	}
}

// seatIn returns the session's seat in a room, nil when it has none. The caller holds mu.
func (s *Session) seatIn(room string) *seat {
	if s.user.room != nil && s.user.room.name == room {
		return &s.user
	}
	for _, taken := range s.others {
		if taken.room.name == room {
			return taken
		}
	}
	return nil
}

// vacate takes the session out of all rooms. The caller holds mu.
func (s *Session) vacate() {
	if s.user.room != nil {
		s.hub.rooms.leave(&s.user)
	}
	for _, taken := range s.others {
		s.hub.rooms.leave(taken)
	}
	s.others = nil
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

// disconnect ends the session: last, if not nil, then Socket.IO's DISCONNECT, then the transport. The client does not come
// back by itself.
func (s *Session) disconnect(last *engine.Frame) bool {
	frames := make([]*engine.Frame, 0, 2)
	if last != nil {
		frames = append(frames, last)
	}
	sent := s.conn.Send(append(frames, disconnectFrame)...) == nil
	s.conn.Close(ReasonServerDisconnect)
	return sent
}

var disconnectFrame = engine.TextFrame([]byte{byte(packetDisconnect)})

// setDeadline moves the session's deadline, unless it is over. The caller holds mu.
func (s *Session) setDeadline(at time.Time) {
	if !s.closed {
		s.hub.deadlines.set(s, at)
	}
}

// deadlinePassed closes the connection for what it has not done in time. It is called by the hub's deadlines goroutine.
func (s *Session) deadlinePassed(now time.Time) {
	s.mu.Lock()
	state := s.state
	if expires := s.identity.ExpiresAt; state == stateLive && expires.After(now) {
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

// expiredFrame tells the client why the transport closes. A namespace disconnect would stop it from reconnecting; as it is,
// a client whose auth is a callback comes back with a fresh token.
var expiredFrame = engine.TextFrame(events.Encode(events.Unauthorized,
	[]byte(`{"code":"token_expired","message":"The token has expired."}`), events.ID{}))
