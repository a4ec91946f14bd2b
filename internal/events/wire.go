package events

import (
	"math"
	"slices"
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
	event, warnings, err := s.event()
	if trouble := s.end(); trouble != nil {
		return Event{}, nil, trouble
	}
	return event, warnings, err
}

// event walks over the object of an event and validates it.
func (s *scanner) event() (Event, []Warning, error) {
	var m members
	s.enterObject("an event")
	for quoted, ok := s.member(); ok; quoted, ok = s.member() {
		key, hadFault := plain(quoted), s.fault != nil
		value := m.place(key)
		switch {
		case value == nil:
			if !hadFault {
				s.note(unknownField(string(key), eventFields...))
			}
			value = new([]byte)
		case *value != nil && !hadFault:
			s.note(duplicateField(string(key)))
		}
		if value == &m.data {
			*value = s.data(&m)
		} else {
			*value = s.value()
		}
		if !hadFault && s.fault != nil && s.fault.Field == "" {
			s.fault.Field = string(key)
		}
	}
	switch {
	case s.fatal != nil:
		return Event{}, nil, s.fatal
	case s.fault != nil:
		return Event{}, nil, s.fault
	}
	var event Event
	if err := m.build(&event); err != nil {
		return Event{}, nil, err
	}
	return event, m.warnings(&event), nil
}

// members are the values of what matters in an event's object, as they were written; nil for what is absent.
type members struct {
	userID, name, data, kind, jobID, attempt, idempotencyKey, staleAfter []byte

	// Of data, if it is an object.
	dataJobID, dataAttempt, dataProgress []byte
	jobIDTwice, attemptTwice             bool
}

// eventFields are the keys that place knows.
var eventFields = []string{"userId", "event", "data", "kind", "jobId", "attempt", "idempotencyKey", "staleAfter"}

// place is where the value of that key belongs, nil when an event has no such member.
func (m *members) place(key []byte) *[]byte {
	switch string(key) {
	case "userId":
		return &m.userID
	case "event":
		return &m.name
	case "data":
		return &m.data
	case "kind":
		return &m.kind
	case "jobId":
		return &m.jobID
	case "attempt":
		return &m.attempt
	case "idempotencyKey":
		return &m.idempotencyKey
	case "staleAfter":
		return &m.staleAfter
	}
	return nil
}

// data walks over the value of data. In an object it remembers what an event of a known name is asked for. Other members may
// repeat: what they mean is not ours to say.
func (s *scanner) data(m *members) []byte {
	if s.peek() != '{' {
		return s.value()
	}
	start := s.pos
	s.enter()
	for quoted, ok := s.member(); ok; quoted, ok = s.member() {
		value := s.value()
		switch string(plain(quoted)) {
		case "jobId":
			m.jobIDTwice = m.dataJobID != nil
			m.dataJobID = value
		case "attempt":
			m.attemptTwice = m.dataAttempt != nil
			m.dataAttempt = value
		case "progress":
			m.dataProgress = value
		}
	}
	return s.src[start:s.pos]
}

// build makes the event out of its members.
func (m *members) build(event *Event) (err error) {
	switch {
	case m.userID == nil:
		return missingField("userId")
	case m.name == nil:
		return missingField("event")
	case m.data == nil:
		return missingField("data")
	}
	var ok bool
	if event.UserID, ok = label(m.userID); !ok {
		return refuse(CodeInvalidUserID, "userId", "a user id must be a string or an integer")
	}
	if err := CheckUserID(event.UserID); err != nil {
		return err
	}
	event.Name = nameOf(m.name)
	if err := CheckName(event.Name); err != nil {
		return err
	}
	if given(m.idempotencyKey) {
		if event.IdempotencyKey, ok = stringOf(m.idempotencyKey); !ok {
			return refuse(CodeInvalidIdempotencyKey, "idempotencyKey", "an idempotency key must be a string")
		}
		if err := CheckIdempotencyKey(event.IdempotencyKey); err != nil {
			return err
		}
	}
	event.Data = slices.Clip(m.data)
	if err := m.buildJob(event); err != nil {
		return err
	}
	if given(m.staleAfter) {
		if event.Kind != Progress {
			return refuse(CodeInvalidStaleAfter, "staleAfter", "only progress can be watched")
		}
		event.StaleAfter, err = ParseStaleAfter(string(m.staleAfter))
	}
	return err
}

// kinds are the kinds as workers write them.
var kinds = map[string]Kind{"progress": Progress, "completed": Completed, "failed": Failed}

