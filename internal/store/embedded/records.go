package embedded

import (
	"bytes"
	"encoding/binary"

	"jobwire/internal/delivery"
	"jobwire/internal/events"
)

// The space of keys. User ids hold no control characters, so a zero byte ends them, and everything of one user lies
// together.
//
//	a <ms, 8> <user>              a user with something that old
//	d <ms, 8> <user> 0 <job>      a job to look at for a stall
//	g <name>                      of the store as a whole
//	u <user> 0 a                  the user's record
//	u <user> 0 b <job>            a job
//	u <user> 0 i <key>            the answer to an idempotency key
//	u <user> 0 k <n, 8>           idempotency keys by age
//	u <user> 0 l <place, 16>      a message
const (
	spaceAge    = 'a'
	spaceDue    = 'd'
	spaceGlobal = 'g'
	spaceUser   = 'u'

	kindUser     = 'a'
	kindJob      = 'b' // next to kindUser: one scan loads both
	kindKey      = 'i'
	kindKeyByAge = 'k'
	kindMessage  = 'l'
)

// keyCeiling has the ms below which places may have been given out.
var keyCeiling = []byte{spaceGlobal, 'c'}

func userKey(user string, kind byte) []byte {
	key := make([]byte, 0, 1+len(user)+2+16)
	key = append(key, spaceUser)
	key = append(key, user...)
	return append(key, 0, kind)
}

func jobKey(user, job string) []byte              { return append(userKey(user, kindJob), job...) }
func answerKey(user, key string) []byte           { return append(userKey(user, kindKey), key...) }
func messageKey(user string, id events.ID) []byte { return appendID(userKey(user, kindMessage), id) }
func keyByAgeKey(user string, n uint64) []byte    { return appendMs(userKey(user, kindKeyByAge), n) }
func appendMs(key []byte, ms uint64) []byte       { return binary.BigEndian.AppendUint64(key, ms) }
func appendID(key []byte, id events.ID) []byte    { return appendMs(appendMs(key, id.Ms), id.Seq) }
func ageKey(ms uint64, user string) []byte        { return timedKey(spaceAge, ms, user) }
func dueKey(ms uint64, user, job string) []byte {
	return append(timedKey(spaceDue, ms, user), "\x00"+job...)
}

func timedKey(space byte, ms uint64, user string) []byte {
	return append(appendMs([]byte{space}, ms), user...)
}

// timed is an entry of one of the indexes by time.
type timed struct {
	ms        uint64
	user, job string
}

func parseTimed(key []byte) timed {
	if len(key) < 10 {
		panic(damage("an age or a deadline"))
	}
	user, job, ok := bytes.Cut(key[9:], []byte{0})
	if ok != (key[0] == spaceDue) {
		panic(damage("an age or a deadline"))
	}
	return timed{binary.BigEndian.Uint64(key[1:]), string(user), string(job)}
}

// trailingID reads the place at the end of a message's key.
func trailingID(key []byte) events.ID {
	if len(key) < 16 {
		panic(damage("a message's key"))
	}
	b := key[len(key)-16:]
	return events.ID{Ms: binary.BigEndian.Uint64(b), Seq: binary.BigEndian.Uint64(b[8:])}
}

// trailingNumber reads the number at the end of a key of the idempotency keys by age.
func trailingNumber(key []byte) uint64 {
	if len(key) < 8 {
		panic(damage("the key of an idempotency key"))
	}
	return binary.BigEndian.Uint64(key[len(key)-8:])
}

// past is the first key that does not start with prefix; no prefix here ends in 0xff.
func past(prefix []byte) []byte {
	end := bytes.Clone(prefix)
	end[len(end)-1]++
	return end
}

// next is the first key above key.
func next(key []byte) []byte { return append(bytes.Clone(key), 0) }

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

func (u *userRecord) fields(c *codec) {
	c.ids(&u.last, &u.confirmed, &u.logged)
	u.log.fields(c)
	c.nums(&u.keys, &u.firstKey, &u.nextKey, &u.oldestKey, &u.aged)
}

// logRecord is what the store knows of a user's log.
type logRecord struct {
	dropped  events.ID // messages up to there are gone
	messages uint64
	bytes    uint64 // of the messages' names and data
	oldest   uint64 // no message is older
}

func (l *logRecord) fields(c *codec) {
	c.ids(&l.dropped)
	c.nums(&l.messages, &l.bytes, &l.oldest)
}

// message is an event of the log.
type message struct {
	at   uint64    // the place's time may be ahead of it
	log  logRecord // with it, and without what it has made room of
	name string
	data []byte
}

func (m *message) fields(c *codec) {
	c.nums(&m.at)
	m.log.fields(c)
	c.text(&m.name)
	c.rest(&m.data)
}

