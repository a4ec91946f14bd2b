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

	"github.com/zishang520/socket.io-go-parser/v2/parser"
	"github.com/zishang520/socket.io/v2/socket"

	"jobwire/internal/engine"
	"jobwire/internal/events"
)

// The way of a session from CONNECT to its end. All of it runs on the session's task, but for connection, which the
// library calls from a goroutine of its own.

// connect lets the library open a socket for a CONNECT to the main namespace, and waits for it.
func (s *Session) connect(p packet) {
	if p.namespace != mainNamespace {
		if s.foreign++; s.foreign > maxForeignConnects {
			s.breakOff(ReasonProtocol)
			return
		}
		s.hub.count.refused.add("invalid_namespace")
		reply := head(packetConnectError, 0, p.namespace, 0, false)
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

	s.pid, s.offset, s.recovers = recoveryOffset(p.payload)
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
	if json.Unmarshal(payload, &recovery) != nil || !isShortString(recovery.PID) {
		return "", "", false
	}
	if isShortString(recovery.Offset) {
		offset = unquote(recovery.Offset)
	}
	return unquote(recovery.PID), offset, true
}

func isShortString(text json.RawMessage) bool {
	return len(text) >= 2 && text[0] == '"' && len(text) <= maxOffset+2
}

// pidOf is the pid that every client of a user is given. A client remembers an offset only if it has a pid, and sends both
// when it comes back: a page that has signed in as another user still sends those of the first. It is no secret, and opens
// nothing.
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
	if !h.rooms.reserve(userRoomPrefix+identity.UserID, h.config.MaxSocketsPerUser) {
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

// refuse lets the library answer CONNECT_ERROR; the deadline then closes the connection when the client has had time to
// read it.
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
	if s.recovers && s.pid != pidOf(s.userID) {
		s.offset = "" // another user's
	}
	s.pid = ""
	s.state = stateLive
	s.greeting.Store(true)
	s.user.session = s
	s.hub.rooms.join(userRoomPrefix+s.userID, &s.user, true, unseen)
	ctx, cancel := context.WithCancel(s.hub.base)
	s.cancel = cancel
	s.setDeadline(s.identity.ExpiresAt)
	s.mu.Unlock()
	s.hub.count.unauthenticated.Add(-1)
	s.hub.count.sessions.Add(1)
	s.hub.count.connected.Add(1)

	defer func() { // also when Connected panics: Disconnected will follow as ever
		cancel()
		s.mu.Lock()
		s.cancel = nil
		s.mu.Unlock()
		s.answer()
	}()
	s.hub.lifecycle.Connected(ctx, s)
}

// leaveNamespace ends the session because the client said so. The connection may live a little longer: the client closes it.
func (s *Session) leaveNamespace() {
	s.mu.Lock()
	s.state = stateLeft
	s.held = nil
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
		s.hub.rooms.release(userRoomPrefix + s.userID)
	}
	s.hub.count.unauthenticated.Add(-1)
}
