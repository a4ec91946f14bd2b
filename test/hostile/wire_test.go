//go:build linux

package hostile

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"
)

// Opcodes of websocket frames.
const (
	opContinuation = 0x0
	opText         = 0x1
	opBinary       = 0x2
	opClose        = 0x8
	opPing         = 0x9
	opPong         = 0xa
	fin            = 0x80
)

// wire is a TCP connection on which a test says what it likes.
type wire struct {
	net.Conn
	in *bufio.Reader
}

// wire connects from any address. Nothing on it waits longer than patience.
func (n *node) wire(from net.IP) (*wire, error) {
	nc, err := n.dial(from)
	if err != nil {
		return nil, err
	}
	return newWire(nc), nil
}

func newWire(nc net.Conn) *wire {
	nc.SetDeadline(time.Now().Add(2 * patience))
	return &wire{nc, bufio.NewReaderSize(nc, 512)}
}

// upgradeRequest is the opening handshake of a websocket; query and headers are put in as they are.
func upgradeRequest(host, query string, headers ...string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "GET /socket.io/?EIO=4&transport=websocket%s HTTP/1.1\r\nHost: %s\r\n", query, host)
	b.WriteString("Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n" +
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n")
	for _, header := range headers {
		b.WriteString(header + "\r\n")
	}
	b.WriteString("\r\n")
	return b.Bytes()
}

// response reads the head of an HTTP response.
func (w *wire) response() (*http.Response, error) {
	return http.ReadResponse(w.in, nil)
}

// answer reads a whole HTTP response.
func (w *wire) answer() (status int, body string, err error) {
	response, err := w.response()
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return response.StatusCode, string(text), err
}

// errNotSwitched is the error of a websocket handshake that the server refused.
var errNotSwitched = errors.New("no websocket")

// switched reads the answer to a websocket handshake.
func (w *wire) switched() error {
	response, err := w.response()
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusSwitchingProtocols {
		text, _ := io.ReadAll(response.Body)
		response.Body.Close()
		return fmt.Errorf("%w: %s %s", errNotSwitched, response.Status, text)
	}
	return nil
}

// websocket connects; more follows the handshake in the same segment.
func (n *node) websocket(query string, more ...byte) (*wire, error) {
	w, err := n.wire(nil)
	if err != nil {
		return nil, err
	}
	return w, w.handshake(n.addr, query, more...)
}

// handshake makes a websocket of the connection, or closes it.
func (w *wire) handshake(host, query string, more ...byte) error {
	_, err := w.Write(append(upgradeRequest(host, query), more...))
	if err == nil {
		err = w.switched()
	}
	if err != nil {
		w.Close()
	}
	return err
}

// key masks the frames of all clients here; a server has to take any.
var key = [4]byte{0x37, 0xfa, 0x21, 0x3d}

// head is the beginning of a client's frame: b0 has the flags and the opcode, n is the length that it claims.
func head(b0 byte, n uint64) []byte {
	b := []byte{b0}
	switch {
	case n <= 125:
		b = append(b, 0x80|byte(n))
	case n <= 0xffff:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), n)
	}
	return append(b, key[:]...)
}

// frame is a masked frame with any first byte.
func frame(b0 byte, payload string) []byte {
	b := head(b0, uint64(len(payload)))
	start := len(b)
	b = append(b, payload...)
	for i := range b[start:] {
		b[start+i] ^= key[i&3]
	}
	return b
}

// text is a whole text message.
func text(payload string) []byte { return frame(fin|opText, payload) }

// texts are several whole text messages in a row.
func texts(payloads ...string) []byte {
	var all []byte
	for _, payload := range payloads {
		all = append(all, text(payload)...)
	}
	return all
}

// times is b, n times.
func times(n int, b []byte) []byte { return bytes.Repeat(b, n) }

// next reads one frame of the server, which never fragments and never masks. The payload is valid until the next call.
func (w *wire) next() (op byte, payload []byte, err error) {
	var b [10]byte
	if _, err := io.ReadFull(w.in, b[:2]); err != nil {
		return 0, nil, err
	}
	if b[0]&0xf0 != fin || b[1]&0x80 != 0 {
		return 0, nil, fmt.Errorf("a frame that no server sends: %x", b[:2])
	}
	op = b[0] & 0xf
	n := uint64(b[1])
	switch n {
	case 126:
		if _, err := io.ReadFull(w.in, b[:2]); err != nil {
			return 0, nil, err
		}
		n = uint64(binary.BigEndian.Uint16(b[:]))
	case 127:
		if _, err := io.ReadFull(w.in, b[:8]); err != nil {
			return 0, nil, err
		}
		n = binary.BigEndian.Uint64(b[:])
	}
	payload = make([]byte, n)
	_, err = io.ReadFull(w.in, payload)
	return op, payload, err
}

// packet reads up to the next text message.
func (w *wire) packet() (string, error) {
	for {
		op, payload, err := w.next()
		if err != nil {
			return "", err
		}
		switch op {
		case opText:
			return string(payload), nil
		case opClose:
			return "", closing(payload)
		}
	}
}

// closeError is the close frame of the server.
type closeError uint16

func closing(payload []byte) closeError {
	if len(payload) < 2 {
		return 1005
	}
	return closeError(binary.BigEndian.Uint16(payload))
}

func (c closeError) Error() string { return fmt.Sprintf("closed with %d", uint16(c)) }

// ending reads to the end of the connection and returns the code of the close frame that came before it, 0 for none. It fails
// when the connection does not end.
func (w *wire) ending() (code int, err error) {
	for {
		_, err := w.packet()
		var c closeError
		switch {
		case err == nil:
		case errors.As(err, &c):
			code = int(c)
		case isTimeout(err):
			return code, fmt.Errorf("the connection does not end: %w", err)
		default:
			return code, nil
		}
	}
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// vanish ends a connection as a crash does: with a reset.
func (w *wire) vanish() {
	w.Conn.(*net.TCPConn).SetLinger(0)
	w.Close()
}

// sessionID finds the session id in an open packet.
func sessionID(open string) (string, error) {
	_, rest, found := strings.Cut(open, `"sid":"`)
	id, _, whole := strings.Cut(rest, `"`)
	if !found || !whole || open[0] != '0' {
		return "", fmt.Errorf("no open packet: %q", open)
	}
	return id, nil
}

// pinged waits until the server has read everything so far: a websocket ping may come between the fragments of a message.
func (w *wire) pinged() error {
	if _, err := w.Write(frame(fin|opPing, "here")); err != nil {
		return err
	}
	for {
		op, payload, err := w.next()
		switch {
		case err != nil:
			return err
		case op == opClose:
			return closing(payload)
		case op == opPong:
			return nil
		}
	}
}

// isEnd reports whether err is the end of a TCP connection, orderly or not.
func isEnd(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) ||
		errors.Is(err, syscall.EPIPE)
}

// decoded is what base64 stands for.
func decoded(text string) string {
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		panic(err)
	}
	return string(b)
}
