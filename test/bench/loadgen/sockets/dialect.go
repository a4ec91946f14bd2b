package sockets

import (
	"bytes"
	"fmt"
)

// Event is one event as a server sent it. Its slices are valid only during
// the callback.
type Event struct {
	Name []byte // as the worker named it
	Body []byte // text that holds the worker's data, for Field
	ID   []byte // trailing id of a stored event; nil where there is none
}

// Dialect is what a client says to one kind of server.
type Dialect interface {
	// Path is the target of the first request.
	Path() string
	// Polls tells whether it goes over HTTP long-polling instead of websocket.
	Polls() bool
	// Hello is sent right after the upgrade; nil when the server speaks first.
	Hello(token string) []byte
	// Message handles one text message; it calls c's methods and emit.
	Message(c *Conn, text []byte, emit func(*Conn, Event)) error
}

// Dialects by the name of the server that speaks them.
var Dialects = map[string]Dialect{
	"socketio":         socketIO{},
	"socketio-polling": socketIO{polls: true},
	"centrifuge":       centrifugeJSON{},
	"bare":             bareJSON{},
}

// socketIO is Engine.IO 4 and Socket.IO 5, as socket.io-client speaks them: the
// token goes in CONNECT's auth, with pid and offset when it comes back, and
// pings are answered at once.
type socketIO struct{ polls bool }

func (d socketIO) Polls() bool { return d.polls }
func (d socketIO) Path() string {
	if d.polls {
		return "/socket.io/?EIO=4&transport=polling"
	}
	return "/socket.io/?EIO=4&transport=websocket"
}
func (socketIO) Hello(string) []byte { return nil }

var (
	eioPong = []byte("3")
	eioNoop = []byte("6")
)

func (socketIO) Message(c *Conn, text []byte, emit func(*Conn, Event)) error {
	switch {
	case bytes.HasPrefix(text, []byte("42[")):
		ev, err := socketIOEvent(text[3:])
		if err != nil {
			return err
		}
		if ev.ID != nil && len(c.pid) > 0 {
			c.offset = append(c.offset[:0], ev.ID...)
		}
		emit(c, ev)
		return nil
	case len(text) == 1 && text[0] == '2':
		return c.pong()
	case len(text) > 1 && text[0] == '0':
		return c.send(connect(c))
	case bytes.HasPrefix(text, []byte("40")):
		c.pid = bytes.Clone(Field(text, `"pid":"`))
		c.ready()
		return nil
	case bytes.Equal(text, eioNoop):
		return nil
	}
	return fmt.Errorf("unexpected packet %.120q", text)
}

// connect is the CONNECT packet.
func connect(c *Conn) []byte {
	text := append([]byte(`40{"token":"`), c.token...)
	if len(c.pid) > 0 {
		text = append(append(text, `","pid":"`...), c.pid...)
		if len(c.offset) > 0 {
			text = append(append(text, `","offset":"`...), c.offset...)
		}
	}
	return append(text, `"}`...)
}

// socketIOEvent splits `"name",{…}]`, `"name",{…},"id"]` and `"name","text",null]`.
// A client takes any string at the end for its recovery offset, so one that is
// no id is an error. Names and ids hold no quotes.
func socketIOEvent(text []byte) (Event, error) {
	rest, ok := bytes.CutPrefix(text, []byte(`"`))
	name, rest, ok2 := bytes.Cut(rest, []byte(`"`))
	rest, ok3 := bytes.CutSuffix(rest, []byte("]"))
	if !ok || !ok2 || !ok3 {
		return Event{}, fmt.Errorf("malformed event %.120q", text)
	}
	ev := Event{Name: name, Body: rest}
	if body, ok := bytes.CutSuffix(rest, []byte(`"`)); ok {
		cut := bytes.LastIndexByte(body, '"')
		if cut < 0 || !isID(body[cut+1:]) {
			return Event{}, fmt.Errorf("an event without an id ends in a string: %.120q", text)
		}
		ev.Body, ev.ID = bytes.TrimSuffix(body[:cut], []byte(",")), body[cut+1:]
	} else if body, ok := bytes.CutSuffix(rest, []byte(",null")); ok && bytes.HasSuffix(body, []byte(`"`)) {
		ev.Body = body
	}
	return ev, nil
}

// isID tells whether text is of the form <unix-ms>-<n>.
func isID(text []byte) bool {
	ms, n, ok := bytes.Cut(text, []byte("-"))
	for _, part := range [][]byte{ms, n} {
		ok = ok && len(part) > 0 && len(part) <= 20 && len(bytes.Trim(part, "0123456789")) == 0
	}
	return ok
}

// centrifugeJSON is the centrifuge client protocol: several JSON messages a
// frame, separated by newlines, and {} as ping and pong.
type centrifugeJSON struct{}

func (centrifugeJSON) Path() string { return "/ws" }
func (centrifugeJSON) Polls() bool  { return false }
func (centrifugeJSON) Hello(token string) []byte {
	return []byte(`{"id":1,"connect":{"token":"` + token + `"}}`)
}

var centrifugePong = []byte("{}")

func (centrifugeJSON) Message(c *Conn, text []byte, emit func(*Conn, Event)) error {
	for line := range bytes.SplitSeq(text, []byte("\n")) {
		switch {
		case len(line) == 0:
		case bytes.HasPrefix(line, []byte(`{"push":`)):
			name := Field(line, `"event":"`)
			if name == nil {
				return fmt.Errorf("unexpected push %.120q", line)
			}
			emit(c, Event{Name: name, Body: line})
		case bytes.Equal(line, centrifugePong):
			if err := c.send(centrifugePong); err != nil {
				return err
			}
		case bytes.HasPrefix(line, []byte(`{"id":1,"connect":`)):
			c.ready()
		default:
			return fmt.Errorf("unexpected message %.120q", line)
		}
	}
	return nil
}

// bareJSON is the bare server's: a token, a go-ahead, events.
type bareJSON struct{}

func (bareJSON) Path() string              { return "/ws" }
func (bareJSON) Polls() bool               { return false }
func (bareJSON) Hello(token string) []byte { return []byte(`{"token":"` + token + `"}`) }

func (bareJSON) Message(c *Conn, text []byte, emit func(*Conn, Event)) error {
	switch {
	case bytes.HasPrefix(text, []byte(`{"event":"`)):
		emit(c, Event{Name: Field(text, `"event":"`), Body: text})
	case bytes.HasPrefix(text, []byte(`{"ready":true}`)):
		c.ready()
	default:
		return fmt.Errorf("unexpected message %.120q", text)
	}
	return nil
}

// Field returns what stands between key and the next quote, comma or closing
// brace: enough of JSON for bodies that the generator itself wrote.
func Field(body []byte, key string) []byte {
	i := bytes.Index(body, []byte(key))
	if i < 0 {
		return nil
	}
	rest := body[i+len(key):]
	end := bytes.IndexAny(rest, `",}`)
	if end < 0 {
		return nil
	}
	return rest[:end]
}
