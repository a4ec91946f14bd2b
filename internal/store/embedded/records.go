package embedded

import (
	"encoding/binary"
	"fmt"

	"jobwire/internal/delivery"
	"jobwire/internal/events"
)

// corruption says that a record is not what this package writes. Rules panic
// with it, since it can come up at every read; guard turns it into an error.
type corruption string

func corrupt(what string) corruption { return corruption(what) }

func (c corruption) Error() string { return "the store is damaged: cannot read " + string(c) }

// recordFormat starts every record, so that later formats can be told apart.
const recordFormat = 1

// userRecord is what a store knows about a user.
type userRecord struct {
	last      events.ID // the highest id ever given out
	confirmed events.ID // the cursor
	trimmed   events.ID // the highest id that retention removed
	events    uint64    // in the log
	bytes     uint64    // of the log's records
	oldest    uint64    // ms; no event of the log is older
	keys      uint64    // idempotency keys
	oldestKey uint64    // ms; no key is older
}

// logRecord is an event.
type logRecord struct {
	durable bool
	at      uint64 // ms, by the clock; the id's time may be ahead of it
	name    string
	job     string
	data    []byte
}

// jobRecord is the state of a job. It is kept as long as its last event is.
type jobRecord struct {
	state    byte
	attempt  uint32
	last     events.ID // of the latest event of the job
	progress events.ID // of the latest progress; zero when it is not retained
	updated  uint64    // ms
	deadline uint64    // ms; 0 when nobody watches
	indexed  uint64    // ms of the entry among the deadlines; 0 when there is none
}

const (
	jobRunning byte = iota
	jobCompleted
	jobFailed
	jobStalled
)

var jobStates = [...]delivery.JobState{
	delivery.JobRunning, delivery.JobCompleted, delivery.JobFailed, delivery.JobStalled,
}

func (j *jobRecord) finished() bool { return j.state == jobCompleted || j.state == jobFailed }

// keyRecord is the answer to an idempotency key.
type keyRecord struct {
	fingerprint [16]byte
	at          uint64 // ms
	durable     bool   // the answer is worth a commit
	id          events.ID
	place       events.ID // among the keys by age, when id is zero
	settled     bool
	status      byte
	sockets     uint64
	reason      string
}

var statuses = [...]delivery.Status{
	delivery.StatusStored, delivery.StatusSent, delivery.StatusCoalesced, delivery.StatusIgnored,
}

func statusByte(s delivery.Status) byte {
	for i, known := range statuses {
		if s == known {
			return byte(i)
		}
	}
	return 0
}

// order is the key's place among the keys by age.
func (k keyRecord) order() events.ID {
	if k.id.IsZero() {
		return k.place
	}
	return k.id
}

func (k *keyRecord) outcome() *delivery.Outcome {
	if !k.settled {
		return nil
	}
	return &delivery.Outcome{ID: k.id, Status: statuses[k.status], Reason: k.reason, Sockets: int(k.sockets)}
}

// writer appends the parts of a record.
type writer struct{ b []byte }

func (w *writer) num(n uint64)   { w.b = binary.AppendUvarint(w.b, n) }
func (w *writer) id(i events.ID) { w.num(i.Ms); w.num(i.Seq) }
func (w *writer) text(s string)  { w.num(uint64(len(s))); w.b = append(w.b, s...) }
func (w *writer) flag(f bool) {
	if f {
		w.b = append(w.b, 1)
	} else {
		w.b = append(w.b, 0)
	}
}

// reader takes them again. After the first failure all of it fails.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.bad = true
		return 0
	}
	b := r.b[0]
	r.b = r.b[1:]
	return b
}

func (r *reader) num() uint64 {
	n, size := binary.Uvarint(r.b)
	if size <= 0 {
		r.bad = true
		r.b = nil
		return 0
	}
	r.b = r.b[size:]
	return n
}

func (r *reader) id() events.ID { return events.ID{Ms: r.num(), Seq: r.num()} }

func (r *reader) text() string {
	n := r.num()
	if n > uint64(len(r.b)) {
		r.bad = true
		r.b = nil
		return ""
	}
	s := string(r.b[:n])
	r.b = r.b[n:]
	return s
}

