//go:build linux

package hostile

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
)

// rawRequest is bytes on a fresh TCP connection, and the status that they get; 0 stands for a connection that just ends.
type rawRequest struct {
	name, bytes string
	status      int
	says        string // part of the body
}

const opening = "GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: a\r\n"

func rawRequests() []rawRequest {
	get := func(query string) string { return "GET /socket.io/?" + query + " HTTP/1.1\r\nHost: a\r\n\r\n" }
	method := func(m string) string { return m + " /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: a\r\n\r\n" }
	post := "POST /socket.io/?EIO=4&transport=polling&sid=nobody HTTP/1.1\r\nHost: a\r\n"
	return []rawRequest{
		{"Engine.IO 3", get("EIO=3&transport=polling"), 400, `{"code":5,"message":"Unsupported protocol version"}`},
		{"Engine.IO 3 on websocket", strings.Replace(string(upgradeRequest("a", "")), "EIO=4", "EIO=3", 1), 400, `"code":5`},
		{"no version", get("transport=polling"), 400, `"code":5`},
		{"version 4, then 3", get("EIO=3&EIO=4&transport=polling"), 400, `"code":5`},
		{"no transport", get("EIO=4"), 400, `{"code":0,"message":"Transport unknown"}`},
		{"webtransport", get("EIO=4&transport=webtransport"), 400, `"code":0`},
		{"transport constructor", get("EIO=4&transport=constructor"), 400, `"code":0`},
		{"JSONP", get("EIO=4&transport=polling&j=0"), 400, `{"code":3,"message":"Bad request"}`},
		{"JSONP without a number", get("EIO=4&transport=polling&j"), 400, `"code":3`},
		{"POST handshake", method("POST"), 400, `{"code":2,"message":"Bad handshake method"}`},
		{"PUT handshake", method("PUT"), 400, `"code":2`},
		{"DELETE handshake", method("DELETE"), 400, `"code":2`},
		{"a method that nobody knows", method("BREW"), 405, ""},
		{"lower case method", method("get"), 405, ""},
		{"unknown session", get("EIO=4&transport=polling&sid=nobody"), 400, `{"code":1,"message":"Session ID unknown"}`},
		{"POST to an unknown session", post + "Content-Length: 1\r\n\r\n4", 400, `"code":1`},
		{"a session id of 20,000 bytes", get("EIO=4&transport=polling&sid=" + strings.Repeat("s", 20_000)), 400, `"code":1`},
		{"a session id that is a path", get("EIO=4&transport=polling&sid=../../etc/passwd%00"), 400, `"code":1`},
		{"1,000 session ids", get("EIO=4&transport=polling" + strings.Repeat("&sid=x", 1000)), 400, `"code":1`},
		{"broken escapes in the query", get("EIO=4&transport=polling&x=%zz%"), 200, `"sid"`},
		{"semicolons in the query", get("EIO=4;transport=polling"), 400, `"code":0`},
		{"the path without its slash", "GET /socket.io?EIO=4&transport=polling HTTP/1.1\r\nHost: a\r\n\r\n", 404, ""},
		{"a path through the path", "GET /socket.io/../metrics HTTP/1.1\r\nHost: a\r\n\r\n", 404, ""},
		{"an encoded path through the path", "GET /socket.io/%2e%2e/v1/presence HTTP/1.1\r\nHost: a\r\n\r\n", 404, ""},
		{"two slashes", "GET //v1/presence HTTP/1.1\r\nHost: a\r\n\r\n", 404, ""},
		{"a NUL in the path", "GET /livez%00 HTTP/1.1\r\nHost: a\r\n\r\n", 404, ""},
		{"an absolute URL of another host", "GET http://evil.example/livez HTTP/1.1\r\nHost: a\r\n\r\n", 200, "alive"},
		{"CONNECT", "CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n", 404, ""},
		{"TRACE", "TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 404, ""},
		{"OPTIONS *", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 200, ""},

		{"no host", "GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\n\r\n", 400, ""},
		{"two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, ""},
		{"HTTP/9.9", "GET / HTTP/9.9\r\nHost: a\r\n\r\n", 505, ""},
		{"HTTP/2 with prior knowledge", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 404, ""},
		{"TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + strings.Repeat("\xaa", 509) + "\r\n\r\n", 400, ""},
		{"noise", strings.Repeat("\x00\xff\x80\n", 500), 400, ""},
		{"a header of 100,000 bytes", opening + "X: " + strings.Repeat("x", 100_000) + "\r\n\r\n", 431, ""},
		{"20,000 headers", opening + strings.Repeat("X: y\r\n", 20_000) + "\r\n", 431, ""},
		{"a path of 100,000 bytes", "GET /" + strings.Repeat("x", 100_000) + " HTTP/1.1\r\nHost: a\r\n\r\n", 431, ""},
		{"a header with a bare line feed", opening + "X: a\nY: b\r\n\r\n", 200, ""},
		{"a header with a NUL", opening + "X: a\x00b\r\n\r\n", 400, ""},
		{"a header without a colon", opening + "nonsense\r\n\r\n", 400, ""},
		{"a folded header", opening + "X: a\r\n b\r\n\r\n", 200, ""},

		{"two lengths that differ", post + "Content-Length: 1\r\nContent-Length: 2\r\n\r\n44", 400, ""},
		{"a negative length", post + "Content-Length: -1\r\n\r\n", 400, ""},
		{"a length of 2^63", post + "Content-Length: 9223372036854775808\r\n\r\n", 400, ""},
		{"a length and chunks", post + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, ""},
		{"an encoding that nobody knows", post + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501, ""},
		{"a chunk of 2^64 bytes", post + "Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\n", 400, ""},
		{"a chunk of minus one byte", post + "Transfer-Encoding: chunked\r\n\r\n-1\r\n", 400, ""},
		{"trailers without end", post + "Transfer-Encoding: chunked\r\n\r\n0\r\n" + strings.Repeat("X: y\r\n", 20_000) + "\r\n", 400, ""},
		{"a second request behind a length that lies", post + "Content-Length: 1\r\n\r\n4GET /livez HTTP/1.1\r\nHost: a\r\n\r\n", 400, `"code":1`},
	}
}

// Requests that no client library sends get an answer, or their connection ends.
func TestRawRequests(t *testing.T) {
	t.Parallel()
	n := start(t, "--log-level=debug")
	watch(t, n)
	for _, r := range rawRequests() {
		t.Run(r.name, func(t *testing.T) {
			w := must[*wire](t)(n.wire(nil))
			defer w.Close()
			go io.WriteString(w, r.bytes) // the answer may come, and the connection go, before all is written
			status, body, err := w.answer()
			switch {
			case isTimeout(err):
				t.Errorf("no answer: %v", err)
			case err != nil && !isEnd(err):
				t.Errorf("answer: %v", err)
			case err == nil && status != r.status && !(status == 400 && r.status == 0):
				t.Errorf("status %d, want %d: %.200s", status, r.status, body)
			case !strings.Contains(body, r.says):
				t.Errorf("body %.200q, want %q", body, r.says)
			}
			n.stillServes(t)
		})
	}
}

// Every request of a pipeline is answered, in order, and sessions that nobody comes back for are gone after the handshake
// timeout.
func TestPipelinedHandshakes(t *testing.T) {
	t.Parallel()
	n := start(t, "--handshake-timeout=2s")
	watch(t, n)
	const requests = 500
	w := must[*wire](t)(n.wire(nil))
	defer w.Close()
	go io.WriteString(w, strings.Repeat(opening+"\r\n", requests))
	seen := map[string]bool{}
	for range requests {
		status, body, err := w.answer()
		if err != nil || status != http.StatusOK {
			t.Fatalf("after %d sessions: status %d, %v", len(seen), status, err)
		}
		id, err := sessionID(body)
		if err != nil || seen[id] {
			t.Fatalf("session %q, seen before: %v, %v", id, seen[id], err)
		}
		seen[id] = true
	}
	n.stillServes(t)
	n.empty(t, 4)
}

// Session ids cannot be guessed, and guessing costs nothing but an answer.
func TestSessionIDsAreNotGuessed(t *testing.T) {
	t.Parallel()
	n := start(t, "--handshake-timeout=60s") // the victim waits with its token until all have guessed
	watch(t, n)
	victim := must[*polling](t)(n.polling())
	defer victim.close(true)
	opened := n.scrape(t)["connections_opened_total"]
	guess := []byte(victim.sid)
	for i := range size(500, 5000) {
		at := i % len(guess)
		guess[at] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"[(i*7)%64]
		if string(guess) == victim.sid {
			continue
		}
		method, body := http.MethodGet, io.Reader(nil)
		if i%2 == 1 {
			method, body = http.MethodPost, strings.NewReader("40")
		}
		request, err := http.NewRequest(method, "http://"+n.addr+"/socket.io/?EIO=4&transport=polling&sid="+string(guess), body)
		if err != nil {
			t.Fatal(err)
		}
		response, err := n.http.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(response.Body)
		response.Body.Close()
		if response.StatusCode != http.StatusBadRequest || !bytes.Contains(text, []byte(`"code":1`)) {
			t.Fatalf("guess %s: %s %s", guess, response.Status, text)
		}
	}
	if now := n.scrape(t)["connections_opened_total"]; now != opened {
		t.Errorf("%v sessions came of it", now-opened)
	}
	if err := ask(victim, `40{"token":"`+token("victim")+`"}`, "40{"); err != nil {
		t.Errorf("the session that was to be guessed: %v", err)
	}
	n.stillServes(t)
}

// upload writes a request and then its body in pieces, until all is written or the server has had enough. It returns the
// answer and how many bytes the connection took.
func upload(t *testing.T, n *node, head string, chunked bool, total int) (status int, body string, taken int) {
	t.Helper()
	w := must[*wire](t)(n.wire(nil))
	defer w.Close()
	var once sync.WaitGroup
	once.Go(func() {
		if _, err := io.WriteString(w, head); err != nil {
			return
		}
		piece := bytes.Repeat([]byte("4"), 64<<10)
		if chunked {
			piece = append(append(fmt.Appendf(nil, "%x\r\n", len(piece)), piece...), '\r', '\n')
		}
		for taken < total {
			m, err := w.Write(piece)
			if taken += m; err != nil {
				return
			}
		}
		if chunked {
			io.WriteString(w, "0\r\n\r\n")
		}
	})
	status, body, err := w.answer()
	if isTimeout(err) {
		t.Fatalf("no answer: %v", err)
	}
	if err != nil && !isEnd(err) {
		t.Fatal(err)
	}
	w.vanish()
	once.Wait()
	return status, body, taken
}

// Bodies of 60 MB, announced or not, are refused and neither kept nor read to their end.
func TestHugeBodies(t *testing.T) {
	t.Parallel()
	n := start(t)
	watch(t, n)
	const huge = 60 << 20
	lengths := []struct {
		name, header string
		chunked      bool
	}{
		{"chunked", "Transfer-Encoding: chunked\r\n\r\n", true},
		{"announced", fmt.Sprintf("Content-Length: %d\r\n\r\n", huge), false},
		{"expecting 100-continue", fmt.Sprintf("Expect: 100-continue\r\nContent-Length: %d\r\n\r\n", huge), false},
	}
	worker := "Host: a\r\nContent-Type: application/json\r\nAuthorization: Bearer " + apiKey + "\r\n"
	for _, c := range []struct {
		name, head string
		status     int
		says       string
	}{
		{"polling", "POST /socket.io/?EIO=4&transport=polling&sid=SID HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\n", 413, "Payload too large"},
		{"polling, nobody's session", "POST /socket.io/?EIO=4&transport=polling&sid=nobody HTTP/1.1\r\nHost: a\r\n", 400, `"code":1`},
		{"event", "POST /v1/events HTTP/1.1\r\n" + worker, 413, "payload_too_large"},
		{"batch", "POST /v1/events/batch HTTP/1.1\r\n" + worker, 413, "payload_too_large"},
		{"presence query", "POST /v1/presence/query HTTP/1.1\r\n" + worker, 413, "payload_too_large"},
		{"disconnect", "POST /v1/users/u/disconnect HTTP/1.1\r\n" + worker, 413, "payload_too_large"},
		{"event without a key", "POST /v1/events HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n", 401, "api_key_missing"},
		{"no such path", "POST /nothing HTTP/1.1\r\nHost: a\r\n", 404, "not_found"},
		{"a GET", "GET /v1/presence HTTP/1.1\r\n" + worker, 200, "users"},
	} {
		for _, l := range lengths {
			t.Run(c.name+"/"+l.name, func(t *testing.T) {
				p := must[*polling](t)(n.polling())
				defer p.close(true)
				before := n.scrape(t)["go_memstats_alloc_bytes_total"]
				status, body, taken := upload(t, n, strings.Replace(c.head, "SID", p.sid, 1)+l.header, l.chunked, huge)
				if status != c.status && status != 0 || status != 0 && !strings.Contains(body, c.says) { // 0: reset over what was not read
					t.Errorf("answered %d %.200s, want %d with %q", status, body, c.status, c.says)
				}
				if taken >= huge {
					t.Errorf("all %d bytes were taken", taken)
				}
				// The kernel's buffers take some, the process next to nothing; but a batch may have 8 MiB, read by doubling.
				if grown := n.scrape(t)["go_memstats_alloc_bytes_total"] - before; grown >= huge {
					t.Errorf("%.0f bytes were allocated for it", grown)
				}
				n.stillServes(t)
			})
		}
	}
}
