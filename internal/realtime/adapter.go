package realtime

import (
	"encoding/json"
	"errors"
	"log/slog"
	"strings"

	"github.com/zishang520/engine.io/v2/types"
	"github.com/zishang520/socket.io-go-parser/v2/parser"
	"github.com/zishang520/socket.io/v2/socket"

	"jobwire/internal/engine"
)

// adapterBuilder gives the library its rooms.
type adapterBuilder struct{ hub *Hub }

func (b adapterBuilder) New(namespace socket.Namespace) socket.Adapter {
	a := &adapter{Adapter: socket.MakeAdapter(), hub: b.hub, sockets: namespace.Sockets()}
	a.Prototype(a)
	a.Construct(namespace)
	return a
}

// adapter lets the library's API (io.To(room).Emit and the like) work on the hub's rooms. The
// sessions enter and leave their rooms without it. In the library's terms the own room of a socket
// is named like its id; the index does not keep those.
type adapter struct {
	socket.Adapter // what a single node has no use for
	hub            *Hub
	sockets        *types.Map[socket.SocketId, *socket.Socket]
}

var errNoAcks = errors.New("realtime: the server asks for no acks")

// session returns the session of a library socket, nil when there is none, or it has not had its
// CONNECT reply.
func (a *adapter) session(id socket.SocketId) *Session {
	sock, ok := a.sockets.Load(id)
	if !ok {
		return nil
	}
	if s, ok := sock.Handshake().Auth.(*Session); ok && s.isLive() {
		return s
	}
	return nil
}

// AddAll is called for every socket with its own room, which needs no place, and by Socket.Join.
func (a *adapter) AddAll(id socket.SocketId, rooms *types.Set[socket.Room]) {
	for _, room := range rooms.Keys() {
		if string(room) == string(id) {
			continue
		}
		if s := a.session(id); s != nil {
			s.Join(string(room))
		}
	}
}

// Del takes a socket out of a room.
func (a *adapter) Del(id socket.SocketId, room socket.Room) {
	if s := a.session(id); s != nil {
		s.Leave(string(room))
	}
}

// DelAll does nothing: a session leaves its rooms before the library hears of its end.
func (a *adapter) DelAll(socket.SocketId) {}

// Broadcast sends a packet to the sockets that the options select.
func (a *adapter) Broadcast(p *parser.Packet, options *socket.BroadcastOptions) {
	data, _ := p.Data.([]any)
	args := Args{Values: make([]json.RawMessage, 0, len(data))}
	for _, value := range data {
		text, err := json.Marshal(value)
		if err != nil {
			a.hub.log.Error("a broadcast cannot be encoded", slog.Any("error", err))
			return
		}
		args.Values = append(args.Values, text)
	}
	text := appendArray(head(packetEvent, 0, mainNamespace, 0, false), nil, args.Values)
	frame := engine.TextFrame(text)
	for _, s := range a.selected(options) {
		s.conn.Send(frame)
	}
}

// BroadcastWithAck reports that there will be no acks.
func (a *adapter) BroadcastWithAck(_ *parser.Packet, _ *socket.BroadcastOptions, count func(uint64), ack socket.Ack) {
	ack(nil, errNoAcks)
}

// selected returns the sessions in any of the rooms, all of them when none is named, without those
// in an excepted room.
func (a *adapter) selected(options *socket.BroadcastOptions) []*Session {
	var rooms, except *types.Set[socket.Room]
	if options != nil {
		rooms, except = options.Rooms, options.Except
	}
	var found []*Session
	if rooms == nil || rooms.Len() == 0 {
		a.sockets.Range(func(id socket.SocketId, _ *socket.Socket) bool {
			if s := a.session(id); s != nil {
				found = append(found, s)
			}
			return true
		})
	} else {
		for _, room := range rooms.Keys() {
			found = append(found, a.in(room)...)
		}
	}
	seen := make(map[*Session]bool, len(found))
	if except != nil {
		for _, room := range except.Keys() {
			for _, s := range a.in(room) {
				seen[s] = true
			}
		}
	}
	once := found[:0]
	for _, s := range found {
		if !seen[s] {
			seen[s] = true
			once = append(once, s)
		}
	}
	return once
}

// in returns the sessions in a room, or the one with that id.
func (a *adapter) in(room socket.Room) []*Session {
	if s := a.session(socket.SocketId(room)); s != nil {
		return []*Session{s}
	}
	return a.hub.rooms.sessionsIn(string(room))
}

// Sockets returns the ids of the sockets in the rooms.
func (a *adapter) Sockets(rooms *types.Set[socket.Room]) *types.Set[socket.SocketId] {
	ids := types.NewSet[socket.SocketId]()
	for _, s := range a.selected(&socket.BroadcastOptions{Rooms: rooms}) {
		ids.Add(socket.SocketId(s.id))
	}
	return ids
}

// SocketRooms returns the rooms a socket is in, its own among them.
func (a *adapter) SocketRooms(id socket.SocketId) *types.Set[socket.Room] {
	s := a.session(id)
	if s == nil {
		return nil
	}
	rooms := types.NewSet(socket.Room(id))
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.user.room != nil {
		rooms.Add(socket.Room(s.user.room.name))
	}
	for _, taken := range s.others {
		rooms.Add(socket.Room(taken.room.name))
	}
	return rooms
}

// FetchSockets returns the library's sockets that the options select.
func (a *adapter) FetchSockets(options *socket.BroadcastOptions) func(func([]socket.SocketDetails, error)) {
	return func(callback func([]socket.SocketDetails, error)) {
		details := []socket.SocketDetails{}
		for _, s := range a.selected(options) {
			if sock, ok := a.sockets.Load(socket.SocketId(s.id)); ok {
				details = append(details, sock)
			}
		}
		callback(details, nil)
	}
}

// AddSockets lets the selected sockets join rooms; the users' own are not for joining.
func (a *adapter) AddSockets(options *socket.BroadcastOptions, rooms []socket.Room) {
	for _, s := range a.selected(options) {
		for _, room := range rooms {
			if !strings.HasPrefix(string(room), userRoomPrefix) {
				s.Join(string(room))
			}
		}
	}
}

// DelSockets lets the selected sockets leave rooms.
func (a *adapter) DelSockets(options *socket.BroadcastOptions, rooms []socket.Room) {
	for _, s := range a.selected(options) {
		for _, room := range rooms {
			s.Leave(string(room))
		}
	}
}

// DisconnectSockets ends the selected sockets, and with them their connections: each has one
// namespace only.
func (a *adapter) DisconnectSockets(options *socket.BroadcastOptions, _ bool) {
	for _, s := range a.selected(options) {
		s.disconnect(nil)
	}
}

// PersistSession keeps nothing, and RestoreSession finds nothing: recovery is stateless and
// delivery's, after the token was verified.
func (a *adapter) PersistSession(*socket.SessionToPersist) {}

// RestoreSession answers that there is no such session.
func (a *adapter) RestoreSession(socket.PrivateSessionId, string) (*socket.Session, error) {
	return nil, nil
}
