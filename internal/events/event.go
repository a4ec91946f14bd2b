package events

import (
	"encoding/json"
	"time"
)

// Event is one event that a worker sent, validated.
type Event struct {
	UserID         string
	Name           string
	Data           json.RawMessage // byte for byte as sent; a part of the parsed body, which must not change any more
	JobID          string          // of the three job events (a number as its digits); "" otherwise
	Attempt        uint32          // data.attempt of the job events; 0 when absent
	IdempotencyKey string          // at most 255 bytes; "" when absent
	StaleAfter     time.Duration   // of job_progress; 0 means that nobody watches the job
}
