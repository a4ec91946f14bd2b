package presence

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"jobwire/internal/events"
)

// client is what an unmodified frontend makes of the presence events.
type client struct {
	mu     sync.Mutex
	online map[string]bool
}

func (c *client) receive(t *testing.T, packets []Packet) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range packets {
		switch name, d := parse(p.Text); name {
		case events.OnlineUsers:
			c.online = map[string]bool{}
			for _, user := range d.Users {
				c.online[user] = true
			}
		case events.UserOnline:
			if c.online == nil {
				c.online = map[string]bool{}
			}
			c.online[d.UserID] = true
		case events.UserOffline:
			delete(c.online, d.UserID)
		default:
			t.Error(name)
		}
	}
}

func (c *client) users() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Sorted(maps.Keys(c.online))
}

// room brings announcements to the clients in it, as the hub does.
type room struct {
	t       *testing.T
	mu      sync.Mutex
	clients map[string]*client // by user
}

func (r *room) Announce(_ string, packets []Packet) {
	r.mu.Lock()
	to := maps.Clone(r.clients)
	r.mu.Unlock()
	for user, c := range to {
		c.receive(r.t, slices.DeleteFunc(slices.Clone(packets), func(p Packet) bool { return p.ExceptUser == user }))
	}
}

// join is the way of a new socket: it arrives, is in the room, and is welcomed.
func (r *room) join(s *Service, user, socket string) *client {
	c := &client{}
	ctx := r.t.Context()
	if _, err := s.Arrive(ctx, user, "", socket); err != nil {
		r.t.Error(err)
	}
	r.mu.Lock()
	r.clients[user] = c
	r.mu.Unlock()
	if err := s.Welcome(ctx, user, "", func(p []byte) { c.receive(r.t, []Packet{{Text: p}}) }); err != nil {
		r.t.Error(err)
	}
	return c
}

// Viewers connect while others come and go as fast as they can. Whatever the interleaving, in the end each of them must know
// who is online.
func TestEveryViewerKnowsTheTruthInTheEnd(t *testing.T) {
	const viewers, movers, rounds = 40, 8, 200
	r := &room{t: t, clients: map[string]*client{}}
	s := New(Config{time.Millisecond, Everyone}, r)
	defer s.Close()
	ctx := t.Context()
	var wg sync.WaitGroup
	for m := range movers {
		wg.Go(func() {
			user := fmt.Sprintf("mover-%d", m)
			for round := range rounds {
				id := fmt.Sprint(user, round)
				s.Arrive(ctx, user, "", id)
				if m%2 == 0 || round < rounds-1 {
					s.Leave(ctx, user, "", id)
				}
			}
		})
	}
	for v := range viewers {
		wg.Go(func() {
			user := fmt.Sprintf("viewer-%02d", v)
			r.join(s, user, user)
		})
	}
	wg.Wait()

	var want []string
	for m := 1; m < movers; m += 2 {
		want = append(want, fmt.Sprintf("mover-%d", m))
	}
	for v := range viewers {
		want = append(want, fmt.Sprintf("viewer-%02d", v))
	}
	deadline := time.Now().Add(10 * time.Second)
	for user, c := range r.clients {
		for !slices.Equal(c.users(), want) {
			if time.Now().After(deadline) {
				t.Fatalf("%s sees %q\nwant %q", user, c.users(), want)
			}
			time.Sleep(time.Millisecond) // the last graces and announcements
		}
	}
}

// A change that is announced between the making of the list and its sending would be wiped out by the list.
func TestAListNeverWipesOutWhatWasAnnouncedBeforeIt(t *testing.T) {
	run(t, Config{0, Everyone}, func(t *testing.T, s *stand) {
		tab := client{}
		sends := 0
		s.arrive("v", "", "own")
		s.expect("presence: +v")
		err := s.Welcome(t.Context(), "v", "", func(packet []byte) {
			if sends++; sends <= 2 { // the list is made
				s.arrive(fmt.Sprint("u", sends), "", "1")
				synctest.Wait()
				if sends == 2 {
					time.Sleep(gatherTime)
				}
				for _, w := range s.take() {
					tab.receive(t, w.packets)
				}
			}
			tab.receive(t, []Packet{{Text: packet}})
		})
		if got := tab.users(); err != nil || sends != 3 || !slices.Equal(got, []string{"u1", "u2", "v"}) {
			t.Errorf("after %d lists the tab sees %q; %v", sends, got, err)
		}
	})
}

// What is not announced before the list is sent comes after it.
func TestAListIsFollowedByWhatHasChangedSince(t *testing.T) {
	run(t, Config{0, Everyone}, func(t *testing.T, s *stand) {
		s.arrive("v", "", "own")
		s.expect("presence: +v")
		s.arrive("u", "", "1") // announced at once: what follows is gathered
		synctest.Wait()
		sends := 0
		s.Welcome(t.Context(), "v", "", func(packet []byte) {
			sends++
			s.leave("u", "", "1")
			s.arrive("w", "", "2")
		})
		if sends != 1 {
			t.Errorf("%d lists", sends)
		}
		s.expect("presence: +u", "presence: -u@250ms +w")
	})
}

