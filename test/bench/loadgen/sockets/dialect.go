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
	// Path is the target of the upgrade request.
	Path() string
	// Hello is sent right after the upgrade; nil when the server speaks first.
	Hello(token string) []byte
	// Message handles one text message; it calls c's methods and emit.
	Message(c *Conn, text []byte, emit func(*Conn, Event)) error
}

// Dialects by the name of the server that speaks them.
var Dialects = map[string]Dialect{
	"socketio":   socketIO{},
	"centrifuge": centrifugeJSON{},
	"bare":       bareJSON{},
}

// socketIO is Engine.IO 4 and Socket.IO 5 over websocket, as socket.io-client
// speaks them: the token goes in CONNECT's auth, pings are answered at once.
type socketIO struct{}

func (socketIO) Path() string        { return "/socket.io/?EIO=4&transport=websocket" }
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
		emit(c, ev)
		return nil
	case len(text) == 1 && text[0] == '2':
		return c.send(eioPong)
	case len(text) > 1 && text[0] == '0':
		return c.send([]byte(`40{"token":"` + c.token + `"}`))
	case bytes.HasPrefix(text, []byte("40")):
		c.ready()
		return nil
	case bytes.Equal(text, eioNoop):
		return nil
	}
	return fmt.Errorf("unexpected packet %.120q", text)
}

// socketIOEvent splits `"name",{…}]` or `"name",{…},"id"]`. Names and ids hold
// no quotes, which jobwire's rules for both make sure of.
func socketIOEvent(text []byte) (Event, error) {
	rest, ok := bytes.CutPrefix(text, []byte(`"`))
	name, rest, ok2 := bytes.Cut(rest, []byte(`"`))
	if !ok || !ok2 || !bytes.HasSuffix(rest, []byte("]")) {
		return Event{}, fmt.Errorf("malformed event %.120q", text)
	}
	ev := Event{Name: name, Body: rest}
	if body, ok := bytes.CutSuffix(rest, []byte(`"]`)); ok {
		if cut := bytes.LastIndexByte(body, '"'); cut >= 0 {
			ev.Body, ev.ID = body[:cut], body[cut+1:]
		}
	}
	return ev, nil
}

// centrifugeJSON is the centrifuge client protocol: several JSON messages a
// frame, separated by newlines, and {} as ping and pong.
type centrifugeJSON struct{}

func (centrifugeJSON) Path() string { return "/ws" }
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
