package events

import (
	"math"
	"strconv"
	"time"
)

// Parse reads the body of one POSTed event:
//
//	{"userId": …, "event": …, "data": …, "kind"?: …, "jobId"?: …, "attempt"?: …, "idempotencyKey"?: …, "staleAfter"?: …}
//
// userId and jobId are strings or integers, which become their decimal digits. Members that are optional may be null. Unknown
// and repeated members, invalid UTF-8 and nesting beyond MaxDepth are refused, as is anything after the object. Lone surrogate
// escapes in data are passed on as they are.
//
// The event's Data is a part of body, which belongs to the event from then on. An error is an *Error. Warnings tell what the
// worker may not have meant, although the event is good.
func Parse(body []byte) (Event, []Warning, error) {
	s := scanner{src: body}
	if !s.atObject("an event") {
		return Event{}, nil, s.fatal
	}
	event, warnings, ok := s.event()
	if !ok || !s.end() {
		return Event{}, nil, s.fatal
	}
	if s.fault != nil {
		return Event{}, nil, s.fault
	}
	return event, warnings, nil
}

// members are the places of what matters in an event's object.
type members struct {
	userID, name, data, kind, jobID, attempt, idempotencyKey, staleAfter span

	// Of data, if it is an object.
	dataJobID, dataAttempt, dataProgress span
	jobIDTwice, attemptTwice             bool
}

// event walks over the object of an event and validates it. It reports false when the text is not JSON; what else is wrong is
// in s.fault, and then the event is of no use.
func (s *scanner) event() (Event, []Warning, bool) {
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
		return Event{}, nil, false
	}
	if s.fault != nil {
		return Event{}, nil, true
	}
	var event Event
	if err := s.build(&event, &m); err != nil {
		s.note(err)
		return Event{}, nil, true
	}
	return event, s.warnings(&event, &m), true
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
	case "kind":
		return &m.kind, "kind"
	case "jobId":
		return &m.jobID, "jobId"
	case "attempt":
		return &m.attempt, "attempt"
	case "idempotencyKey":
		return &m.idempotencyKey, "idempotencyKey"
	case "staleAfter":
		return &m.staleAfter, "staleAfter"
	}
	return nil, ""
}

// data walks over data when it is an object and remembers what an event of a known name is asked for. Other members may
// repeat: what they mean is not ours to say.
func (s *scanner) data(m *members) bool {
	return s.object(1, func(key []byte) bool {
		name := string(plain(key))
		place, ok := s.value(2)
		switch name {
		case "jobId":
			m.jobIDTwice = m.dataJobID.found()
			m.dataJobID = place
		case "attempt":
			m.attemptTwice = m.dataAttempt.found()
			m.dataAttempt = place
		case "progress":
			m.dataProgress = place
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
	event.Data = s.src[m.data.start:m.data.end:m.data.end]
	if err := s.buildJob(event, m); err != nil {
		return err
	}
	if text := s.text(m.staleAfter); given(text) {
		if event.Kind != Progress {
			return refuse(CodeInvalidStaleAfter, "staleAfter", "only progress can be watched")
		}
		if event.StaleAfter, ok = seconds(string(text)); !ok {
			return badStaleAfter()
		}
	}
	return nil
}

// buildJob says what the event is to a job. For the known names that follows from the name and from data; the fields beside
// event may repeat it. For any other name only these fields count, and data is not looked into.
func (s *scanner) buildJob(event *Event, m *members) *Error {
	named := KindOf(event.Name)
	event.Kind = named
	if text := s.text(m.kind); given(text) {
		var ok bool
		if event.Kind, ok = kindCalled(text); !ok {
			return refuse(CodeInvalidKind, "kind", "a kind is progress, completed or failed")
		}
		if named != Message && named != event.Kind {
			return refuse(CodeFieldConflict, "kind", "the name %s says another kind", event.Name)
		}
	}
	jobID, attempt := s.text(m.jobID), s.text(m.attempt)
	if event.Kind == Message {
		if given(jobID) || given(attempt) {
			return refuse(CodeMissingField, "kind", "with a jobId or an attempt, %q needs a kind: progress, completed or failed", event.Name)
		}
		return nil
	}
	if err := event.setJobID(jobID, "jobId"); err != nil {
		return err
	}
	if err := event.setAttempt(attempt, "attempt"); err != nil {
		return err
	}
	if named == Message {
		if event.JobID == "" {
			return refuse(CodeMissingJobID, "jobId", "an event with a kind must have a jobId")
		}
		return nil
	}
	switch {
	case event.Data[0] != '{':
		return refuse(CodeInvalidData, "data", "the data of %s must be an object", event.Name)
	case m.jobIDTwice:
		return duplicateField("data.jobId")
	case m.attemptTwice:
		return duplicateField("data.attempt")
	}
	if err := event.setJobID(s.text(m.dataJobID), "data.jobId"); err != nil {
		return err
	}
	if event.JobID == "" {
		return refuse(CodeMissingJobID, "data.jobId", "the data of %s must have a jobId", event.Name)
	}
	return event.setAttempt(s.text(m.dataAttempt), "data.attempt")
}

// setJobID takes the job id that a field gives, if it does, and refuses one that differs from what another field gave.
func (e *Event) setJobID(text []byte, field string) *Error {
	if !given(text) {
		return nil
	}
	id, ok := label(text)
	if !ok {
		return refuse(CodeInvalidJobID, field, "a job id must be a string or an integer")
	}
	if why := labelProblem(id, MaxJobIDLen); why != "" {
		return refuse(CodeInvalidJobID, field, "a job id %s", why)
	}
	if e.JobID != "" && e.JobID != id {
		return refuse(CodeFieldConflict, "jobId", "jobId and data.jobId differ")
	}
	e.JobID = id
	return nil
}

// setAttempt is to attempts what setJobID is to job ids.
func (e *Event) setAttempt(text []byte, field string) *Error {
	if !given(text) {
		return nil
	}
	n, err := strconv.ParseUint(string(text), 10, 32) // what is left of JSON here are digits or garbage
	if err != nil {
		return refuse(CodeInvalidAttempt, field, "an attempt must be an integer from 0 to %d", uint32(math.MaxUint32))
	}
	if e.HasAttempt && e.Attempt != uint32(n) {
		return refuse(CodeFieldConflict, "attempt", "attempt and data.attempt differ")
	}
	e.Attempt, e.HasAttempt = uint32(n), true
	return nil
}

// kindCalled reads a kind as workers write it.
func kindCalled(text []byte) (Kind, bool) {
	name, _ := stringOf(text)
	switch name {
	case "progress":
		return Progress, true
	case "completed":
		return Completed, true
	case "failed":
		return Failed, true
	}
	return Message, false
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
