package events

// Item is one item of a batch: an event, or why it is none.
type Item struct {
	Event    Event
	Warnings []Warning // of a good Event
	Err      error     // an *Error; nil when Event is good
}

// ParseBatch reads {"events": [event, …]}: at most maxItems of them, each of
// at most maxItemBytes bytes. The items come back in order and a bad item
// fails alone; a body that is not of this shape fails as a whole with an
// *Error. Every Data is a part of body, as with Parse: keeping one event
// keeps the whole body in memory.
func ParseBatch(body []byte, maxItems, maxItemBytes int) ([]Item, error) {
	s := scanner{src: body}
	if !s.atObject("a batch") {
		return nil, s.fatal
	}
	const smallest = len(`{"userId":1,"event":"a","data":0},`)
	items := make([]Item, 0, min(maxItems, len(body)/smallest+1))
	var envelope *Error // trouble around the items; theirs never stays in s.fault
	refuseBatch := func(err *Error) {
		if envelope == nil {
			envelope = err
		}
	}
	seen := false
	ok := s.object(0, func(key []byte) bool {
		name, _ := unquote(key)
		switch {
		case name != "events":
			refuseBatch(unknownField(name))
		case seen:
			refuseBatch(duplicateField(name))
		case s.peek() == '[':
			seen = true
			return s.array(0, func() bool {
				if len(items) == maxItems {
					s.fatal = refuse(CodeBatchTooLarge, "events", "a batch has at most %d events", maxItems)
					return false
				}
				item, ok := s.item(maxItemBytes)
				items = append(items, item)
				return ok
			})
		default:
			seen = true
			refuseBatch(refuse(CodeInvalidJSON, "events", "events must be an array"))
		}
		_, ok := s.value(1)
		return ok
	})
	switch {
	case !ok || !s.end():
		return nil, s.fatal
	case s.fault != nil:
		return nil, s.fault
	case envelope != nil:
		return nil, envelope
	case !seen:
		return nil, missingField("events")
	}
	return items, nil
}

// item walks over one item of a batch.
func (s *scanner) item(maxBytes int) (Item, bool) {
	outer := s.fault
	s.fault = nil
	defer func() { s.fault = outer }()

	var item Item
	var ok bool
	isObject := s.peek() == '{'
	start := s.pos
	if isObject {
		item.Event, item.Warnings, ok = s.event()
	} else {
		_, ok = s.value(0)
	}
	switch {
	case s.pos-start > maxBytes:
		return Item{Err: refuse(CodeEventTooLarge, "", "an event has at most %d bytes", maxBytes)}, ok
	case !isObject:
		return Item{Err: refuse(CodeInvalidJSON, "", "an event must be a JSON object")}, ok
	case s.fault != nil:
		return Item{Err: s.fault}, ok
	}
	return item, ok
}
