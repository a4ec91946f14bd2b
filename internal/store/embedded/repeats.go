package embedded

import "jobwire/internal/delivery"

// repeated answers an entry whose idempotency key came before, within the retention.
func (d *decision) repeated(e *delivery.Entry, dec *delivery.Decision) (known bool, err error) {
	a, err := d.answer(e.IdempotencyKey)
	switch {
	case err != nil || a == nil:
		return false, err
	case a.at < d.cutoff:
		if !d.full {
			d.forgetKey(e.IdempotencyKey, a.n)
		}
		return false, nil
	case a.fingerprint != e.Fingerprint:
		dec.Verdict = delivery.KeyReused
	default:
		dec.Verdict, dec.Place, dec.Reason = delivery.Repeated, a.place, a.reason
	}
	return true, nil
}

// answer looks a key up; nil when it is not known.
func (d *decision) answer(key string) (*answer, error) {
	u := d.u
	if r := u.answers[key]; r != nil && r.gone || r == nil && u.keys == 0 {
		return nil, nil
	} else if r != nil {
		return &r.answer, nil
	}
	var found *answer
	err := d.in.read(func() error {
		b, err := d.in.get(answerKey(u.name, key))
		if b != nil {
			found = new(answer)
			new(codec).decode(b, "an idempotency key", found)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return found, nil
}

// remember keeps what an entry with an idempotency key was answered.
func (d *decision) remember(e *delivery.Entry, dec *delivery.Decision) error {
	if e.IdempotencyKey == "" || d.full {
		return nil
	}
	u := d.u
	if err := d.forgetKeys(1); err != nil {
		return err
	}
	if u.keys == 0 || d.now < u.oldestKey {
		u.oldestKey = d.now
	}
	u.keys++
	u.nextKey++
	u.dirty = true
	u.reply(&reply{key: e.IdempotencyKey, answer: answer{
		fingerprint: e.Fingerprint, at: d.now, n: u.nextKey, place: dec.Place, reason: dec.Reason,
	}})
	return nil
}

func (u *user) reply(r *reply) {
	if u.answers == nil {
		u.answers = make(map[string]*reply)
	}
	u.rewrite = true
	u.answers[r.key] = r
	u.replies = append(u.replies, r)
}

func (d *decision) forgetKey(key string, n uint64) {
	u := d.u
	u.reply(&reply{key: key, gone: true})
	u.keys -= min(u.keys, 1)
	d.write().remove(answerKey(u.name, key))
	d.write().remove(keyByAgeKey(u.name, n))
}

// forgetKeys removes keys that are too old, and makes room for some more: for several at once, since looking the oldest up
// costs a walk. It finds those that are on the disk; the last half second of progress may go beyond the limit.
func (d *decision) forgetKeys(more int) error {
	u, limit := d.u, d.in.s.limits.Keys
	over := 0
	if n := int(u.keys) + more - limit; n > 0 {
		over = min(max(n, limit/16), trimStep)
	}
	if u.keys == 0 || over == 0 && u.oldestKey >= d.cutoff {
		return nil
	}
	var victims []reply
	oldest := d.now
	err := d.in.read(func() error {
		lower, upper := keyByAgeKey(u.name, u.firstKey), past(userKey(u.name, kindKeyByAge))
		var c codec
		var a aged
		return d.in.scan(lower, upper, func(key, value []byte) bool {
			n := trailingNumber(key)
			c.decode(value, "an idempotency key's age", &a)
			if r := u.answers[string(a.key)]; r != nil && r.n != n {
				return true // it was forgotten just now, perhaps used again
			}
			oldest = a.at
			if len(victims) == trimStep || len(victims) >= over && a.at >= d.cutoff {
				return false
			}
			victims = append(victims, reply{key: string(a.key), answer: answer{n: n}})
			return true
		})
	})
	if err != nil {
		return err
	}
	u.oldestKey = oldest
	for _, v := range victims {
		u.firstKey = v.n + 1
		d.forgetKey(v.key, v.n)
	}
	return nil
}
