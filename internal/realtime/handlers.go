package realtime

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"reflect"
	"strconv"
	"strings"

	"jobwire/internal/engine"
	"jobwire/internal/events"
)

// Args are the arguments of an event as they stand on the wire. In Values, {"_placeholder":true,"num":n} stands for
// Attachments[n]; whether there is such an attachment has not been checked.
type Args struct {
	Values      []json.RawMessage
	Attachments [][]byte
	ID          uint64 // of the ack that the client asks for, if Asked
	Asked       bool
}

// handler is what every registration becomes. It calls ack at most once, before it returns.
type handler func(ctx context.Context, s *Session, args Args, ack func(value any, err error))

// Handle registers the handler of a client event whose one argument is a T: JSON, decoded strictly, so that unknown members are
// refused as invalid_payload. With struct{} the event has no argument, with a pointer it may be left out. The value that fn
// returns becomes the ack's argument, if the client asked for an ack; an error becomes {"error":{"code","message"}}: its own if
// it is an *events.Error, and internal, with the error logged, otherwise.
//
// Events of one session are handled one at a time, in order, also after the client has gone. ctx ends after
// Config.HandlerTimeout, and with the session. Handle panics if the event is taken or reserved, and must not be called once the
// hub serves.
func Handle[T any](h *Hub, event string, fn func(context.Context, *Session, T) (any, error)) {
	HandleInOrder(h, event, func(ctx context.Context, s *Session, payload T, ack func(any, error)) {
		ack(fn(ctx, s, payload))
	})
}

// HandleInOrder is Handle for an answer that has a place among what is emitted to the session: the ack is sent by the call of
// ack, which fn makes once, from any goroutine, before it returns. With Args fn gets whatever arguments there are, and may
// answer by itself instead.
func HandleInOrder[T any](h *Hub, event string, fn func(ctx context.Context, s *Session, payload T, ack func(value any, err error))) {
	h.register(event, func(ctx context.Context, s *Session, args Args, ack func(any, error)) {
		var payload T
		if err := args.decode(&payload); err != nil {
			ack(nil, err)
			return
		}
		fn(ctx, s, payload, ack)
	})
}

func (h *Hub) register(event string, fn handler) {
	if events.IsReserved(event) {
		panic("realtime: " + event + " is a reserved event name")
	}
	if h.handlers[event] != nil {
		panic("realtime: " + event + " has a handler already")
	}
	h.handlers[event] = fn
}

// decode puts the only argument into what payload points to. null is no argument.
func (a Args) decode(payload any) error {
	if all, ok := payload.(*Args); ok {
		*all = a
		return nil
	}
	if len(a.Attachments) > 0 {
		return invalidPayload("Binary arguments are not accepted.")
	}
	none := len(a.Values) == 0 || len(a.Values) == 1 && string(a.Values[0]) == "null"
	if _, ok := payload.(*struct{}); ok {
		if none || len(a.Values) == 1 && string(a.Values[0]) == "{}" {
			return nil
		}
		return invalidPayload("No argument is expected.")
	}
	if none && reflect.TypeOf(payload).Elem().Kind() == reflect.Pointer {
		return nil
	}
	if none || len(a.Values) != 1 {
		return invalidPayload("Exactly one argument is expected.")
	}
	dec := json.NewDecoder(bytes.NewReader(a.Values[0]))
	dec.DisallowUnknownFields()
	err := dec.Decode(payload)
	if err == nil {
		err = checkMembers(a.Values[0], reflect.TypeOf(payload))
	}
	if err != nil {
		return invalidPayload("The argument does not fit: " + describe(err))
	}
	return nil
}

// checkMembers refuses what encoding/json takes all the same: a member whose name is in another case, or that is there twice.
func checkMembers(text json.RawMessage, of reflect.Type) error {
	for of.Kind() == reflect.Pointer {
		of = of.Elem()
	}
	if of.Kind() != reflect.Struct || text[0] != '{' {
		return nil
	}
	members := make(map[string]any, of.NumField())
	for i := range of.NumField() {
		name, _, _ := strings.Cut(of.Field(i).Tag.Get("json"), ",")
		members[cmp.Or(name, of.Field(i).Name)] = new(json.RawMessage)
	}
	return events.DecodeObject(text, members)
}

func invalidPayload(detail string) error {
	return &events.Error{Code: CodeInvalidPayload, Detail: detail}
}

// describe words a decoding error without Go's own type names.
func describe(err error) string {
	var mismatch *json.UnmarshalTypeError
	if errors.As(err, &mismatch) {
		if mismatch.Field == "" {
			return "it must not be a JSON " + mismatch.Value + "."
		}
		return strconv.Quote(mismatch.Field) + " must not be a JSON " + mismatch.Value + "."
	}
	return "an unknown or invalid member."
}

// dispatch runs the handler of an event, which sends the ack.
func (s *Session) dispatch(p packet) {
	h := s.hub
	handler := h.handlers[p.event]
	if handler == nil {
		h.count.unknown.Add(1)
		if p.hasID {
			s.ackError(p.id, CodeUnknownEvent, "The server does not handle this event.")
		}
		return
	}
	h.count.events.Add(1)
	ctx, end := s.begin()
	defer end()
	ctx, cancel := context.WithTimeout(ctx, h.config.HandlerTimeout)
	defer cancel()
	handler(ctx, s, Args{p.args, p.attachments, p.id, p.hasID}, func(value any, err error) {
		var text []byte
		if err == nil {
			text, err = encodeValue(value)
		}
		switch {
		case err != nil:
			code, message := h.describeError(p.event, err)
			if p.hasID {
				s.ackError(p.id, code, message)
			}
		case p.hasID:
			s.ack(p.id, text)
		}
	})
}

// encodeValue is a value as JSON. Data of workers in it stays as it is but for white space.
func encodeValue(value any) ([]byte, error) {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(value)
	return bytes.TrimSuffix(text.Bytes(), []byte("\n")), err
}

// describeError says what of a handler's error the client may know, and logs what it may not.
func (h *Hub) describeError(event string, err error) (code, message string) {
	var refusal *events.Error
	if errors.As(err, &refusal) {
		return refusal.Code, refusal.Detail
	}
	if !errors.Is(err, context.Canceled) { // else the client has gone meanwhile
		h.log.Error("handler of a client event failed", slog.String("event", event), slog.Any("error", err))
	}
	return CodeInternal, "The server could not handle this event."
}

func (s *Session) ackError(id uint64, code, message string) {
	var answer struct {
		Error struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"error"`
	}
	answer.Error.Code, answer.Error.Message = code, message
	text, err := json.Marshal(answer)
	if err != nil {
		return // two strings always marshal
	}
	s.ack(id, text)
}

// ack answers an event with one argument.
func (s *Session) ack(id uint64, text []byte) {
	packet := strconv.AppendUint([]byte{byte(packetAck)}, id, 10)
	packet = append(append(append(packet, '['), text...), ']')
	s.conn.Send(engine.TextFrame(packet))
}
