package realtime

import (
	"bytes"
	"log/slog"
	"runtime/debug"
	"time"

	"jobwire/internal/engine"
)

// ingress is a Session as the engine sees it: the engine's reader calls it, one call at a time.
//
// The calls only put into the inbox what arrived. It is handled by the session's task, which the engine runs while there is
// something to handle: so the reader goes on, a slow handler delays its own client only, and everything that happens to a
// session (CONNECT, events, its end) happens one after the other, in order.
type ingress Session

// task is a Session as its engine.Task.
type task Session

var (
	_ engine.Handler = (*ingress)(nil)
	_ engine.Task    = (*task)(nil)
)

// arrival is one message of the client, or the end of the connection, on its way to the task.
type arrival struct {
	data   []byte
	binary bool
	early  bool // it came before the CONNECT reply was on its way
	gone   bool // nothing follows: the connection has closed
}

// inbox is what waits for the task. It is guarded by the session's mu and empty in an idle session.
type inbox struct {
	queue   []arrival
	bytes   int
	running bool          // the task runs and will look again before it ends
	room    chan struct{} // closed when something was taken; nil when the reader is not waiting
}

// Message takes one message. It blocks while maxPending messages wait, which holds the client back.
func (in *ingress) Message(data []byte, binary bool) engine.Task {
	s := (*Session)(in)
	if s.flooded {
		return nil
	}
	if !s.spend(time.Now()) {
		s.flooded = true
		s.conn.Close(ReasonEventRate)
		return nil
	}
	s.hub.count.packets.Add(1)
	return s.arrive(arrival{data: bytes.Clone(data), binary: binary})
}

// Pong confirms the receipt that the ping asked for.
func (in *ingress) Pong(seq uint32) { (*Session)(in).receiptAnswered(seq) }

// Closed takes the session out of its rooms at once; what the client had sent before is still handled, and then its end.
func (in *ingress) Closed(reason string) engine.Task {
	s := (*Session)(in)
	s.hub.count.closed.add(reason)
	s.mu.Lock()
	s.closed, s.reason = true, reason
	s.vacate()
	s.hub.deadlines.Cancel((*deadline)(s))
	s.held.Store(nil)
	if s.cancel != nil {
		s.cancel()
	}
	if s.ready != nil {
		s.ready <- nil
	}
	s.mu.Unlock()
	return s.arrive(arrival{gone: true})
}

// spend takes one token for a message from the bucket, which holds EventBurst and gets EventRate a second. All it has to
// remember is the moment at which the bucket is full again.
func (s *Session) spend(now time.Time) bool {
	t, burst := now.UnixNano(), s.hub.tokenCost*int64(s.hub.config.EventBurst)
	if s.spent-t > burst { // the clock was set back: no bucket is emptier than empty
		s.spent = t
	}
	full := max(s.spent, t) + s.hub.tokenCost
	if full-t > burst {
		return false
	}
	s.spent = full
	return true
}

// arrive puts a message into the inbox, and returns the task unless it runs.
func (s *Session) arrive(a arrival) engine.Task {
	s.mu.Lock()
	box := &s.inbox
	for !a.gone && len(box.queue) > 0 && (len(box.queue) >= maxPending || box.bytes+len(a.data) > maxPendingBytes) {
		if box.room == nil {
			box.room = make(chan struct{})
		}
		room := box.room
		s.mu.Unlock()
		<-room
		s.mu.Lock()
	}
	a.early = !s.answered.Load()
	box.queue = append(box.queue, a)
	box.bytes += len(a.data)
	runs := box.running
	box.running = true
	s.mu.Unlock()
	if runs {
		return nil
	}
	return (*task)(s)
}

// Run handles what is in the inbox, and ends when it is empty.
func (t *task) Run() {
	s := (*Session)(t)
	for {
		s.mu.Lock()
		box := &s.inbox
		if len(box.queue) == 0 {
			*box = inbox{}
			s.mu.Unlock()
			return
		}
		a := box.queue[0]
		box.queue[0] = arrival{}
		box.queue = box.queue[1:]
		box.bytes -= len(a.data)
		if box.room != nil {
			close(box.room)
			box.room = nil
		}
		s.mu.Unlock()
		s.handle(a)
	}
}

// handle lets one arrival happen. Whatever panics in it ends this connection, not the process.
func (s *Session) handle(a arrival) {
	defer func() {
		if p := recover(); p != nil {
			s.hub.count.panics.Add(1)
			s.hub.log.Error("panic while serving a socket", slog.Any("panic", p), slog.String("stack", string(debug.Stack())))
			s.breakOff(ReasonInternal)
		}
	}()
	switch {
	case a.gone:
		s.depart()
	case s.broken:
	case a.binary && s.currentState() == stateWaiting:
		s.conn.Send(unsupportedFrame)
		s.breakOff(ReasonUnsupportedParser)
	case a.binary:
		p, err := s.decoder.binary(a.data)
		s.take(p, err, a.early)
	default:
		p, err := s.decoder.text(a.data)
		s.take(p, err, a.early)
	}
}

// unsupportedFrame is a CONNECT_ERROR in the only language that a client with socket.io-msgpack-parser understands: {type: 4,
// nsp: "/", data: {message: "unsupported parser"}}. After a bare close it would come back for ever, and never say why.
var unsupportedFrame = engine.BinaryFrame([]byte("\x83\xa4type\x04\xa3nsp\xa1/\xa4data\x81\xa7message\xb2" +
	ReasonUnsupportedParser))

// take decides what becomes of a decoded packet. One that is missing attachments has to be allowed by now, so that nothing of a
// client without a session is kept for later.
func (s *Session) take(p packet, err error, early bool) {
	if err != nil {
		s.hub.log.Debug("malformed packet", slog.String("problem", err.Error()), slog.String("remote", s.conn.RemoteAddr()))
		s.breakOff(engine.ReasonParseError)
		return
	}
	if p.kind == packetConnect {
		s.connect(p)
		return
	}
	if p.namespace != mainNamespace || early || s.currentState() != stateLive {
		s.breakOff(ReasonProtocol)
		return
	}
	if p.missing > 0 {
		return
	}
	switch p.kind {
	case packetEvent, packetBinaryEvent:
		s.dispatch(p)
	case packetAck, packetBinaryAck: // nobody has asked for it
	case packetDisconnect:
		s.leaveNamespace()
	}
}

// breakOff closes the connection for what the client did, and drops what else it has sent.
func (s *Session) breakOff(reason string) {
	s.broken = true
	s.decoder = decoder{}
	s.conn.Close(reason)
}

func (s *Session) currentState() state {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}
