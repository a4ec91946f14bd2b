package embedded

import (
	"bytes"
	"slices"
	"time"

	"jobwire/internal/delivery"
	"jobwire/internal/events"
)

// page reads a part of a replay. The data of its records is copied.
func (r *rules) page(q delivery.Query) delivery.Page {
	u := r.load(q.UserID)
	p := delivery.Page{Recovered: true, Last: u.last}
	if !q.Continued {
		if q.Confirmed.Compare(u.confirmed) < 0 {
			q.Confirmed = u.confirmed
		}
		if q.HasOffset && (q.Offset.Compare(u.last) > 0 || q.Offset.Compare(u.trimmed) < 0) {
			p.Recovered, q.Offset = false, events.ID{}
		}
		if q.HasOffset {
			q.After = q.Offset
			if q.Confirmed.Compare(q.Offset) < 0 {
				q.After = q.Confirmed
			}
		}
		q.Continued = true
	}
	prefix := userKey(q.UserID, kindLog)
	from := prefix
	if !q.After.IsZero() {
		from = next(logKey(q.UserID, q.After))
	}
	size, looked := 0, 0
	r.space.scan(from, after(prefix), func(key, value []byte) bool {
		id := idOf(key)
		rec := must(decodeLog(value))
		looked++
		wanted := r.wanted(q, id, &rec)
		full := len(p.Records) > 0 && size+len(rec.data) > q.Bytes
		if wanted && (len(p.Records) == q.Limit || full) || looked > maxLook {
			more := q
			p.Next = &more
			return false
		}
		q.After = id
		if wanted {
			size += len(rec.data)
			p.Records = append(p.Records, delivery.Record{
				ID: id, Name: rec.name, Durable: rec.durable, Data: bytes.Clone(rec.data),
			})
		}
		return true
	})
	return p
}

// maxLook is how many events of a log one page looks at.
const maxLook = 1024

func (r *rules) wanted(q delivery.Query, id events.ID, rec *logRecord) bool {
	if rec.durable {
		return q.HasOffset && id.Compare(q.Offset) > 0 || id.Compare(q.Confirmed) > 0
	}
	if q.HasOffset && id.Compare(q.Offset) <= 0 {
		return false
	}
	j := r.job(q.UserID, rec.job)
	return !j.finished() && j.progress == id
}

// unsynced reports whether the user's log has durable events in the tables
// above the file.
func unsynced(user string, tables ...*table) bool {
	prefix := userKey(user, kindLog)
	end := after(prefix)
	for _, t := range tables {
		if t == nil {
			continue
		}
		found := false
		t.scan(prefix, func(e entry) bool {
			if bytes.Compare(e.key, end) >= 0 {
				return false
			}
			found = e.value != nil && must(decodeLog(e.value)).durable
			return !found
		})
		if found {
			return true
		}
	}
	return false
}

// jobs lists a user's jobs, the latest change first.
func (r *rules) jobs(user string) []delivery.Job {
	type found struct {
		jobRecord
		id string
	}
	var all []found
	prefix := userKey(user, kindJob)
	r.space.scan(prefix, after(prefix), func(key, value []byte) bool {
		all = append(all, found{must(decodeJob(value)), string(key[len(prefix):])})
		return true
	})
	slices.SortFunc(all, func(a, b found) int { return b.last.Compare(a.last) })
	jobs := make([]delivery.Job, len(all))
	for i, j := range all {
		jobs[i] = delivery.Job{
			JobID:       j.id,
			State:       jobStates[j.state],
			Attempt:     j.attempt,
			LastEventID: j.last.String(),
			UpdatedAt:   time.UnixMilli(int64(j.updated)).UTC(),
		}
		if j.progress.IsZero() {
			continue
		}
		if b := r.space.get(logKey(user, j.progress)); b != nil {
			jobs[i].Progress = bytes.Clone(must(decodeLog(b)).data)
		}
	}
	return jobs
}
