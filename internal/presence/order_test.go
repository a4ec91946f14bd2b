package presence

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// client is what an unmodified frontend makes of the presence events.
type client struct {
	mu     sync.Mutex
	listed bool
	online map[string]bool
}

func (c *client) receive(t *testing.T, packet []byte) {
	var array []json.RawMessage
	var name string
	var data struct {
		UserID string
		Users  []string
	}
	if packet[0] != '2' || json.Unmarshal(packet[1:], &array) != nil || len(array) != 2 ||
		json.Unmarshal(array[0], &name) != nil || json.Unmarshal(array[1], &data) != nil {
		t.Errorf("not a packet: %s", packet)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch name {
	case "online_users":
		c.listed = true
		c.online = map[string]bool{}
		for _, user := range data.Users {
			c.online[user] = true
		}
	case "user_online":
		c.online[data.UserID] = true
	case "user_offline":
		delete(c.online, data.UserID)
	}
}

func (c *client) users() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var users []string
	for user := range c.online {
		users = append(users, user)
	}
	slices.Sort(users)
	return users
}

// house brings announcements to the clients in the room.
type house struct {
	t       *testing.T
	mu      sync.Mutex
	clients map[string]*client
}

func (h *house) Announce(_, exceptUser string, packet []byte) {
	h.mu.Lock()
	var to []*client
	for user, c := range h.clients {
		if user != exceptUser {
			to = append(to, c)
		}
	}
	h.mu.Unlock()
	for _, c := range to {
		c.receive(h.t, packet)
	}
}

func (h *house) join(user string) *client {
	c := &client{online: map[string]bool{}}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clients[user] = c
	return c
}

// Viewers connect while others come and go as fast as they can. Whatever the
// interleaving, in the end each of them must know who is online.
func TestEveryViewerKnowsTheTruthInTheEnd(t *testing.T) {
	const viewers, movers, rounds = 40, 8, 200
	h := &house{t: t, clients: map[string]*client{}}
	s := New(Config{time.Millisecond, Everyone}, h)
	defer s.Close()
	var wg sync.WaitGroup
	for m := range movers {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(m)))
			user := fmt.Sprintf("mover-%d", m)
			for round := range rounds {
				id := fmt.Sprint(user, round)
				s.Arrive(user, "", id)
				if m%2 == 0 || round < rounds-1 {
					s.Leave(user, "", id, random.IntN(2) == 0)
				}
			}
		})
	}
	for v := range viewers {
		wg.Go(func() {
			user := fmt.Sprintf("viewer-%02d", v)
			s.Arrive(user, "", user)
			c := h.join(user)
			s.Welcome(user, "", func(packet []byte) { c.receive(t, packet) })
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
	slices.Sort(want)
	deadline := time.Now().Add(10 * time.Second)
	for user, c := range h.clients {
		for !slices.Equal(c.users(), want) {
			if time.Now().After(deadline) {
				t.Fatalf("%s sees %q\nwant %q", user, c.users(), want)
			}
			time.Sleep(time.Millisecond) // the last graces and announcements
		}
	}
}

// A change that comes between the making of the list and its sending has been
// announced before the list, which then wipes it out.
func TestAListNeverWipesOutWhatWasAnnouncedBeforeIt(t *testing.T) {
	run(t, Config{0, Everyone}, func(t *testing.T, s *Service, _ func(...string)) {
		for _, changes := range []int{1, 3, recentLimit + 1} {
			c := &client{online: map[string]bool{}}
			sends := 0
			s.Welcome("v", "", func(packet []byte) {
				if sends++; sends == 1 {
					s.Arrive("v", "", fmt.Sprint("own", changes))
					for i := range changes {
						s.Arrive(fmt.Sprint("u", i), "", fmt.Sprint(changes, "-", i))
					}
				}
				c.receive(t, packet)
			})
			got := c.users()
			if len(got) != min(changes, SnapshotLimit) {
				t.Errorf("after %d changes the viewer sees %d users", changes, len(got))
			}
			if slices.Contains(got, "v") && changes <= recentLimit {
				t.Error("the viewer is told of itself")
			}
			s.Leave("v", "", fmt.Sprint("own", changes), true)
			for i := range changes {
				s.Leave(fmt.Sprint("u", i), "", fmt.Sprint(changes, "-", i), true)
			}
		}
	})
}

// slow is an announcer that holds each announcement back until it is let go.
type slow struct {
	recorder
	gate chan struct{}
}

func (a *slow) Announce(room, exceptUser string, packet []byte) {
	<-a.gate
	a.recorder.Announce(room, exceptUser, packet)
}

func TestASlowAnnouncerGetsTheLatestStateAndNoBacklog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &slow{gate: make(chan struct{})}
		s := New(Config{0, Everyone}, a)
		for i := range 1000 {
			s.Arrive("u", "", fmt.Sprint(i))
			synctest.Wait() // the first announcement is under way from now on
			s.Leave("u", "", fmt.Sprint(i), true)
			s.Arrive("v", "", fmt.Sprint("v", i))
			s.Leave("v", "", fmt.Sprint("v", i), i < 999)
		}
		if n := s.dirty.len(); n > 2 {
			t.Errorf("%d announcements of two users are waiting", n)
		}
		close(a.gate)
		want := []string{online("presence", "u"), offline("presence", "u", 0), offline("presence", "v", 0)}
		if got := a.take(); !slices.Equal(got, want) {
			t.Errorf("announced %q", got)
		}
		s.Close()
	})
}

