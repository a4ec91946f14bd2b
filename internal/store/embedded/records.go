package embedded

import (
	"encoding/binary"

	"jobwire/internal/delivery"
	"jobwire/internal/events"
)

// damage says that a record is not what this package writes. Checksums find what a disk does to a file, so this is what
// they cannot find. Readers panic with it, since it can come up at every read; protect turns it into an error.
type damage string

func (d damage) Error() string { return "the data is damaged: cannot read " + string(d) }

// recordFormat starts every record, so that later formats can be told apart.
const recordFormat = 3

// userRecord is what the store knows of a user beside its jobs. Times are ms of the clock. It is not written with every
// message: the latest message says what it changed, see load.
type userRecord struct {
	last      events.ID // the highest place ever taken; zero for a user that is not known
	confirmed events.ID // the cursor; never above last
	logged    events.ID // the latest message
	log       logRecord
	keys      uint64 // idempotency keys
	firstKey  uint64 // none of them has a lower number
	nextKey   uint64 // the number of the latest one
	oldestKey uint64 // no key is older
	aged      uint64 // the time of the user's entry among the ages; 0 when there is none
}

// logRecord is what the store knows of a user's log.
type logRecord struct {
	dropped  events.ID // messages up to there are gone
	messages uint64
	bytes    uint64 // of the messages' names and data
	oldest   uint64 // no message is older
}

func (w *writer) log(l *logRecord) {
	w.id(l.dropped)
	w.num(l.messages)
	w.num(l.bytes)
	w.num(l.oldest)
}

func (r *reader) log() logRecord {
	return logRecord{dropped: r.id(), messages: r.num(), bytes: r.num(), oldest: r.num()}
}

func (u *userRecord) encode() []byte {
	w := writer{append(make([]byte, 0, 80), recordFormat)}
	w.id(u.last)
	w.id(u.confirmed)
	w.id(u.logged)
	w.log(&u.log)
	for _, n := range []uint64{u.keys, u.firstKey, u.nextKey, u.oldestKey, u.aged} {
		w.num(n)
	}
	return w.b
}

func decodeUser(b []byte) userRecord {
	r := newReader(b)
	u := userRecord{
		last: r.id(), confirmed: r.id(), logged: r.id(), log: r.log(),
		keys: r.num(), firstKey: r.num(), nextKey: r.num(), oldestKey: r.num(), aged: r.num(),
	}
	r.end("a user")
	return u
}

// message is an event of the log.
type message struct {
	at   uint64    // the place's time may be ahead of it
	log  logRecord // with it, and without what it has made room of
	name string
	data []byte
}

func (m *message) encode() []byte {
	w := writer{append(make([]byte, 0, 64+len(m.name)+len(m.data)), recordFormat)}
	w.num(m.at)
	w.log(&m.log)
	w.text(m.name)
	return append(w.b, m.data...)
}

// decodeMessage leaves data a part of b.
func decodeMessage(b []byte) message {
	r := newReader(b)
	m := message{at: r.num(), log: r.log(), name: r.text()}
	m.data, r.b = r.b, nil
	r.end("a message")
	return m
}

func (m *message) size() int { return len(m.name) + len(m.data) }

// jobRecord is the state of a job and what led to it.
type jobRecord struct {
	state    byte
	attempt  uint32
	last     events.ID // the place of the latest change
	started  uint64    // ms of the attempt's first event
	updated  uint64    // ms of its latest one
	progress progress
	end      end
	deadline uint64    // ms; 0 when the job is not watched
	indexed  uint64    // ms of the entry among the deadlines; 0 when there is none
	stalled  events.ID // the job_stalled of a stalled job
	silent   uint64    // ms of the event before it
}

// progress is the attempt's latest; its place is zero when there is none.
type progress struct {
	place events.ID
	event string
	data  []byte
}

