package realtime

import (
	"fmt"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"jobwire/internal/engine"
	"jobwire/internal/events"
	"jobwire/internal/timers"
)

func TestRoomIsNotLostWhenTheLastLeavesWhileAnotherJoins(t *testing.T) {
	x := newIndex(func(s *Session) *seat { return &s.user })
	const rounds = 20_000
	gone := &Session{}
	x.join("r", gone, false, events.ID{})
	for i := range rounds {
		next := &Session{}
		var wg sync.WaitGroup
		wg.Go(func() { x.leave(gone) })
		x.join("r", next, false, events.ID{})
		wg.Wait()
		if m := x.sessionsIn("r"); len(m) != 1 || m[0] != next {
			t.Fatalf("round %d: %d members", i, len(m))
		}
		gone = next
	}
	x.leave(gone)
	if n := x.size(); n != 0 {
		t.Errorf("%d rooms left", n)
	}
}

func TestRoomsUnderChurn(t *testing.T) {
	x := newIndex(func(s *Session) *seat { return &s.user })
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			mine := make([]*Session, 50)
			for round := range 200 {
				for i := range mine {
					mine[i] = &Session{conn: new(engine.Conn)}
					x.join(fmt.Sprint("r", i%7), mine[i], false, events.ID{})
					if i%2 == round%2 {
						x.change(mine[i], func(m *member) { m.open = m.session.conn })
					}
				}
				found := 0
				for i := range 7 {
					members := x.appendMembers(nil, fmt.Sprint("r", i))
					found += len(members)
					for _, m := range members {
						if m.open != nil && m.open != m.session.conn {
							t.Error("a connection in the place of another session")
						}
					}
				}
				if found < len(mine) {
					t.Errorf("worker %d: %d found of at least %d", worker, found, len(mine))
				}
				for i := range mine {
					x.leave(mine[(i*17+round)%len(mine)])
				}
			}
		})
	}
	wg.Wait()
	if n := x.size(); n != 0 {
		t.Errorf("%d rooms left", n)
	}
}

func TestReservedSeatsCount(t *testing.T) {
	x := newIndex(func(s *Session) *seat { return &s.user })
	for i, want := range []bool{true, true, false} {
		if x.reserve("r", 2) != want {
			t.Errorf("reservation %d of 2", i+1)
		}
	}
	taken := &Session{}
	x.join("r", taken, true, events.ID{})
	if x.reserve("r", 2) {
		t.Error("a seat that was taken up is free again")
	}
	x.release("r")
	x.leave(taken)
	if !x.reserve("r", 1) {
		t.Error("seats are lost")
	}
	x.release("r")
	if x.reserve("full", 0) || x.size() != 0 {
		t.Errorf("%d rooms left", x.size())
	}
}

// Tokens may outlive what Unix nanoseconds can tell, and a token may be refreshed while its deadline passes.
func TestDeadlinesFollowTheToken(t *testing.T) {
	for _, year := range []int{2001, 2261, 2262, 2286, 2300, 2555, 9999} {
		t.Run(strconv.Itoa(year), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := &Hub{deadlines: timers.New[*deadline](func() int64 { return time.Now().UnixNano() })}
				s := &Session{hub: h, state: stateLive}
				s.identity.ExpiresAt = time.Date(year, time.December, 31, 23, 59, 59, 0, time.UTC)
				s.setDeadline(time.Now().Add(time.Second)) // that of a token that has been replaced
				time.Sleep(2 * time.Second)
				synctest.Wait() // would not end if the session were due again and again; it has no connection to close
				if n := h.deadlines.Len(); n != 1 {
					t.Errorf("%d wait", n)
				}
				h.deadlines.Stop()
			})
		})
	}
}
