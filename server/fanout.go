package server

import (
	"context"

	"jobwire/internal/events"
	"jobwire/internal/presence"
	"jobwire/internal/realtime"
)

// fanout is the way from delivery, presence and the API to the sockets. It exists because the hub needs the first two of them
// at its birth, and they need it.
type fanout struct {
	hub *realtime.Hub // set once, before anything can be emitted
}

// Emit implements delivery.Emitter.
func (f *fanout) Emit(userID string, packet []byte, id events.ID, confirm bool) int {
	return f.hub.EmitUser(userID, realtime.Message{Packet: packet, ID: id, Confirm: confirm})
}

// Announce implements presence.Announcer.
func (f *fanout) Announce(room string, packets []presence.Packet) {
	all := make([]realtime.RoomPacket, len(packets))
	for i, p := range packets {
		all[i] = realtime.RoomPacket{Packet: p.Text, ExceptUser: p.ExceptUser}
	}
	f.hub.EmitRoom(room, all)
}

// DisconnectUser implements handlers.Disconnector.
func (f *fanout) DisconnectUser(_ context.Context, userID string, last []byte) (sockets int, err error) {
	return f.hub.DisconnectUser(userID, last), nil
}
