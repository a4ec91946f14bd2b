package presence

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestPagesListEveryUserOnceInOrder(t *testing.T) {
	run(t, Config{0, None}, func(t *testing.T, s *stand) {
		var want []string
		for i := range 250 {
			user := fmt.Sprintf("user-%03d", (i*97)%250)
			want = append(want, user)
			s.arrive(user, "", "s"+user)
		}
		s.arrive("gone", "", "g")
		s.leave("gone", "", "g")
		slices.Sort(want)
		for _, limit := range []int{1, 7, 249, 250, 251, ListLimit} {
			var got []string
			cursor, pages := "", 0
			for {
				page, next, _ := s.List(t.Context(), cursor, limit)
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
	run(t, Config{0, None}, func(t *testing.T, s *stand) {
		if page, next, _ := s.List(t.Context(), "", 10); page == nil || len(page) != 0 || next != "" {
			t.Errorf("with none online comes %v, %q", page, next)
		}
		for i := range ListLimit + 1 {
			s.arrive(fmt.Sprint(i), "", fmt.Sprint(i))
		}
		for limit, want := range map[int]int{-1: 1, 0: 1, ListLimit + 1: ListLimit} {
			if page, next, _ := s.List(t.Context(), "", limit); len(page) != want || next != page[want-1].UserID {
				t.Errorf("limit %d gives %d, next %q", limit, len(page), next)
			}
		}
		if page, next, _ := s.List(t.Context(), "\U0010ffff", 10); len(page) != 0 || next != "" {
			t.Errorf("after the last user comes %v, %q", page, next)
		}
	})
}

func TestQueryAnswersInOrderAndIsBounded(t *testing.T) {
	run(t, Config{0, None}, func(t *testing.T, s *stand) {
		s.arrive("on", "", "1")
		s.arrive("off", "", "2")
		time.Sleep(time.Minute)
		s.leave("off", "", "2")
		got, err := s.Query(t.Context(), []string{"never", "off", "on", "on"})
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
		if got, err := s.Query(t.Context(), nil); err != nil || len(got) != 0 {
			t.Errorf("a query for none gives %v, %v", got, err)
		}
		if _, err := s.Query(t.Context(), make([]string, QueryLimit)); err != nil {
			t.Error(err)
		}
		if _, err := s.Query(t.Context(), make([]string, QueryLimit+1)); err == nil {
			t.Error("a query without bound is answered")
		}
	})
}

func TestMemoryOfTheAbsentIsBounded(t *testing.T) {
	run(t, Config{0, Everyone}, func(t *testing.T, s *stand) {
		for i := range lastSeenLimit + 10 {
			user := fmt.Sprint(i)
			s.arrive(user, "", user)
			s.leave(user, "", user)
		}
		for range 5 {
			s.arrive("7", "", "x")
			s.leave("7", "", "x")
			s.leave("7", "", "never there")
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		for user, want := range map[string]bool{"1": false, "7": true, fmt.Sprint(lastSeenLimit + 9): true} {
			if got := !s.status(user).LastSeen.IsZero(); got != want {
				t.Errorf("%s is remembered: %v", user, got)
			}
		}
		s.Service.mu.Lock()
		defer s.Service.mu.Unlock()
		if n := s.lastSeen.order.Len(); n != lastSeenLimit || len(s.lastSeen.byUser) != n {
			t.Errorf("%d last times", n)
		}
		if len(s.all.members) != 0 || len(s.all.online) != 0 || len(s.changed) != 0 || len(s.all.changed) != 0 || len(s.graces) != 0 {
			t.Error("members are kept who are not there")
		}
	})
}
