package realtime

import (
	"encoding/json"
	"time"

	"github.com/zishang520/engine.io/v2/events"
	"github.com/zishang520/engine.io/v2/types"
	"github.com/zishang520/socket.io-go-parser/v2/parser"
	"github.com/zishang520/socket.io/v2/socket"

	"jobwire/internal/engine"
)

// libraryPatience is the library's own connect timeout, which must never fire: ours does.
const libraryPatience = 24 * time.Hour

// newLibrary sets up the Socket.IO library behind our ingress: our engine under it, our rooms and
// our packets in it.
func newLibrary(h *Hub) (*socket.Server, *engine.Binding) {
	options := socket.DefaultServerOptions()
	options.SetServeClient(false)
	options.SetConnectTimeout(libraryPatience)
	options.SetParser(passthrough{})
	options.SetAdapter(adapterBuilder{h})
	io := socket.NewServer(nil, options)
	binding := engine.NewBinding()
	io.Bind(binding)
	io.Use(h.admit)
	_ = io.On("connection", h.connection) // fails only for a nil listener
	return io, binding
}

// passthrough is the library's parser. The ingress has decoded what comes in; what goes out is
// encoded here.
type passthrough struct{}

func (passthrough) NewEncoder() parser.Encoder { return encoder{} }
func (passthrough) NewDecoder() parser.Decoder { return new(handover) }

// handover is the decoder of one library client: it hands over the *parser.Packet that it is given.
// It has one listener, and events.EventEmitter's other methods are never called on it: the nil
// interface would say so loudly.
type handover struct {
	events.EventEmitter
	decoded events.Listener
}

func (d *handover) On(_ events.EventName, listeners ...events.Listener) error {
	d.decoded = listeners[0]
	return nil
}

// RemoveListener leaves the listener: the library may remove it while Add runs, and nothing is
// added afterwards.
func (d *handover) RemoveListener(events.EventName, events.Listener) bool { return true }
func (d *handover) Destroy()                                              {}
func (d *handover) Add(packet any) error {
	d.decoded(packet)
	return nil
}

// encoder writes the packets that the library sends by itself: CONNECT, CONNECT_ERROR, DISCONNECT.
type encoder struct{}

func (encoder) Encode(p *parser.Packet) []types.BufferInterface {
	text := head(packetType(p.Type), 0, p.Nsp, 0, false)
	if p.Data != nil {
		payload, err := json.Marshal(p.Data)
		if err != nil {
			return nil // none of the three carries what JSON cannot hold
		}
		text = append(text, payload...)
	}
	return []types.BufferInterface{types.NewStringBuffer(text)}
}
