package handlers

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gin-gonic/gin"

	"jobwire/internal/delivery"
	"jobwire/internal/events"
)

// patient waits for a receipt as long as it may, unless the client leaves.
type patient struct{ Publisher }

func (patient) PublishAndWait(ctx context.Context, _ events.Event, d time.Duration) (delivery.Result, bool, bool, error) {
	select {
	case <-ctx.Done():
		return delivery.Result{}, false, false, ctx.Err()
	case <-time.After(d):
		return delivery.Result{ID: events.ID{Ms: 1}, Status: delivery.StatusStored}, false, true, nil
	}
}

func TestBodiesAndWaitsOverTheWire(t *testing.T) {
	const brief = 50 * time.Millisecond
	engine := gin.New()
	engine.Use(conforms(t))
	engine.POST("/v1/events", NewEvents(patient{}, EventsConfig{}).Publish)
	server := httptest.NewUnstartedServer(engine)
	server.Config.ReadTimeout, server.Config.WriteTimeout = brief, 15*brief // less than the wait, more than a busy machine takes to answer
	server.Start()
	defer server.Close()

	exchange := func(t *testing.T, length int, headers, body string) (*http.Response, string) {
		conn, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := fmt.Fprintf(conn, "POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%s\r\n%s",
			length, headers, body); err != nil {
			t.Fatal(err)
		}
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return response, string(text)
	}

	t.Run("a body that does not come", func(t *testing.T) {
		response, text := exchange(t, len(progress), "", progress[:10])
		if response.StatusCode != 408 || !strings.Contains(text, `"request_timeout"`) || !response.Close {
			t.Errorf("%d %s, close %v", response.StatusCode, text, response.Close)
		}
	})

	t.Run("a wait that is longer than a request may take", func(t *testing.T) {
		response, text := exchange(t, len(progress), "Prefer: wait=1\r\n", progress)
		if want := `{"id":"1-0","status":"stored","sockets":0,"delivered":false}`; response.StatusCode != 202 || text != want {
			t.Errorf("%d %s", response.StatusCode, text)
		}
	})
}
