package delivery_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"jobwire/internal/delivery"
)

// A socket comes while its user's stream is busy: for what is emitted before its place it is not in the room, and not counted.
func TestAJoinHasAPlaceInABusyStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := begin(t, delivery.Config{})
		first := w.socket("ann")
		w.connect(first)
		w.hub.then(func(user string, f frame) {
			sleep(time.Second)
			w.Confirmed(user, f.id)
		})
		second := w.socket("ann")
		sockets := make([]int, 4)
		var calls sync.WaitGroup
		for i := range sockets {
			calls.Go(func() { sockets[i] = w.publish(note(fmt.Sprint(i))).Sockets })
			synctest.Wait()
			if i == 1 {
				calls.Go(func() { w.connect(second) })
				synctest.Wait()
			}
		}
		calls.Wait()
		if got := names(second.frames()); fmt.Sprint(sockets) != "[1 1 2 2]" || got != "note2 note3" {
			t.Errorf("events were emitted to %v sockets, the second got %s", sockets, got)
		}
		w.bye(first)
		w.bye(second)
		w.end()
		w.idle()
	})
}

// Every Open is uncounted by its Leave, whatever became of it and in whatever order they come.
func TestOpenAndLeave(t *testing.T) {
	fail := errors.New("no")
	for _, c := range []struct {
		name string
		on   func(op string, call int) (wait time.Duration, err error) // of follow and read
		// Sockets open one second after the other; when each leaves, in seconds. At least when its Open has ended.
		leave []int
		errs  int
	}{
		{"one", nil, []int{1}, 0},
		{"two, the first goes first", nil, []int{2, 3}, 0},
		{"two, the second goes first", nil, []int{3, 2}, 0},
		{"one after the other", nil, []int{1, 2}, 0},
		{"the first goes while the second is on its way", func(op string, call int) (time.Duration, error) {
			if op == "follow" && call == 1 {
				return 3 * time.Second, nil
			}
			return 0, nil
		}, []int{2, 5}, 0},
		{"the first goes while the second is on its way, which fails", func(op string, call int) (time.Duration, error) {
			if op == "follow" && call == 1 {
				return 3 * time.Second, fail
			}
			return 0, nil
		}, []int{2, 5}, 1},
		{"two go while two are on their way", func(op string, call int) (time.Duration, error) {
			if op == "follow" && call > 1 {
				return 5 * time.Second, nil
			}
			return 0, nil
		}, []int{4, 4, 8, 9}, 0},
		{"the store does not follow", func(op string, _ int) (time.Duration, error) {
			if op == "follow" {
				return 0, fail
			}
			return 0, nil
		}, []int{1, 2}, 2},
		{"the store does not follow for the first", func(op string, call int) (time.Duration, error) {
			if op == "follow" && call == 0 {
				return 0, fail
			}
			return 0, nil
		}, []int{2, 3}, 1},
		{"the store does not read", func(op string, _ int) (time.Duration, error) {
			if op == "read" {
				return 0, fail
			}
			return 0, nil
		}, []int{1, 3, 3}, 3},
		{"the store hangs", func(op string, call int) (time.Duration, error) {
			if op == "follow" && call == 1 {
				return time.Hour, nil
			}
			return 0, nil
		}, []int{2, 20}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ref := newReference()
				var mu sync.Mutex
				calls := map[string]int{}
				ref.on = func(ctx context.Context, op, _ string) error {
					if c.on == nil {
						return nil
					}
					mu.Lock()
					call := calls[op]
					calls[op]++
					mu.Unlock()
					late, err := c.on(op, call)
					return cmp.Or(wait(ctx, late), err)
				}
				w := beginOn(t, delivery.Config{}, ref)
				var tabs sync.WaitGroup
				errs := make([]error, len(c.leave))
				for i, leave := range c.leave {
					tabs.Go(func() {
						time.Sleep(time.Duration(i) * time.Second)
						end := time.Duration(leave-i)*time.Second + time.Millisecond
						begin := time.Now()
						ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
						defer cancel()
						k := w.socket("ann")
						var r *delivery.Replay
						if r, errs[i] = w.Open(ctx, k); errs[i] == nil {
							if err := r.Run(ctx); err != nil {
								t.Errorf("replay %d: %v", i, err)
							}
							res := w.publish(note(fmt.Sprint(i)))
							if !slices.ContainsFunc(k.frames(), func(f frame) bool { return f.id == res.ID }) || res.Status != delivery.StatusSent {
								t.Errorf("tab %d does not get what it is sent: %+v", i, res)
							}
						}
						sleep(end - time.Since(begin))
						w.bye(k)
					})
				}
				tabs.Wait()
				n := 0
				for _, err := range errs {
					if err != nil {
						n++
					}
				}
				if n != c.errs {
					t.Errorf("errors: %v", errs)
				}
				ref.set(func(r *reference) { r.on = nil })
				w.idle()
				w.end()
			})
		})
	}
}
