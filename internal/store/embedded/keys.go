package embedded

import (
	"bytes"
	"encoding/binary"

	"jobwire/internal/events"
)

// The space of keys. User ids hold no control characters, so a zero byte ends
// them, and everything of one user lies together: a POST touches one or two
// pages of the file, not one page for each kind of record.
//
//	g <name>                              of the store as a whole
//	d <deadline ms, 8> <user> 0 <job>     a job to look at for a stall
//	u <user> 0 a                          the user: last id, cursor, counts
//	u <user> 0 i <idempotency key>        the answer to a key
//	u <user> 0 j <job>                    the state of a job
//	u <user> 0 k <id, 16>                 idempotency keys by age
//	u <user> 0 l <id, 16>                 the log
const (
	spaceGlobal = 'g'
	spaceDue    = 'd'
	spaceUser   = 'u'

	kindUser     = 'a' // the lowest, so that a seek for the user finds it
	kindKey      = 'i'
	kindJob      = 'j'
	kindKeyByAge = 'k'
	kindLog      = 'l'
)

var (
	keyFloor   = []byte("gfloor")   // ids start above this ms: users that were forgotten had ids up to it
	keyCeiling = []byte("gceiling") // ids up to this ms may have been given out before a crash
	keyFormat  = []byte("gformat")  // of the records
	keyProbe   = []byte("gprobe")   // written to see whether the file can be
)

func userKey(user string, kind byte) []byte {
	key := make([]byte, 0, 1+len(user)+2+16) // most are followed by an id
	return appendUserKey(key, user, kind)
}

func appendUserKey(dst []byte, user string, kind byte) []byte {
	dst = append(dst, spaceUser)
	dst = append(dst, user...)
	return append(dst, 0, kind)
}

func metaKey(user string) []byte              { return new(brief).user(user) }
func jobKey(user, job string) []byte          { return new(brief).job(user, job) }
func logKey(user string, id events.ID) []byte { return new(brief).log(user, id) }
func answerKey(user, key string) []byte       { return append(userKey(user, kindKey), key...) }
func ageKey(user string, id events.ID) []byte { return appendID(userKey(user, kindKeyByAge), id) }

// brief makes the keys that every POST needs, all in the same memory: each is
// gone with the next one.
type brief struct{ b []byte }

func (k *brief) user(user string) []byte {
	k.b = appendUserKey(k.b[:0], user, kindUser)
	return k.b
}

func (k *brief) job(user, job string) []byte {
	k.b = append(appendUserKey(k.b[:0], user, kindJob), job...)
	return k.b
}

func (k *brief) log(user string, id events.ID) []byte {
	k.b = appendID(appendUserKey(k.b[:0], user, kindLog), id)
	return k.b
}

func appendID(key []byte, id events.ID) []byte {
	key = binary.BigEndian.AppendUint64(key, id.Ms)
	return binary.BigEndian.AppendUint64(key, id.Seq)
}

// idOf reads the id at the end of a key of the log or of the keys by age.
func idOf(key []byte) events.ID {
	if len(key) < 16 {
		panic(corrupt("a key of the log"))
	}
	b := key[len(key)-16:]
	return events.ID{Ms: binary.BigEndian.Uint64(b), Seq: binary.BigEndian.Uint64(b[8:])}
}

func dueKey(ms uint64, user, job string) []byte {
	key := make([]byte, 0, 1+8+len(user)+1+len(job))
	key = append(key, spaceDue)
	key = binary.BigEndian.AppendUint64(key, ms)
	key = append(key, user...)
	key = append(key, 0)
	return append(key, job...)
}

func parseDue(key []byte) (ms uint64, user, job string) {
	if len(key) < 10 {
		panic(corrupt("a deadline"))
	}
	name, rest, ok := bytes.Cut(key[9:], []byte{0})
	if !ok {
		panic(corrupt("a deadline"))
	}
	return binary.BigEndian.Uint64(key[1:]), string(name), string(rest)
}

// userOf reads the user from any of its keys.
func userOf(key []byte) string {
	user, _, ok := bytes.Cut(key[1:], []byte{0})
	if !ok {
		panic(corrupt("a user's key"))
	}
	return string(user)
}

// after is the first key that does not start with prefix, for prefixes that
// do not end in 0xff.
func after(prefix []byte) []byte {
	end := bytes.Clone(prefix)
	end[len(end)-1]++
	return end
}

// next is the first key above key.
func next(key []byte) []byte { return append(bytes.Clone(key), 0) }