func (m *message) size() int { return len(m.name) + len(m.data) }

// jobRecord is the state of a job and what led to it.
type jobRecord struct {
	state    byte
	attempt  uint32
	last     events.ID // the place of the latest change
	started  uint64    // ms of the attempt's first event
	updated  uint64    // ms of its latest one
	progress jobEvent  // the attempt's latest; its place is zero when there is none
	end      jobEvent  // likewise
	deadline uint64    // ms; 0 when the job is not watched
	indexed  uint64    // ms of the entry among the deadlines; 0 when there is none
	stalled  events.ID // the job_stalled of a stalled job
	silent   uint64    // ms of the event before it
}

type jobEvent struct {
	place events.ID
	name  string
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

func (j *jobRecord) finished() bool { return !j.end.place.IsZero() }

func (j *jobRecord) dataSize() int {
	return len(j.progress.name) + len(j.progress.data) + len(j.end.name) + len(j.end.data)
}

func (j *jobRecord) fields(c *codec) {
	attempt := uint64(j.attempt)
	c.byte(&j.state)
	c.nums(&attempt)
	c.ids(&j.last)
	c.nums(&j.started, &j.updated)
	c.ids(&j.progress.place)
	c.text(&j.progress.name)
	c.data(&j.progress.data)
	c.ids(&j.end.place)
	c.text(&j.end.name)
	c.nums(&j.deadline, &j.indexed)
	c.ids(&j.stalled)
	c.nums(&j.silent)
	c.rest(&j.end.data)
	j.attempt = uint32(attempt)
	c.bad = c.bad || int(j.state) >= len(jobStates) || attempt != uint64(j.attempt)
}

// answer is what an idempotency key was answered.
type answer struct {
	fingerprint [16]byte
	at          uint64    // ms
	n           uint64    // among the keys by age
	place       events.ID // zero when the event was ignored
	reason      string    // of an ignored event
}

func (a *answer) fields(c *codec) {
	for i := range a.fingerprint {
		c.byte(&a.fingerprint[i])
	}
	c.nums(&a.at, &a.n)
	c.ids(&a.place)
	c.text(&a.reason)
}

// aged is a key among the idempotency keys by age.
type aged struct {
	at  uint64
	key []byte
}

func (a *aged) fields(c *codec) {
	c.nums(&a.at)
	c.rest(&a.key)
}

// number is a record of its own.
type number uint64

func (n *number) fields(c *codec) { c.nums((*uint64)(n)) }

// stored is what has fields to write and to read.
type stored interface{ fields(c *codec) }

// codec appends the fields of a record to b, or takes them from it again, so that a record is described once. After the
// first failure all reading fails.
type codec struct {
	b       []byte
	reading bool
	bad     bool
}

// encode returns a record, valid until the codec is used again.
func (c *codec) encode(r stored) []byte {
	*c = codec{b: append(c.b[:0], recordFormat)}
	r.fields(c)
	return c.b
}

// decode reads a record. Its data stay a part of b.
func (c *codec) decode(b []byte, what string, r stored) {
	*c = codec{b: b, reading: true}
	var format byte
	c.byte(&format)
	c.bad = format != recordFormat
	if r.fields(c); c.bad || len(c.b) > 0 {
		panic(damage(what))
	}
}

func (c *codec) byte(b *byte) {
	switch {
	case !c.reading:
		c.b = append(c.b, *b)
	case len(c.b) == 0:
		c.bad = true
	default:
		*b, c.b = c.b[0], c.b[1:]
	}
}

func (c *codec) nums(all ...*uint64) {
	for _, n := range all {
		if !c.reading {
			c.b = binary.AppendUvarint(c.b, *n)
			continue
		}
		var size int
		if *n, size = binary.Uvarint(c.b); size <= 0 {
			c.bad, c.b = true, nil
			return
		}
		c.b = c.b[size:]
	}
}

func (c *codec) ids(all ...*events.ID) {
	for _, id := range all {
		c.nums(&id.Ms, &id.Seq)
	}
}

func (c *codec) text(s *string) {
	if !c.reading {
		n := uint64(len(*s))
		c.nums(&n)
		c.b = append(c.b, *s...)
		return
	}
	var b []byte
	c.data(&b)
	*s = string(b)
}

func (c *codec) data(b *[]byte) {
	n := uint64(len(*b))
	c.nums(&n)
	switch {
	case !c.reading:
		c.b = append(c.b, *b...)
	case n > uint64(len(c.b)):
		c.bad, c.b = true, nil
	default:
		*b, c.b = c.b[:n:n], c.b[n:]
	}
}

func (c *codec) rest(b *[]byte) {
	if !c.reading {
		c.b = append(c.b, *b...)
		return
	}
	*b, c.b = c.b, nil
}
