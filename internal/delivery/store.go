package delivery

import (
	"cmp"
	"context"
	"encoding/json"
	"sync"
	"sync/atomic"
	"time"

	"jobwire/internal/events"
)

// Store decides about events, remembers them, and tells every [Feed] what has become of them. Package storetest has the
// suite that every implementation passes.
//
// Every user has one sequence of places, rising strictly, across restarts and steps of the clock. What is accepted takes
// the next place: a message, whose place is its id on the wire, or the progress of a job, which has no id there.
//
// All methods are safe for concurrent use, and keep to their ctx. An error means that nothing of the call is promised; the
// caller may repeat it.
type Store interface {
	// Subscribe tells feed from now on what happens to every user that it follows, until cancel has returned.
	Subscribe(feed Feed) (cancel func())

	// Follow makes sure that the subscribers are told what happens to the user, and returns the user's place so far: what
	// comes through the feed from now on is above it, and what is not above it comes no more. Unfollow ends it; calls nest.
	Follow(ctx context.Context, userID string) (events.ID, error)
	Unfollow(userID string)

	// Publish decides about the entries of one user in their order and stores what they bring, all or nothing. When it
	// returns, messages survive kill -9 and a power cut, and so does progress that begins a higher attempt, reopens its job or
	// sets a watch; other progress is written behind.
	//
	// A ctx that is done before the decision stops the call with nothing stored. After it the call waits for the outcome.
	Publish(ctx context.Context, userID string, entries []Entry) ([]Decision, error)

	// Confirm raises cursors: a client of the user has received every message up to there. It may be written behind.
	Confirm(ctx context.Context, cursors []Cursor) error

	// Cursor returns up to which message a client of the user has confirmed, and up to which retention has dropped them.
	Cursor(ctx context.Context, userID string) (confirmed, dropped events.ID, err error)

	// Read returns one page of a replay. It never returns what a crash could still undo.
	Read(ctx context.Context, q Query) (Page, error)

	// Jobs returns one page of a user's jobs, the latest change first. It never returns what a crash could still undo.
	Jobs(ctx context.Context, q JobsQuery) (JobsPage, error)

	// Disconnect tells the feeds to close all sockets of a user, and returns how many there were.
	Disconnect(ctx context.Context, userID, reason string) (sockets int, err error)

	// Stall stores and tells job_stalled for at most limit jobs whose deadline has passed, and returns for how many. It is
	// safe to run twice at once.
	Stall(ctx context.Context, limit int) (stalled int, err error)

	// Sweep removes what is too old of a bounded number of users. It is safe to run twice at once.
	Sweep(ctx context.Context) (Swept, error)
}

// Feed is told by a Store what happens to users. The calls for one user come one at a time. Deliver may be called with a
// lock of the store held: neither it nor the others may call the store or block.
type Feed interface {
	// Deliver lines up an event of a user, in the order of places, once it is as durable as its kind asks. True asks the
	// caller to call Run for that user when it holds no lock.
	Deliver(d *Delivery) (run bool)
	// Run emits what is lined up for a user, and returns when the caller may go on.
	Run(userID string)
	// Confirmed says that a user's cursor has been raised.
	Confirmed(c Cursor)
	// Disconnect closes all sockets of a user and returns how many there were.
	Disconnect(userID, reason string) (sockets int)
	// Sockets counts a user's sockets.
	Sockets(userID string) int
	// Lost says that events of a user may be stored that were not, and will not be, delivered: the sockets that are
	// connected must come back for a replay.
	Lost(userID string)
}

// Delivery is an event on its way from the store to the sockets.
type Delivery struct {
	UserID string
	Place  events.ID
	Prev   events.ID // the place before it: a gap to the one delivered last shows a loss; zero for a user's first
	Name   string
	Data   json.RawMessage // belongs to the Delivery, and is not changed any more
	Kind   events.Kind
	JobID  string // of kinds other than Message, and of job_stalled
	// Emission is told once what became of it; nil when no caller waits, as for what was published at another node.
	Emission *Emission
}

// Emission tells a publisher what became of one delivery at the feeds of its own process. The store that made it waits for
// it before it answers.
type Emission struct {
	pending sync.WaitGroup
	sockets atomic.Int64
	held    atomic.Bool
}

// Expect announces that so many feeds will be handed the delivery, and each will Tell.
func (e *Emission) Expect(feeds int) { e.pending.Add(feeds) }

// Tell says, for one feed, to how many sockets the delivery was emitted, or that it is held back for later. A nil Emission
// does not want to know.
func (e *Emission) Tell(sockets int, held bool) {
	if e == nil {
		return
	}
	e.sockets.Add(int64(sockets))
	if held {
		e.held.Store(true)
	}
	e.pending.Done()
}

// Wait returns what all feeds have told together.
func (e *Emission) Wait() (sockets int, held bool) {
	e.pending.Wait()
	return int(e.sockets.Load()), e.held.Load()
}

// Limits is what a store retains of each user. The zero value of a field means its default.
type Limits struct {
	Retention     time.Duration // age of messages, jobs without a new event, and idempotency keys; 24 h
	Messages      int           // 1000
	MessagesBytes int           // bytes of names and data; 4 MiB
	Jobs          int           // 1000
	JobsBytes     int           // bytes of ids, progress and ends; 4 MiB
	Keys          int           // idempotency keys; 10000
}

