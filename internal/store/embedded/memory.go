package embedded

import (
	"context"
	"sync"
	"time"

	"jobwire/internal/delivery"
)

// Memory is a store that forgets everything with the process. It needs no
// Close.
type Memory struct {
	limits delivery.Limits
	now    func() time.Time

	mu     sync.RWMutex // guards all below
	view   view
	floor  uint64
	swept  []byte // where the next step of the sweep begins; nil at the start
	writer rules  // of the calls that change something
}

var _ delivery.Store = (*Memory)(nil)

// NewMemory makes an empty store. A nil clock is time.Now.
func NewMemory(limits delivery.Limits, now func() time.Time) *Memory {
	if now == nil {
		now = time.Now
	}
	// What clients remember of an earlier process is below the floor.
	return &Memory{limits: limits.WithDefaults(), now: now, view: view{top: newTable()}, floor: millis(now())}
}

func (m *Memory) rules() *rules {
	return &rules{space: &m.view, limits: m.limits, now: millis(m.now()), floor: m.floor}
}

// writing is rules that use the memory of the last call again. Called with mu
// held for writing.
func (m *Memory) writing() *rules {
	r := &m.writer
	*r = rules{space: &m.view, limits: m.limits, now: millis(m.now()), floor: m.floor, key: r.key}
	return r
}

// millis is the time of the ids. Before 1970 there is none.
func millis(t time.Time) uint64 { return uint64(max(t.UnixMilli(), 1)) }

// Publish implements delivery.Store.
func (m *Memory) Publish(ctx context.Context, entries []delivery.Entry) ([]delivery.Decision, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.writing()
	decisions := make([]delivery.Decision, len(entries))
	for i := range entries {
		decisions[i] = r.decide(&entries[i])
	}
	return decisions, nil
}

// Settle implements delivery.Store.
func (m *Memory) Settle(_ context.Context, settlements []delivery.Settlement) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.writing()
	for i := range settlements {
		r.settle(&settlements[i])
	}
	return nil
}

// Read implements delivery.Store.
func (m *Memory) Read(_ context.Context, q delivery.Query) (delivery.Page, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.rules().page(q), nil
}

// Jobs implements delivery.Store.
func (m *Memory) Jobs(_ context.Context, userID string) ([]delivery.Job, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.rules().jobs(userID), nil
}

// Due implements delivery.Store.
func (m *Memory) Due(_ context.Context, limit int) ([]delivery.DueJob, time.Time, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	jobs, first := m.rules().due(limit)
	return jobs, dueTime(first), nil
}

func dueTime(ms uint64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(int64(ms))
}

// Sweep implements delivery.Store.
func (m *Memory) Sweep(context.Context) (delivery.Swept, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.writing()
	users, at := r.findStale(m.swept)
	m.swept = at
	var swept delivery.Swept
	for i, calls := 0, 0; i < len(users); calls++ {
		if calls == sweepCalls {
			m.swept = metaKey(users[i]) // on from here
			break
		}
		if !r.sweep(users[i], &swept.Dropped) {
			i++
		}
	}
	m.floor = r.floor
	swept.More = m.swept != nil
	return swept, nil
}
