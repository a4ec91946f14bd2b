package delivery

import "fmt"

// Idle says what of any user is in memory; "" when nothing is.
func (s *Service) Idle() (left string) {
	s.streams.mu.Lock()
	for user, st := range s.streams.byUser {
		left += fmt.Sprintf("stream of %s with %d sockets; ", user, st.sockets)
	}
	s.streams.mu.Unlock()
	s.throttles.mu.Lock()
	if !s.throttles.queue.empty() {
		left += "intervals; "
	}
	s.throttles.mu.Unlock()
	s.receipts.mu.Lock()
	if n := len(s.receipts.cursors) + len(s.receipts.watchers); n > 0 {
		left += fmt.Sprintf("%d receipts and watchers; ", n)
	}
	s.receipts.mu.Unlock()
	return left
}
