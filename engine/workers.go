package engine

import (
	"log/slog"
	"runtime"
	"runtime/debug"
	"sync"
)

// call is one call of a connection's Handler.
type call struct {
	conn   *Conn
	kind   callKind
	binary bool
	seq    uint32
	data   []byte
}

type callKind uint8

const (
	callNothing callKind = iota
	callMessage
	callPong
	callClosed
)

// do makes the call. What panics in a handler ends its own connection, not the process.
func (k *call) do() {
	defer func() {
		if v := recover(); v != nil {
			k.conn.srv.count.panics.Add(1)
			k.conn.srv.cfg.Logger.Error("engine: handler panicked", slog.Any("panic", v), slog.String("stack", string(debug.Stack())))
			k.conn.Close(ReasonForcedClose)
		}
	}()
	switch h := k.conn.handler; k.kind {
	case callMessage:
		h.Message(k.data, k.binary)
	case callPong:
		h.Pong(k.seq)
	case callClosed:
		h.Closed(k.conn.reason) // written once, before the session's end was told
	}
}

// workers make the handler calls of websocket sessions, on a few goroutines whose stacks are grown already.
//
// The goroutine that reads a connection must keep its first 2 kB of stack for as long as the connection lives, and what a
// handler does (JSON, tokens, stores) needs more. The reader hands a call over and waits for it, so order and backpressure
// are those of a plain call.
type workers struct {
	mu   sync.Mutex
	idle []*worker // last in, first out: the warmest stack, and the rest can go
	wg   sync.WaitGroup
}

type worker struct {
	calls chan call
	done  chan struct{}
}

// run makes the call on a worker and returns when it has returned.
func (p *workers) run(k call) {
	p.mu.Lock()
	var w *worker
	if n := len(p.idle); n > 0 {
		w = p.idle[n-1]
		p.idle[n-1] = nil
		p.idle = p.idle[:n-1]
	}
	p.mu.Unlock()
	if w == nil {
		w = &worker{make(chan call), make(chan struct{}, 1)}
		p.wg.Add(1) // the session still holds the server's own count
		go p.work(w)
	}
	w.calls <- k
	<-w.done

	p.mu.Lock()
	keep := len(p.idle) < 4*runtime.GOMAXPROCS(0)
	if keep {
		p.idle = append(p.idle, w)
	}
	p.mu.Unlock()
	if !keep {
		close(w.calls)
	}
}

func (p *workers) work(w *worker) {
	defer p.wg.Done()
	for k := range w.calls {
		k.do()
		w.done <- struct{}{}
	}
}

// rest lets the idle workers go: there is no session left.
func (p *workers) rest() {
	p.mu.Lock()
	idle := p.idle
	p.idle = nil
	p.mu.Unlock()
	for _, w := range idle {
		close(w.calls)
	}
}

// wait returns when no worker is left. There is no session left either.
func (p *workers) wait() {
	p.rest()
	p.wg.Wait()
}
