package delivery

// Idle reports whether nothing of any user is held in memory.
func (s *Service) Idle() bool {
	for i := range s.lanes.shards {
		sh := &s.lanes.shards[i]
		sh.mu.Lock()
		n := len(sh.lanes)
		sh.mu.Unlock()
		if n > 0 {
			return false
		}
	}
	s.receipts.mu.Lock()
	defer s.receipts.mu.Unlock()
	s.paces.mu.Lock()
	defer s.paces.mu.Unlock()
	return len(s.receipts.cursors)+len(s.receipts.outcomes)+len(s.receipts.waiters)+len(s.paces.queue) == 0
}
