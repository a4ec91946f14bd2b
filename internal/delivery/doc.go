// Package delivery carries a worker's event to every tab of its user and
// remembers it until one of them has confirmed it.
//
// In flow validated events (Publish), the receipts of clients (Confirmed) and
// newly connected sockets (Open, Attach). Out flow packets, to all sockets of
// a user through the [Emitter], or to one socket through its [Sink].
//
// What is decided about an event (is it a repeat, is its job finished, which
// id does it get, what must make room for it) is decided and stored by the
// [Store] in one call. The service in front of it keeps only what may be lost
// with the process: the order of emissions, the pace of progress, cursors on
// their way to the store.
//
// The order rule: a user's emissions leave in the order of their ids, however
// many calls publish for that user at once. See lane.go for how.
package delivery
