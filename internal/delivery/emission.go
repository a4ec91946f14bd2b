package delivery

import (
	"sync"
	"sync/atomic"
)

// Emission tells a publisher what became of one delivery at the feeds of its own process. The store that made it waits for
// it before it answers.
type Emission struct {
	pending sync.WaitGroup
	sockets atomic.Int64
	held    atomic.Bool
}

// Expect announces that so many feeds will be handed the delivery, and each will Tell.
func (e *Emission) Expect(feeds int) { e.pending.Add(feeds) }

// Tell says, for one feed, to how many sockets the delivery was emitted, or that it is held back for later.
func (e *Emission) Tell(sockets int, held bool) {
	e.sockets.Add(int64(sockets))
	if held {
		e.held.Store(true)
	}
	e.pending.Done()
}

// Wait returns what all feeds have told together.
func (e *Emission) Wait() (sockets int, held bool) {
	e.pending.Wait()
	return int(e.sockets.Load()), e.held.Load()
}
