package handlers

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"

	"jobwire/internal/delivery"
	"jobwire/internal/events"
)

// Publisher takes the events of workers. Its errors are *events.Error where workers may know the reason.
type Publisher interface {
	Publish(ctx context.Context, event events.Event) (delivery.Result, error)
	// PublishAndWait also waits, at most d, for a client's receipt. For what is never confirmed, progress and ignored events,
	// waited is false.
	PublishAndWait(ctx context.Context, event events.Event, d time.Duration) (result delivery.Result, delivered, waited bool, err error)
	// PublishBatch answers every event in its place. The error says that none of them could be stored.
	PublishBatch(ctx context.Context, batch []events.Event) ([]delivery.Answer, error)
}

// Limits on what a worker may send in one request, in bytes and items.
const (
	DefaultMaxEventBytes = 64 << 10
	DefaultMaxBatchItems = 1000
	DefaultMaxBatchBytes = 8 << 20
)

const (
	// MaxWait is the longest that `Prefer: wait=N` makes a POST wait.
	MaxWait = 60 * time.Second
	// writeGrace is the time to take the answer after that.
	writeGrace = 10 * time.Second
)

// EventsConfig bounds what a worker may send in one request. The zero value
// of a field means its default.
type EventsConfig struct {
	MaxEventBytes int // of one event, envelope included
	MaxBatchItems int
	MaxBatchBytes int // of the whole batch; lowered to what MaxBatchItems events can have
}

// Events answers the calls with which workers publish.
type Events struct {
	cfg       EventsConfig
	publisher Publisher
}

// NewEvents publishes to publisher.
func NewEvents(publisher Publisher, cfg EventsConfig) *Events {
	orDefault := func(n *int, fallback int) {
		if *n <= 0 {
			*n = fallback
		}
	}
	orDefault(&cfg.MaxEventBytes, DefaultMaxEventBytes)
	orDefault(&cfg.MaxBatchItems, DefaultMaxBatchItems)
	orDefault(&cfg.MaxBatchBytes, DefaultMaxBatchBytes)
	const envelope = len(`{"events":[]}`) + 1<<10 // and room for spaces
	// Compared this way round, since the product may be more than an int holds.
	if (cfg.MaxBatchBytes-envelope)/cfg.MaxBatchItems > cfg.MaxEventBytes {
		cfg.MaxBatchBytes = cfg.MaxBatchItems*cfg.MaxEventBytes + envelope
	}
	return &Events{cfg: cfg, publisher: publisher}
}

// Publish is POST /v1/events: one event, answered with 202 once everything
// that was promised about it is true.
func (e *Events) Publish(c *gin.Context) {
	body, err := readBody(c, e.cfg.MaxEventBytes)
	if err != nil {
		fail(c, err)
		return
	}
	event, warnings, err := events.Parse(body)
	if err == nil {
		err = applyHeaders(&event, c.Request.Header)
	}
	if err != nil {
		fail(c, err)
		return
	}
	var result delivery.Result
	var delivered, waited bool
	if wait := preferredWait(c.Request.Header); wait == 0 {
		result, err = e.publisher.Publish(c.Request.Context(), event)
	} else {
		takeTime(c)
		// The server's limit for writing began with the request and may be shorter.
		_ = http.NewResponseController(c.Writer).SetWriteDeadline(time.Now().Add(wait + writeGrace))
		result, delivered, waited, err = e.publisher.PublishAndWait(c.Request.Context(), event, wait)
		if waited {
			c.Header("Preference-Applied", "wait="+strconv.Itoa(int(wait/time.Second)))
		}
	}
	if err != nil {
		fail(c, err)
		return
	}
	if result.Repeated {
		c.Header("Idempotent-Replayed", "true")
	}
	text := appendResult(make([]byte, 0, 96), result)
	if waited {
		text = append(text, `,"delivered":`...)
		text = strconv.AppendBool(text, delivered)
	}
	text = appendWarnings(text, warnings)
	answerText(c, http.StatusAccepted, append(text, '}'))
}

// Batch is POST /v1/events/batch: up to MaxBatchItems events, each with a
// result of its own in its place.
func (e *Events) Batch(c *gin.Context) {
	if err := refuseEventHeaders(c.Request.Header); err != nil {
		fail(c, err)
		return
	}
	body, err := readBody(c, e.cfg.MaxBatchBytes)
	if err != nil {
		fail(c, err)
		return
	}
	takeTime(c) // a context that ends would hide from the worker what was stored
	items, err := events.ParseBatch(body, e.cfg.MaxBatchItems, e.cfg.MaxEventBytes)
	if err != nil {
		fail(c, err)
		return
	}
	good := make([]events.Event, 0, len(items))
	for i := range items {
		if items[i].Err == nil {
			good = append(good, items[i].Event)
		}
	}
	var answers []delivery.Answer
	if len(good) > 0 {
		answers, err = e.publisher.PublishBatch(c.Request.Context(), good)
	}
	if gone := c.Request.Context().Err(); gone != nil {
		err = gone
	}
	if err != nil {
		fail(c, err)
		return
	}
	answerText(c, http.StatusOK, batchAnswer(c, items, answers))
}

// batchAnswer merges the refusals of parsing and the answers of the publisher
// into the order of the items.
func batchAnswer(c *gin.Context, items []events.Item, answers []delivery.Answer) []byte {
	text := make([]byte, 0, 32+80*len(items))
	text = append(text, `{"results":[`...)
	published := 0
	for i := range items {
		if i > 0 {
			text = append(text, ',')
		}
		err := items[i].Err
		if err == nil {
			answer := answers[published]
			published++
			if err = answer.Err; err == nil {
				text = appendWarnings(appendResult(text, answer.Result), items[i].Warnings)
				text = append(text, '}')
				continue
			}
		}
		text = appendRefusal(text, c, err)
	}
	return append(text, `]}`...)
}

// appendResult appends {"id":…,"status":…,"sockets":…[,"reason":…] and leaves the object open. It is written by hand because
// every POST ends here; nothing in it needs escapes. The id is the event's place among all of its user, of progress too; what
// was ignored has none: null.
func appendResult(dst []byte, result delivery.Result) []byte {
	if result.ID.IsZero() {
		dst = append(dst, `{"id":null`...)
	} else {
		dst = append(dst, `{"id":"`...)
		dst = result.ID.AppendTo(dst)
		dst = append(dst, '"')
	}
	dst = append(dst, `,"status":"`...)
	dst = append(dst, result.Status...)
	dst = append(dst, `","sockets":`...)
	dst = strconv.AppendInt(dst, int64(result.Sockets), 10)
	if result.Reason != "" {
		dst = append(dst, `,"reason":"`...)
		dst = append(dst, result.Reason...)
		dst = append(dst, '"')
	}
	return dst
}

// appendWarnings appends ,"warnings":[…] when there are any.
func appendWarnings(dst []byte, warnings []events.Warning) []byte {
	if len(warnings) == 0 {
		return dst
	}
	text, err := json.Marshal(warnings)
	if err != nil {
		panic(err) // strings always marshal
	}
	return append(append(dst, `,"warnings":`...), text...)
}
