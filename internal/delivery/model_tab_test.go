package delivery_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"jobwire/internal/delivery"
	"jobwire/internal/events"
)

// page is a page in a tab, with its socket.io-client.
type page struct {
	user   string
	offset string // the client's; "" when it has none
	again  bool   // it was connected before: it may have missed something though it has no offset, and its pid tells
	bars   map[string]bar
}

type bar struct {
	state delivery.JobState
	data  string
}

// conn is one connection of a page. All that is sent to it is checked, in order:
//
//   - ids of messages rise, so that nothing comes twice, and events of a job come by their places;
//   - the replay has every message after the offset, or that no client has confirmed, and the state of unfinished jobs;
//   - of what the room got since the socket was in it, nothing was left out that the replay had not shown;
//   - an answer to a question for jobs is not older than what was shown, and nothing older follows it;
//   - the offset is recovered if it is a message of the user's log, and then no message after it is missing.
type conn struct {
	*sink
	m         *model
	node      *node
	page      *page
	recovered bool
	confirmed events.ID // by any client, as the replay was read

	// Guarded by m.mu.
	last     events.ID
	messages map[events.ID]bool
	shown    map[string]shown // by job

	arrived chan struct{} // there may be something to read
	read    int           // frames that the page has seen
}

type shown struct {
	place    events.ID
	answered bool // by an answer; then progress may come once more
}

// browse is a user with a browser tab.
func (m *model) browse(user string, rnd *rand.Rand) {
	p := &page{user: user, bars: make(map[string]bar)}
	for {
		n := m.node(rnd)
		if n == nil {
			time.Sleep(time.Millisecond)
			continue
		}
		last := m.at(stageSettled)
		if c := m.connect(n, p); c != nil {
			if last {
				m.settled.Done()
			}
			m.use(c, rnd, last)
			m.bye(c)
			if last {
				return
			}
		}
		sleep(time.Duration(rnd.IntN(10)*rnd.IntN(10)) * time.Millisecond)
		switch rnd.IntN(10) {
		case 0, 1: // a reload
			p = &page{user: p.user, bars: make(map[string]bar)}
		case 2: // the page signs in as the other user; its client does not know
			i := slices.Index(modelUsers, p.user)
			p = &page{user: modelUsers[1-i], offset: p.offset, again: p.again, bars: make(map[string]bar)}
		}
	}
}

func (m *model) bye(c *conn) {
	c.leave()
	m.mu.Lock()
	delete(c.node.conns, c)
	m.mu.Unlock()
	c.node.Leave(c.user)
}