// end is the attempt's latest; its id is zero when there is none.
type end struct {
	id    events.ID
	event string
	data  []byte
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

func (j *jobRecord) finished() bool { return !j.end.id.IsZero() }

func (j *jobRecord) dataSize() int {
	return len(j.progress.event) + len(j.progress.data) + len(j.end.event) + len(j.end.data)
}

func (j *jobRecord) encode() []byte {
	w := writer{append(make([]byte, 0, 96+j.dataSize()), recordFormat, j.state)}
	w.num(uint64(j.attempt))
	w.id(j.last)
	w.num(j.started)
	w.num(j.updated)
	w.id(j.progress.place)
	w.text(j.progress.event)
	w.num(uint64(len(j.progress.data)))
	w.b = append(w.b, j.progress.data...)
	w.id(j.end.id)
	w.text(j.end.event)
	w.num(j.deadline)
	w.num(j.indexed)
	w.id(j.stalled)
	w.num(j.silent)
	return append(w.b, j.end.data...)
}

// decodeJob copies out of b.
func decodeJob(b []byte) jobRecord {
	r := newReader(b)
	j := jobRecord{state: r.byte()}
	attempt := r.num()
	j.attempt, j.last, j.started, j.updated = uint32(attempt), r.id(), r.num(), r.num()
	j.progress = progress{r.id(), r.text(), []byte(r.text())}
	j.end = end{id: r.id(), event: r.text()}
	j.deadline, j.indexed, j.stalled, j.silent = r.num(), r.num(), r.id(), r.num()
	j.end.data, r.b = append([]byte(nil), r.b...), nil
	r.bad = r.bad || int(j.state) >= len(jobStates) || attempt != uint64(j.attempt)
	r.end("a job")
	return j
}

// answer is what an idempotency key was answered.
type answer struct {
	fingerprint [16]byte
	at          uint64    // ms
	n           uint64    // among the keys by age
	place       events.ID // zero when the event was ignored
	reason      string    // of an ignored event
}

func (a *answer) encode() []byte {
	w := writer{append(make([]byte, 0, 64), recordFormat)}
	w.b = append(w.b, a.fingerprint[:]...)
	w.num(a.at)
	w.num(a.n)
	w.id(a.place)
	w.text(a.reason)
	return w.b
}

func decodeAnswer(b []byte) answer {
	r := newReader(b)
	var a answer
	if len(r.b) < len(a.fingerprint) {
		panic(damage("an idempotency key"))
	}
	r.b = r.b[copy(a.fingerprint[:], r.b):]
	a.at, a.n, a.place, a.reason = r.num(), r.num(), r.id(), r.text()
	r.end("an idempotency key")
	return a
}

// encodeAged is the value of a key among the idempotency keys by age.
func encodeAged(at uint64, key string) []byte {
	w := writer{append(make([]byte, 0, 16+len(key)), recordFormat)}
	w.num(at)
	return append(w.b, key...)
}

func decodeAged(b []byte) (at uint64, key string) {
	r := newReader(b)
	at = r.num()
	key, r.b = string(r.b), nil
	r.end("an idempotency key's age")
	return at, key
}

func encodeNumber(n uint64) []byte {
	w := writer{[]byte{recordFormat}}
	w.num(n)
	return w.b
}

func decodeNumber(b []byte) uint64 {
	r := newReader(b)
	n := r.num()
	r.end("a number")
	return n
}

// writer appends the parts of a record.
type writer struct{ b []byte }

func (w *writer) num(n uint64)   { w.b = binary.AppendUvarint(w.b, n) }
func (w *writer) id(i events.ID) { w.num(i.Ms); w.num(i.Seq) }
func (w *writer) text(s string)  { w.num(uint64(len(s))); w.b = append(w.b, s...) }

// reader takes them again. After the first failure all of it fails.
type reader struct {
	b   []byte
	bad bool
}

func newReader(b []byte) *reader {
	r := &reader{b: b}
	r.bad = r.byte() != recordFormat
	return r
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
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[size:]
	return n
}

func (r *reader) id() events.ID { return events.ID{Ms: r.num(), Seq: r.num()} }

func (r *reader) text() string {
	n := r.num()
	if n > uint64(len(r.b)) {
		r.bad, r.b = true, nil
		return ""
	}
	s := string(r.b[:n])
	r.b = r.b[n:]
	return s
}

// end panics when something is wrong or left over.
func (r *reader) end(what string) {
	if r.bad || len(r.b) > 0 {
		panic(damage(what))
	}
}
