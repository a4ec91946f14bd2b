// Package hostile attacks the real program. Its tests build jobwire with the race detector, start it as a process of its own
// with its own secrets, and do to it whatever a client, a worker or an operator's kill can do: broken frames and packets,
// floods, lies about lengths, readers that do not read, uploads that do not end, tokens of every wrong kind, sudden deaths on
// both sides.
//
// In goes nothing but bytes over loopback; out come the promises that the project makes about them:
//
//   - the process never ends by itself, never reports a data race, never panics, and exits with 0 when asked to;
//   - after every attack a fresh, well-behaved client is served, and two bystanders ([bystanders] in the tests), who are
//     connected all the while, get all of their own events, in order, once, and nobody else's;
//   - what is refused is refused with its documented status, code or reason;
//   - what attackers leave behind is gone: sockets, rooms, users, goroutines, descriptors, memory.
//
// The clients here are lean and raw on purpose: what an honest library would never send is the point. Loopback addresses other
// than 127.0.0.1 serve as so many machines, so limits per address count as they do outside; that, and reading /proc, is why
// the tests are for Linux.
//
// Among the other tests small counts do, which end within minutes on two cores. HOSTILE=full, as make hostile sets it, runs the
// counts that the project promises; HOSTILE_SOAK=10m sets the length of the churn soak. JOBWIRE_BIN names a binary that is
// attacked in place of one that is built from here.
package hostile
