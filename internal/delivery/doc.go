// Package delivery carries a worker's event to every tab of its user.
//
// In flow validated events (Publish), the receipts of clients (Confirmed), newly connected sockets (Open) and their questions
// (JobsInOrder). Out flow packets, to all sockets of a user through the [Emitter], or to one socket through its [Sink].
//
// Every event takes one way: Publish → [Store] → [Feed] → stream → Emitter. The store decides about an event, gives it its
// place among all events of its user, stores it and hands it to the feed in the order of places. The user's stream (stream.go)
// emits what comes, one at a time: it thins out progress, lets sockets join at a place, ends their replays at a place, and
// answers their questions at a place. So nothing older ever follows newer, and this package needs no other order than the
// store's. It keeps only what may be lost with the process.
package delivery