// buildJob says what the event is to a job. For the known names that follows from the name and from data; the fields beside
// event may repeat it. For any other name only these fields count, and data is not looked into.
func (m *members) buildJob(event *Event) error {
	named := KindOf(event.Name)
	event.Kind = named
	if given(m.kind) {
		var ok bool
		name, _ := stringOf(m.kind)
		if event.Kind, ok = kinds[name]; !ok {
			return refuse(CodeInvalidKind, "kind", "a kind is progress, completed or failed")
		}
		if named != Message && named != event.Kind {
			return refuse(CodeFieldConflict, "kind", "the name %s says another kind", event.Name)
		}
	}
	if event.Kind == Message {
		if given(m.jobID) || given(m.attempt) {
			return refuse(CodeMissingField, "kind", "with a jobId or an attempt, %q needs a kind: progress, completed or failed", event.Name)
		}
		return nil
	}
	if err := event.setJobID(m.jobID, "jobId"); err != nil {
		return err
	}
	if err := event.setAttempt(m.attempt, "attempt"); err != nil {
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
	if err := event.setJobID(m.dataJobID, "data.jobId"); err != nil {
		return err
	}
	if event.JobID == "" {
		return refuse(CodeMissingJobID, "data.jobId", "the data of %s must have a jobId", event.Name)
	}
	return event.setAttempt(m.dataAttempt, "data.attempt")
}

// setJobID takes the job id that a field gives, if it does, and refuses one that differs from what another field gave.
func (e *Event) setJobID(text []byte, field string) error {
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
func (e *Event) setAttempt(text []byte, field string) error {
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

// given reports whether a member is there and not null.
func given(text []byte) bool { return len(text) > 0 && text[0] != 'n' }

// stringOf decodes text if it is a string.
func stringOf(text []byte) (string, bool) {
	if text[0] != '"' {
		return "", false
	}
	return unquote(text)
}

// nameOf is stringOf, without an allocation for the names seen most; what is no string has no name.
func nameOf(text []byte) string {
	switch string(text) {
	case `"` + JobProgress + `"`:
		return JobProgress
	case `"` + JobCompleted + `"`:
		return JobCompleted
	case `"` + JobFailed + `"`:
		return JobFailed
	}
	name, _ := stringOf(text)
	return name
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
	return string(text), string(text) != "-0"
}

// Bounds on staleAfter.
const (
	MinStaleAfter = 100 * time.Millisecond
	MaxStaleAfter = 24 * time.Hour
)

// ParseStaleAfter reads a number of seconds, written as JSON writes numbers, from MinStaleAfter to MaxStaleAfter.
func ParseStaleAfter(text string) (time.Duration, error) {
	n, err := strconv.ParseFloat(text, 64)
	if err != nil || CheckJSON([]byte(text)) != nil || n < MinStaleAfter.Seconds() || n > MaxStaleAfter.Seconds() {
		return 0, refuse(CodeInvalidStaleAfter, "staleAfter", "staleAfter must be a number of seconds from %v to %v",
			MinStaleAfter.Seconds(), MaxStaleAfter.Seconds())
	}
	return time.Duration(math.Round(n * float64(time.Second))), nil
}

// Item is one item of a batch: an event, or why it is none.
type Item struct {
	Event    Event
	Warnings []Warning // of a good Event
	Err      error     // an *Error; nil when Event is good
}

// ParseBatch reads {"events": [event, …]}: at most maxItems of them, each of at most maxItemBytes bytes. The items come back in
// order and a bad item fails alone; a body that is not of this shape fails as a whole with an *Error. Every Data is a part of
// body, as with Parse: keeping one event keeps the whole body in memory.
func ParseBatch(body []byte, maxItems, maxItemBytes int) ([]Item, error) {
	s := scanner{src: body}
	const smallest = len(`{"userId":1,"event":"a","data":0},`)
	var items []Item // nil until events was seen
	s.enterObject("a batch")
	for quoted, ok := s.member(); ok; quoted, ok = s.member() {
		name := string(plain(quoted))
		if name == "events" && items == nil && s.peek() == '[' {
			items = make([]Item, 0, min(maxItems, len(body)/smallest+1))
			for s.enter(); s.more(']'); items = append(items, s.item(maxItemBytes)) {
				if len(items) == maxItems {
					return nil, refuse(CodeBatchTooLarge, "events", "a batch has at most %d events", maxItems)
				}
			}
			continue
		}
		s.value()
		switch {
		case s.fault != nil: // what else is wrong is not told
		case name != "events":
			s.note(unknownField(name, "events"))
		case items != nil:
			s.note(duplicateField(name))
		default:
			items = []Item{}
			s.note(refuse(CodeInvalidJSON, "events", "events must be an array"))
		}
	}
	if err := s.end(); err != nil {
		return nil, err
	}
	if items == nil {
		return nil, missingField("events")
	}
	return items, nil
}

// item walks over one item of a batch. It has a depth of its own, and its faults are no faults of the batch.
func (s *scanner) item(maxBytes int) (item Item) {
	fault, depth := s.fault, s.depth
	s.fault, s.depth = nil, 0
	isObject := s.peek() == '{'
	start := s.pos
	if isObject {
		item.Event, item.Warnings, item.Err = s.event()
	} else {
		s.value()
		item.Err = refuse(CodeInvalidJSON, "", "an event must be a JSON object")
	}
	if s.pos-start > maxBytes {
		item = Item{Err: refuse(CodeEventTooLarge, "", "an event has at most %d bytes", maxBytes)}
	}
	s.fault, s.depth = fault, depth
	return item
}

// Encode builds the Socket.IO packet text of an event in the main namespace: 2["name",data,"id"], or without an id
// 2["name",data], or 2["name",data,null] when data is a string: a client takes any trailing string for its recovery offset.
// Engine.IO's own leading '4' is the engine's.
//
// name must satisfy the pattern of [CheckName], so that it needs no escapes, and data must be valid JSON.
func Encode(name string, data []byte, id ID) []byte {
	var text [maxIDLen]byte
	size := len(`2["",]`) + len(name) + len(data)
	switch {
	case !id.IsZero():
		size += len(`,""`) + len(id.AppendTo(text[:0]))
	case isString(data):
		size += len(`,null`)
	}
	return AppendEncoded(make([]byte, 0, size), name, data, id)
}

// AppendEncoded appends what Encode returns to dst.
func AppendEncoded(dst []byte, name string, data []byte, id ID) []byte {
	dst = append(dst, `2["`...)
	dst = append(dst, name...)
	dst = append(dst, `",`...)
	dst = append(dst, data...)
	switch {
	case !id.IsZero():
		dst = append(dst, `,"`...)
		dst = id.AppendTo(dst)
		dst = append(dst, '"')
	case isString(data):
		dst = append(dst, `,null`...)
	}
	return append(dst, ']')
}

func isString(data []byte) bool { return len(data) > 0 && data[0] == '"' }