// Whatever happens in whatever order: who has sockets is online, who has none
// is not, and the last announcement says so.
func TestStateFollowsSocketsThroughAnyHistory(t *testing.T) {
	for seed := range uint64(200) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 7))
			h := &house{t: t, clients: map[string]*client{}}
			viewer := h.join("viewer")
			s := New(Config{testGrace, Everyone}, h)
			defer s.Close()
			s.Welcome("viewer", "", func(packet []byte) { viewer.receive(t, packet) })
			came, left := map[string]bool{}, map[string]bool{}
			for range 300 {
				user := fmt.Sprint("u", random.IntN(3))
				id := fmt.Sprint(user, "-", random.IntN(60))
				switch random.IntN(3) {
				case 0:
					if !left[id] { // an id is used once
						s.Arrive(user, "", id)
						came[id] = true
					}
				case 1:
					s.Leave(user, "", id, random.IntN(2) == 0)
					left[id] = true
				case 2:
					time.Sleep(time.Duration(random.IntN(8)) * time.Second)
				}
				if random.IntN(20) == 0 && left[id] && !came[id] {
					s.Arrive(user, "", id) // the late arrival of a ghost
					came[id] = true
				}
			}
			time.Sleep(testGrace)
			synctest.Wait()
			sockets := map[string]int{}
			for id := range came {
				if !left[id] {
					sockets[id[:2]]++
				}
			}
			var want []string
			for _, user := range []string{"u0", "u1", "u2"} {
				if got := s.Get(user); got.Sockets != sockets[user] || got.Online != (sockets[user] > 0) {
					t.Errorf("seed %d: %+v, want %d sockets", seed, got, sockets[user])
				}
				if sockets[user] > 0 {
					want = append(want, user)
				}
			}
			if got := viewer.users(); !slices.Equal(got, want) {
				t.Errorf("seed %d: the viewer sees %q, want %q", seed, got, want)
			}
		})
	}
}

type silent struct{}

func (silent) Announce(string, string, []byte) {}

func BenchmarkArriveLeave(b *testing.B) {
	s := New(Config{testGrace, Everyone}, silent{})
	defer s.Close()
	for i := range 10_000 {
		s.Arrive(fmt.Sprint(i), "", fmt.Sprint(i))
	}
	b.ReportAllocs()
	for b.Loop() {
		s.Arrive("u", "", "1")
		s.Leave("u", "", "1", true)
	}
}

func BenchmarkWelcome(b *testing.B) {
	for _, n := range []int{10, 1000, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s := New(Config{testGrace, Everyone}, silent{})
			defer s.Close()
			for i := range n {
				s.Arrive(fmt.Sprintf("user-%06d", i), "", fmt.Sprint(i))
			}
			b.ReportAllocs()
			for b.Loop() {
				s.Welcome("user-000001", "", func([]byte) {})
			}
		})
	}
}

func BenchmarkListOf100000(b *testing.B) {
	s := New(Config{testGrace, None}, silent{})
	defer s.Close()
	for i := range 100_000 {
		s.Arrive(fmt.Sprintf("user-%06d", (i*7919)%100_000), "", fmt.Sprint(i))
	}
	b.ReportAllocs()
	for b.Loop() {
		s.List("user-050000", 100)
	}
}