// WithDefaults fills in the defaults.
func (l Limits) WithDefaults() Limits {
	return Limits{
		Retention:     cmp.Or(l.Retention, 24*time.Hour),
		Messages:      cmp.Or(l.Messages, 1000),
		MessagesBytes: cmp.Or(l.MessagesBytes, 4<<20),
		Jobs:          cmp.Or(l.Jobs, 1000),
		JobsBytes:     cmp.Or(l.JobsBytes, 4<<20),
		Keys:          cmp.Or(l.Keys, 10_000),
	}
}

// Entry is one event to decide about. Its UserID is that of the call.
type Entry struct {
	events.Event
	Fingerprint [16]byte // of everything that a repeat must have in common; only with an idempotency key
}

// Verdict is what the store decided.
type Verdict uint8

// What a store can decide.
const (
	Accepted  Verdict = iota // it has the place Decision.Place, and was delivered to the feeds
	Ignored                  // it changes nothing, for Decision.Reason
	Repeated                 // its key came before with this fingerprint: Place and Reason are those of the first call
	KeyReused                // its key came before with another fingerprint
)

// Reasons of an ignored event.
const (
	ReasonJobFinished       = "job_finished"       // progress after the end of its attempt
	ReasonAttemptSuperseded = "attempt_superseded" // of an earlier attempt than the job's current one
)

// Decision is the store's answer to one Entry.
type Decision struct {
	Verdict Verdict
	Place   events.ID
	Reason  string // of Ignored, and of Repeated when the first call was ignored
	Sockets int    // of the user: to how many it was emitted, as far as the store knows
	Held    bool   // progress that is held back for a moment on this node, or was replaced by newer
	Dropped Dropped
}

// Dropped is what retention and budgets took of a user.
type Dropped struct {
	Messages    int
	Unconfirmed int       // of them, those that no client has confirmed
	Jobs        int       // job records
	Running     int       // of them, unfinished ones
	UpTo        events.ID // every message up to there is gone, these and earlier ones; zero when Messages is
}

// Cursor is up to which message a client of a user has received all.
type Cursor struct {
	UserID    string
	Confirmed events.ID
}

// Query asks for what a connecting socket must see, in the order of places:
//   - every message after Since;
//   - of those up to Since the ones after the client's offset, or without one those that no client has confirmed;
//   - the latest progress of every unfinished job, and the job_stalled of a stalled one, at the place of the message that
//     said so: as state, when that message is not part of the replay.
//
// What is older than the retention is no part of it.
type Query struct {
	UserID string
	// Since is the place that the socket took in the user's feed: see Store.Follow.
	Since events.ID
	// Offset is the message that the client saw last, if HasOffset. It counts only if the user's log has that message.
	Offset    events.ID
	HasOffset bool
	Confirmed events.ID // what the caller knows of the cursor beyond the store
	Limit     int       // records a page, at most
	Bytes     int       // bytes of data a page, at most; one record always fits

	// Next is the store's: what Page.Next carries from one page to the next.
	Next *QueryState
}

// QueryState is where the next page of a replay goes on.
type QueryState struct {
	From  events.ID // messages above it are wanted
	After events.ID // all up to this place was returned
	Until events.ID // Page.Place of the first page
}

// Page is a part of a replay.
type Page struct {
	Records []Record // in the order of places
	// Place is the user's last place when the first page was read: the replay shows what was up to there.
	Place events.ID
	// Recovered is false when the query had an offset that does not count, or retention has taken a message after it before
	// this page could have it: what the client has missed is not known.
	Recovered bool
	Next      *QueryState // for the next page; nil when there is none
}

// Record is one event of a replay.
type Record struct {
	Place events.ID
	Name  string
	Data  json.RawMessage // the caller's
	// Message says that it has an id, its Place, and asks for a receipt. Otherwise it is state, without id.
	Message bool
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

// Job is the record of a job, as workers and clients see it.
type Job struct {
	JobID     string          `json:"jobId"`
	State     JobState        `json:"state"`
	Attempt   uint32          `json:"attempt"`            // the current one; 0 when no event had one
	Progress  json.RawMessage `json:"progress,omitempty"` // data of the attempt's latest progress, as sent
	End       *JobEnd         `json:"end,omitempty"`      // of the attempt, once it has one
	StartedAt time.Time       `json:"startedAt"`          // of the attempt's first event
	UpdatedAt time.Time       `json:"updatedAt"`          // of its latest one
	Place     events.ID       `json:"-"`                  // of its latest change
}

// JobEnd is the latest end of a job.
type JobEnd struct {
	Event string          `json:"event"`
	Data  json.RawMessage `json:"data"` // as sent
	ID    string          `json:"id"`
}

// Limits of one page of jobs.
const (
	DefaultJobsLimit = 50
	MaxJobsLimit     = 200
	MaxJobsBytes     = 256 << 10 // of progress and ends; one job always fits
)

// JobsQuery asks for a user's jobs.
type JobsQuery struct {
	UserID string
	Before events.ID // only jobs whose latest change is before it: JobsPage.Next of the page before; zero for all
	Limit  int       // 1 to MaxJobsLimit
}

// JobsPage is a part of a user's jobs.
type JobsPage struct {
	Jobs  []Job     // the latest change first
	Next  events.ID // zero when there are no more
	Place events.ID // the user's last place when it was read
}

// Swept is what one step of a sweep did.
type Swept struct {
	Dropped map[string]Dropped // by user
	More    bool               // there is more to do now
}

// StalledData is the data of a job_stalled event.
func StalledData(jobID string, lastEventAt time.Time) json.RawMessage {
	data, _ := json.Marshal(struct { // of strings: cannot fail
		JobID       string `json:"jobId"`
		LastEventAt string `json:"lastEventAt"`
	}{jobID, lastEventAt.UTC().Format("2006-01-02T15:04:05.000Z")})
	return data
}
