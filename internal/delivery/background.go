package delivery

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// storeTimeout bounds the calls to the store that no caller waits for.
const storeTimeout = 10 * time.Second

// stallBatch is how many stalled jobs one call to the store takes.
const stallBatch = 128

// runWatchdog asks the store at a fixed pace to stall the jobs whose deadline has passed, those first whose deadline passed
// while no process watched.
func (s *Service) runWatchdog() {
	failing := false
	s.every(s.cfg.StallEvery, func(ctx context.Context) error {
		stalled := stallBatch
		var err error
		for stalled == stallBatch && err == nil {
			stalled, err = s.store.Stall(ctx, stallBatch)
			s.stats.stalled.Add(uint64(stalled))
		}
		if err != nil && !failing {
			s.cfg.Logger.Warn("stalled jobs could not be looked for, will try again", "error", err)
		}
		failing = err != nil
		return err
	})
}

// runSweeper asks the store at a fixed pace to remove what is too old, with a breath between its steps, and logs what was lost.
func (s *Service) runSweeper() {
	defer s.losses.log(s.cfg.Logger)
	s.every(s.cfg.SweepEvery, func(ctx context.Context) error {
		defer s.losses.log(s.cfg.Logger)
		for {
			swept, err := s.store.Sweep(ctx)
			for user, d := range swept.Dropped {
				s.dropped(user, d)
			}
			if err != nil {
				s.cfg.Logger.Warn("old events could not be swept, will try again", "error", err)
				return err
			}
			if !swept.More || !s.pause(sweepPause) {
				return nil
			}
		}
	})
}

const sweepPause = 10 * time.Millisecond

// every calls step at a fixed pace until the service closes.
func (s *Service) every(pace time.Duration, step func(context.Context) error) {
	for s.pause(pace) {
		ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
		if step(ctx) != nil {
			s.stats.storeFailures.Add(1)
		}
		cancel()
	}
}

// pause waits; false when the service closes meanwhile.
func (s *Service) pause(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-s.quit:
		return false
	}
}

// losses are the unconfirmed messages and unfinished jobs that retention has removed since the last log line. One line tells
// them all: a user whom no client reads could otherwise fill the log.
type losses struct {
	mu     sync.Mutex
	byUser map[string]int // at most lossUsers; the users beyond are counted in other
	other  int
	events int
}

const lossUsers = 1000

// dropped counts what retention took of a user.
func (s *Service) dropped(userID string, d Dropped) {
	if d.Messages == 0 && d.Jobs == 0 {
		return
	}
	s.stats.dropped.Add(uint64(d.Messages))
	s.stats.lost.Add(uint64(d.Unconfirmed))
	s.stats.jobs.Add(uint64(d.Jobs))
	if d.Messages > 0 {
		s.receipts.drop(userID, d.UpTo)
	}
	lost := d.Unconfirmed + d.Running
	if lost == 0 {
		return
	}
	l := &s.losses
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events += lost
	if _, known := l.byUser[userID]; !known && len(l.byUser) >= lossUsers {
		l.other++
		return
	}
	if l.byUser == nil {
		l.byUser = make(map[string]int)
	}
	l.byUser[userID] += lost
}

// log writes the line, if there is something to tell.
func (l *losses) log(log *slog.Logger) {
	l.mu.Lock()
	byUser, other, total := l.byUser, l.other, l.events
	l.byUser, l.other, l.events = nil, 0, 0
	l.mu.Unlock()
	if total == 0 {
		return
	}
	worst, most := "", 0
	for user, n := range byUser {
		if n > most || n == most && user < worst {
			worst, most = user, n
		}
	}
	log.Warn("retention dropped what no client had confirmed, or jobs that had not ended",
		"lost", total, "users", len(byUser)+other, "worst_user", worst, "worst_user_lost", most)
}
