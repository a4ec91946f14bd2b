package presence

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"jobwire/internal/events"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// recorder is an announcer that writes down every announcement: one write to each socket in the room.
type recorder struct {
	mu     sync.Mutex
	writes []write
}

type write struct {
	at      time.Time
	room    string
	packets []Packet
}

func (r *recorder) Announce(room string, packets []Packet) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.writes = append(r.writes, write{time.Now(), room, packets})
}

// take returns what was announced since it was last called.
func (r *recorder) take() []write {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	writes := r.writes
	r.writes = nil
	return writes
}

// String is "room: +user -user" of an announcement, in its order.
func (w write) String() string {
	text := w.room + ":"
	for _, p := range w.packets {
		text += " " + p.String()
	}
	return text
}

// String is +user, -user, or the users of a list; it is marked when a packet is not kept from its user.
func (p Packet) String() string {
	name, data := parse(p.Text)
	switch {
	case name == events.OnlineUsers && p.ExceptUser == "":
		return fmt.Sprint(data.Users, data.Count)
	case data.UserID != p.ExceptUser:
		return "WRONG EXCEPT " + p.ExceptUser + string(p.Text)
	case name == events.UserOnline && data.LastSeen.IsZero():
		return "+" + data.UserID
	case name == events.UserOffline && !data.LastSeen.IsZero():
		return fmt.Sprintf("-%s@%v", data.UserID, data.LastSeen.Sub(began))
	}
	return "WRONG " + string(p.Text)
}

type data struct {
	UserID   string
	LastSeen time.Time
	Users    []string
	Count    int
}

// parse takes a packet apart as a client does.
func parse(packet []byte) (name string, d data) {
	var array []json.RawMessage
	if packet[0] != '2' || json.Unmarshal(packet[1:], &array) != nil || len(array) != 2 ||
		json.Unmarshal(array[0], &name) != nil || json.Unmarshal(array[1], &d) != nil {
		return fmt.Sprintf("malformed %.80s", packet), d
	}
	return name, d
}

const testGrace = 10 * time.Second

// began is when every bubble begins.
var began = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// stand is a service in a bubble, where time passes only when everything waits.
type stand struct {
	t *testing.T
	*Service
	recorder
}

func run(t *testing.T, cfg Config, test func(*testing.T, *stand)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &stand{t: t}
		s.Service = New(cfg, &s.recorder)
		defer s.Close()
		test(t, s)
	})
}

func (s *stand) arrive(user, tenant, socket string) (room string) {
	s.t.Helper()
	room, err := s.Arrive(s.t.Context(), user, tenant, socket)
	if err != nil {
		s.t.Error(err)
	}
	return room
}

func (s *stand) leave(user, tenant, socket string) {
	s.t.Helper()
	if err := s.Leave(s.t.Context(), user, tenant, socket); err != nil {
		s.t.Error(err)
	}
}

// expect checks what was announced since it was last called, up to gatherTime from now.
func (s *stand) expect(want ...string) {
	s.t.Helper()
	time.Sleep(gatherTime)
	var got []string
	for _, w := range s.take() {
		got = append(got, w.String())
	}
	if !slices.Equal(got, want) {
		s.t.Errorf("announced\n %q\nwant\n %q", got, want)
	}
}

func (s *stand) status(user string) Status {
	status, err := s.Get(s.t.Context(), user)
	if err != nil {
		s.t.Error(err)
	}
	return status
}

func (s *stand) count() int {
	n, err := s.Count(s.t.Context())
	if err != nil {
		s.t.Error(err)
	}
	return n
}

// sees is the list that a viewer gets.
func (s *stand) sees(viewer, tenant string) (users []string, count int) {
	s.t.Helper()
	text, err := s.OnlineUsers(s.t.Context(), viewer, tenant)
	var d data
	if err != nil || json.Unmarshal(text, &d) != nil || d.Users == nil {
		s.t.Fatalf("%s: %v", text, err)
	}
	return d.Users, d.Count
}

