package realtime

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"log/slog"
	"time"

	emitter "github.com/zishang520/engine.io/v2/events"
	"github.com/zishang520/engine.io/v2/types"
	"github.com/zishang520/socket.io-go-parser/v2/parser"
	"github.com/zishang520/socket.io/v2/socket"

	"jobwire/internal/engine"
	"jobwire/internal/events"
)

// The way of a session from CONNECT to its end. All of it runs on the session's task, but for connection, which the library
// calls from a goroutine of its own.

// connect lets the library open a socket for a CONNECT to the main namespace, and waits for it.
func (s *Session) connect(p packet) {
	if p.namespace != mainNamespace {
		if s.foreign++; s.foreign > maxForeignConnects {
			s.breakOff(ReasonProtocol)
			return
		}
		s.hub.count.refused.add("invalid_namespace")
		reply := head(packetConnectError, p.namespace)
		s.conn.Send(engine.TextFrame(append(reply, `{"message":"Invalid namespace"}`...)))
		return
	}
	ready := make(chan *socket.Socket, 2) // one from the library, one from Closed: neither ever waits
	s.mu.Lock()
	if s.state != stateWaiting || s.closed {
		again := s.state != stateWaiting
		s.mu.Unlock()
		if again {
			s.breakOff(ReasonProtocol)
		}
		return
	}
	s.state, s.ready = stateOpening, ready
	s.mu.Unlock()

	s.handshake = &Handshake{Auth: p.payload, Authorization: s.authorization, RemoteAddr: s.conn.RemoteAddr()}
	s.authorization = ""
	s.socket = engine.NewSocket(s.conn)
	if !s.hub.config.NoRecovery {
		s.socket.Outgoing = s.addPID
	}
	s.hub.binding.Accept(s.socket)
	// The session stands where the library expects the auth payload: it finds the way back from a library socket, and the
	// library never sees a pid and an offset, with which it would restore a session before any token was looked at.
	s.socket.Deliver(&parser.Packet{Type: parser.CONNECT, Nsp: mainNamespace, Data: s})
	s.handshake = nil
	if s.currentState() != stateAdmitted {
		return
	}
	pid, offset, recovers := recoveryOffset(p.payload)
	if recovers && pid != pidOf(s.userID) {
		offset = "" // another user's
	}
	s.offset, s.recovers = offset, recovers
	if sock := <-ready; sock != nil {
		s.onConnected(sock)
	}
}

// recoveryOffset finds {pid, offset} in the CONNECT payload: a client that was connected before tells what it saw last. One
// that has seen no message yet sends its pid alone, and its offset is empty. Anything else is no offset, and no error.
func recoveryOffset(payload json.RawMessage) (pid, offset string, has bool) {
	if !bytes.Contains(payload, []byte(`"pid"`)) {
		return "", "", false
	}
	var recovery struct {
		PID    json.RawMessage `json:"pid"`
		Offset json.RawMessage `json:"offset"`
	}
	if json.Unmarshal(payload, &recovery) != nil {
		return "", "", false
	}
	pid, has = shortString(recovery.PID)
	if has {
		offset, _ = shortString(recovery.Offset)
	}
	return pid, offset, has
}

// shortString returns the string that text is, unless it is another value, or longer than an offset may be.
func shortString(text json.RawMessage) (string, bool) {
	if len(text) < 2 || text[0] != '"' || len(text) > maxOffset+2 {
		return "", false
	}
	short := unquote(text)
	if len(short) > maxOffset { // each byte that was no UTF-8 has become three
		return "", false
	}
	return short, true
}

// pidOf is the pid that every client of a user is given. A client remembers an offset only if it has a pid, and sends both when
// it comes back: a page that has signed in as another user still sends those of the first. It is no secret, and opens nothing.
func pidOf(userID string) string {
	sum := sha256.Sum256([]byte(userID))
	return base64.RawURLEncoding.EncodeToString(sum[:12])
}

