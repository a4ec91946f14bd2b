package server

import (
	"encoding/json"

	"jobwire/internal/delivery"
	"jobwire/internal/events"
	"jobwire/internal/presence"
	"jobwire/internal/realtime"
)

// fanout is the way from delivery and presence to the sockets. It exists because the hub needs both of them at its birth, and
// they need it.
type fanout struct {
	hub *realtime.Hub // set once, before anything can be emitted
}

var _ delivery.Emitter = (*fanout)(nil)

// Emit sends a packet to a user's sockets.
func (f *fanout) Emit(userID string, packet []byte, place events.ID, receipt bool) int {
	return f.hub.EmitUser(userID, realtime.Message{Packet: packet, Place: place, Confirm: receipt})
}

// Sockets counts a user's sockets.
func (f *fanout) Sockets(userID string) int { return f.hub.UserSockets(userID) }

// Reconnect lets a user's clients come back.
func (f *fanout) Reconnect(userID string) { f.hub.ReconnectUser(userID) }

// Disconnect closes a user's sockets for good, after telling them why.
func (f *fanout) Disconnect(userID, reason string) int {
	data, err := json.Marshal(struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}{realtime.CodeDisconnected, reason})
	if err != nil {
		panic(err) // two strings
	}
	return f.hub.DisconnectUser(userID, events.Encode(events.Unauthorized, data, events.ID{}))
}

// Announce implements presence.Announcer.
func (f *fanout) Announce(room string, packets []presence.Packet) {
	all := make([]realtime.RoomPacket, len(packets))
	for i, p := range packets {
		all[i] = realtime.RoomPacket{Packet: p.Text, ExceptUser: p.ExceptUser}
	}
	f.hub.EmitRoom(room, all)
}
