package sockets

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Spec is one connection to be made.
type Spec struct {
	Token       string
	Tag         int    // the scenario's own number for it; found again in Conn.Tag
	PID, Offset string // of a client that comes back, from Conn.Resume
}

// Pool is a set of connections to one server, served by one thread.
type Pool struct {
	dialect Dialect
	emit    func(*Conn, Event)
	target  unix.SockaddrInet4
	hello   []byte // the first request
	host    string
	epoll   int
	wake    int           // eventfd: work in the mailbox
	done    chan struct{} // closed when the thread has ended

	mu      sync.Mutex
	mailbox []func() // guarded by mu; run on the pool's thread

	dropped  atomic.Int64
	reason   atomic.Pointer[error] // why the first connection was dropped
	owingNow atomic.Int64          // length of owing

	// The rest belongs to the pool's thread.
	conns    map[int32]*Conn // by descriptor; a client that polls may have two
	serial   int             // descriptors dialled so far
	batch    *batch
	out      []byte  // scratch for what one client says
	holding  bool    // pings are not answered until AnswerPings
	owing    []*Conn // with pings to answer, the first one pinged first
	stopping bool
}

// batch is one call of Connect.
type batch struct {
	waiting   []Spec
	inFlight  int
	remaining int
	done      chan error // receives exactly one value
}

// NewPool starts a pool for the server at addr (host:port on loopback). emit
// runs on the pool's thread for every event and must not block.
func NewPool(addr string, dialect Dialect, emit func(*Conn, Event)) (*Pool, error) {
	target, err := resolve(addr)
	if err != nil {
		return nil, err
	}
	p := &Pool{
		dialect: dialect, emit: emit, target: target, host: addr,
		done:  make(chan struct{}),
		conns: make(map[int32]*Conn),
	}
	p.hello = []byte("GET " + dialect.Path() + " HTTP/1.1\r\nHost: " + addr + "\r\n")
	if !dialect.Polls() {
		p.hello = append(p.hello, "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"+
			"Sec-WebSocket-Key: AAECAwQFBgcICQoLDA0ODw==\r\n"...)
	}
	p.hello = append(p.hello, "\r\n"...)
	if p.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	if p.wake, err = unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC); err != nil {
		unix.Close(p.epoll)
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(p.wake)}
	if err := unix.EpollCtl(p.epoll, unix.EPOLL_CTL_ADD, p.wake, &event); err != nil {
		unix.Close(p.wake)
		unix.Close(p.epoll)
		return nil, fmt.Errorf("epoll add: %w", err)
	}
	go p.run()
	return p, nil
}

// Connect makes the connections, at most inFlight at a time, and returns when
// all of them are authenticated. One failure fails the call. Calls must not
// overlap.
func (p *Pool) Connect(ctx context.Context, specs []Spec, inFlight int) error {
	if len(specs) == 0 {
		return nil
	}
	b := &batch{waiting: specs, remaining: len(specs), done: make(chan error, 1)}
	p.post(func() {
		p.batch = b
		p.launch(inFlight)
	})
	select {
	case err := <-b.done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("connecting: %w", ctx.Err())
	}
}

// Disconnect closes every connection and returns when that is done. The pool
// stays usable.
func (p *Pool) Disconnect() {
	done := make(chan struct{})
	p.post(func() {
		p.closeAll()
		close(done)
	})
	<-done
}

// Close closes every connection and ends the pool's thread.
func (p *Pool) Close() {
	p.post(func() { p.stopping = true })
	<-p.done
}

// HoldPongs makes the clients keep Engine.IO pings unanswered from now on. A
// server closes those that it has waited for longer than its ping timeout.
func (p *Pool) HoldPongs() { p.post(func() { p.holding = true }) }

// Owing is how many clients have pings to answer.
func (p *Pool) Owing() int { return int(p.owingNow.Load()) }

