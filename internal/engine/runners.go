package engine

import (
	"log/slog"
	"runtime/debug"
	"sync"
)

// call is one call of a connection's Handler, or what such a call has left to do.
type call struct {
	conn   *Conn
	kind   callKind
	binary bool
	seq    uint32
	data   []byte
	rest   Task
}

type callKind uint8

const (
	callNothing callKind = iota
	callMessage
	callPong
	callClosed
	callRest // its caller does not wait
)

// do makes the call, and returns what it leaves to do. What panics in a handler ends its own connection, not the process.
func (k *call) do() (rest Task) {
	defer func() {
		if v := recover(); v != nil {
			k.conn.srv.count.panics.Add(1)
			k.conn.srv.cfg.Logger.Error("engine: handler panicked", slog.Any("panic", v), slog.String("stack", string(debug.Stack())))
			k.conn.Close(ReasonForcedClose)
		}
	}()
	switch h := k.conn.handler; k.kind {
	case callMessage:
		return h.Message(k.data, k.binary)
	case callPong:
		h.Pong(k.seq)
	case callClosed:
		return h.Closed(k.conn.reason) // written once, before the session's end was told
	case callRest:
		k.rest.Run()
	}
	return nil
}

// runners make the handler calls of websocket sessions, on a few goroutines whose stacks are grown already.
//
// The goroutine that reads a connection must keep its first 2 kB of stack for as long as the connection lives, and what a
// handler does (JSON, tokens, stores) needs more. The reader hands a call over and waits for it, so order and backpressure are
// those of a plain call. The Task that a call returns is run by the same runner, when the reader has gone on.
type runners struct {
	mu   sync.Mutex
	idle []*runner // last in, first out: the warmest stack, and the rest can go
	left bool      // there is no session: no runner stays idle
	wg   sync.WaitGroup
}

// maxIdleRunners is what a burst of connects keeps busy; their stacks are a megabyte at most.
const maxIdleRunners = 64

type runner struct {
	calls chan call
	done  chan struct{} // without a buffer: when the runner goes on, its reader has let go of it
}

// run makes the call on a runner and returns when it has returned.
func (p *runners) run(k call) {
	r := p.take()
	r.calls <- k
	<-r.done
}

// start runs the task on a runner and returns at once.
func (p *runners) start(c *Conn, rest Task) {
	p.take().calls <- call{conn: c, kind: callRest, rest: rest}
}

// take returns an idle runner, or a new one, for a session that holds the server's own count.
func (p *runners) take() *runner {
	p.mu.Lock()
	p.left = false
	if n := len(p.idle); n > 0 {
		r := p.idle[n-1]
		p.idle[n-1] = nil
		p.idle = p.idle[:n-1]
		p.mu.Unlock()
		return r
	}
	p.mu.Unlock()
	r := &runner{make(chan call, 1), make(chan struct{})}
	p.wg.Add(1)
	go p.serve(r)
	return r
}

func (p *runners) serve(r *runner) {
	defer p.wg.Done()
	for k := range r.calls {
		rest := k.do()
		if k.kind != callRest {
			r.done <- struct{}{}
		}
		if rest != nil {
			k = call{conn: k.conn, kind: callRest, rest: rest}
			k.do()
		}
		if !p.keep(r) {
			return
		}
	}
}

// keep makes a runner idle, unless there are enough of them.
func (p *runners) keep(r *runner) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.left || len(p.idle) >= maxIdleRunners {
		return false
	}
	p.idle = append(p.idle, r)
	return true
}

// leave lets the idle runners go, and the others when they are done: there is no session left.
func (p *runners) leave() {
	p.mu.Lock()
	idle := p.idle
	p.idle, p.left = nil, true
	p.mu.Unlock()
	for _, r := range idle {
		close(r.calls)
	}
}

// wait returns when no runner is left. There is no session left either.
func (p *runners) wait() {
	p.leave()
	p.wg.Wait()
}
