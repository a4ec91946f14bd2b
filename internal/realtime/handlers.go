package realtime

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"reflect"
	"strconv"

	"jobwire/internal/engine"
	"jobwire/internal/events"
)

// Args are the arguments of an event as they stand on the wire. In Values, {"_placeholder":true,"num":n}
// stands for Attachments[n]; whether there is such an attachment has not been checked.
type Args struct {
	Values      []json.RawMessage
	Attachments [][]byte
}

// rawHandler is what every registration becomes. It calls ack once, before it returns.
type rawHandler func(ctx context.Context, s *Session, args Args, ack func(reply Args, err error))

// Handle registers the handler of a client event whose one argument is a T: JSON, decoded strictly, so that unknown members
// are refused as invalid_payload. With struct{} the event has no argument, with a pointer it may be left out. The value that fn
// returns becomes the ack's argument, if the client asked for an ack; an error becomes {"error":{"code","message"}}: its own
// if it is an *events.Error, and internal, with the error logged, otherwise.
//
// Events of one session are handled one at a time, in order, also after the client has gone. ctx ends after
// Config.HandlerTimeout. Handle panics if the event is taken or reserved, and must not be called once the hub serves.
func Handle[T any](h *Hub, event string, fn func(context.Context, *Session, T) (any, error)) {
	HandleInOrder(h, event, func(ctx context.Context, s *Session, payload T, ack func(any, error)) {
		ack(fn(ctx, s, payload))
	})
}

// HandleInOrder is Handle for an answer that has a place among what is emitted to the session: the ack is sent by the call of
// ack, which fn makes once, from any goroutine, before it returns.
func HandleInOrder[T any](h *Hub, event string, fn func(ctx context.Context, s *Session, payload T, ack func(value any, err error))) {
	h.register(event, func(ctx context.Context, s *Session, args Args, ack func(Args, error)) {
		var payload T
		if err := args.decode(&payload, reflect.TypeFor[T]()); err != nil {
			ack(Args{}, err)
			return
		}
		fn(ctx, s, payload, func(value any, err error) {
			var reply Args
			if err == nil {
				reply, err = encodeValue(value)
			}
			ack(reply, err)
		})
	})
}

// encodeValue makes a value the only argument. Data of workers in it stays as it is but for white space.
func encodeValue(value any) (Args, error) {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(value)
	return Args{Values: []json.RawMessage{bytes.TrimSuffix(text.Bytes(), []byte("\n"))}}, err
}

// HandleRaw registers a handler of a client event that takes whatever arguments there are, attachments included. What it
// returns become the ack's arguments. All else is as with Handle.
func HandleRaw(h *Hub, event string, fn func(context.Context, *Session, Args) (Args, error)) {
	h.register(event, func(ctx context.Context, s *Session, args Args, ack func(Args, error)) {
		ack(fn(ctx, s, args))
	})
}

func (h *Hub) register(event string, fn rawHandler) {
	if events.IsReserved(event) {
		panic("realtime: " + event + " is a reserved event name")
	}
	if h.handlers[event] != nil {
		panic("realtime: " + event + " has a handler already")
	}
	h.handlers[event] = fn
}

// decode puts the only argument into payload, a pointer to a value of that type. null is no argument.
func (a Args) decode(payload any, of reflect.Type) error {
	if len(a.Attachments) > 0 {
		return invalidPayload("Binary arguments are not accepted.")
	}
	none := len(a.Values) == 0 || len(a.Values) == 1 && string(a.Values[0]) == "null"
	if of == reflect.TypeFor[struct{}]() {
		if none || len(a.Values) == 1 && string(a.Values[0]) == "{}" {
			return nil
		}
		return invalidPayload("No argument is expected.")
	}
	if none && of.Kind() == reflect.Pointer {
		return nil
	}
	if none || len(a.Values) != 1 {
		return invalidPayload("Exactly one argument is expected.")
	}
	dec := json.NewDecoder(bytes.NewReader(a.Values[0]))
	dec.DisallowUnknownFields()
	if err := dec.Decode(payload); err != nil {
		return invalidPayload("The argument does not fit: " + describe(err))
	}
	return nil
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
	ctx, cancel := context.WithTimeout(h.base, h.config.HandlerTimeout)
	defer cancel()
	handler(ctx, s, Args{p.args, p.attachments}, func(reply Args, err error) {
		if err != nil {
			code, message := h.describeError(p.event, err)
			if p.hasID {
				s.ackError(p.id, code, message)
			}
			return
		}
		if p.hasID {
			s.conn.Send(reply.frames(packetAck, "", p.id)...)
		}
	})
}

// describeError says what of a handler's error the client may know, and logs what it may not.
func (h *Hub) describeError(event string, err error) (code, message string) {
	var refusal *events.Error
	if errors.As(err, &refusal) {
		return refusal.Code, refusal.Detail
	}
	h.log.Error("handler of a client event failed", slog.String("event", event), slog.Any("error", err))
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
	s.conn.Send(Args{Values: []json.RawMessage{text}}.frames(packetAck, "", id)...)
}

// frames encodes the arguments as an event with that name, or as the ack with that id, and their attachments.
func (a Args) frames(kind packetType, event string, id uint64) []*engine.Frame {
	if len(a.Attachments) > 0 {
		kind += packetBinaryEvent - packetEvent // the two binary types follow in the same order
	}
	isAck := kind == packetAck || kind == packetBinaryAck
	text := head(kind, len(a.Attachments), mainNamespace, id, isAck)
	var name []byte
	if !isAck {
		name, _ = json.Marshal(event) // a string always marshals
	}
	frames := make([]*engine.Frame, 0, 1+len(a.Attachments))
	frames = append(frames, engine.TextFrame(appendArray(text, name, a.Values)))
	for _, attachment := range a.Attachments {
		frames = append(frames, engine.BinaryFrame(attachment))
	}
	return frames
}
