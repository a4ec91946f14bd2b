package realtime

import (
	"fmt"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"jobwire/internal/auth"
	"jobwire/internal/engine"

	"jobwire/internal/events"
)

func TestRoomIsNotLostWhenTheLastLeavesWhileAnotherJoins(t *testing.T) {
	x := newIndex()
	const rounds = 20_000
	gone := &seat{session: &Session{}}
	x.join("r", gone, false, events.ID{})
	for i := range rounds {
		next := &seat{session: &Session{}}
		var wg sync.WaitGroup
		wg.Go(func() { x.leave(gone) })
		x.join("r", next, false, events.ID{})
		wg.Wait()
		if m := x.sessionsIn("r"); len(m) != 1 || m[0] != next.session {
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
	x := newIndex()
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			mine := make([]*seat, 50)
			for round := range 200 {
				for i := range mine {
					mine[i] = &seat{session: &Session{conn: new(engine.Conn)}}
					x.join(fmt.Sprint("r", i%7), mine[i], false, events.ID{})
					if i%2 == round%2 {
						x.open(mine[i])
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
	x := newIndex()
	for i, want := range []bool{true, true, false} {
		if x.reserve("r", 2) != want {
			t.Errorf("reservation %d of 2", i+1)
		}
	}
	taken := &seat{session: &Session{}}
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

// The deadlines themselves, on a clock that does not wait: sessions without a connection tell by their state.
func TestDeadlinesPassInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDeadlines()
		go d.run(t.Context())
		h := &Hub{deadlines: d}
		start := time.Now()
		var want []*Session
		for i := range 100 {
			s := &Session{hub: h, state: stateLive}
			s.identity = auth.Identity{ExpiresAt: start.Add(time.Hour * 24)} // never reached: it re-arms
			d.set(s, start.Add(time.Duration((i*37)%100+1)*time.Minute))
			want = append(want, s)
		}
		d.set(want[0], time.Time{})
		d.set(want[0], time.Time{}) // removing twice is nothing
		left := func() (n int) {
			d.mu.Lock()
			defer d.mu.Unlock()
			for _, s := range d.heap {
				if s.deadline.at < start.Add(24*time.Hour).UnixNano() {
					n++
				}
			}
			return n
		}
		for minute := range 101 {
			time.Sleep(time.Until(start.Add(time.Duration(minute)*time.Minute + time.Second)))
			synctest.Wait()
			expect := 0
			for i := 1; i < 100; i++ {
				if (i*37)%100+1 > minute {
					expect++
				}
			}
			if got := left(); got != expect {
				t.Fatalf("minute %d: %d wait, want %d", minute, got, expect)
			}
		}
		d.mu.Lock()
		if len(d.heap) != 99 {
			t.Errorf("%d in the heap", len(d.heap))
		}
		d.mu.Unlock()
	})
}

// Tokens may outlive what Unix nanoseconds can tell.
func TestDeadlinesBeyondUnixNanoseconds(t *testing.T) {
	for _, year := range []int{2261, 2262, 2286, 2300, 2555, 9999} {
		t.Run(strconv.Itoa(year), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDeadlines()
				go d.run(t.Context())
				h := &Hub{deadlines: d}
				far, soon := &Session{hub: h, state: stateLive}, &Session{hub: h, state: stateLive}
				far.identity.ExpiresAt = time.Date(year, time.December, 31, 23, 59, 59, 0, time.UTC)
				soon.identity.ExpiresAt = time.Now().Add(24 * time.Hour)
				d.set(far, far.identity.ExpiresAt)
				d.set(soon, time.Now().Add(time.Second))
				time.Sleep(2 * time.Second)
				synctest.Wait() // would not end if far were due again and again
				d.mu.Lock()
				defer d.mu.Unlock()
				if soon.deadline.at != soon.identity.ExpiresAt.UnixNano() {
					t.Error("the near deadline did not pass")
				}
				if want := time.Date(2261, time.January, 1, 0, 0, 0, 0, time.UTC).UnixNano(); far.deadline.at < want {
					t.Errorf("the far deadline is at %s", time.Unix(0, far.deadline.at))
				}
			})
		})
	}
}

func TestAnEarlierDeadlineWakesTheGoroutine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDeadlines()
		go d.run(t.Context())
		h := &Hub{deadlines: d}
		far := time.Now().Add(24 * time.Hour)
		one, two := &Session{hub: h, state: stateLive}, &Session{hub: h, state: stateLive}
		one.identity.ExpiresAt, two.identity.ExpiresAt = far, far
		d.set(one, time.Now().Add(50*time.Second))
		synctest.Wait()
		d.set(two, time.Now().Add(time.Second))
		time.Sleep(2 * time.Second)
		synctest.Wait()
		d.mu.Lock()
		defer d.mu.Unlock()
		if two.deadline.at != far.UnixNano() {
			t.Error("the earlier deadline was slept through")
		}
		if one.deadline.at == far.UnixNano() {
			t.Error("the later one passed with it")
		}
	})
}
