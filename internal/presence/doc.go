// Package presence knows who is online, and tells those who may know.
//
// In flow the sockets that come and go ([Service.Arrive], [Service.Leave]);
// out flow announcements through an [Announcer], the first list for a new
// socket ([Service.Welcome]), and answers for workers ([Service.List],
// [Service.Get], [Service.Query], [Service.Count]).
//
// A user is online from the first socket until a grace after the last one,
// or until the moment at which the user's own client closes the last one.
// Sockets are told apart by their ids, so it does not matter in which order
// and how often their coming and going is reported.
//
// Who sees whom is decided by the [Audience]. With [Tenant] a user is online
// or not for each tenant by itself: the sockets that came with a token of
// that tenant count there, and there only. Workers see users over all
// tenants.
//
// One goroutine, the service's own, waits for the ends of graces and makes
// all announcements, one after another and under no lock. It reads the state
// of a user only when it announces it. So announcements of a user are never
// out of order, the last one is always true, and when sockets come and go
// faster than can be announced, states in between are left out instead of
// being queued without bound.
//
// In a cluster it is nodes that count sockets; a shared store will hold one
// lease for a user and node. That replaces what a scope does here, and
// nothing of the API.
package presence
