package timers

import (
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// bell tells when its time has come.
type bell struct {
	timer Timer
	rang  []time.Time
	again func() // called when it rings
}

func (b *bell) Timer() *Timer { return &b.timer }
func (b *bell) Expired() {
	b.rang = append(b.rang, time.Now())
	if b.again != nil {
		b.again()
	}
}

func newList() *List[*bell] { return New[*bell](func() int64 { return time.Now().UnixNano() }) }

func TestEachExpiresAtItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newList()
		start := time.Now()
		bells := make([]*bell, 100)
		at := func(i int) time.Time { return start.Add(time.Duration((i*37)%100+1) * time.Minute) }
		for i := range bells {
			bells[i] = new(bell)
			l.Set(bells[i], start.Add(time.Duration(i)*time.Hour).UnixNano()) // which is moved
		}
		for i, b := range bells {
			l.Set(b, at(i).UnixNano())
		}
		l.Cancel(bells[0])
		l.Cancel(bells[0]) // twice is nothing
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		for i, b := range bells {
			if i == 0 && len(b.rang) > 0 || i > 0 && (len(b.rang) != 1 || !b.rang[0].Equal(at(i))) {
				t.Errorf("%d: %v, want %v", i, b.rang, at(i))
			}
		}
		if n := l.Len(); n != 0 {
			t.Errorf("%d wait", n)
		}
	}) // which fails when the goroutine stays
}

func TestAnEarlierTimeWakesTheGoroutine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, start := newList(), time.Now()
		one, two := new(bell), new(bell)
		l.Set(one, start.Add(50*time.Second).UnixNano())
		synctest.Wait()
		l.Set(two, start.Add(time.Second).UnixNano())
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if len(two.rang) != 1 || len(one.rang) != 0 {
			t.Errorf("%v, %v", one.rang, two.rang)
		}
		l.Cancel(one)
	})
}

func TestWhatExpiresMayWaitAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, b := newList(), new(bell)
		b.again = func() {
			if len(b.rang) < 5 {
				l.Set(b, time.Now().Add(time.Hour).UnixNano())
			}
		}
		l.Set(b, time.Now().UnixNano())
		time.Sleep(10 * time.Hour)
		synctest.Wait()
		if len(b.rang) != 5 || b.rang[4].Sub(b.rang[0]) != 4*time.Hour {
			t.Errorf("%v", b.rang)
		}
	})
}

// The last moment there is does not come, and does not keep the goroutine busy.
func TestTheLastMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, far, soon := newList(), new(bell), new(bell)
		l.Set(far, math.MaxInt64)
		l.Set(soon, time.Now().Add(time.Second).UnixNano())
		time.Sleep(2 * time.Second)
		synctest.Wait() // would not end if far were due again and again
		if len(soon.rang) != 1 || len(far.rang) != 0 {
			t.Errorf("%v, %v", soon.rang, far.rang)
		}
		l.Stop()
	})
}

// A clock that jumps ahead is seen within a minute.
func TestTheClockMayJump(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var jump time.Duration
		l := New[*bell](func() int64 {
			mu.Lock()
			defer mu.Unlock()
			return time.Now().Add(jump).UnixNano()
		})
		b := new(bell)
		l.Set(b, time.Now().Add(time.Hour).UnixNano())
		synctest.Wait()
		mu.Lock()
		jump = 2 * time.Hour
		mu.Unlock()
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(b.rang) != 1 {
			t.Error("the hour is slept through")
		}
	})
}

func TestStopEndsTheGoroutine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, b := newList(), new(bell)
		l.Set(b, time.Now().Add(time.Hour).UnixNano())
		l.Stop()
		l.Set(b, time.Now().UnixNano()) // late, and without effect
		l.Stop()
		time.Sleep(time.Minute)
		if len(b.rang) != 0 {
			t.Error("expired after Stop")
		}
	})
}

// Everybody at once: who is set last rings, who is cancelled does not, and nothing stays.
func TestTimersUnderChurn(t *testing.T) {
	l := newList()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			mine := make([]*bell, 50)
			for i := range mine {
				mine[i] = new(bell)
			}
			for range 2000 {
				b := mine[rand.IntN(len(mine))]
				if rand.IntN(3) == 0 {
					l.Cancel(b)
				} else {
					l.Set(b, time.Now().Add(time.Duration(rand.IntN(int(time.Millisecond)))).UnixNano())
				}
			}
			for _, b := range mine {
				l.Cancel(b)
			}
		})
	}
	wg.Wait()
	if n := l.Len(); n != 0 {
		t.Errorf("%d wait", n)
	}
	l.Stop()
}
