package handlers

import (
	"cmp"
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"os"
	"strconv"
	"strings"
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

// EventsConfig bounds what a worker may send in one request. The zero value of a field means its default.
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
	cfg.MaxEventBytes = cmp.Or(cfg.MaxEventBytes, DefaultMaxEventBytes)
	cfg.MaxBatchItems = cmp.Or(cfg.MaxBatchItems, DefaultMaxBatchItems)
	cfg.MaxBatchBytes = cmp.Or(cfg.MaxBatchBytes, DefaultMaxBatchBytes)
	const envelope = len(`{"events":[]}`) + 1<<10 // and room for spaces
	// Compared this way round, since the product may be more than an int holds.
	if (cfg.MaxBatchBytes-envelope)/cfg.MaxBatchItems > cfg.MaxEventBytes {
		cfg.MaxBatchBytes = cfg.MaxBatchItems*cfg.MaxEventBytes + envelope
	}
	return &Events{cfg: cfg, publisher: publisher}
}

// Publish is POST /v1/events: one event, answered with 202 once everything that was promised about it is true.
func (e *Events) Publish(c *gin.Context) {
	ctx, header := c.Request.Context(), c.Request.Header
	body, err := readBody(c.Request, e.cfg.MaxEventBytes)
	if err != nil {
		fail(c, err)
		return
	}
	event, warnings, err := events.Parse(body)
	if err == nil {
		err = applyHeaders(&event, header)
	}
	if err != nil {
		fail(c, err)
		return
	}
	var result delivery.Result
	var delivered, waited bool
	if wait := preferredWait(header); wait == 0 {
		result, err = e.publisher.Publish(ctx, event)
	} else {
		takeTime(c)
		// The server's limit for writing began with the request and may be shorter.
		_ = http.NewResponseController(c.Writer).SetWriteDeadline(time.Now().Add(wait + writeGrace))
		result, delivered, waited, err = e.publisher.PublishAndWait(ctx, event, wait)
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

// readBody reads a JSON body of at most limit bytes. The bytes belong to the caller.
func readBody(r *http.Request, limit int) ([]byte, error) {
	if err := checkMediaType(r.Header); err != nil {
		return nil, err
	}
	var body []byte
	var err error
	tooLarge := r.ContentLength > int64(limit)
	switch {
	case tooLarge:
	case r.ContentLength >= 0:
		body = make([]byte, r.ContentLength)
		_, err = io.ReadFull(r.Body, body)
	default:
		body, err = io.ReadAll(io.LimitReader(r.Body, int64(limit)+1))
		tooLarge = len(body) > limit
	}
	switch {
	case tooLarge:
		return nil, refuse(codePayloadTooLarge, "", "the body may have at most "+strconv.Itoa(limit)+" bytes")
	case err == nil, errors.Is(err, io.EOF):
		return body, nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, refuse(codeRequestTimeout, "", "")
	}
	return nil, refuse(events.CodeInvalidJSON, "", "the body could not be read to its end")
}

func checkMediaType(header http.Header) error {
	if encoding := header.Get("Content-Encoding"); encoding != "" && !strings.EqualFold(encoding, "identity") {
		return refuse(codeUnsupportedMediaType, "", "send the body without Content-Encoding")
	}
	contentType := header.Get("Content-Type")
	if contentType == "application/json" {
		return nil
	}
	media, params, err := mime.ParseMediaType(contentType)
	if err != nil || media != "application/json" {
		return refuse(codeUnsupportedMediaType, "", "")
	}
	if charset := params["charset"]; charset != "" && !strings.EqualFold(charset, "utf-8") {
		return refuse(codeUnsupportedMediaType, "", "JSON is UTF-8, send no other charset")
	}
	return nil
}

// The headers that say about one event what its fields can say too, for workers that cannot touch the body. They are written as
// net/http has them.
const (
	headerIdempotencyKey = "Idempotency-Key"
	headerStaleAfter     = "Stale-After"
	headerPrefer         = "Prefer"
)

func badKey(detail string) error {
	return refuse(events.CodeInvalidIdempotencyKey, headerIdempotencyKey, detail)
}

func badStaleAfter(detail string) error {
	return refuse(events.CodeInvalidStaleAfter, headerStaleAfter, detail)
}

// applyHeaders adds to the event what its request's headers say. A header and a field that disagree are an error: which one was
// meant is not ours to guess.
func applyHeaders(event *events.Event, header http.Header) error {
	if keys := header[headerIdempotencyKey]; len(keys) > 0 {
		switch {
		case len(keys) > 1:
			return badKey("the header is there twice")
		case event.IdempotencyKey != "" && event.IdempotencyKey != keys[0]:
			return badKey("the header and the field idempotencyKey differ")
		case events.CheckIdempotencyKey(keys[0]) != nil:
			return badKey("") // the catalogue says what a key is
		}
		event.IdempotencyKey = keys[0]
	}
	if values := header[headerStaleAfter]; len(values) > 0 {
		after, err := events.ParseStaleAfter(values[0])
		switch {
		case len(values) > 1:
			return badStaleAfter("the header is there twice")
		case err != nil:
			return badStaleAfter(refusalOf(err).Detail)
		case event.Kind != events.Progress:
			return badStaleAfter("only progress can be watched")
		case event.StaleAfter != 0 && event.StaleAfter != after:
			return badStaleAfter("the header and the field staleAfter differ")
		}
		event.StaleAfter = after
	}
	return nil
}

// preferredWait reads `Prefer: wait=N`, N in seconds; 0 when there is none. A preference is a wish (RFC 7240): what cannot be
// read is ignored, the first of several counts, and more than MaxWait becomes MaxWait.
func preferredWait(header http.Header) time.Duration {
	for _, value := range header[headerPrefer] {
		for preference := range strings.SplitSeq(value, ",") {
			preference, _, _ = strings.Cut(preference, ";")
			name, wish, _ := strings.Cut(preference, "=")
			if !strings.EqualFold(strings.TrimSpace(name), "wait") {
				continue
			}
			seconds, err := strconv.ParseUint(strings.Trim(strings.TrimSpace(wish), `"`), 10, 31)
			if err != nil {
				return 0
			}
			return min(time.Duration(seconds)*time.Second, MaxWait)
		}
	}
	return 0
}

// takeTime lets a handler that has read its body go on for longer than the server gives a request: to net/http, a deadline for
// reading that passes now looks like the client's leaving.
func takeTime(c *gin.Context) {
	_ = http.NewResponseController(c.Writer).SetReadDeadline(time.Time{})
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
	return append(append(dst, `,"warnings":`...), marshal(warnings)...)
}

// Batch is POST /v1/events/batch: up to MaxBatchItems events, each with a result of its own in its place.
func (e *Events) Batch(c *gin.Context) {
	text, err := e.batch(c)
	if err != nil {
		fail(c, err)
		return
	}
	answerText(c, http.StatusOK, text)
}

func (e *Events) batch(c *gin.Context) ([]byte, error) {
	ctx, header := c.Request.Context(), c.Request.Header
	switch {
	case len(header[headerIdempotencyKey]) > 0:
		return nil, badKey("the events of a batch carry their keys themselves, as idempotencyKey")
	case len(header[headerStaleAfter]) > 0:
		return nil, badStaleAfter("the events of a batch carry it themselves, as staleAfter")
	}
	body, err := readBody(c.Request, e.cfg.MaxBatchBytes)
	if err != nil {
		return nil, err
	}
	takeTime(c) // a context that ends would hide from the worker what was stored
	items, err := events.ParseBatch(body, e.cfg.MaxBatchItems, e.cfg.MaxEventBytes)
	if err != nil {
		return nil, err
	}
	good := make([]events.Event, 0, len(items))
	for i := range items {
		if items[i].Err == nil {
			good = append(good, items[i].Event)
		}
	}
	var answers []delivery.Answer
	if len(good) > 0 {
		answers, err = e.publisher.PublishBatch(ctx, good)
	}
	if err := cmp.Or(ctx.Err(), err); err != nil {
		return nil, err
	}
	// The refusals of parsing and the answers of the publisher, in the order of the items.
	text := make([]byte, 0, 32+80*len(items))
	text = append(text, `{"results":[`...)
	for i := range items {
		if i > 0 {
			text = append(text, ',')
		}
		err := items[i].Err
		var result delivery.Result
		if err == nil {
			result, err = answers[0].Result, answers[0].Err
			answers = answers[1:]
		}
		if err != nil {
			text = append(append(text, `{"error":`...), marshal(problemOf(note(c, err)))...)
		} else {
			text = appendWarnings(appendResult(text, result), items[i].Warnings)
		}
		text = append(text, '}')
	}
	return append(text, `]}`...), nil
}
