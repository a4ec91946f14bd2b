package server

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
)

// BenchmarkPost is the way of an event from the route to the socket, without
// net/http's own part of it: what it allocates is ours.
func BenchmarkPost(b *testing.B) {
	n := start(b)
	const users = 64
	for i := range users {
		c := n.connect(b, "user-"+strconv.Itoa(i))
		go io.Copy(io.Discard, frames{c})
	}
	bodies := make([]string, 512*users)
	for i := range bodies {
		bodies[i] = `{"userId":"user-` + strconv.Itoa(i%users) + `","event":"job_progress","data":{"jobId":"job-` +
			strconv.Itoa(i/users) + `","progress":42,"message":"halfway there"}}`
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		request := httptest.NewRequest(http.MethodPost, "/v1/events", strings.NewReader(bodies[i%len(bodies)]))
		request.Header.Set("Authorization", "Bearer "+apiKey)
		request.Header.Set("Content-Type", "application/json")
		answer := httptest.NewRecorder()
		n.http.Handler.ServeHTTP(answer, request)
		if answer.Code != http.StatusAccepted {
			b.Fatalf("answered %d %s", answer.Code, answer.Body)
		}
		i++
	}
}

// frames reads what a tab gets, for as long as it does.
type frames struct{ *tab }

func (f frames) Read([]byte) (int, error) {
	_, frame, err := f.conn.Read(f.ctx)
	return len(frame), err
}