// connect opens a connection and runs its replay; nil when that does not work.
func (m *model) connect(n *node, p *page) *conn {
	defer m.stuck("a connect")()
	c := &conn{m: m, node: n, page: p, messages: make(map[events.ID]bool), shown: make(map[string]shown), arrived: make(chan struct{}, 1)}
	c.sink = &sink{hub: n.hub, user: p.user, offset: p.offset, has: p.offset != "" || p.again}
	c.onFrame, c.onSkip = c.checkFrame, c.checkSkipped
	c.onLive = func(upTo events.ID) {
		c.checkReplay(upTo)
		sleep(m.some(m.emitTime))
	}
	m.mu.Lock()
	n.conns[c] = true
	m.mu.Unlock()
	known, offset := m.has(p.user, p.offset)
	if known {
		m.confirm(p.user, offset)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	replay, err := n.Open(ctx, c.sink)
	if err == nil {
		c.confirmed = m.confirmed(p.user)
		c.recovered = replay.Recovered
		if still, _ := m.has(p.user, p.offset); known == still && c.recovered != (known || !c.has) {
			m.Errorf("recovered is %v of offset %q, which %s has: %v", c.recovered, p.offset, p.user, known)
		}
		p.again = true
		if !c.recovered {
			p.bars = make(map[string]bar)
		}
		read := make(chan struct{})
		go func() {
			defer close(read)
			c.readFrames(ctx, true)
		}()
		err = replay.Run(ctx)
		cancel()
		<-read
	}
	if err != nil {
		if m.calm && !errors.Is(err, delivery.ErrReplayOvertaken) {
			m.Errorf("connect: %v", err)
		}
		m.bye(c)
		return nil
	}
	return c
}

// has reports whether the offset is a message in the user's log.
func (m *model) has(user, offset string) (bool, events.ID) {
	id, err := events.ParseID(offset)
	m.ref.mu.Lock()
	defer m.ref.mu.Unlock()
	u := m.ref.user(user)
	return err == nil && m.ref.state(u, u.done).has(id), id
}

func (m *model) confirm(user string, id events.ID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.confirms[user] = append(m.confirms[user], refConfirm{id, time.Now()})
}

func (m *model) confirmed(user string) events.ID {
	m.mu.Lock()
	defer m.mu.Unlock()
	return (&refUser{confirms: m.confirms[user]}).confirmed()
}

// use lets the page run for a while, or until the end: it reads, confirms, asks.
func (m *model) use(c *conn, rnd *rand.Rand, stay bool) {
	while := time.Duration(1+rnd.IntN(20)*rnd.IntN(40)) * time.Millisecond
	if stay {
		while = time.Hour
	}
	ctx, cancel := context.WithTimeout(context.Background(), while)
	defer cancel()
	read := make(chan struct{})
	go func() {
		defer close(read)
		c.readFrames(ctx, false)
	}()
	asks := 3
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-c.node.down:
			cancel()
		case <-time.After(time.Duration(1+rnd.IntN(60)) * time.Millisecond):
			switch {
			case !m.at(stageQuiet):
				c.ask(ctx, 1+rnd.IntN(4), rnd.IntN(3))
			case asks > 0: // an answer must not stand for what is not in it
				asks--
				c.ask(ctx, 1, 0)
			case m.at(stageOver):
				cancel()
				<-read
				c.checkAll()
			}
		}
	}
	<-read
}

// readFrames is the client's end: it sees frames a little later than they were sent, keeps its offset, answers pings.
func (c *conn) readFrames(ctx context.Context, quick bool) {
	for {
		most := c.m.lookTime
		if quick {
			most = min(most, 200*time.Microsecond)
		}
		f, ok := c.unread()
		if !ok {
			select {
			case <-ctx.Done():
				return
			case <-c.arrived:
			}
			continue
		}
		if wait(ctx, c.m.some(most)) != nil {
			return
		}
		c.read++
		c.sink.read(len(f.name) + len(f.data))
		c.see(f)
		if f.receipt {
			delay := c.m.some(5 * c.m.lookTime)
			if c.m.some(10) == 0 {
				delay = c.m.some(300 * time.Millisecond)
			}
			time.AfterFunc(1+delay, func() {
				c.sink.mu.Lock()
				gone := c.gone
				c.sink.mu.Unlock()
				if !gone {
					c.m.confirm(c.user, f.id)
					c.node.Confirmed(c.user, f.id)
				}
			})
		}
	}
}

// unread is the next frame that the client has not seen.
func (c *conn) unread() (f frame, ok bool) {
	c.sink.mu.Lock()
	defer c.sink.mu.Unlock()
	if ok = c.read < len(c.got); ok {
		f = c.got[c.read]
	}
	return f, ok
}