func (r *reader) flag() bool {
	f := r.byte()
	if f > 1 {
		r.bad = true
	}
	return f == 1
}

func (r *reader) start() { r.bad = r.byte() != recordFormat }

// end fails when something is left over.
func (r *reader) end(what string) error {
	if r.bad || len(r.b) > 0 {
		return corrupt(what)
	}
	return nil
}

func (u *userRecord) encode() []byte {
	w := writer{append(make([]byte, 0, 64), recordFormat)}
	w.id(u.last)
	w.id(u.confirmed)
	w.id(u.trimmed)
	w.num(u.events)
	w.num(u.bytes)
	w.num(u.oldest)
	w.num(u.keys)
	w.num(u.oldestKey)
	return w.b
}

func decodeUser(b []byte) (u userRecord, err error) {
	r := reader{b: b}
	r.start()
	u = userRecord{
		last: r.id(), confirmed: r.id(), trimmed: r.id(),
		events: r.num(), bytes: r.num(), oldest: r.num(), keys: r.num(), oldestKey: r.num(),
	}
	return u, r.end("a user")
}

func (l *logRecord) encode() []byte {
	w := writer{append(make([]byte, 0, 16+len(l.name)+len(l.job)+len(l.data)), recordFormat)}
	w.flag(l.durable)
	w.num(l.at)
	w.text(l.name)
	w.text(l.job)
	w.b = append(w.b, l.data...)
	return w.b
}

// decodeLog leaves data a part of b.
func decodeLog(b []byte) (l logRecord, err error) {
	r := reader{b: b}
	r.start()
	l = logRecord{durable: r.flag(), at: r.num(), name: r.text(), job: r.text()}
	l.data, r.b = r.b, nil
	return l, r.end("an event")
}

func (j *jobRecord) encode() []byte {
	w := writer{append(make([]byte, 0, 64), recordFormat, j.state)}
	w.num(uint64(j.attempt))
	w.id(j.last)
	w.id(j.progress)
	w.num(j.updated)
	w.num(j.deadline)
	w.num(j.indexed)
	return w.b
}

func decodeJob(b []byte) (j jobRecord, err error) {
	r := reader{b: b}
	r.start()
	j.state = r.byte()
	attempt := r.num()
	j.attempt = uint32(attempt)
	j.last, j.progress = r.id(), r.id()
	j.updated, j.deadline, j.indexed = r.num(), r.num(), r.num()
	if int(j.state) >= len(jobStates) || attempt != uint64(j.attempt) {
		r.bad = true
	}
	return j, r.end("a job")
}

func (k *keyRecord) encode() []byte {
	w := writer{append(make([]byte, 0, 64), recordFormat)}
	w.b = append(w.b, k.fingerprint[:]...)
	w.num(k.at)
	w.flag(k.durable)
	w.id(k.id)
	w.id(k.place)
	w.flag(k.settled)
	w.b = append(w.b, k.status)
	w.num(k.sockets)
	w.text(k.reason)
	return w.b
}

func decodeKey(b []byte) (k keyRecord, err error) {
	r := reader{b: b}
	r.start()
	if len(r.b) < len(k.fingerprint) {
		return k, corrupt("an idempotency key")
	}
	copy(k.fingerprint[:], r.b)
	r.b = r.b[len(k.fingerprint):]
	k.at, k.durable, k.id, k.place = r.num(), r.flag(), r.id(), r.id()
	k.settled, k.status = r.flag(), r.byte()
	k.sockets, k.reason = r.num(), r.text()
	if int(k.status) >= len(statuses) {
		r.bad = true
	}
	return k, r.end("an idempotency key")
}

func encodeMs(ms uint64) []byte { return binary.BigEndian.AppendUint64(nil, ms) }

func decodeMs(b []byte) (uint64, error) {
	if len(b) != 8 {
		return 0, corrupt("a time")
	}
	return binary.BigEndian.Uint64(b), nil
}

// must panics with a decoding error, for guard.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// guard turns what the rules and bbolt panic with on damaged data into an
// error. bbolt has no checksums on its pages and panics with anything.
func guard(err *error) {
	switch p := recover().(type) {
	case nil:
	case corruption:
		*err = p
	default:
		*err = fmt.Errorf("%w: %v", corrupt("a page"), p)
	}
}
