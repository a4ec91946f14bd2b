package delivery

import (
	"context"
	"sync"

	"jobwire/internal/events"
)

// batchUsers is how many users of a batch are at the store at once.
const batchUsers = 64

// PublishBatch stores and emits events, those of one user in their order, several users at once. Answers come in the order
// of the events. A bad event fails alone, and so do the events of a user that cannot be stored; the error says that none of
// the users' could.
func (s *Service) PublishBatch(ctx context.Context, evs []events.Event) ([]Answer, error) {
	type share struct {
		entries []Entry
		at      []int // where the answers belong
		answers []Answer
		err     error
	}
	shares := make(map[string]*share)
	var order []*share
	for i, ev := range evs {
		sh := shares[ev.UserID]
		if sh == nil {
			sh = new(share)
			shares[ev.UserID] = sh
			order = append(order, sh)
		}
		sh.entries = append(sh.entries, entryOf(ev))
		sh.at = append(sh.at, i)
	}
	slots := make(chan struct{}, batchUsers)
	var calls sync.WaitGroup
	for _, sh := range order {
		slots <- struct{}{}
		calls.Go(func() {
			defer func() { <-slots }()
			sh.answers = make([]Answer, len(sh.entries))
			sh.err = s.publish(ctx, sh.entries[0].UserID, sh.entries, sh.answers)
		})
	}
	calls.Wait()
	answers := make([]Answer, len(evs))
	failed := 0
	for _, sh := range order {
		if sh.err != nil {
			failed++
		}
		for k, at := range sh.at {
			if answers[at] = sh.answers[k]; sh.err != nil {
				answers[at] = Answer{Err: sh.err}
			}
		}
	}
	if failed > 0 && failed == len(order) {
		return nil, order[0].err
	}
	return answers, nil
}