// slow is an announcer that holds each announcement back until it is let go.
type slow struct {
	recorder
	gate chan struct{}
}

func (a *slow) Announce(room string, packets []Packet) {
	<-a.gate
	a.recorder.Announce(room, packets)
}

func TestASlowAnnouncerGetsTheLatestStateAndNoBacklog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &slow{gate: make(chan struct{})}
		s := &stand{t: t, Service: New(Config{0, Everyone}, a)}
		for i := range 1000 {
			s.arrive("u", "", fmt.Sprint(i))
			time.Sleep(time.Second) // the first announcement is under way from now on
			s.leave("u", "", fmt.Sprint(i))
			s.arrive("v", "", fmt.Sprint("v", i))
			s.leave("v", "", fmt.Sprint("v", i))
		}
		close(a.gate)
		var got []string
		for _, w := range a.take() {
			got = append(got, w.String())
		}
		if want := []string{"presence: +u", "presence: -u@16m40s -v@16m40s"}; !slices.Equal(got, want) {
			t.Errorf("announced %q, want %q", got, want)
		}
		s.Close()
	})
}

// Whatever happens in whatever order: who has sockets is online, who has none is not, and the last announcement says so.
func TestStateFollowsSocketsThroughAnyHistory(t *testing.T) {
	for seed := range uint64(200) {
		run(t, Config{testGrace, Everyone}, func(t *testing.T, s *stand) {
			random := rand.New(rand.NewPCG(seed, 7))
			viewer := &client{}
			s.Welcome(t.Context(), "viewer", "", func(p []byte) { viewer.receive(t, []Packet{{Text: p}}) })
			came, left := map[string]bool{}, map[string]bool{}
			for range 300 {
				user := fmt.Sprint("u", random.IntN(3))
				id := fmt.Sprint(user, "-", random.IntN(60))
				switch random.IntN(3) {
				case 0:
					if !came[id] && !left[id] { // an id is used once, and arrives before it leaves
						s.arrive(user, "", id)
						came[id] = true
					}
				case 1:
					s.leave(user, "", id)
					left[id] = true
				case 2:
					time.Sleep(time.Duration(random.IntN(8000)) * time.Millisecond)
				}
			}
			time.Sleep(testGrace + gatherTime)
			for _, w := range s.take() {
				viewer.receive(t, w.packets)
			}
			sockets := map[string]int{}
			for id := range came {
				if !left[id] {
					sockets[id[:2]]++
				}
			}
			for _, user := range []string{"u0", "u1", "u2"} {
				if got := s.status(user); got.Sockets != sockets[user] || got.Online != (sockets[user] > 0) {
					t.Errorf("seed %d: %+v, want %d sockets", seed, got, sockets[user])
				}
			}
			if got, want := viewer.users(), slices.Sorted(maps.Keys(sockets)); !slices.Equal(got, want) {
				t.Errorf("seed %d: the viewer sees %q, want %q", seed, got, want)
			}
		})
	}
}

// silent announces to no sockets.
type silent struct{}

func (silent) Announce(string, []Packet) {}

func BenchmarkArriveLeave(b *testing.B) {
	s := New(Config{testGrace, Everyone}, silent{})
	defer s.Close()
	ctx := b.Context()
	for i := range 10_000 {
		s.Arrive(ctx, fmt.Sprint(i), "", fmt.Sprint(i))
	}
	b.ReportAllocs()
	for b.Loop() {
		s.Arrive(ctx, "u", "", "1")
		s.Leave(ctx, "u", "", "1")
	}
}

// BenchmarkArrivals is what presence itself does when 1,000 users come: it counts them, makes a list for each, and announces
// them together.
func BenchmarkArrivals(b *testing.B) {
	const users = 1000
	ids := make([]string, users)
	for i := range ids {
		ids[i] = fmt.Sprintf("user-%05d", i)
	}
	b.ReportAllocs()
	for b.Loop() {
		s := New(Config{testGrace, Everyone}, silent{})
		for _, id := range ids {
			s.Arrive(b.Context(), id, "", id)
			s.Welcome(b.Context(), id, "", func([]byte) {})
		}
		s.mu.Lock()
		due := s.gather(time.Now()) // without the wait for it
		s.mu.Unlock()
		for _, a := range due {
			s.announcer.Announce(a.room, a.packets)
		}
		s.Close()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/users, "ns/user")
}

func BenchmarkWelcome(b *testing.B) {
	for _, n := range []int{10, 1000, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s := New(Config{testGrace, Everyone}, silent{})
			defer s.Close()
			for i := range n {
				s.Arrive(b.Context(), fmt.Sprintf("user-%06d", i), "", fmt.Sprint(i))
			}
			b.ReportAllocs()
			for b.Loop() {
				s.Welcome(b.Context(), "user-000001", "", func([]byte) {})
			}
		})
	}
}

func BenchmarkListOf100000(b *testing.B) {
	s := New(Config{testGrace, None}, silent{})
	defer s.Close()
	for i := range 100_000 {
		s.Arrive(b.Context(), fmt.Sprintf("user-%06d", (i*7919)%100_000), "", fmt.Sprint(i))
	}
	b.ReportAllocs()
	for b.Loop() {
		s.List(b.Context(), "user-050000", 100)
	}
}
