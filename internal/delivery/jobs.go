package delivery

import (
	"context"
	"sync"
	"time"
)

// Jobs returns one page of a user's jobs.
func (s *Service) Jobs(ctx context.Context, q JobsQuery) (JobsPage, error) {
	if !s.enter() {
		return JobsPage{}, ErrClosed
	}
	defer s.calls.Done()
	if err := s.beginRead(ctx); err != nil {
		return JobsPage{}, err
	}
	defer s.endRead()
	page, err := s.store.Jobs(ctx, q)
	if err != nil {
		return JobsPage{}, s.failed(ctx, err)
	}
	return page, nil
}

// answerTimeout bounds for how long a question may hold up its user's stream.
const answerTimeout = time.Second

// JobsInOrder answers a live socket's question for its user's jobs at its place in what the socket sees: after everything up
// to the place at which the jobs were read, and before anything that is newer. Nothing older follows: of each job the stream
// holds back its latest progress at most, which the answer may show already. answer is called once, before JobsInOrder
// returns.
//
// The stream waits while the jobs are read, for some milliseconds at most when the store is well. So nothing that is newer
// can be emitted before the answer has its place; and a question never has to be asked again.
func (s *Service) JobsInOrder(ctx context.Context, q JobsQuery, answer func(JobsPage, error)) {
	if !s.enter() {
		answer(JobsPage{}, ErrClosed)
		return
	}
	defer s.calls.Done()
	st := s.streams.of(q.UserID)
	if st == nil {
		answer(JobsPage{}, ErrSinkClosed)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel() // and with it the reading, so that it holds up no Close
	if err := s.beginRead(ctx); err != nil {
		answer(JobsPage{}, unavailable(err))
		return
	}
	endRead := sync.OnceFunc(s.endRead)
	defer endRead()
	var once sync.Once
	answered := make(chan struct{})
	tell := func(page JobsPage, err error) {
		once.Do(func() {
			answer(page, err)
			close(answered)
		})
	}
	s.put(st, task{call: func() (taken bool) {
		if ctx.Err() != nil || !s.enter() {
			return false // it has been told, or is about to be
		}
		go func() {
			defer s.calls.Done()
			held, cancel := context.WithTimeout(ctx, answerTimeout)
			page, err := s.store.Jobs(held, q)
			cancel()
			endRead()
			if err != nil {
				tell(JobsPage{}, unavailable(s.failed(ctx, err)))
			} else {
				st.answers.push(waiting{page.Place, func() { tell(page, nil) }})
				st.reached()
			}
			s.run(st)
		}()
		return true
	}})
	select {
	case <-answered:
	case <-ctx.Done():
		tell(JobsPage{}, unavailable(ctx.Err()))
	case <-s.closing:
		tell(JobsPage{}, ErrClosed)
	}
}
