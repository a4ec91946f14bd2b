package delivery

import (
	"context"
	"encoding/json"
	"time"

	"jobwire/internal/events"
)

// Store remembers events. Package storetest has the suite that every
// implementation passes; this comment is its summary.
//
// Ids of a user rise strictly, across restarts and when the clock steps back.
// All methods are safe for concurrent use. An error means that nothing of the
// call is stored, or at least that nothing of it was answered for; the caller
// may repeat the call.
type Store interface {
	// Publish decides about the entries in their order and stores what they
	// bring, all in one transaction: idempotency, the sticky rule, ids, log,
	// job state, retention. When it returns without error, everything durable
	// among it survives kill -9; progress may still be on its way to the disk.
	//
	// A context that is done before the decision stops the call with nothing
	// stored. After the decision it no longer matters: the call waits for the
	// outcome, because half an answer would be a lie in one of both cases.
	Publish(ctx context.Context, entries []Entry) ([]Decision, error)

	// Settle records what became known after the events were emitted. It may
	// be written behind: losing it costs repeats, nothing else.
	Settle(ctx context.Context, settlements []Settlement) error

	// Read returns one page of what a connecting socket must see, in id
	// order. It never returns a durable event that a crash could still undo.
	Read(ctx context.Context, q Query) (Page, error)

	// Jobs lists the retained jobs of a user, the latest change first.
	Jobs(ctx context.Context, userID string) ([]Job, error)

	// Due lists at most limit jobs whose deadline has passed, for Publish to
	// decide about, and the time of the next deadline; zero when there is none.
	Due(ctx context.Context, limit int) ([]DueJob, time.Time, error)

	// Sweep removes what is too old, in one step of bounded length. More is
	// true until every user has been looked at once.
	Sweep(ctx context.Context) (Swept, error)
}

// Limits is what a store retains, per user. The zero value of a field means
// its default.
type Limits struct {
	Retention time.Duration // age of events; 24 h
	Events    int           // number of events; 1000
	Bytes     int           // bytes of names and data; 4 MiB
	KeyWindow time.Duration // how long an idempotency key is known; 24 h
	Keys      int           // number of idempotency keys; 10000
}

// WithDefaults fills in the defaults.
func (l Limits) WithDefaults() Limits {
	if l.Retention <= 0 {
		l.Retention = 24 * time.Hour
	}
	if l.Events <= 0 {
		l.Events = 1000
	}
	if l.Bytes <= 0 {
		l.Bytes = 4 << 20
	}
	if l.KeyWindow <= 0 {
		l.KeyWindow = 24 * time.Hour
	}
	if l.Keys <= 0 {
		l.Keys = 10_000
	}
	return l
}

// Kind says what an Entry asks for.
type Kind uint8

const (
	// KindEvent stores a worker's event.
	KindEvent Kind = iota
	// KindRefresh gives the latest progress of Event.JobID a new id, if that
	// progress is still the one with id At and the job is not finished.
	// Coalesced progress that other events have overtaken needs it.
	KindRefresh
	// KindStall stores job_stalled for Event.JobID, if its deadline has passed.
	KindStall
)

// Entry is one thing to decide about. Kinds other than KindEvent use only
// UserID and JobID of the event.
type Entry struct {
	Kind        Kind
	Event       events.Event
	Fingerprint [16]byte  // of everything a repeat must have in common; only with an idempotency key
	At          events.ID // of KindRefresh: the progress; of KindStall: DueJob.At
}

// Verdict is what the store decided.
type Verdict uint8

const (
	// VerdictStored means that the event is in the log under Decision.ID.
	VerdictStored Verdict = iota
	// VerdictIgnored means that it is not, for Decision.Reason.
	VerdictIgnored
	// VerdictRepeated means that its idempotency key came before with the
	// same fingerprint; nothing was stored now.
	VerdictRepeated
	// VerdictKeyReused means that its idempotency key came before with
	// another fingerprint; nothing was stored.
	VerdictKeyReused
)

// Reasons of an ignored event.
const (
	ReasonJobFinished = "job_finished" // progress of a job that is completed or failed, without a higher attempt
	ReasonSuperseded  = "superseded"   // internal: what a refresh or a stall was about is no longer so
)

