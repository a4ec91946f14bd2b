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
	callRest // nobody waits for it
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

// workers make the handler calls of websocket sessions, on a few goroutines whose stacks are grown already.
//
// The goroutine that reads a connection must keep its first 2 kB of stack for as long as the connection lives, and what a
// handler does (JSON, tokens, stores) needs more. The reader hands a call over and waits for it, so order and backpressure
// are those of a plain call. The Task that a call returns is run by the same worker, when the reader has gone on.
type workers struct {
	mu   sync.Mutex
	idle []*worker // last in, first out: the warmest stack, and the rest can go
	left bool      // there is no session: nobody stays idle
	wg   sync.WaitGroup
}

// maxIdleWorkers is what a burst of connects keeps busy; their stacks are a megabyte at most.
const maxIdleWorkers = 64

type worker struct {
	calls chan call
	done  chan struct{} // without a buffer: when the worker goes on, its reader has let go of it
}

// run makes the call on a worker and returns when it has returned.
func (p *workers) run(k call) {
	w := p.take()
	w.calls <- k
	<-w.done
}

// start runs the task on a worker and returns at once.
func (p *workers) start(c *Conn, rest Task) {
	p.take().calls <- call{conn: c, kind: callRest, rest: rest}
}

// take returns an idle worker, or a new one, for a session that holds the server's own count.
func (p *workers) take() *worker {
	p.mu.Lock()
	p.left = false
	if n := len(p.idle); n > 0 {
		w := p.idle[n-1]
		p.idle[n-1] = nil
		p.idle = p.idle[:n-1]
		p.mu.Unlock()
		return w
	}
	p.mu.Unlock()
	w := &worker{make(chan call, 1), make(chan struct{})}
	p.wg.Add(1)
	go p.work(w)
	return w
}

func (p *workers) work(w *worker) {
	defer p.wg.Done()
	for k := range w.calls {
		rest := k.do()
		if k.kind != callRest {
			w.done <- struct{}{}
		}
		if rest != nil {
			k = call{conn: k.conn, kind: callRest, rest: rest}
			k.do()
		}
		if !p.keep(w) {
			return
		}
	}
}

// keep makes a worker idle, unless there are enough of them.
func (p *workers) keep(w *worker) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.left || len(p.idle) >= maxIdleWorkers {
		return false
	}
	p.idle = append(p.idle, w)
	return true
}

// leave lets the idle workers go, and the others when they are done: there is no session left.
func (p *workers) leave() {
	p.mu.Lock()
	idle := p.idle
	p.idle, p.left = nil, true
	p.mu.Unlock()
	for _, w := range idle {
		close(w.calls)
	}
}

// wait returns when no worker is left. There is no session left either.
func (p *workers) wait() {
	p.leave()
	p.wg.Wait()
}
