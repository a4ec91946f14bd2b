package delivery

import (
	"context"
	"sync"
)

// JobsInOrder answers a live socket's question for its user's jobs at its place in what the socket sees: after everything up
// to the place at which the jobs were read, and before anything about a job that is newer. Nothing older follows: of each job
// the stream holds back its latest progress at most, which the answer may show already. answer is called once, before
// JobsInOrder returns.
func (s *Service) JobsInOrder(ctx context.Context, q JobsQuery, answer func(JobsPage, error)) {
	if !s.enter() {
		answer(JobsPage{}, ErrClosed)
		return
	}
	defer s.calls.Done()
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	for {
		page, err := s.Jobs(ctx, q)
		if err != nil {
			answer(JobsPage{}, unavailable(err))
			return
		}
		st := s.streams.of(q.UserID)
		if st == nil {
			answer(JobsPage{}, ErrSinkClosed)
			return
		}
		var once sync.Once
		answered := make(chan bool, 1)
		s.at(st, page.Place, func() {
			once.Do(func() {
				// When newer was shown while the answer was on its way, it is read again. Emissions of a user's jobs are
				// throttled, so that a moment without one comes soon.
				fresh := st.shown.Compare(page.Place) <= 0
				if fresh {
					answer(page, nil)
				}
				answered <- fresh
			})
		})
		giveUp := func(err error) (done bool) {
			once.Do(func() {
				answer(JobsPage{}, err)
				answered <- true
			})
			return <-answered
		}
		var done bool
		select {
		case done = <-answered:
		case <-ctx.Done():
			done = giveUp(unavailable(ctx.Err()))
		case <-s.closing:
			done = giveUp(ErrClosed)
		}
		if done {
			return
		}
	}
}
