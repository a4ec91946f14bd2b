package delivery

import (
	"context"
	"slices"
	"sync"

	"jobwire/internal/events"
)

// batchUsers is how many users of a batch are at the store at once.
const batchUsers = 64

// PublishBatch stores and emits events, those of one user in their order, several users at once. Answers come in the order
// of the events. A bad event fails alone, and so do the events of a user that cannot be stored; the error says that none of
// the users' could.
func (s *Service) PublishBatch(ctx context.Context, evs []events.Event) ([]Answer, error) {
	byUser := make(map[string][]int) // where in evs
	var users []string
	for i, ev := range evs {
		if byUser[ev.UserID] == nil {
			users = append(users, ev.UserID)
		}
		byUser[ev.UserID] = append(byUser[ev.UserID], i)
	}
	answers := make([]Answer, len(evs))
	errs := make([]error, len(users))
	slots := make(chan struct{}, batchUsers)
	var calls sync.WaitGroup
	for u, user := range users {
		slots <- struct{}{}
		calls.Go(func() {
			defer func() { <-slots }()
			at := byUser[user]
			entries, own := make([]Entry, len(at)), make([]Answer, len(at))
			for k, i := range at {
				entries[k] = entryOf(evs[i])
			}
			errs[u] = s.publish(ctx, user, entries, own)
			for k, i := range at {
				if answers[i] = own[k]; errs[u] != nil {
					answers[i] = Answer{Err: errs[u]}
				}
			}
		})
	}
	calls.Wait()
	if len(errs) > 0 && !slices.Contains(errs, nil) {
		return nil, errs[0]
	}
	return answers, nil
}