// AnswerPings lets the n clients that have waited longest answer theirs.
func (p *Pool) AnswerPings(n int) {
	p.post(func() {
		n := min(n, len(p.owing))
		for _, c := range p.owing[:n] {
			if c.state == closed {
				continue
			}
			if err := c.pay(); err != nil {
				p.drop(c, err)
			}
		}
		p.owing = p.owing[n:]
		p.owingNow.Store(int64(len(p.owing)))
	})
}

// Dropped tells how many connections the server or an error has ended, and
// why the first one was.
func (p *Pool) Dropped() (int, error) {
	n := int(p.dropped.Load())
	if why := p.reason.Load(); why != nil {
		return n, *why
	}
	return n, nil
}

func (p *Pool) post(fn func()) {
	p.mu.Lock()
	p.mailbox = append(p.mailbox, fn)
	p.mu.Unlock()
	// The counter cannot overflow: the thread reads it on every turn.
	_, _ = unix.Write(p.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
}

func (p *Pool) run() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(p.done)
	events := make([]unix.EpollEvent, 512)
	buf := make([]byte, 256<<10)
	for !p.stopping {
		n, err := unix.EpollWait(p.epoll, events, -1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			panic(fmt.Sprintf("epoll wait: %v", err)) // our own descriptor is bad: a defect
		}
		for i := range max(n, 0) {
			if fd := events[i].Fd; fd != int32(p.wake) {
				p.readable(fd, buf)
			}
		}
		p.deliverMail()
	}
	p.closeAll()
	unix.Close(p.wake)
	unix.Close(p.epoll)
}

func (p *Pool) deliverMail() {
	var counter [8]byte
	_, _ = unix.Read(p.wake, counter[:]) // EAGAIN when nothing was posted
	p.mu.Lock()
	mail := p.mailbox
	p.mailbox = nil
	p.mu.Unlock()
	for _, fn := range mail {
		fn()
	}
}

func (p *Pool) readable(fd int32, buf []byte) {
	c := p.conns[fd]
	if c == nil {
		return // closed earlier in this turn
	}
	n, err := unix.Read(int(fd), buf)
	switch {
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
	case c.polling != nil && int(fd) == c.polling.post:
		if err := c.posted(buf[:max(n, 0)], err); err != nil {
			p.drop(c, err)
		}
	case err != nil:
		p.drop(c, fmt.Errorf("read: %w", err))
	case n == 0:
		p.drop(c, errors.New("connection closed without a close frame"))
	default:
		if err := c.received(buf[:n]); err != nil {
			p.drop(c, err)
		}
	}
}

// launch starts waiting connections while fewer than limit are in flight.
func (p *Pool) launch(limit int) {
	b := p.batch
	for b != nil && b.inFlight < limit && len(b.waiting) > 0 {
		spec := b.waiting[0]
		b.waiting = b.waiting[1:]
		if err := p.open(spec); err != nil {
			p.finish(err)
			return
		}
		b.inFlight++
	}
}

// connected counts one connection of the batch as authenticated.
func (p *Pool) connected() {
	b := p.batch
	if b == nil {
		return
	}
	limit := b.inFlight
	b.inFlight--
	b.remaining--
	if b.remaining == 0 {
		p.finish(nil)
		return
	}
	p.launch(limit)
}

func (p *Pool) finish(err error) {
	b := p.batch
	p.batch = nil
	b.done <- err
}

func (p *Pool) drop(c *Conn, why error) {
	p.dropped.Add(1)
	p.reason.CompareAndSwap(nil, &why)
	pending := c.state < live
	p.close(c)
	if pending && p.batch != nil {
		p.finish(why)
	}
}

func (p *Pool) close(c *Conn) {
	c.state = closed
	p.forget(c.fd)
	if c.polling != nil && c.polling.post >= 0 {
		p.forget(c.polling.post)
	}
}

func (p *Pool) forget(fd int) {
	delete(p.conns, int32(fd))
	unix.Close(fd) // also takes it out of the epoll set
}

func (p *Pool) closeAll() {
	for _, c := range p.conns {
		p.close(c)
	}
}
