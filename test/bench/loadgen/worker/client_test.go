package worker

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestPost(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || r.Header.Get("Authorization") != "Bearer key" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		switch text := string(body); text {
		case "chunked":
			_, _ = io.WriteString(w, "one ")
			w.(http.Flusher).Flush()
			_, _ = io.WriteString(w, "two")
		case "empty":
			w.WriteHeader(http.StatusNoContent)
		default:
			w.WriteHeader(http.StatusAccepted)
			_, _ = io.WriteString(w, text)
		}
	}))
	defer srv.Close()
	c, err := Dial(srv.Listener.Addr().String(), "/v1/events", "key")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	long := strings.Repeat("y", 100_000)
	// All on one connection: what one answer leaves behind breaks the next.
	for _, step := range []struct {
		body   string
		status int
		answer string
	}{{"a", 202, "a"}, {"chunked", 200, "one two"}, {"empty", 204, ""}, {long, 202, long}, {"b", 202, "b"}} {
		status, answer, err := c.Post([]byte(step.body))
		if err != nil || status != step.status || string(answer) != step.answer {
			t.Fatalf("POST %.20q: %d %.20q, %v", step.body, status, answer, err)
		}
	}
}

func TestPostToClosedServer(t *testing.T) {
	srv := httptest.NewServer(http.NotFoundHandler())
	c, err := Dial(srv.Listener.Addr().String(), "/", "key")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	srv.CloseClientConnections()
	srv.Close()
	if _, _, err := c.Post([]byte("x")); err == nil {
		t.Error("a POST to nobody was answered")
	}
}
