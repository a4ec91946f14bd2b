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
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// recorder is an announcer that writes down "room -except packet".
type recorder struct {
	mu    sync.Mutex
	lines []string
}

func (r *recorder) Announce(room, exceptUser string, packet []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, fmt.Sprintf("%s -%s %s", room, exceptUser, packet))
}

// take returns what was announced since it was last called.
func (r *recorder) take() []string {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	lines := r.lines
	r.lines = nil
	return lines
}

const testGrace = 10 * time.Second

// run is a test in a bubble: time passes only when everything waits.
func run(t *testing.T, cfg Config, test func(t *testing.T, s *Service, heard func(want ...string))) {
	synctest.Test(t, func(t *testing.T) {
		var r recorder
		s := New(cfg, &r)
		defer s.Close()
		test(t, s, func(want ...string) {
			t.Helper()
			if got := r.take(); !slices.Equal(got, want) {
				t.Errorf("after %v announced\n %q\nwant\n %q", time.Since(began), got, want)
			}
		})
	})
}

// began is when every bubble begins.
var began = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

func online(room, user string) string {
	return fmt.Sprintf(`%s -%s 2["user_online",{"userId":"%s"}]`, room, user, user)
}

func offline(room, user string, after time.Duration) string {
	return fmt.Sprintf(`%s -%s 2["user_offline",{"userId":"%s","lastSeen":"%s"}]`, room, user, user, began.Add(after).Format("2006-01-02T15:04:05.000Z"))
}

func TestOnlyTheFirstAndTheLastSocketAreAnnounced(t *testing.T) {
	run(t, Config{testGrace, Everyone}, func(t *testing.T, s *Service, heard func(...string)) {
		s.Arrive("u", "", "1")
		s.Arrive("u", "", "2")
		s.Arrive("u", "", "2")
		heard(online("presence", "u"))
		s.Leave("u", "", "1", false)
		time.Sleep(time.Hour)
		heard()
		if got := s.Get("u"); got != (Status{UserID: "u", Online: true, Sockets: 1}) {
			t.Errorf("%+v", got)
		}
		s.Leave("u", "", "2", false)
		time.Sleep(testGrace - time.Nanosecond)
		heard()
		if got := s.Get("u"); !got.Online || got.Sockets != 0 {
			t.Errorf("within the grace: %+v", got)
		}
		time.Sleep(time.Nanosecond)
		heard(offline("presence", "u", time.Hour))
		if got := s.Get("u"); got.Online || !got.LastSeen.Equal(began.Add(time.Hour)) {
			t.Errorf("after the grace: %+v", got)
		}
	})
}

func TestAReloadWithinTheGraceIsNotAnnounced(t *testing.T) {
	run(t, Config{testGrace, Everyone}, func(t *testing.T, s *Service, heard func(...string)) {
		s.Arrive("u", "", "1")
		heard(online("presence", "u"))
		for i := range 5 {
			s.Leave("u", "", fmt.Sprint(i+1), false)
			time.Sleep(testGrace - time.Millisecond)
			s.Arrive("u", "", fmt.Sprint(i+2))
		}
		time.Sleep(time.Hour)
		heard()
		// Only the last leave counts, not graces that began before it.
		s.Leave("u", "", "6", false)
		time.Sleep(6 * time.Second)
		s.Arrive("u", "", "7")
		s.Leave("u", "", "7", false)
		time.Sleep(6 * time.Second)
		heard()
		time.Sleep(4 * time.Second)
		heard(offline("presence", "u", 5*(testGrace-time.Millisecond)+time.Hour+6*time.Second))
	})
}

func TestACleanEndOfTheLastSocketIsAnnouncedAtOnce(t *testing.T) {
	run(t, Config{testGrace, Everyone}, func(t *testing.T, s *Service, heard func(...string)) {
		s.Arrive("u", "", "1")
		s.Arrive("u", "", "2")
		heard(online("presence", "u"))
		s.Leave("u", "", "1", true)
		heard()
		s.Leave("u", "", "2", true)
		heard(offline("presence", "u", 0))
		s.Arrive("u", "", "3")
		heard(online("presence", "u"))
		if got := s.Get("u"); !got.Online || !got.LastSeen.IsZero() {
			t.Errorf("%+v", got)
		}
		time.Sleep(time.Hour) // no grace may be left over
		heard()
	})
}

func TestWithoutGraceEveryEndIsAnnouncedAtOnce(t *testing.T) {
	run(t, Config{0, Everyone}, func(t *testing.T, s *Service, heard func(...string)) {
		s.Arrive("u", "", "1")
		heard(online("presence", "u"))
		s.Leave("u", "", "1", false)
		heard(offline("presence", "u", 0))
	})
}

func TestLateAndRepeatedReportsDoNoHarm(t *testing.T) {
	run(t, Config{testGrace, Everyone}, func(t *testing.T, s *Service, heard func(...string)) {
		s.Arrive("u", "", "old")
		s.Arrive("u", "", "new")
		heard(online("presence", "u"))
		for range 3 {
			s.Leave("u", "", "old", true)
		}
		time.Sleep(time.Hour)
		heard()
		if got := s.Get("u"); got.Sockets != 1 {
			t.Errorf("%+v", got)
		}
	})
	run(t, Config{testGrace, Everyone}, func(t *testing.T, s *Service, heard func(...string)) {
		s.Leave("u", "", "ghost", false)
		s.Leave("u", "", "ghost", true)
		s.Arrive("u", "", "ghost")
		time.Sleep(time.Hour)
		heard()
		if got := s.Get("u"); got.Online || s.Count() != 0 {
			t.Errorf("a ghost is online: %+v", got)
		}
		s.Arrive("u", "", "real")
		heard(online("presence", "u"))
	})
}