func TestOnlyTheFirstAndTheLastSocketAreAnnounced(t *testing.T) {
	run(t, Config{testGrace, Everyone}, func(t *testing.T, s *stand) {
		s.arrive("u", "", "1")
		s.arrive("u", "", "2")
		s.expect("presence: +u")
		s.leave("u", "", "1")
		time.Sleep(time.Hour)
		s.expect()
		if got := s.status("u"); got != (Status{UserID: "u", Online: true, Sockets: 1}) {
			t.Errorf("%+v", got)
		}
		s.leave("u", "", "2")
		left := time.Now()
		time.Sleep(testGrace - time.Nanosecond)
		synctest.Wait()
		if got := s.status("u"); !got.Online || got.Sockets != 0 {
			t.Errorf("within the grace: %+v", got)
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if got := s.status("u"); got.Online || !got.LastSeen.Equal(left) {
			t.Errorf("after the grace: %+v", got)
		}
		s.expect(fmt.Sprintf("presence: -u@%v", left.Sub(began)))
	})
}

// However the last socket ended, the grace holds, and counts from there.
func TestTheGraceAlwaysHolds(t *testing.T) {
	second := time.Second
	type report struct {
		at     time.Duration
		socket string // "+id" or "-id"
	}
	for _, c := range []struct {
		name    string
		reports []report
		offline time.Duration // the last socket's end; 0 for never
	}{
		{"one tab goes", []report{{0, "+a"}, {5 * second, "-a"}}, 5 * second},
		{"a tab goes while another is in its grace", []report{{0, "+a"}, {0, "+b"}, {second, "-a"}, {5 * second, "-b"}}, 5 * second},
		{"a tab goes after a reload of another", []report{{0, "+a"}, {second, "-a"}, {2 * second, "+b"}, {6 * second, "-b"}}, 6 * second},
		{"a page that mounts twice", []report{{0, "+a"}, {0, "-a"}, {0, "+b"}}, 0},
		{"a reload", []report{{0, "+a"}, {second, "-a"}, {second + testGrace - 1, "+b"}}, 0},
		{"reload after reload", []report{{0, "+a"}, {second, "-a"}, {9 * second, "+b"}, {10 * second, "-b"}, {18 * second, "+c"},
			{18 * second, "-c"}}, 18 * second},
		{"a late end of an old socket", []report{{0, "+old"}, {second, "+new"}, {2 * second, "-old"}, {3 * second, "-old"}}, 0},
		{"an end of a socket that has not arrived", []report{{0, "+a"}, {second, "-b"}, {second, "-b"}}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			run(t, Config{testGrace, Everyone}, func(t *testing.T, s *stand) {
				for _, r := range c.reports {
					time.Sleep(r.at - time.Since(began))
					if id := r.socket[1:]; r.socket[0] == '+' {
						s.arrive("u", "", id)
					} else {
						s.leave("u", "", id)
					}
				}
				end := c.offline + testGrace
				if c.offline == 0 {
					end = time.Hour
				}
				time.Sleep(end - 1 - time.Since(began))
				synctest.Wait()
				if got := s.status("u"); !got.Online {
					t.Errorf("offline too early: %+v", got)
				}
				if c.offline == 0 {
					s.expect("presence: +u")
					return
				}
				s.expect("presence: +u", fmt.Sprintf("presence: -u@%v", c.offline))
				if got := s.status("u"); got.Online || !got.LastSeen.Equal(began.Add(c.offline)) {
					t.Errorf("after the grace: %+v", got)
				}
				if len(s.graces) != 0 {
					t.Errorf("%d graces are left over", len(s.graces))
				}
			})
		})
	}
}

func TestWithoutGraceTheLastSocketIsTheEnd(t *testing.T) {
	run(t, Config{0, Everyone}, func(t *testing.T, s *stand) {
		s.arrive("u", "", "1")
		s.expect("presence: +u")
		s.leave("u", "", "1")
		if s.status("u").Online {
			t.Error("still online")
		}
		s.expect("presence: -u@250ms")
	})
}

