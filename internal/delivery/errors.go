package delivery

import (
	"errors"
	"fmt"

	"jobwire/internal/events"
)

// The codes that workers see beside those of package events.
const (
	CodeStoreUnavailable = "store_unavailable"      // 503: nothing was stored, try again
	CodeStoreFull        = "store_full"             // 507: nothing was stored, the store has reached its limit
	CodeShuttingDown     = "shutting_down"          // 503: nothing was stored, try another node or later
	CodeKeyReused        = "idempotency_key_reused" // 422: the key came before with another body
)

var (
	// ErrStoreUnavailable says that the event was not stored. It wraps the cause.
	ErrStoreUnavailable error = &events.Error{Code: CodeStoreUnavailable, Detail: "the event store is not available, nothing was stored"}
	// ErrStoreFull says that the store has reached its limit of bytes; what is in it is delivered all the same.
	ErrStoreFull error = &events.Error{Code: CodeStoreFull, Detail: "the event store has reached its size limit, nothing was stored"}
	// ErrClosed is what every call answers once Close has begun.
	ErrClosed error = &events.Error{Code: CodeShuttingDown, Detail: "the server is shutting down, nothing was stored"}
	// ErrKeyReused refuses an idempotency key that came before with another body.
	ErrKeyReused error = &events.Error{Code: CodeKeyReused, Field: "Idempotency-Key", Detail: "the key was used before for another event of this user"}
	// ErrSinkClosed ends a replay whose socket is gone. Nobody needs to be told.
	ErrSinkClosed = errors.New("the socket closed during its replay")
	// ErrReplayStalled ends a replay whose client takes nothing any more.
	ErrReplayStalled = errors.New("the client read nothing during its replay")
)

// unavailable gives a store's failure the code that workers see and keeps
// the cause for logs. Errors that have a code already pass unchanged.
func unavailable(err error) error {
	var coded *events.Error
	if err == nil || errors.As(err, &coded) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrStoreUnavailable, err)
}