func TestTenantsSeeTheirOwn(t *testing.T) {
	run(t, Config{testGrace, Tenant}, func(t *testing.T, s *Service, heard func(...string)) {
		s.Arrive("u", "a", "1")
		heard(online("presence:a", "u"))
		s.Arrive("u", "b", "2")
		heard(online("presence:b", "u"))
		s.Arrive("v", "b", "3")
		heard(online("presence:b", "v"))
		s.Arrive("w", "", "4")
		s.Arrive("presence:a", "", "5")
		heard()
		for _, tc := range []struct{ viewer, tenant, want string }{
			{"u", "a", "u"}, {"u", "b", "u v"}, {"v", "b", "v u"}, {"w", "", ""}, {"x", "c", ""},
		} {
			users, count := s.Snapshot(tc.viewer, tc.tenant)
			if got := strings.Join(users, " "); got != tc.want || count != len(users) {
				t.Errorf("%s in %s sees %q (%d), want %q", tc.viewer, tc.tenant, got, count, tc.want)
			}
		}
		if s.Count() != 4 {
			t.Errorf("workers count %d", s.Count())
		}
		if got := s.Get("u"); got.Sockets != 2 {
			t.Errorf("workers see %+v", got)
		}
		time.Sleep(time.Minute)
		s.Leave("u", "b", "2", true)
		heard(offline("presence:b", "u", time.Minute))
		if got := s.Get("u"); !got.Online {
			t.Errorf("still online elsewhere: %+v", got)
		}
		s.Leave("v", "b", "3", true)
		s.Leave("u", "a", "1", false)
		heard(offline("presence:b", "v", time.Minute))
		time.Sleep(testGrace)
		heard(offline("presence:a", "u", time.Minute))
		if len(s.tenants) != 0 {
			t.Errorf("%d tenants are kept for nobody", len(s.tenants))
		}
	})
}

func TestASocketCanChangeItsTenant(t *testing.T) {
	run(t, Config{testGrace, Tenant}, func(t *testing.T, s *Service, heard func(...string)) {
		s.Arrive("u", "a", "1")
		s.Leave("u", "a", "1", true)
		s.Arrive("u", "b", "1")
		// Either order is right: the two are told to different people.
		heard(offline("presence:a", "u", 0), online("presence:b", "u"))
	})
}

func TestNobodyIsToldWithTheAudienceNone(t *testing.T) {
	run(t, Config{testGrace, None}, func(t *testing.T, s *Service, heard func(...string)) {
		s.Arrive("u", "a", "1")
		s.Arrive("v", "a", "2")
		s.Leave("v", "a", "2", true)
		time.Sleep(time.Hour)
		heard()
		if s.Room("u", "a") != "" || s.Count() != 1 || s.Get("v").LastSeen.IsZero() {
			t.Error("workers must still be answered")
		}
		if users, count := s.Snapshot("u", "a"); len(users) != 0 || users == nil || count != 0 {
			t.Errorf("u sees %q, %d", users, count)
		}
	})
}

func TestRoom(t *testing.T) {
	for _, tc := range []struct {
		audience     Audience
		tenant, want string
	}{
		{Everyone, "", "presence"}, {Everyone, "a", "presence"}, {Tenant, "a", "presence:a"}, {Tenant, "", ""}, {None, "a", ""},
	} {
		s := New(Config{Audience: tc.audience}, &recorder{})
		if got := s.Room("u", tc.tenant); got != tc.want {
			t.Errorf("%s, tenant %q: %q", tc.audience, tc.tenant, got)
		}
		s.Close()
	}
}

func TestNamesAreEscapedInPackets(t *testing.T) {
	run(t, Config{0, Everyone}, func(t *testing.T, s *Service, heard func(...string)) {
		user := `Zoë "<\` + "\u2028"
		s.Arrive(user, "", "1")
		var packet []byte
		s.Welcome("v", "", func(p []byte) { packet = p })
		var array []json.RawMessage
		var list struct {
			Users []string
			Count int
		}
		if err := json.Unmarshal(packet[1:], &array); err != nil || len(array) != 2 || json.Unmarshal(array[1], &list) != nil {
			t.Fatalf("%s: %v", packet, err)
		}
		if string(array[0]) != `"online_users"` || !slices.Equal(list.Users, []string{user}) || list.Count != 1 {
			t.Errorf("%s", packet)
		}
	})
}

func TestCloseEndsAnnouncementsButNotAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r recorder
		s := New(Config{testGrace, Everyone}, &r)
		s.Arrive("u", "", "1")
		r.take()
		s.Leave("u", "", "1", false)
		s.Close()
		s.Arrive("v", "", "2")
		s.Leave("w", "", "3", true)
		time.Sleep(time.Hour)
		if got := r.take(); len(got) != 0 {
			t.Errorf("announced after the end: %q", got)
		}
		if !s.Get("v").Online {
			t.Error("no answers after the end")
		}
	})
}
