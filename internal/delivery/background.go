package delivery

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"jobwire/internal/events"
)

const (
	storeTimeout = 10 * time.Second // bounds the calls to the store that no caller waits for
	stallBatch   = 128              // stalled jobs that one call to the store takes
	sweepPause   = 10 * time.Millisecond
)

// repeat makes a call at a fixed pace; what says what for. Of failures in a row it logs the first.
func (s *Service) repeat(ctx context.Context, pace time.Duration, what string, call func(context.Context) error) {
	for failing := false; pause(ctx, pace); {
		err := call(ctx)
		if err != nil && !failing && ctx.Err() == nil {
			s.cfg.Logger.Warn("the store failed in the background, will try again", "what", what, "error", err)
		}
		failing = err != nil
	}
}

// runReceipts hands raised cursors to the store. Close does that for the last ones.
func (s *Service) runReceipts(ctx context.Context) {
	s.repeat(ctx, s.cfg.WriteBehind, "to store receipts", func(ctx context.Context) error {
		return s.inBackground(ctx, s.flushReceipts)
	})
}

// runWatchdog asks the store to stall the jobs whose deadline has passed, those first whose deadline passed while no process
// watched.
func (s *Service) runWatchdog(ctx context.Context) {
	s.repeat(ctx, s.cfg.StallEvery, "to look for stalled jobs", func(ctx context.Context) (err error) {
		for stalled := stallBatch; stalled == stallBatch && err == nil; {
			err = s.inBackground(ctx, func(ctx context.Context) (err error) {
				stalled, err = s.store.Stall(ctx, stallBatch)
				return err
			})
			s.stats.Stalled.Add(uint64(stalled))
		}
		return err
	})
}

// runSweeper asks the store to remove what is too old, with a breath between its steps, and logs what was lost.
func (s *Service) runSweeper(ctx context.Context) {
	defer s.losses.log(s.cfg.Logger)
	for pause(ctx, s.cfg.SweepEvery) {
		for more := true; more; more = more && pause(ctx, sweepPause) {
			err := s.inBackground(ctx, func(ctx context.Context) error {
				swept, err := s.store.Sweep(ctx)
				for user, d := range swept.Dropped {
					s.dropped(user, d)
				}
				more = swept.More && err == nil
				return err
			})
			if err != nil && ctx.Err() == nil {
				s.cfg.Logger.Warn("the store failed in the background, will try again", "what", "to sweep old events", "error", err)
			}
		}
		s.losses.log(s.cfg.Logger)
	}
}

// inBackground makes one call to the store for which no caller waits. It ends with ctx, the loop's, so that a store that hangs
// does not hold up Close.
func (s *Service) inBackground(ctx context.Context, call func(context.Context) error) error {
	bounded, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	err := call(bounded)
	if err != nil && ctx.Err() == nil {
		s.stats.StoreFailures.Add(1)
	}
	return err
}

// pause waits; false when ctx ends meanwhile.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
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
	s.stats.Dropped.Add(uint64(d.Messages))
	s.stats.Lost.Add(uint64(d.Unconfirmed))
	s.stats.JobsDropped.Add(uint64(d.Jobs))
	s.receipts.tell(userID, events.ID{}, d.UpTo)
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
