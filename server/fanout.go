package server

import (
	"jobwire/internal/events"
	"jobwire/internal/realtime"
)

// fanout is the way from delivery and presence to the sockets. It exists
// because the hub needs both of them at its birth, and they need it.
type fanout struct {
	hub *realtime.Hub // set once, before anything can be emitted
}

// Emit implements delivery.Emitter.
func (f *fanout) Emit(userID string, packet []byte, id events.ID, confirm bool) int {
	return f.hub.EmitUser(userID, realtime.Message{Packet: packet, ID: id, Confirm: confirm})
}

// Announce implements presence.Announcer.
func (f *fanout) Announce(room, exceptUser string, packet []byte) {
	f.hub.EmitRoom(room, exceptUser, realtime.Message{Packet: packet})
}
