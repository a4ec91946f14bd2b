// Package presence knows who is online, and tells those who may know.
//
// In flow the sockets that come and go ([Service.Arrive], [Service.Leave]); out flow announcements through an [Announcer],
// the list for a new socket ([Service.Welcome]), and answers for workers ([Service.List], [Service.Get], [Service.Query],
// [Service.Count]).
//
// A user is online from the first socket until a grace after the last one, however that one ended: a reload, a page that
// mounts its components twice and a lost connection look the same to others. Sockets are told apart by their ids, so the
// late end of an old one takes nothing from a new one.
//
// Who sees whom is decided by the [Audience]. With [Tenant] a user is online or not for each tenant by itself: the sockets
// that came with a token of that tenant count there, and there only. Workers see users over all tenants.
//
// # Announcements
//
// One goroutine, the service's own, waits for the ends of graces and makes all announcements, under no lock. It gathers: the
// first change after a quiet time is announced at once, what follows within gatherTime goes together, and everybody in the
// room gets it in one write. So a thousand who come in a second cost each of them a few writes, not a thousand.
//
// What is announced of a user is the state at that moment, also when that is what was announced last: a list that was made
// in between may say otherwise. So announcements of a user are never out of order, the last one is always true, and states
// in between are left out instead of being queued.
//
// After a start all clients come back at once. While they do, faster than stormRate, nothing is announced. When that is
// over, everybody gets the list once more.
//
// In a cluster it is nodes that count sockets, and a shared store will hold the users of each. That replaces what a scope does
// here, and nothing of the API: the methods have their contexts and errors for a store that is far away.
package presence
