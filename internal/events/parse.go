package events

import (
	"math"
	"strconv"
	"time"
)

// Parse reads the body of one POSTed event:
//
//	{"userId": …, "event": …, "data": …, "idempotencyKey"?: …, "staleAfter"?: …}
//
// userId is a string or an integer, which becomes its decimal digits. Members
// that are optional may be null. Unknown and repeated members, invalid UTF-8
// and nesting beyond MaxDepth are refused, as is anything after the object.
// Lone surrogate escapes in data are passed on as they are.
//
// The event's Data is a part of body, which belongs to the event from then
// on. An error is an *Error.
func Parse(body []byte) (Event, error) {
	s := scanner{src: body}
	if !s.atObject("an event") {
		return Event{}, s.fatal
	}
	event, ok := s.event()
	if !ok || !s.end() {
		return Event{}, s.fatal
	}
	if s.fault != nil {
		return Event{}, s.fault
	}
	return event, nil
}

// members are the places of what matters in an event's object.
type members struct {
	userID, name, data, idempotencyKey, staleAfter span
	jobID, attempt                                 span // in data
	jobIDTwice, attemptTwice                       bool
}

// event walks over the object of an event and validates it. It reports false
// when the text is not JSON; what else is wrong is in s.fault, and then the
// event is of no use.
func (s *scanner) event() (Event, bool) {
	var m members
	ok := s.object(0, func(key []byte) bool {
		had := s.fault != nil
		where, field := m.lookup(key)
		if where == nil {
			name, _ := unquote(key)
			s.note(unknownField(name))
			where = new(span)
		} else if where.found() {
			s.note(duplicateField(field))
		}
		var ok bool
		if where == &m.data && s.peek() == '{' {
			where.start = s.pos
			ok = s.data(&m)
			where.end = s.pos
		} else {
			*where, ok = s.value(1)
		}
		if !had && s.fault != nil && s.fault.Field == "" {
			s.fault.Field = field
		}
		return ok
	})
	if !ok {
		return Event{}, false
	}
	if s.fault != nil {
		return Event{}, true
	}
	var event Event
	if err := s.build(&event, &m); err != nil {
		s.note(err)
	}
	return event, true
}

// lookup finds the place for the member with that key, nil when the event has
// no such member.
func (m *members) lookup(key []byte) (*span, string) {
	switch name := string(plain(key)); name {
	case "userId":
		return &m.userID, "userId"
	case "event":
		return &m.name, "event"
	case "data":
		return &m.data, "data"
	case "idempotencyKey":
		return &m.idempotencyKey, "idempotencyKey"
	case "staleAfter":
		return &m.staleAfter, "staleAfter"
	}
	return nil, ""
}

// data walks over data when it is an object and remembers where its jobId and
// attempt are. Other members may repeat: what they mean is not ours to say.
func (s *scanner) data(m *members) bool {
	return s.object(1, func(key []byte) bool {
		name := string(plain(key))
		place, ok := s.value(2)
		switch name {
		case "jobId":
			m.jobIDTwice = m.jobID.found()
			m.jobID = place
		case "attempt":
			m.attemptTwice = m.attempt.found()
			m.attempt = place
		}
		return ok
	})
}

// plain is the text of a quoted key. Keys with escapes are rare, and only
// they cost an allocation.
func plain(quoted []byte) []byte {
	for _, c := range quoted {
		if c == '\\' {
			text, _ := unquote(quoted)
			return []byte(text)
		}
	}
	return quoted[1 : len(quoted)-1]
}

// build makes the event out of its members.
func (s *scanner) build(event *Event, m *members) *Error {
	switch {
	case !m.userID.found():
		return missingField("userId")
	case !m.name.found():
		return missingField("event")
	case !m.data.found():
		return missingField("data")
	}
	var ok bool
	if event.UserID, ok = label(s.text(m.userID)); !ok {
		return refuse(CodeInvalidUserID, "userId", "a user id must be a string or an integer")
	}
	if why := labelProblem(event.UserID, MaxUserIDLen); why != "" {
		return refuse(CodeInvalidUserID, "userId", "a user id %s", why)
	}
	if event.Name, ok = nameOf(s.text(m.name)); !ok {
		return badName()
	}
	if err := checkName(event.Name); err != nil {
		return err
	}
	if given(s.text(m.idempotencyKey)) {
		if event.IdempotencyKey, ok = stringOf(s.text(m.idempotencyKey)); !ok {
			return refuse(CodeInvalidIdempotencyKey, "idempotencyKey", "an idempotency key must be a string")
		}
		if why := labelProblem(event.IdempotencyKey, MaxIdempotencyKeyLen); why != "" {
			return refuse(CodeInvalidIdempotencyKey, "idempotencyKey", "an idempotency key %s", why)
		}
	}
	if text := s.text(m.staleAfter); given(text) {
		if event.Name != JobProgress {
			return refuse(CodeInvalidStaleAfter, "staleAfter", "only %s can be watched", JobProgress)
		}
		if event.StaleAfter, ok = seconds(string(text)); !ok {
			return badStaleAfter()
		}
	}
	event.Data = s.src[m.data.start:m.data.end:m.data.end]
	if event.Kind = KindOf(event.Name); event.Kind != Message {
		return s.buildJob(event, m)
	}
	return nil
}