func TestTenantsSeeTheirOwn(t *testing.T) {
	run(t, Config{testGrace, Tenant}, func(t *testing.T, s *stand) {
		s.arrive("u", "a", "1")
		synctest.Wait() // the first one is announced at once, what follows goes together
		s.arrive("u", "b", "2")
		s.arrive("v", "b", "3")
		s.arrive("w", "", "4")
		s.arrive("presence:a", "", "5")
		s.expect("presence:a: +u", "presence:b: +u +v")
		for _, c := range []struct{ viewer, tenant, want string }{
			{"u", "a", "u"}, {"u", "b", "u v"}, {"v", "b", "u v"}, {"w", "", ""}, {"x", "c", ""},
		} {
			users, count := s.sees(c.viewer, c.tenant)
			slices.Sort(users)
			if got := strings.Join(users, " "); got != c.want || count != len(users) {
				t.Errorf("%s in %s sees %q (%d), want %q", c.viewer, c.tenant, got, count, c.want)
			}
		}
		if got := s.status("u"); s.count() != 4 || got.Sockets != 2 {
			t.Errorf("workers see %+v, count %d", got, s.count())
		}
		time.Sleep(time.Minute - time.Since(began))
		s.leave("u", "b", "2")
		time.Sleep(testGrace)
		s.expect("presence:b: -u@1m0s")
		if got := s.status("u"); !got.Online {
			t.Errorf("still online elsewhere: %+v", got)
		}
		time.Sleep(2*time.Minute - time.Since(began))
		s.leave("v", "b", "3")
		s.leave("u", "a", "1")
		time.Sleep(testGrace)
		s.expect("presence:b: -v@2m0s", "presence:a: -u@2m0s")
		if len(s.rooms) != 0 {
			t.Errorf("%d tenants are kept without users", len(s.rooms))
		}
	})
}

func TestASocketCanChangeItsTenant(t *testing.T) {
	run(t, Config{0, Tenant}, func(t *testing.T, s *stand) {
		s.arrive("u", "a", "1")
		s.leave("u", "a", "1")
		s.arrive("u", "b", "1")
		s.expect("presence:a: -u@0s", "presence:b: +u")
	})
}

func TestNothingIsAnnouncedWithTheAudienceNone(t *testing.T) {
	run(t, Config{testGrace, None}, func(t *testing.T, s *stand) {
		s.arrive("u", "a", "1")
		s.arrive("v", "a", "2")
		s.leave("v", "a", "2")
		time.Sleep(time.Hour)
		s.expect()
		if s.count() != 1 || s.status("v").LastSeen.IsZero() {
			t.Error("workers must still be answered")
		}
		if users, count := s.sees("u", "a"); len(users) != 0 || count != 0 {
			t.Errorf("u sees %q, %d", users, count)
		}
	})
}

func TestRooms(t *testing.T) {
	for _, c := range []struct {
		audience     Audience
		tenant, want string
	}{
		{Everyone, "", "presence"}, {Everyone, "a", "presence"}, {Tenant, "a", "presence:a"}, {Tenant, "", ""}, {None, "a", ""},
	} {
		run(t, Config{Audience: c.audience}, func(t *testing.T, s *stand) {
			if got := s.arrive("u", c.tenant, "1"); got != c.want {
				t.Errorf("%s, tenant %q: %q", c.audience, c.tenant, got)
			}
		})
	}
}

func TestUserIDsAreEscaped(t *testing.T) {
	run(t, Config{0, Everyone}, func(t *testing.T, s *stand) {
		user := `Zoë ","<\` + "\u2028"
		s.arrive(user, "", "1")
		s.expect("presence: +" + user)
		if users, _ := s.sees("v", ""); !slices.Equal(users, []string{user}) {
			t.Errorf("%q", users)
		}
	})
}

func TestCloseEndsAnnouncementsButNotAnswers(t *testing.T) {
	run(t, Config{testGrace, Everyone}, func(t *testing.T, s *stand) {
		s.arrive("u", "", "1")
		s.expect("presence: +u")
		s.leave("u", "", "1")
		s.Close()
		s.arrive("v", "", "2")
		s.leave("w", "", "3")
		time.Sleep(time.Hour)
		s.expect()
		if !s.status("v").Online {
			t.Error("no answers after the end")
		}
	})
}
