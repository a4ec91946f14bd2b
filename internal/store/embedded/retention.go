package embedded

import (
	"bytes"

	"jobwire/internal/delivery"
	"jobwire/internal/events"
)

// trimStep is how many events or keys one call removes for one user beyond
// what its own entry brought, so that a POST stays short after a lowered
// limit. The sweep does the rest.
const trimStep = 64

func (r *rules) cutoff(age int64) uint64 {
	if int64(r.now) <= age {
		return 0
	}
	return r.now - uint64(age)
}

// trim removes the oldest events of a user while there are too many, too
// large or too old ones, at most limit. The latest event always stays.
func (r *rules) trim(u *user, d *delivery.Dropped, limit int) (removed int) {
	cutoff := r.cutoff(r.limits.Retention.Milliseconds())
	over := func() bool {
		return u.events > uint64(r.limits.Events) || u.bytes > uint64(r.limits.Bytes)
	}
	if !over() && u.oldest >= cutoff {
		return 0
	}
	type victim struct {
		id events.ID
		logRecord
	}
	var victims []victim
	prefix := userKey(u.name, kindLog)
	count, size := u.events, u.bytes
	// A variable of its own: what a closure holds lives on the heap, and u is in the way of every event.
	oldest := r.now // when the log turns out to be empty
	r.space.scan(prefix, after(prefix), func(key, value []byte) bool {
		rec := must(decodeLog(value))
		oldest = rec.at
		tooMany := count > uint64(r.limits.Events) || size > uint64(r.limits.Bytes)
		latest := count <= 1
		if len(victims) == limit || !tooMany && rec.at >= cutoff || tooMany && latest {
			return false
		}
		rec.data = nil
		victims = append(victims, victim{idOf(key), rec})
		count -= min(count, 1)
		size -= min(size, uint64(len(value)))
		return true
	})
	u.oldest = oldest
	for _, v := range victims {
		r.remove(u, v.id)
		u.trimmed = v.id
		d.Events++
		if v.durable && v.id.Compare(u.confirmed) > 0 {
			d.Unconfirmed++
		}
		if v.job != "" {
			r.orphan(u.name, v.job, v.id)
		}
	}
	return len(victims)
}

// orphan follows up in the job of a removed event: a job is remembered as
// long as its last event is.
func (r *rules) orphan(user, name string, id events.ID) {
	j := r.job(user, name)
	switch id {
	case j.last:
		r.reindex(&j, 0)
		r.space.drop(jobKey(user, name))
	case j.progress:
		j.progress = events.ID{}
		r.saveJob(&j)
	}
}

// repeated answers an entry whose idempotency key is known.
func (r *rules) repeated(u *user, e *delivery.Entry, d *delivery.Decision) bool {
	b := r.space.get(answerKey(u.name, e.Event.IdempotencyKey))
	if b == nil {
		return false
	}
	k := must(decodeKey(b))
	if k.at < r.cutoff(r.limits.KeyWindow.Milliseconds()) {
		return false
	}
	// The answer may be about an event that is not on the disk yet.
	r.durable = r.durable || k.durable
	if k.fingerprint != e.Fingerprint {
		d.Verdict = delivery.VerdictKeyReused
		return true
	}
	d.Verdict, d.ID, d.Outcome = delivery.VerdictRepeated, k.id, k.outcome()
	return true
}

// remember stores the answer to an idempotency key and makes room for it.
func (r *rules) remember(u *user, e *delivery.Entry, k keyRecord) {
	name := answerKey(u.name, e.Event.IdempotencyKey)
	r.forgetKeys(u, trimStep)
	if b := r.space.get(name); b != nil { // out of its window, or just trimmed
		r.dropKey(u, name, must(decodeKey(b)).order())
	}
	k.fingerprint, k.at = e.Fingerprint, r.now
	place := k.id
	if place.IsZero() { // an ignored event needs a place among the keys by age, too
		place = r.take(u)
		k.place = place
	}
	r.space.put(name, k.encode())
	r.space.put(ageKey(u.name, place), name)
	if u.keys == 0 || k.at < u.oldestKey {
		u.oldestKey = k.at
	}
	u.keys++
}

func (r *rules) dropKey(u *user, name []byte, place events.ID) {
	r.space.drop(name)
	r.space.drop(ageKey(u.name, place))
	u.keys -= min(u.keys, 1)
}

// forgetKeys removes keys that are too old or too many, at most limit.
func (r *rules) forgetKeys(u *user, limit int) (removed int) {
	cutoff := r.cutoff(r.limits.KeyWindow.Milliseconds())
	if u.keys < uint64(r.limits.Keys) && (u.keys == 0 || u.oldestKey >= cutoff) {
		return 0
	}
	type victim struct {
		name  []byte
		place events.ID
	}
	var victims []victim
	prefix := userKey(u.name, kindKeyByAge)
	count := u.keys
	oldest := r.now
	r.space.scan(prefix, after(prefix), func(key, name []byte) bool {
		if b := r.space.get(name); b != nil {
			k := must(decodeKey(b))
			oldest = k.at
			if len(victims) == limit || count < uint64(r.limits.Keys) && k.at >= cutoff {
				return false
			}
		}
		victims = append(victims, victim{bytes.Clone(name), idOf(key)})
		count -= min(count, 1)
		return true
	})
	u.oldestKey = oldest
	for _, v := range victims {
		r.dropKey(u, v.name, v.place)
	}
	return len(victims)
}

// stale reports whether a sweep has something to do for a user.
func (r *rules) stale(u *userRecord) bool {
	events, keys := u.events > 0, u.keys > 0
	return !events && !keys ||
		events && u.oldest < r.cutoff(r.limits.Retention.Milliseconds()) ||
		keys && u.oldestKey < r.cutoff(r.limits.KeyWindow.Milliseconds()) ||
		u.events > uint64(r.limits.Events) || u.bytes > uint64(r.limits.Bytes)
}

// One step of a sweep looks at sweepStep users and calls sweep at most
// sweepCalls times.
const (
	sweepStep  = 256
	sweepCalls = sweepStep + 64
)

// findStale lists the users from a place in the space of keys on for whom a
// sweep has something to do, and where to go on; nil at the end.
func (r *rules) findStale(from []byte) (users []string, at []byte) {
	if from == nil {
		from = []byte{spaceUser}
	}
	end := []byte{spaceUser + 1}
	for range sweepStep {
		var found []byte
		var stale bool
		r.space.scan(from, end, func(key, value []byte) bool {
			found = metaKey(userOf(key))
			if bytes.Equal(key, found) {
				u := must(decodeUser(value))
				stale = r.stale(&u)
			}
			return false
		})
		if found == nil {
			return users, nil
		}
		if stale {
			users = append(users, userOf(found))
		}
		from = found
		from[len(from)-2]++ // past all keys of the user
		from = from[:len(from)-1]
	}
	return users, from
}

// sweep removes what is too old of one user, and the user when nothing is
// left. It reports whether the user needs another step.
func (r *rules) sweep(name string, d *delivery.Dropped) (more bool) {
	u := r.load(name)
	if u.last.IsZero() {
		return false // it went meanwhile
	}
	removed := r.trim(&u, d, trimStep)
	keys := r.forgetKeys(&u, trimStep)
	if u.events == 0 && u.keys == 0 {
		// Later ids must stay above what the user has had.
		r.space.drop(metaKey(name))
		if ms := u.last.Ms + 1; ms > r.floor {
			r.floor = ms
			r.space.put(keyFloor, encodeMs(ms))
		}
		return false
	}
	r.save(&u)
	return removed == trimStep || keys == trimStep
}
