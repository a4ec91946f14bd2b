package presence

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"jobwire/internal/events"
)

// The first change after a quiet time is announced at once; what follows is gathered, and waits no longer than gatherTime.
func TestAnnouncementsAreGathered(t *testing.T) {
	run(t, Config{0, Everyone}, func(t *testing.T, s *stand) {
		const ms = time.Millisecond
		for _, step := range []struct {
			at     time.Duration
			change string
		}{
			{0, "+a"},
			{10 * ms, "+b"}, {100 * ms, "+c"}, {249 * ms, "-a"}, // with the next
			{260 * ms, "-c"}, {270 * ms, "+d"}, {499 * ms, "+c"}, // c is back before it is announced as gone
			{2000 * ms, "-d"}, // alone again
			{2001 * ms, "+d"}, {2002 * ms, "-d"},
			{2252 * ms, "+e"}, // just after a gathering: nothing is quiet yet
		} {
			time.Sleep(step.at - time.Since(began))
			if user := step.change[1:]; step.change[0] == '+' {
				s.arrive(user, "", user)
			} else {
				s.leave(user, "", user)
			}
		}
		time.Sleep(time.Second)
		var got []string
		for _, w := range s.take() {
			got = append(got, fmt.Sprintf("%v %v", w.at.Sub(began), w))
		}
		want := []string{
			"0s presence: +a",
			"250ms presence: +b +c -a@249ms",
			"500ms presence: +c +d",
			"2s presence: -d@2s",
			"2.25s presence: -d@2.002s",
			"2.5s presence: +e",
		}
		if !slices.Equal(got, want) {
			t.Errorf("announced\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	})
}

// A state is announced also when it is the one that was announced last: a list in between may say otherwise.
func TestAReturnIsAnnouncedToWhoGotAListMeanwhile(t *testing.T) {
	run(t, Config{0, Everyone}, func(t *testing.T, s *stand) {
		s.arrive("u", "", "1")
		s.expect("presence: +u")
		s.arrive("v", "", "2") // so that what follows is gathered
		synctest.Wait()
		s.leave("u", "", "1")
		if users, _ := s.sees("v", ""); !slices.Equal(users, []string{"v"}) {
			t.Errorf("v sees %q", users)
		}
		s.arrive("u", "", "3")
		s.expect("presence: +v", "presence: +u")
	})
}

// A burst costs a watcher one write each gatherTime, however many come, and nothing is lost or out of order.
func TestABurstIsFewWrites(t *testing.T) {
	for name, c := range map[string]struct {
		took   time.Duration
		writes int
	}{
		"at once":          {0, 2}, // the first may go alone
		"within a second":  {time.Second, 5},
		"within 2 seconds": {2 * time.Second, 9},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, Config{testGrace, Everyone}, func(t *testing.T, s *stand) {
				s.arrive("watcher", "", "w")
				time.Sleep(stormLimit) // it is not just after a start
				s.expect("presence: +watcher")
				const users = 1000
				for i := range users {
					s.arrive(fmt.Sprint(i), "", fmt.Sprint(i))
					time.Sleep(c.took / users)
				}
				time.Sleep(gatherTime)
				writes := s.take()
				if len(writes) > c.writes {
					t.Errorf("%d writes to each watcher, want %d at most", len(writes), c.writes)
				}
				next := 0
				for _, w := range writes {
					for _, p := range w.packets {
						if want := fmt.Sprint("+", next); p.String() != want {
							t.Fatalf("%v, want %s", p, want)
						}
						next++
					}
				}
				if next != users {
					t.Errorf("%d of %d are announced", next, users)
				}
			})
		})
	}
}

// However many change at once, an announcement has a bound, and the rest follows at once.
func TestAnAnnouncementIsBounded(t *testing.T) {
	const smallestQueue = 1 << 20 // bytes, that an operator may set
	run(t, Config{0, Everyone}, func(t *testing.T, s *stand) {
		s.arrive("first", "", "0")
		time.Sleep(stormLimit)
		s.expect("presence: +first")
		s.leave("first", "", "0")
		synctest.Wait() // announced at once: what follows is gathered
		for i := range 2*gatherLimit + 10 {
			number := fmt.Sprint(i)
			s.arrive(number+strings.Repeat("<", events.MaxUserIDLen-len(number)), "", "x") // none takes more than <, six bytes
		}
		time.Sleep(gatherTime)
		writes := s.take()
		sizes := make([]int, len(writes))
		for i, w := range writes {
			sizes[i] = len(w.packets)
			bytes := 0
			for _, p := range w.packets {
				bytes += len(p.Text) + len(`,"lastSeen":"2000-01-01T00:00:00.000Z"`) + len("off") - len("on") + 5 // a frame's header
			}
			if bytes > smallestQueue {
				t.Errorf("%d bytes in one write", bytes)
			}
		}
		if !slices.Equal(sizes, []int{1, gatherLimit, gatherLimit, 10}) || !writes[1].at.Equal(writes[3].at) {
			t.Errorf("writes of %v packets", sizes)
		}
	})
}

// While more than stormRate sockets a second come back after a start, nothing is announced; when that is over, everybody gets
// the list once.
func TestAStormAfterAStart(t *testing.T) {
	const second = time.Second
	for _, c := range []struct {
		name    string
		quiet   time.Duration // between the start and the first socket
		lone    int           // users who come one by one before
		storm   int           // users who come faster than stormRate
		took    time.Duration
		list    time.Duration // when the list comes: a second after the stormRate-th last came; 0 for never
		singles int           // announcements of single users, at most
	}{
		{name: "a handful", storm: stormRate / 2, took: second / 2, singles: stormRate / 2},
		{name: "many, but slowly", storm: 300, took: 4 * second, singles: 300},
		{name: "a thousand in two seconds", storm: 1000, took: 2 * second, list: 2800 * time.Millisecond, singles: stormRate},
		{name: "a thousand at once", storm: 1000, list: second, singles: stormRate},
		{name: "the node was idle before", quiet: time.Hour, storm: 1000, took: 2 * second, list: 2800 * time.Millisecond, singles: stormRate},
		{name: "two pages were there before", lone: 2, storm: 998, took: 1996 * time.Millisecond, list: 2796 * time.Millisecond, singles: stormRate},
		{name: "a storm without end", storm: 6000, took: 40 * second, list: stormLimit, singles: 2000},
	} {
		t.Run(c.name, func(t *testing.T) {
			run(t, Config{testGrace, Everyone}, func(t *testing.T, s *stand) {
				time.Sleep(c.quiet)
				for i := range c.lone {
					s.arrive(fmt.Sprint("lone", i), "", "")
					s.expect(fmt.Sprint("presence: +lone", i))
				}
				start := time.Now()
				for i := range c.storm {
					s.arrive(fmt.Sprint(i), "", "")
					time.Sleep(c.took / time.Duration(c.storm))
				}
				time.Sleep(2 * second)
				client := client{}
				singles, lists := 0, 0
				for _, w := range s.take() {
					client.receive(t, w.packets)
					if w.packets[0].ExceptUser != "" {
						singles += len(w.packets)
						continue
					}
					lists++
					if after := w.at.Sub(start); after != c.list {
						t.Errorf("a list after %v, want %v", after, c.list)
					}
				}
				if c.list == 0 && lists != 0 || c.list != 0 && lists != 1 || singles > c.singles {
					t.Errorf("%d lists, %d announced one by one", lists, singles)
				}
				if got, all := len(client.online), c.storm+c.lone; got != all && (all < SnapshotLimit+10 || got < SnapshotLimit) {
					t.Errorf("a tab knows %d of %d users", got, all)
				}
				s.arrive("later", "", "")
				s.expect("presence: +later")
			})
		})
	}
}

// Tenants whose users did not change in a storm get no list.
func TestAStormConcernsWhoHasChanged(t *testing.T) {
	run(t, Config{testGrace, Tenant}, func(t *testing.T, s *stand) {
		s.arrive("early", "a", "1")
		s.expect("presence:a: +early")
		for i := range 3 * stormRate {
			s.arrive(fmt.Sprint(i), fmt.Sprint("b", i%2), "1")
		}
		time.Sleep(2 * time.Second)
		lists := map[string]int{}
		for _, w := range s.take() {
			for _, p := range w.packets {
				if name, d := parse(p.Text); name == events.OnlineUsers {
					lists[w.room] += d.Count
				}
			}
		}
		if len(lists) != 2 || lists["presence:b0"] != 150 || lists["presence:b1"] != 150 {
			t.Errorf("lists %v", lists)
		}
	})
}

// The text of the list is kept from change to change; it must always be the list.
func TestTheListFollowsEveryChange(t *testing.T) {
	run(t, Config{0, Everyone}, func(t *testing.T, s *stand) {
		random := rand.New(rand.NewPCG(1, 2))
		online := map[string]bool{}
		for range 20_000 {
			user := fmt.Sprint(random.IntN(3 * SnapshotLimit / 2))
			if online[user] {
				s.leave(user, "", user)
				delete(online, user)
			} else {
				s.arrive(user, "", user)
				online[user] = true
			}
			if random.IntN(20) > 0 {
				continue
			}
			users, count := s.sees(user, "")
			if count != len(online) || len(users) != min(count, SnapshotLimit) || slices.Contains(users, user) != online[user] {
				t.Fatalf("%d users, count %d, of %d; %s among them: %v", len(users), count, len(online), user, slices.Contains(users, user))
			}
			slices.Sort(users)
			if len(slices.Compact(users)) != len(users) || slices.ContainsFunc(users, func(u string) bool { return !online[u] }) {
				t.Fatal("somebody is there twice, or is not online")
			}
		}
	})
}
