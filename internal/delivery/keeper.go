package delivery

import (
	"context"
	"errors"
	"sync"
	"time"

	"jobwire/internal/events"
)

// keeper is the clock of what happens without a call: jobs that stall,
// events that grow too old, losses that must be logged. A sweep through many
// users takes long, so the watchdog has a goroutine of its own.
type keeper struct {
	mu   sync.Mutex
	next time.Time // the next deadline of a job; zero when none is known
	wake chan struct{}
	lost map[string]int // unconfirmed durable events dropped, by user, since the last log line
}

func newKeeper() *keeper {
	return &keeper{wake: make(chan struct{}, 1), lost: make(map[string]int)}
}

// arm makes sure that the keeper looks at the jobs at that time.
func (k *keeper) arm(at time.Time) {
	k.mu.Lock()
	earlier := k.next.IsZero() || at.Before(k.next)
	if earlier {
		k.next = at
	}
	k.mu.Unlock()
	if earlier {
		select {
		case k.wake <- struct{}{}:
		default:
		}
	}
}

// stallBatch is how many stalled jobs one call to the store decides about.
const stallBatch = 128

// lostUsers bounds how many users one log line can count.
const lostUsers = 1000

func (s *Service) runSweeps() {
	sweep := time.NewTimer(s.cfg.SweepEvery)
	defer sweep.Stop()
	defer s.logLost()
	for {
		select {
		case <-s.quit:
			return
		case <-sweep.C:
			s.sweep()
			s.logLost()
			sweep.Reset(s.cfg.SweepEvery)
		}
	}
}

func (s *Service) runWatchdog() {
	stall := time.NewTimer(0) // deadlines that passed while nobody watched
	defer stall.Stop()
	for {
		select {
		case <-s.quit:
			return
		case <-stall.C:
			s.stallDue()
			s.resetStall(stall)
		case <-s.keeper.wake:
			s.resetStall(stall)
		}
	}
}

func (s *Service) resetStall(timer *time.Timer) {
	s.keeper.mu.Lock()
	next := s.keeper.next
	s.keeper.mu.Unlock()
	if next.IsZero() {
		timer.Stop()
		return
	}
	timer.Reset(max(next.Sub(s.cfg.Now()), time.Millisecond))
}

// stallDue stores and emits job_stalled for the jobs whose deadline has passed.
func (s *Service) stallDue() {
	ctx, cancel := context.WithTimeout(context.Background(), refreshTimeout)
	defer cancel()
	for {
		s.keeper.mu.Lock()
		s.keeper.next = time.Time{} // deadlines from here on arm it again
		s.keeper.mu.Unlock()
		jobs, next, err := s.store.Due(ctx, stallBatch)
		if err == nil && len(jobs) > 0 {
			entries := make([]Entry, len(jobs))
			for i, j := range jobs {
				entries[i] = Entry{Kind: KindStall, At: j.At, Event: events.Event{UserID: j.UserID, JobID: j.JobID}}
			}
			err = s.publish(ctx, newPublishing(entries), nil)
		}
		if err != nil {
			if !errors.Is(err, ErrClosed) {
				s.cfg.Logger.Warn("stalled jobs could not be looked at, will try again", "error", err)
				s.keeper.arm(s.cfg.Now().Add(time.Second))
			}
			return
		}
		if len(jobs) == 0 {
			if !next.IsZero() {
				s.keeper.arm(next)
			}
			return
		}
	}
}

// sweep goes once through the store, with a breath between its steps.
func (s *Service) sweep() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	breath := time.NewTicker(10 * time.Millisecond)
	defer breath.Stop()
	for {
		swept, err := s.store.Sweep(ctx)
		s.dropped("", swept.Dropped)
		if err != nil {
			s.stats.storeFailures.Add(1)
			s.cfg.Logger.Warn("old events could not be swept, will try again", "error", err)
			return
		}
		if !swept.More {
			return
		}
		select {
		case <-breath.C:
		case <-s.quit:
			return
		}
	}
}

// dropped counts what retention took. Losses are logged by the keeper, since
// a user whom nobody reads could otherwise fill the log line by line.
func (s *Service) dropped(user string, d Dropped) {
	if d.Events == 0 {
		return
	}
	s.stats.dropped.Add(uint64(d.Events))
	if d.Unconfirmed == 0 {
		return
	}
	s.stats.lost.Add(uint64(d.Unconfirmed))
	k := s.keeper
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, known := k.lost[user]; !known && len(k.lost) >= lostUsers {
		user = ""
	}
	k.lost[user] += d.Unconfirmed
}

func (s *Service) logLost() {
	s.keeper.mu.Lock()
	lost := s.keeper.lost
	s.keeper.lost = make(map[string]int)
	s.keeper.mu.Unlock()
	if len(lost) == 0 {
		return
	}
	total, most, worst := 0, 0, ""
	for user, n := range lost {
		total += n
		if user != "" && n > most {
			most, worst = n, user
		}
	}
	s.cfg.Logger.Warn("retention dropped durable events that no client had confirmed",
		"events", total, "users", len(lost), "worst_user", worst, "worst_user_events", most)
}

// refresher asks the store for new ids for overtaken progress. At most one
// request is at the store; what comes in the meantime goes with the next.
type refresher struct {
	mu      sync.Mutex
	queue   []Entry
	running bool
}

func refreshOf(user, job string, at events.ID) Entry {
	return Entry{Kind: KindRefresh, At: at, Event: events.Event{UserID: user, JobID: job}}
}

func (s *Service) requestRefresh(user, job string, at events.ID) {
	if !s.enter() {
		return // closing: the replay will show it
	}
	r := &s.refresh
	r.mu.Lock()
	r.queue = append(r.queue, refreshOf(user, job, at))
	start := !r.running
	r.running = true
	r.mu.Unlock()
	if start {
		go s.runRefresh() // s.calls, which enter has raised, waits for it
	} else {
		s.calls.Done()
	}
}

func (s *Service) runRefresh() {
	defer s.calls.Done()
	r := &s.refresh
	for {
		r.mu.Lock()
		entries := r.queue
		r.queue = nil
		if len(entries) == 0 {
			r.running = false
			r.mu.Unlock()
			return
		}
		r.mu.Unlock()
		ctx, cancel := context.WithTimeout(context.Background(), refreshTimeout)
		s.stats.refreshes.Add(uint64(len(entries)))
		err := s.begin(ctx, newPublishing(entries), nil)
		cancel()
		if err != nil {
			for i := range entries {
				s.lanes.unrefreshed(&entries[i], false)
			}
		}
	}
}
