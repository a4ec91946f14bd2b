package handlers

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"jobwire/internal/events"
)

// The headers that say about one event what its fields can say too, for
// workers that cannot touch the body. They are written as net/http has them.
const (
	headerIdempotencyKey = "Idempotency-Key"
	headerStaleAfter     = "Stale-After"
	headerPrefer         = "Prefer"
)

// applyHeaders adds to the event what its request's headers say. A header
// and a field that disagree are an error: which one was meant is not ours to
// guess.
func applyHeaders(event *events.Event, header http.Header) error {
	if values := header[headerIdempotencyKey]; len(values) > 0 {
		if err := applyIdempotencyKey(event, values); err != nil {
			return err
		}
	}
	if values := header[headerStaleAfter]; len(values) > 0 {
		return applyStaleAfter(event, values)
	}
	return nil
}

// refuseEventHeaders refuses in a batch what only one event can have.
func refuseEventHeaders(header http.Header) error {
	if len(header[headerIdempotencyKey]) > 0 {
		return &events.Error{
			Code: events.CodeInvalidIdempotencyKey, Field: headerIdempotencyKey,
			Detail: "the events of a batch carry their keys themselves, as idempotencyKey",
		}
	}
	if len(header[headerStaleAfter]) > 0 {
		return &events.Error{
			Code: events.CodeInvalidStaleAfter, Field: headerStaleAfter,
			Detail: "the events of a batch carry it themselves, as staleAfter",
		}
	}
	return nil
}

func applyIdempotencyKey(event *events.Event, values []string) error {
	refuse := func(detail string) error {
		return &events.Error{Code: events.CodeInvalidIdempotencyKey, Field: headerIdempotencyKey, Detail: detail}
	}
	key := values[0]
	switch {
	case len(values) > 1:
		return refuse("the header is there twice")
	case event.IdempotencyKey != "" && event.IdempotencyKey != key:
		return refuse("the header and the field idempotencyKey differ")
	}
	if err := events.CheckIdempotencyKey(key); err != nil {
		return refuse("") // the catalogue says what a key is
	}
	event.IdempotencyKey = key
	return nil
}

func applyStaleAfter(event *events.Event, values []string) error {
	refuse := func(detail string) error {
		return &events.Error{Code: events.CodeInvalidStaleAfter, Field: headerStaleAfter, Detail: detail}
	}
	after, err := events.ParseStaleAfter(values[0])
	switch {
	case len(values) > 1:
		return refuse("the header is there twice")
	case err != nil:
		return refuse(refusalOf(err).Detail)
	case event.Kind != events.Progress:
		return refuse("only progress can be watched")
	case event.StaleAfter != 0 && event.StaleAfter != after:
		return refuse("the header and the field staleAfter differ")
	}
	event.StaleAfter = after
	return nil
}

// preferredWait reads `Prefer: wait=N`, N in seconds; 0 when there is none.
// A preference is a wish (RFC 7240): what cannot be read is ignored, the first
// of several counts, and more than MaxWait becomes MaxWait.
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
