package delivery_test

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"jobwire/internal/delivery"
	"jobwire/internal/events"
)

// handle is one process that uses the reference. It implements Store.
type handle struct {
	*reference
	feeds    []*refFeed
	follows  map[string]int
	shown    map[string]events.ID // in a cluster, by followed user: up to where the feeds were told
	queue    []func() []refRun    // news that is on its way
	wake     chan struct{}
	dead     bool
	stopped  chan struct{}
	network  sync.WaitGroup
	unfollow int // times that Unfollow had nothing to end
}

type refFeed struct {
	delivery.Feed
	calls sync.WaitGroup // of Run
}

type refRun struct {
	feed *refFeed
	user string
}

var _ delivery.Store = (*handle)(nil)

var errDead = errors.New("the process is dead")

// open begins a process. kill, close or a crash of the reference ends it.
func (r *reference) open() *handle {
	h := &handle{
		reference: r,
		follows:   make(map[string]int),
		shown:     make(map[string]events.ID),
		wake:      make(chan struct{}, 1),
		stopped:   make(chan struct{}),
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.handles = append(r.handles, h)
	if r.lag != nil {
		h.network.Go(h.receive)
	}
	return h
}

// kill ends the process at once: all its calls fail, its feeds hear no more.
func (h *handle) kill() {
	h.mu.Lock()
	h.end()
	h.mu.Unlock()
	h.network.Wait()
}

func (h *handle) end() {
	if !h.dead {
		h.dead, h.feeds = true, nil
		close(h.stopped)
		h.handles = slices.DeleteFunc(h.handles, func(other *handle) bool { return other == h })
	}
}

// begin begins a call. It returns with the lock held unless it fails.
func (h *handle) begin(ctx context.Context, op, user string) error {
	h.mu.Lock()
	on := h.on
	h.mu.Unlock()
	if on != nil {
		if err := on(ctx, op, user); err != nil {
			return err
		}
	}
	h.mu.Lock()
	err := ctx.Err()
	if h.dead {
		err = errDead
	}
	if err != nil {
		h.mu.Unlock()
	}
	return err
}

// send takes news to a handle.
func (h *handle) send(news func() []refRun) {
	h.queue = append(h.queue, news)
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// receive is a handle's end of the cluster's network.
func (h *handle) receive() {
	for {
		h.mu.Lock()
		var news func() []refRun
		if len(h.queue) > 0 && !h.dead {
			news, h.queue = h.queue[0], h.queue[1:]
		}
		h.mu.Unlock()
		if news == nil {
			select {
			case <-h.stopped:
				return
			case <-h.wake:
			}
			continue
		}
		sleep(h.lag())
		h.mu.Lock()
		runs := news()
		h.mu.Unlock()
		run(runs)
	}
}

func run(runs []refRun) {
	for _, r := range runs {
		r.feed.Run(r.user)
		r.feed.calls.Done()
	}
}

// tell hands a delivery to the feeds of a handle.
func (h *handle) tell(d *delivery.Delivery) (runs []refRun) {
	if h.follows[d.UserID] == 0 {
		return nil
	}
	if d.Emission != nil {
		d.Emission.Expect(len(h.feeds))
	}
	for _, f := range h.feeds {
		if f.Deliver(d) {
			f.calls.Add(1)
			runs = append(runs, refRun{f, d.UserID})
		}
	}
	return runs
}

// deliver delivers, in order, the calls of a user that wait for nothing any more.
func (h *handle) deliver(userID string, u *refUser) (runs []refRun) {
	prev := h.state(u, u.done).last
	for u.done < len(u.calls) && u.calls[u.done].safe {
		c := u.calls[u.done]
		u.done++
		c.safeAt = time.Now()
		for _, e := range c.entries {
			if e.Verdict != delivery.Accepted {
				continue
			}
			d := delivery.Delivery{UserID: userID, Place: e.Place, Prev: prev, Name: e.Name, Data: e.Data, Kind: e.Kind, JobID: e.JobID}
			prev = e.Place
			if h.lag == nil {
				e.emission = new(delivery.Emission)
				d.Emission = e.emission
				for _, other := range h.handles {
					runs = append(runs, other.tell(&d)...)
				}
				continue
			}
			for _, other := range h.handles {
				if other.follows[userID] == 0 {
					continue
				}
				other.send(func() []refRun {
					if shown, follows := other.shown[userID]; !follows || d.Place.Compare(shown) <= 0 {
						return nil // from before it was followed
					}
					other.shown[userID] = d.Place
					return other.tell(&d)
				})
			}
		}
		close(c.ended)
	}
	return runs
}

func (h *handle) Subscribe(feed delivery.Feed) (cancel func()) {
	f := &refFeed{Feed: feed}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.feeds = append(h.feeds, f)
	return func() {
		h.mu.Lock()
		h.feeds = slices.DeleteFunc(h.feeds, func(other *refFeed) bool { return other == f })
		h.mu.Unlock()
		f.calls.Wait()
	}
}

func (h *handle) Follow(ctx context.Context, userID string) (events.ID, error) {
	if err := h.begin(ctx, "follow", userID); err != nil {
		return events.ID{}, err
	}
	defer h.mu.Unlock()
	u := h.user(userID)
	place := h.state(u, u.done).last
	if h.lag != nil {
		if h.follows[userID] == 0 {
			h.shown[userID] = place
		}
		place = h.shown[userID]
	}
	h.follows[userID]++
	return place, nil
}

func (h *handle) Unfollow(userID string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.follows[userID] == 0 {
		h.unfollow++
		return
	}
	if h.follows[userID]--; h.follows[userID] == 0 {
		delete(h.follows, userID)
		delete(h.shown, userID)
	}
}

func (h *handle) Publish(ctx context.Context, userID string, entries []delivery.Entry) ([]delivery.Decision, error) {
	if err := h.begin(ctx, "publish", userID); err != nil {
		return nil, err
	}
	own := make([]*refEntry, len(entries))
	for i, e := range entries {
		own[i] = &refEntry{Entry: e}
	}
	return h.finish(userID, h.add(h.user(userID), own))
}

// finish makes a call safe, lets it be delivered, and waits for the feeds. It unlocks.
func (h *handle) finish(userID string, c *refCall) ([]delivery.Decision, error) {
	u, sync := h.user(userID), h.sync
	h.mu.Unlock()
	if c.durable && sync != nil {
		sleep(sync())
	}
	h.mu.Lock()
	var runs []refRun
	if !c.failed {
		for _, before := range u.calls { // the log is sequential
			before.safe = before.safe || c.durable
			if before == c {
				break
			}
		}
		runs = h.deliver(userID, u)
	}
	h.mu.Unlock()
	run(runs)
	<-c.ended

	decisions := make([]delivery.Decision, len(c.entries))
	for i, e := range c.entries {
		decisions[i] = e.Decision
		d := &decisions[i]
		if e.emission != nil {
			d.Sockets, d.Held = e.emission.Wait()
		} else if e.Place != (events.ID{}) {
			d.Sockets = h.sockets(userID)
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.dead || c.failed {
		return nil, errDead
	}
	return decisions, nil
}

// sockets counts a user's sockets.
func (h *handle) sockets(userID string) (n int) {
	h.mu.Lock()
	var feeds []*refFeed
	for _, other := range h.handles {
		feeds = append(feeds, other.feeds...)
	}
	h.mu.Unlock()
	for _, f := range feeds {
		n += f.Sockets(userID)
	}
	return n
}

func (h *handle) Confirm(ctx context.Context, cursors []delivery.Cursor) error {
	if err := h.begin(ctx, "confirm", ""); err != nil {
		return err
	}
	defer h.mu.Unlock()
	for _, c := range cursors {
		u := h.user(c.UserID)
		if c.Confirmed.Compare(u.confirmed()) <= 0 {
			continue
		}
		u.confirms = append(u.confirms, refConfirm{c.Confirmed, time.Now()})
		for _, other := range h.handles {
			news := func() []refRun {
				for _, f := range other.feeds {
					f.Confirmed(c)
				}
				return nil
			}
			if h.lag == nil {
				news()
			} else {
				other.send(news)
			}
		}
	}
	return nil
}

func (h *handle) Cursor(ctx context.Context, userID string) (confirmed, dropped events.ID, err error) {
	if err := h.begin(ctx, "cursor", userID); err != nil {
		return events.ID{}, events.ID{}, err
	}
	defer h.mu.Unlock()
	u := h.user(userID)
	return u.confirmed(), h.state(u, u.done).dropped, nil
}

func (h *handle) Read(ctx context.Context, q delivery.Query) (delivery.Page, error) {
	if err := h.begin(ctx, "read", q.UserID); err != nil {
		return delivery.Page{}, err
	}
	defer h.mu.Unlock()
	u := h.user(q.UserID)
	s := h.state(u, u.done)
	page := delivery.Page{Recovered: true}
	if q.Next == nil {
		from := u.confirmed()
		if q.Confirmed.Compare(from) > 0 {
			from = q.Confirmed
		}
		if q.HasOffset {
			if page.Recovered = s.has(q.Offset); page.Recovered {
				from = q.Offset
			}
		}
		if q.Since.Compare(from) < 0 {
			from = q.Since
		}
		q.Next = &delivery.QueryState{From: from, Until: s.last}
	}
	page.Place = q.Next.Until
	if q.HasOffset && s.dropped.Compare(q.Offset) > 0 && s.dropped.Compare(q.Next.After) > 0 {
		page.Recovered = false
	}
	state := func(e *refEntry) {
		page.Records = append(page.Records, delivery.Record{Place: e.Place, Name: e.Name, Data: e.Data})
	}
	for _, e := range s.log {
		if e.Place.Compare(q.Next.From) > 0 {
			page.Records = append(page.Records, delivery.Record{Place: e.Place, Name: e.Name, Data: e.Data, Message: true})
		}
	}
	for _, j := range s.jobs {
		if j.ended() {
			continue
		}
		state(j.progress)
		if e := j.stalled; e != nil && (e.Place.Compare(q.Next.From) <= 0 || !s.has(e.Place)) {
			state(e)
		}
	}
	page.Records = slices.DeleteFunc(page.Records, func(rec delivery.Record) bool {
		return rec.Place.Compare(q.Next.After) <= 0 || rec.Place.Compare(q.Next.Until) > 0
	})
	slices.SortFunc(page.Records, func(a, b delivery.Record) int { return a.Place.Compare(b.Place) })
	bytes := 0
	for i, rec := range page.Records {
		if bytes += len(rec.Data); i > 0 && (i == q.Limit || bytes > q.Bytes) {
			next := *q.Next
			next.After = page.Records[i-1].Place
			page.Records, page.Next = page.Records[:i], &next
			break
		}
	}
	return page, nil
}

// has reports whether the log has a message.
func (s *refState) has(id events.ID) bool {
	return slices.ContainsFunc(s.log, func(e *refEntry) bool { return e.Place == id })
}

func (h *handle) Jobs(ctx context.Context, q delivery.JobsQuery) (delivery.JobsPage, error) {
	if err := h.begin(ctx, "jobs", q.UserID); err != nil {
		return delivery.JobsPage{}, err
	}
	defer h.mu.Unlock()
	u := h.user(q.UserID)
	s := h.state(u, u.done)
	page := delivery.JobsPage{Place: s.last}
	for _, j := range s.jobs {
		if q.Before.IsZero() || j.Place.Compare(q.Before) < 0 {
			page.Jobs = append(page.Jobs, j.Job)
		}
	}
	slices.SortFunc(page.Jobs, func(a, b delivery.Job) int { return b.Place.Compare(a.Place) })
	bytes := 0
	for i, j := range page.Jobs {
		if bytes += len(j.Progress); j.End != nil {
			bytes += len(j.End.Data)
		}
		if i > 0 && (i == q.Limit || bytes > delivery.MaxJobsBytes) {
			page.Jobs, page.Next = page.Jobs[:i], page.Jobs[i-1].Place
			break
		}
	}
	return page, nil
}

func (h *handle) Disconnect(ctx context.Context, userID, reason string) (sockets int, err error) {
	if err := h.begin(ctx, "disconnect", userID); err != nil {
		return 0, err
	}
	var feeds []*refFeed
	for _, other := range h.handles {
		feeds = append(feeds, other.feeds...)
	}
	h.mu.Unlock()
	for _, f := range feeds {
		sockets += f.Disconnect(userID, reason)
	}
	return sockets, nil
}

func (h *handle) Stall(ctx context.Context, limit int) (stalled int, err error) {
	if err := h.begin(ctx, "stall", ""); err != nil {
		return 0, err
	}
	type due struct {
		user string
		job  *refJob
	}
	var jobs []due
	for user, u := range h.users {
		for _, j := range h.state(u, len(u.calls)).jobs {
			if !j.due.IsZero() && !j.due.After(time.Now()) {
				jobs = append(jobs, due{user, j})
			}
		}
	}
	slices.SortFunc(jobs, func(a, b due) int { return cmp.Or(a.job.due.Compare(b.job.due), a.job.Place.Compare(b.job.Place)) })
	for _, d := range jobs[:min(len(jobs), limit)] {
		ev := events.Event{UserID: d.user, Name: events.JobStalled, JobID: d.job.JobID, Data: delivery.StalledData(d.job.JobID, d.job.UpdatedAt)}
		u := h.user(d.user)
		if now := h.state(u, len(u.calls)).jobs[d.job.JobID]; now == nil || now.Place != d.job.Place {
			h.mu.Unlock()
		} else if _, err = h.finish(d.user, h.add(u, []*refEntry{{Entry: delivery.Entry{Event: ev}, stall: true}})); err == nil {
			stalled++
		} else {
			return stalled, err
		}
		h.mu.Lock()
	}
	h.mu.Unlock()
	return stalled, nil
}

func (h *handle) Sweep(ctx context.Context) (delivery.Swept, error) {
	if err := h.begin(ctx, "sweep", ""); err != nil {
		return delivery.Swept{}, err
	}
	defer h.mu.Unlock()
	swept := delivery.Swept{Dropped: make(map[string]delivery.Dropped)}
	for user, u := range h.users {
		if d := u.drop(h.state(u, u.done)); d.Messages > 0 {
			swept.Dropped[user] = d
		}
	}
	return swept, nil
}
