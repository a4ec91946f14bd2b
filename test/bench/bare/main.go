// Command bare is the practical floor of the bench: a websocket server that
// does what the relay needs and nothing more. The first message carries the
// token; after that a connection is one goroutine waiting for a close and one
// entry in a map. It has no heartbeat, no queue and no write deadline, so it
// is a yardstick and not something to run.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/gobwas/ws"

	"jobwire/test/bench/relay"
)

// maxMessage is the largest message a client may send, in bytes.
const maxMessage = 4 << 10

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bare:", err)
		os.Exit(1)
	}
}

func run() error {
	settings, err := relay.FromEnv()
	if err != nil {
		return err
	}
	h := &hub{verify: settings.Verify, users: make(map[string][]net.Conn)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ws", h.accept)
	mux.Handle("POST /v1/events", settings.Events(h.publish))
	return settings.Serve(mux)
}

// hub knows the connections of every user.
type hub struct {
	verify func(token string) (userID string, err error)
	mu     sync.RWMutex
	users  map[string][]net.Conn // guarded by mu; slices are replaced, never changed
}

func (h *hub) accept(w http.ResponseWriter, r *http.Request) {
	conn, _, _, err := ws.UpgradeHTTP(r, w)
	if err != nil {
		return // the upgrader has answered
	}
	// A goroutine of its own lets net/http's request, buffers and stack go.
	go h.serve(conn)
}

func (h *hub) serve(conn net.Conn) {
	defer conn.Close()
	user, ok := h.authenticate(conn)
	if !ok {
		return
	}
	h.add(user, conn)
	defer h.remove(user, conn)
	if _, err := conn.Write(ws.MustCompileFrame(ws.NewTextFrame([]byte(`{"ready":true}`)))); err != nil {
		return
	}
	for {
		header, err := ws.ReadHeader(conn)
		if err != nil || header.OpCode == ws.OpClose {
			return
		}
		if _, err := io.CopyN(io.Discard, conn, header.Length); err != nil {
			return
		}
	}
}

// authenticate runs on a stack frame that is gone once the connection idles.
func (h *hub) authenticate(conn net.Conn) (string, bool) {
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second)) // a dead conn fails the read
	header, err := ws.ReadHeader(conn)
	if err != nil || header.OpCode != ws.OpText || header.Length > maxMessage {
		return "", false
	}
	payload := make([]byte, header.Length)
	if _, err := io.ReadFull(conn, payload); err != nil {
		return "", false
	}
	ws.Cipher(payload, header.Mask, 0)
	var hello struct {
		Token string `json:"token"`
	}
	if json.Unmarshal(payload, &hello) != nil {
		return "", false
	}
	user, err := h.verify(hello.Token)
	if err != nil {
		return "", false
	}
	return user, conn.SetReadDeadline(time.Time{}) == nil
}

func (h *hub) add(user string, conn net.Conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	old := h.users[user]
	h.users[user] = append(old[:len(old):len(old)], conn)
}

func (h *hub) remove(user string, conn net.Conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	old := h.users[user]
	if len(old) == 1 {
		delete(h.users, user)
		return
	}
	rest := make([]net.Conn, 0, len(old)-1)
	for _, c := range old {
		if c != conn {
			rest = append(rest, c)
		}
	}
	h.users[user] = rest
}

// publish encodes one frame and writes it to every connection of the user.
// Writes to one net.Conn are whole and in the order of the calls.
func (h *hub) publish(user, event string, data json.RawMessage) (int, error) {
	h.mu.RLock()
	conns := h.users[user]
	h.mu.RUnlock()
	if len(conns) == 0 {
		return 0, nil
	}
	text := make([]byte, 0, len(event)+len(data)+24)
	text = append(text, `{"event":`...)
	text = strconv.AppendQuote(text, event)
	text = append(text, `,"data":`...)
	text = append(append(text, data...), '}')
	frame, err := ws.CompileFrame(ws.NewTextFrame(text))
	if err != nil {
		return 0, err
	}
	sent := 0
	for _, c := range conns {
		if _, err := c.Write(frame); err == nil {
			sent++ // a failed one is removed by its own reader
		}
	}
	return sent, nil
}
