package presence

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

func TestPagesListEveryUserOnceInOrder(t *testing.T) {
	run(t, Config{testGrace, None}, func(t *testing.T, s *Service, _ func(...string)) {
		var want []string
		for i := range 250 {
			user := fmt.Sprintf("user-%03d", (i*97)%250)
			want = append(want, user)
			s.Arrive(user, "", "s"+user)
		}
		s.Arrive("gone", "", "g")
		s.Leave("gone", "", "g", true)
		slices.Sort(want)
		for _, limit := range []int{1, 7, 249, 250, 251, ListLimit} {
			var got []string
			cursor, pages := "", 0
			for {
				page, next := s.List(cursor, limit)
				for _, status := range page {
					if !status.Online || status.Sockets != 1 {
						t.Fatalf("%+v", status)
					}
					got = append(got, status.UserID)
				}
				pages++
				if len(page) > limit {
					t.Fatalf("a page of %d for a limit of %d", len(page), limit)
				}
				if cursor = next; cursor == "" {
					break
				}
			}
			if !slices.Equal(got, want) || pages != (len(want)+limit-1)/limit {
				t.Errorf("limit %d: %d users on %d pages", limit, len(got), pages)
			}
		}
	})
}

func TestListBoundsItsLimit(t *testing.T) {
	run(t, Config{0, None}, func(t *testing.T, s *Service, _ func(...string)) {
		if page, next := s.List("", 10); page == nil || len(page) != 0 || next != "" {
			t.Errorf("nobody online gives %v, %q", page, next)
		}
		for i := range ListLimit + 1 {
			s.Arrive(fmt.Sprint(i), "", fmt.Sprint(i))
		}
		for limit, want := range map[int]int{-1: 1, 0: 1, ListLimit + 1: ListLimit} {
			if page, next := s.List("", limit); len(page) != want || next != page[want-1].UserID {
				t.Errorf("limit %d gives %d, next %q", limit, len(page), next)
			}
		}
		if page, next := s.List("\U0010ffff", 10); len(page) != 0 || next != "" {
			t.Errorf("after the last user comes %v, %q", page, next)
		}
	})
}

func TestQueryAnswersInOrderAndIsBounded(t *testing.T) {
	run(t, Config{0, None}, func(t *testing.T, s *Service, _ func(...string)) {
		s.Arrive("on", "", "1")
		s.Arrive("off", "", "2")
		time.Sleep(time.Minute)
		s.Leave("off", "", "2", false)
		got, err := s.Query([]string{"never", "off", "on", "on"})
		want := []Status{{UserID: "never"}, {UserID: "off", LastSeen: began.Add(time.Minute)}, {UserID: "on", Online: true, Sockets: 1}, {UserID: "on", Online: true, Sockets: 1}}
		if err != nil || len(got) != len(want) {
			t.Fatalf("%+v, %v", got, err)
		}
		for i := range want {
			same := got[i].LastSeen.Equal(want[i].LastSeen)
			got[i].LastSeen, want[i].LastSeen = time.Time{}, time.Time{}
			if got[i] != want[i] || !same {
				t.Errorf("%d: %+v, want %+v", i, got[i], want[i])
			}
		}
		if got, err := s.Query(nil); err != nil || len(got) != 0 {
			t.Errorf("nobody asked for gives %v, %v", got, err)
		}
		if _, err := s.Query(make([]string, QueryLimit)); err != nil {
			t.Error(err)
		}
		if _, err := s.Query(make([]string, QueryLimit+1)); err == nil {
			t.Error("a query without bound is answered")
		}
	})
}

func TestASnapshotIsBoundedItsCountIsNot(t *testing.T) {
	run(t, Config{0, Everyone}, func(t *testing.T, s *Service, _ func(...string)) {
		for i := range SnapshotLimit + 500 {
			s.Arrive(fmt.Sprint(i), "", fmt.Sprint(i))
		}
		users, count := s.Snapshot("1400", "")
		if len(users) != SnapshotLimit || count != SnapshotLimit+500 || users[0] != "1400" {
			t.Errorf("%d users of %d, %s first", len(users), count, users[0])
		}
		slices.Sort(users)
		if len(slices.Compact(users)) != SnapshotLimit {
			t.Error("somebody is there twice")
		}
	})
}

func TestMemoryOfTheAbsentIsBounded(t *testing.T) {
	run(t, Config{0, Everyone}, func(t *testing.T, s *Service, heard func(...string)) {
		for i := range lastSeenLimit + 10 {
			user := fmt.Sprint(i)
			s.Arrive(user, "", user)
			s.Leave(user, "", user, false)
		}
		for i := range 3 * ghostLimit {
			s.Leave("ghost", "", fmt.Sprint("g", i), false)
		}
		for range 5 {
			s.Arrive("7", "", "x")
			s.Leave("7", "", "x", true)
		}
		time.Sleep(time.Minute)
		if !s.Get("1").LastSeen.IsZero() || s.Get("7").LastSeen.IsZero() || s.Get(fmt.Sprint(lastSeenLimit+9)).LastSeen.IsZero() {
			t.Error("not the latest are remembered")
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if n := s.lastSeen.order.Len(); n != lastSeenLimit || len(s.lastSeen.byUser) != n {
			t.Errorf("%d last times", n)
		}
		if len(s.ghosts.ids) != ghostLimit || cap(s.ghosts.order.items) > 8*ghostLimit {
			t.Errorf("%d ghosts, in room for %d", len(s.ghosts.ids), cap(s.ghosts.order.items))
		}
		if len(s.all.members) != 0 || len(s.all.online) != 0 || s.dirty.len() != 0 || s.graces.len() != 0 {
			t.Error("members are kept who are not there")
		}
	})
}