func (s *scanner) buildJob(event *Event, m *members) *Error {
	if event.Data[0] != '{' {
		return refuse(CodeInvalidData, "data", "the data of %s must be an object", event.Name)
	}
	switch {
	case m.jobIDTwice:
		return duplicateField("data.jobId")
	case m.attemptTwice:
		return duplicateField("data.attempt")
	case !given(s.text(m.jobID)):
		return refuse(CodeMissingJobID, "data.jobId", "the data of %s must have a jobId", event.Name)
	}
	var ok bool
	if event.JobID, ok = label(s.text(m.jobID)); !ok {
		return refuse(CodeInvalidJobID, "data.jobId", "a job id must be a string or an integer")
	}
	if why := labelProblem(event.JobID, MaxJobIDLen); why != "" {
		return refuse(CodeInvalidJobID, "data.jobId", "a job id %s", why)
	}
	if text := s.text(m.attempt); given(text) {
		n, err := strconv.ParseUint(string(text), 10, 32) // what is left of JSON here are digits or garbage
		if err != nil {
			return refuse(CodeInvalidAttempt, "data.attempt", "an attempt must be an integer from 0 to %d", uint32(math.MaxUint32))
		}
		event.Attempt, event.HasAttempt = uint32(n), true
	}
	return nil
}

// given reports whether a member is there and not null.
func given(text []byte) bool { return len(text) > 0 && text[0] != 'n' }

// stringOf decodes text if it is a string.
func stringOf(text []byte) (string, bool) {
	if text[0] != '"' {
		return "", false
	}
	return unquote(text)
}

// label decodes text if it is a string or an integer.
func label(text []byte) (string, bool) {
	if text[0] == '"' {
		return unquote(text)
	}
	for i, c := range text {
		if (c < '0' || c > '9') && (c != '-' || i > 0) {
			return "", false // a fraction, an exponent, a literal or a container
		}
	}
	if string(text) == "-0" {
		return "", false
	}
	return string(text), true
}

// nameOf is stringOf without an allocation for the names seen most.
func nameOf(text []byte) (string, bool) {
	switch string(text) {
	case `"` + JobProgress + `"`:
		return JobProgress, true
	case `"` + JobCompleted + `"`:
		return JobCompleted, true
	case `"` + JobFailed + `"`:
		return JobFailed, true
	}
	return stringOf(text)
}

// Bounds on staleAfter.
const (
	MinStaleAfter = 100 * time.Millisecond
	MaxStaleAfter = 24 * time.Hour
)

// ParseStaleAfter reads a number of seconds, written as JSON writes numbers,
// from MinStaleAfter to MaxStaleAfter.
func ParseStaleAfter(text string) (time.Duration, error) {
	s := scanner{src: []byte(text)}
	if len(text) > 32 || !s.number() || s.pos != len(text) {
		return 0, badStaleAfter()
	}
	d, ok := seconds(text)
	if !ok {
		return 0, badStaleAfter()
	}
	return d, nil
}

// seconds reads what is already known to be a JSON value.
func seconds(text string) (time.Duration, bool) {
	n, err := strconv.ParseFloat(text, 64)
	if err != nil || n < MinStaleAfter.Seconds() || n > MaxStaleAfter.Seconds() {
		return 0, false
	}
	return time.Duration(math.Round(n * float64(time.Second))), true
}

func badStaleAfter() *Error {
	return refuse(CodeInvalidStaleAfter, "staleAfter", "staleAfter must be a number of seconds from %v to %v",
		MinStaleAfter.Seconds(), MaxStaleAfter.Seconds())
}

func unknownField(name string) *Error {
	return refuse(CodeUnknownField, clip(name), "there is no such field")
}

func duplicateField(name string) *Error {
	return refuse(CodeDuplicateField, name, "the field is there twice")
}

func missingField(name string) *Error {
	return refuse(CodeMissingField, name, "the field is required")
}
