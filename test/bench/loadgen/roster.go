package main

import (
	"bytes"
	"strconv"
	"sync/atomic"

	"jobwire/test/bench/loadgen/sockets"
)

// roster is what every tab knows of who is online, made from online_users,
// user_online and user_offline as a frontend would. One thread hears; another
// waits.
type roster struct {
	prefix string // of the users it is about
	first  int    // number of the first of them
	users  int
	known  []bool  // by tab and user; read by others after the thread has ended its work
	told   []uint8 // user_online for one who was not offline meanwhile

	unknown atomic.Int64 // pairs of tab and user
}

// newRoster is of users whose names are prefix and the numbers from first on.
// Nobody is known yet, but a tab whose own user is among them.
func newRoster(prefix string, tabs, first, users int) *roster {
	r := &roster{prefix: prefix + "user-", first: first, users: users,
		known: make([]bool, tabs*users), told: make([]uint8, tabs*users)}
	r.unknown.Store(int64(tabs * users))
	for tab := first; tab < min(tabs, first+users); tab++ {
		r.set(tab, tab-first, true)
	}
	return r
}

func (r *roster) hear(tab int, ev sockets.Event) {
	switch string(ev.Name) {
	case "user_online":
		if user, ok := r.user(sockets.Field(ev.Body, `"userId":"`)); ok {
			r.set(tab, user, true)
			r.told[tab*r.users+user]++
		}
	case "user_offline":
		if user, ok := r.user(sockets.Field(ev.Body, `"userId":"`)); ok {
			r.set(tab, user, false)
			r.told[tab*r.users+user] = 0
		}
	case "online_users":
		for user := range r.users {
			r.set(tab, user, user == tab-r.first)
		}
		_, list, _ := bytes.Cut(ev.Body, []byte(`"users":[`))
		list, _, _ = bytes.Cut(list, []byte(`]`))
		for name := range bytes.SplitSeq(list, []byte(",")) {
			if user, ok := r.user(bytes.Trim(name, `"`)); ok {
				r.set(tab, user, true)
			}
		}
	}
}

// user is the place of one of the users; false for any other name.
func (r *roster) user(name []byte) (int, bool) {
	digits, ok := bytes.CutPrefix(name, []byte(r.prefix))
	n, err := strconv.Atoi(string(digits))
	n -= r.first
	return n, ok && err == nil && n >= 0 && n < r.users
}

func (r *roster) set(tab, user int, known bool) {
	if at := &r.known[tab*r.users+user]; *at != known {
		*at = known
		if known {
			r.unknown.Add(-1)
		} else {
			r.unknown.Add(1)
		}
	}
}

// wait returns when every tab knows every user, or none has learnt anything
// for patience.
func (r *roster) wait() { await(&r.unknown, 0) }

// count tells how many users a tab does not know, summed over the tabs, and
// how often one was told again of somebody who had not left.
func (r *roster) count() (lost, repeated int) {
	for _, n := range r.told {
		repeated += max(0, int(n)-1)
	}
	return int(r.unknown.Load()), repeated
}