// Decision is the store's answer to one Entry.
type Decision struct {
	Verdict Verdict
	ID      events.ID // of VerdictStored and of VerdictRepeated; zero when the first one was ignored
	Reason  string    // of VerdictIgnored

	// FlushID is an id between the last event before this one and this one,
	// which no other event ever has. A terminal event of a job that had
	// progress comes with it: pending progress that must be emitted before
	// the terminal can be emitted under it.
	FlushID events.ID

	Outcome   *Outcome        // of VerdictRepeated: the first answer; nil when it is not settled yet
	Data      json.RawMessage // of KindStall: what was stored
	Confirmed events.ID       // the user's cursor
	Dropped   Dropped         // what had to make room
	Trimmed   events.ID       // the highest id of the user that ever had to make room
}

// Dropped counts what retention removed.
type Dropped struct {
	Events      int // all
	Unconfirmed int // durable ones that no client ever confirmed
}

// Outcome is how an event was answered for.
type Outcome struct {
	ID      events.ID
	Status  Status
	Reason  string
	Sockets int
}

// Settlement is one thing that became known later: that the user's clients
// have confirmed everything up to Confirmed (cursors only rise), or how the
// event with an idempotency key was answered. Key is "" in the first case.
type Settlement struct {
	UserID    string
	Confirmed events.ID
	Key       string
	Outcome   Outcome
}

// Query asks for what a connecting socket must see: every event after Offset;
// every durable event above the confirmed cursor; without an offset also the
// latest progress of every unfinished job. Progress of finished jobs is never
// part of it, the terminal event says more.
type Query struct {
	UserID    string
	Offset    events.ID // the last event the client has seen
	HasOffset bool
	Confirmed events.ID // what the caller knows of the cursor beyond the store
	Limit     int       // events a page, at most
	Bytes     int       // bytes of data a page, at most (one event always fits)

	// After and Continued belong to the store: they are set in Page.Next.
	// A continued query takes Offset and Confirmed as they are.
	After     events.ID
	Continued bool
}

// Page is a part of a replay.
type Page struct {
	Records []Record // in id order
	// Recovered is false when the query's offset names a place that the log
	// does not know (any more): then everything retained is returned.
	Recovered bool
	Last      events.ID // the highest id of the user when the page was read
	Next      *Query    // for the next page; nil when there is none
}

// Record is an event as it was stored.
type Record struct {
	ID      events.ID
	Name    string
	Data    json.RawMessage
	Durable bool
}

// JobState is the latest known state of a job.
type JobState string

// The states of a job.
const (
	JobRunning   JobState = "running"
	JobCompleted JobState = "completed"
	JobFailed    JobState = "failed"
	JobStalled   JobState = "stalled"
)

// Finished reports whether progress without a higher attempt is ignored.
func (s JobState) Finished() bool { return s == JobCompleted || s == JobFailed }

// Job is the latest state of a job, as GET /v1/users/{userId}/jobs shows it.
type Job struct {
	JobID       string          `json:"jobId"`
	State       JobState        `json:"state"`
	Attempt     uint32          `json:"attempt"`            // the one it is in, or ended in; 0 when no event had one
	Progress    json.RawMessage `json:"progress,omitempty"` // data of the latest job_progress, when it is retained
	LastEventID string          `json:"lastEventId"`
	UpdatedAt   time.Time       `json:"updatedAt"`
}

// DueJob names a job whose deadline has passed.
type DueJob struct {
	UserID string
	JobID  string
	At     events.ID // the store's own mark of the deadline, to be given back in Entry.At
}

// Swept is what one step of a sweep did.
type Swept struct {
	Dropped Dropped
	More    bool
}

// StalledData is the data of a job_stalled event.
func StalledData(jobID string, lastEventAt time.Time) json.RawMessage {
	data, err := json.Marshal(struct {
		JobID       string `json:"jobId"`
		LastEventAt string `json:"lastEventAt"`
	}{jobID, lastEventAt.UTC().Format("2006-01-02T15:04:05.000Z")})
	if err != nil { // two strings cannot fail
		panic(err)
	}
	return data
}