// see is what the page makes of a frame: of a job it shows what came last.
func (c *conn) see(f frame) {
	if f.page != nil {
		for _, j := range f.page.Jobs {
			b := bar{state: j.State, data: string(j.Progress)}
			if j.End != nil {
				b.data = string(j.End.Data)
			}
			c.page.bars[j.JobID] = b
		}
		return
	}
	if f.offset != "" {
		c.page.offset = f.offset
	}
	e := c.m.entry(c.user, f)
	if e == nil || e.JobID == "" {
		return
	}
	b := bar{data: f.data}
	switch {
	case e.stall:
		b = bar{delivery.JobStalled, c.page.bars[e.JobID].data}
	case e.Kind == events.Progress:
		b.state = delivery.JobRunning
	case e.Kind == events.Completed:
		b.state = delivery.JobCompleted
	case e.Kind == events.Failed:
		b.state = delivery.JobFailed
	}
	c.page.bars[e.JobID] = b
}

// entry is the decided event of a frame.
func (m *model) entry(user string, f frame) *refEntry {
	m.ref.mu.Lock()
	defer m.ref.mu.Unlock()
	return m.decided[[2]string{user, f.data}]
}

// ask asks for the jobs, and perhaps for some pages more.
func (c *conn) ask(ctx context.Context, limit, pages int) {
	q := delivery.JobsQuery{UserID: c.user, Limit: limit}
	for more := true; more; pages-- {
		answers := 0
		ended := c.m.stuck("a question")
		c.node.JobsInOrder(ctx, q, func(page delivery.JobsPage, err error) {
			answers++
			if more = err == nil && !page.Next.IsZero() && pages > 0; err == nil {
				c.checkJobs(q, &page)
				c.answer(page)
			}
			q.Before = page.Next
			if err != nil && c.m.calm && ctx.Err() == nil {
				c.m.Errorf("a question is answered with %v", err)
			}
		})
		ended()
		if answers != 1 {
			c.m.Errorf("%d answers", answers)
		}
	}
}

func (c *conn) checkJobs(q delivery.JobsQuery, page *delivery.JobsPage) {
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	for _, j := range page.Jobs {
		if s := c.shown[j.JobID]; s.place.Compare(j.Place) > 0 {
			c.m.Errorf("%s is told that %s is %s as of %s, after it was shown %s", c.user, j.JobID, j.State, j.Place, s.place)
		}
		c.shown[j.JobID] = shown{j.Place, true}
	}
	if q.Before.IsZero() && page.Next.IsZero() {
		for job := range c.shown {
			if !slices.ContainsFunc(page.Jobs, func(j delivery.Job) bool { return j.JobID == job }) {
				c.m.Errorf("%s is not told of %s, which it was shown", c.user, job)
			}
		}
	}
}

func (c *conn) checkFrame(f frame) {
	select {
	case c.arrived <- struct{}{}:
	default:
	}
	if f.page != nil {
		return
	}
	e := c.m.entry(c.user, f)
	if e == nil || e.Name != f.name {
		c.m.Errorf("%s is sent %s %s, which was not published", c.user, f.name, f.data)
		return
	}
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	place := f.place
	if f.receipt {
		if f.id.Compare(c.last) <= 0 {
			c.m.Errorf("%s is sent %s after %s", c.user, f.id, c.last)
		}
		c.last = f.id
		c.messages[f.id] = true
	} else if place.IsZero() { // state, in a replay
		place = e.Place
	}
	if place != e.Place {
		c.m.Errorf("%s is sent %s %s with place %s, it has %s", c.user, f.name, f.data, place, e.Place)
	}
	if e.JobID == "" {
		return
	}
	s := c.shown[e.JobID]
	if order := place.Compare(s.place); order < 0 || order == 0 && !(s.answered && e.Kind == events.Progress) {
		c.m.Errorf("%s is sent %s %s of %s, place %s, after it was shown %+v", c.user, f.name, f.data, e.JobID, place, s)
	}
	if e.stall && !f.receipt && s.place.IsZero() {
		c.m.Errorf("%s is told that %s stalled, without its progress", c.user, e.JobID)
	}
	c.shown[e.JobID] = shown{place: place}
}

func (c *conn) checkSkipped(f frame) {
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	if f.receipt && !c.messages[f.id] && c.m.retained(c.user, f.id) {
		c.m.Errorf("%s was in the room for message %s, and is not sent it", c.user, f.id)
	}
}