// addPID adds the pid to the library's CONNECT reply, {"sid":"…"}.
func (s *Session) addPID(text []byte) []byte {
	if len(text) < 2 || packetType(text[0]) != packetConnect {
		return text
	}
	text = append(text[:len(text)-1:len(text)-1], `,"pid":"`...)
	return append(append(text, pidOf(s.userID)...), `"}`...)
}

// admit is the library's middleware: it decides about the socket that the library is about to connect.
func (h *Hub) admit(sock *socket.Socket, next func(*socket.ExtendedError)) {
	s := sock.Handshake().Auth.(*Session) // connect has put it there
	identity, err := h.lifecycle.Authenticate(*s.handshake)
	if err == nil && identity.UserID == "" {
		err = errors.New("realtime: authenticated without a user id")
	}
	if err != nil {
		message, why := h.refusal(err)
		s.refuse(next, message, why)
		return
	}
	if !h.users.reserve(identity.UserID, h.config.MaxSocketsPerUser) {
		s.refuse(next, CodeTooManySockets, &events.Error{Code: CodeTooManySockets, Detail: "This user has too many connections."})
		return
	}
	s.userID = identity.UserID
	s.mu.Lock()
	s.identity, s.state = identity, stateAdmitted
	s.mu.Unlock()
	// From here to onConnected nothing is written, so that the CONNECT reply and everything that Connected emits leave in one
	// write, and the client cannot send before all is ready for it.
	s.conn.Cork()
	next(nil)
}

// refusal maps an error of Authenticate to what the client may know.
func (h *Hub) refusal(err error) (message string, why *events.Error) {
	if errors.As(err, &why) {
		return "unauthorized", why
	}
	h.log.Error("cannot authenticate a socket", slog.Any("error", err))
	return CodeInternal, &events.Error{Code: CodeInternal, Detail: "The server could not check the token."}
}

// refuse lets the library answer CONNECT_ERROR; the deadline then closes the connection when the client has had time to read
// it.
func (s *Session) refuse(next func(*socket.ExtendedError), message string, why *events.Error) {
	s.hub.count.refused.add(why.Code)
	s.mu.Lock()
	s.state, s.ready = stateRefused, nil
	s.setDeadline(time.Now().Add(closeGrace))
	s.mu.Unlock()
	next(socket.NewExtendedError(message, map[string]string{"code": why.Code, "message": why.Detail}))
}

// connection is called by the library, in a goroutine of its own, when it has queued the CONNECT reply.
func (h *Hub) connection(args ...any) {
	sock := args[0].(*socket.Socket)
	s := sock.Handshake().Auth.(*Session)
	s.mu.Lock()
	closed := s.closed
	if !closed {
		s.ready <- sock
	}
	s.mu.Unlock()
	if closed {
		// The connection closed after the library had last looked. It has been told of the end already, and would keep this
		// socket for ever.
		sock.Disconnect(false)
	}
}

// onConnected makes the session known in its user's room and lets the lifecycle say the first words.
func (s *Session) onConnected(sock *socket.Socket) {
	s.mu.Lock()
	s.ready = nil
	if s.closed {
		s.mu.Unlock()
		sock.Disconnect(false) // a ghost, as in connection
		return
	}
	s.id = string(sock.Id())
	s.state = stateLive
	s.hub.users.join(s.userID, s, true, unseen)
	s.setDeadline(s.identity.ExpiresAt)
	s.mu.Unlock()
	s.hub.count.unauthenticated.Add(-1)
	s.hub.count.sessions.Add(1)
	s.hub.count.connected.Add(1)

	defer s.answer() // also when Connected panics: Disconnected will follow as ever
	ctx, end := s.begin()
	defer end()
	s.hub.lifecycle.Connected(ctx, s)
}

