package embedded

import (
	"bytes"
	"encoding/binary"

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
func ageKey(ms uint64, user string) []byte        { return append(appendMs([]byte{spaceAge}, ms), user...) }
func appendMs(key []byte, ms uint64) []byte       { return binary.BigEndian.AppendUint64(key, ms) }
func appendID(key []byte, id events.ID) []byte    { return appendMs(appendMs(key, id.Ms), id.Seq) }
func dueKey(ms uint64, user, job string) []byte {
	key := append(ageKey(ms, user), 0)
	key[0] = spaceDue
	return append(key, job...)
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

func parseAge(key []byte) (ms uint64, user string) {
	if len(key) < 10 {
		panic(damage("an age"))
	}
	return binary.BigEndian.Uint64(key[1:]), string(key[9:])
}

func parseDue(key []byte) (ms uint64, user, job string) {
	if len(key) < 10 {
		panic(damage("a deadline"))
	}
	name, rest, ok := bytes.Cut(key[9:], []byte{0})
	if !ok {
		panic(damage("a deadline"))
	}
	return binary.BigEndian.Uint64(key[1:]), string(name), string(rest)
}

// past is the first key that does not start with prefix; no prefix here ends in 0xff.
func past(prefix []byte) []byte {
	end := bytes.Clone(prefix)
	end[len(end)-1]++
	return end
}

// next is the first key above key.
func next(key []byte) []byte { return append(bytes.Clone(key), 0) }