// retained reports whether retention has left a message.
func (m *model) retained(user string, id events.ID) bool {
	m.ref.mu.Lock()
	defer m.ref.mu.Unlock()
	u := m.ref.user(user)
	return m.ref.state(u, u.done).dropped.Compare(id) < 0
}

// checkReplay checks what has come of a replay that shows everything up to a place.
func (c *conn) checkReplay(upTo events.ID) {
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	c.m.ref.mu.Lock()
	defer c.m.ref.mu.Unlock()
	u := c.m.ref.user(c.user)
	state := c.m.ref.state(u, u.done)
	offset, _ := events.ParseID(c.offset)
	for _, e := range state.log {
		wanted := e.Place.Compare(c.confirmed) > 0 || c.has && c.recovered && e.Place.Compare(offset) > 0
		if wanted && e.Place.Compare(upTo) <= 0 && !c.messages[e.Place] {
			c.m.Errorf("the replay of %s up to %s lacks %s; its offset is %q, confirmed was %s", c.user, upTo, e.Place, c.offset, c.confirmed)
		}
	}
	for _, call := range u.calls[:u.done] { // who misses nothing has what retention took meanwhile, too
		for _, e := range call.entries {
			if c.has && c.recovered && e.Verdict == delivery.Accepted && e.Kind.Logged() &&
				e.Place.Compare(offset) > 0 && e.Place.Compare(upTo) <= 0 && !c.messages[e.Place] {
				c.m.Errorf("the replay of %s up to %s lacks %s, though its offset %s was recovered", c.user, upTo, e.Place, offset)
			}
		}
	}
	for _, j := range state.jobs {
		if !j.ended() && j.Place.Compare(upTo) <= 0 && c.shown[j.JobID].place != j.Place {
			c.m.Errorf("the replay of %s up to %s shows %s as of %s, its state is of %s", c.user, upTo, j.JobID, c.shown[j.JobID].place, j.Place)
		}
	}
}

// checkAll checks what a page shows at the end, when all is quiet.
func (c *conn) checkAll() {
	m := c.m
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ref.mu.Lock()
	defer m.ref.mu.Unlock()
	u := m.ref.user(c.user)
	state := m.ref.state(u, len(u.calls))
	if n := len(c.got); c.read != n || u.done != len(u.calls) {
		m.Errorf("%s has read %d of %d frames; %d of %d calls are delivered", c.user, c.read, n, u.done, len(u.calls))
	}
	for _, e := range state.log {
		if e.Place.Compare(c.upTo) > 0 && !c.messages[e.Place] {
			m.Errorf("%s was not sent message %s", c.user, e.Place)
		}
	}
	for id, j := range state.jobs {
		want := bar{j.State, string(j.Progress)}
		if j.ended() {
			want.data = string(j.End.Data)
		}
		if got, known := c.page.bars[id]; got != want && (known || !j.ended()) {
			m.Errorf("%s shows %s as %+v, its record says %+v", c.user, id, got, want)
		}
	}
	if up := (&refUser{confirms: m.confirms[c.user]}).confirmed(); m.calm && u.confirmed() != up {
		m.Errorf("clients of %s have confirmed messages up to %s, the store knows of %s", c.user, up, u.confirmed())
	}
	for id := range c.page.bars {
		if state.jobs[id] == nil && m.calm {
			m.Errorf("%s shows %s, of which there is no record", c.user, id)
		}
	}
}

// checkNewcomers connects a new page of each user. conn checks what it is shown.
func (m *model) checkNewcomers() {
	for _, user := range modelUsers {
		n := m.node(m.rnd)
		c := m.connect(n, &page{user: user, bars: make(map[string]bar)})
		if c == nil {
			m.Errorf("a new page of %s cannot connect", user)
			continue
		}
		m.bye(c)
	}
}