// begin returns the session's context, for a call that its task makes, and what is called when the call has returned. The
// context ends with the session. An idle session keeps none, which would cost it more than all its other state.
func (s *Session) begin() (ctx context.Context, end func()) {
	ctx, cancel := context.WithCancel(s.hub.base)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cancel = cancel
	if s.closed {
		cancel()
	}
	return ctx, func() {
		cancel()
		s.mu.Lock()
		s.cancel = nil
		s.mu.Unlock()
	}
}

// leaveNamespace ends the session because the client said so. The connection may live a little longer: the client closes it.
func (s *Session) leaveNamespace() {
	s.mu.Lock()
	s.state = stateLeft
	s.held.Store(nil)
	s.vacate()
	s.setDeadline(time.Now().Add(closeGrace))
	s.mu.Unlock()
	s.socket.Closed(ReasonClientDisconnect)
	s.hub.count.sessions.Add(-1)
	s.hub.lifecycle.Disconnected(s, ReasonClientDisconnect)
}

// depart is the last thing that happens to a session, whatever its state.
func (s *Session) depart() {
	s.mu.Lock()
	state, reason := s.state, s.reason
	s.mu.Unlock()
	s.decoder = decoder{}
	if s.socket != nil {
		s.socket.Closed(reason)
	}
	switch state {
	case stateLeft:
		return // Disconnected was called then
	case stateLive:
		s.hub.count.sessions.Add(-1)
		s.hub.lifecycle.Disconnected(s, reason)
		return
	case stateAdmitted:
		s.hub.users.release(s.userID)
	}
	s.hub.count.unauthenticated.Add(-1)
}

// libraryPatience is the library's own connect timeout, which must never fire: ours does.
const libraryPatience = 24 * time.Hour

// newLibrary sets up the Socket.IO library behind our ingress: our engine under it, our packets in it, and no rooms.
func newLibrary(h *Hub) (*socket.Server, *engine.Binding) {
	options := socket.DefaultServerOptions()
	options.SetServeClient(false)
	options.SetConnectTimeout(libraryPatience)
	options.SetParser(passthrough{})
	options.SetAdapter(noRooms{})
	io := socket.NewServer(nil, options)
	binding := engine.NewBinding()
	io.Bind(binding)
	io.Use(h.admit)
	_ = io.On("connection", h.connection) // fails only for a nil listener
	return io, binding
}

// noRooms is the library's adapter, and makes it. Nothing is emitted through the library, since the hub has rooms of its own;
// what is left of an adapter is that every socket joins a room named like itself, which would cost memory for nothing.
type noRooms struct{ socket.Adapter }

func (noRooms) New(namespace socket.Namespace) socket.Adapter {
	a := noRooms{socket.MakeAdapter()}
	a.Prototype(a)
	a.Construct(namespace)
	return a
}

// AddAll keeps nothing.
func (noRooms) AddAll(socket.SocketId, *types.Set[socket.Room]) {}

// passthrough is the library's parser. The ingress has decoded what comes in; what the library sends by itself is CONNECT,
// CONNECT_ERROR and DISCONNECT.
type passthrough struct{}

func (passthrough) NewEncoder() parser.Encoder { return parser.NewEncoder() }
func (passthrough) NewDecoder() parser.Decoder { return new(passthroughDecoder) }

// passthroughDecoder is the decoder of one library client: it passes the *parser.Packet on that it is given. It has one listener,
// and EventEmitter's other methods are never called on it: the nil interface would say so loudly.
type passthroughDecoder struct {
	emitter.EventEmitter
	decoded emitter.Listener
}

func (d *passthroughDecoder) On(_ emitter.EventName, listeners ...emitter.Listener) error {
	d.decoded = listeners[0]
	return nil
}

// RemoveListener leaves the listener: the library may remove it while Add runs, and nothing is added afterwards.
func (d *passthroughDecoder) RemoveListener(emitter.EventName, emitter.Listener) bool { return true }
func (d *passthroughDecoder) Destroy()                                                {}
func (d *passthroughDecoder) Add(packet any) error {
	d.decoded(packet)
	return nil
}
