package middleware

import (
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
)

func TestRecovery(t *testing.T) {
	log, lines := logTo(t, slog.LevelInfo)
	owned := make(chan net.Conn, 1) // hands the hijacked connection over
	engine := gin.New()
	requests := NewRequests()
	engine.Use(AssignRequestID(), requests.Count(), Recovery(log, refuseForTest))
	engine.GET("/early", func(*gin.Context) { panic("before the answer") })
	engine.GET("/late", func(c *gin.Context) {
		c.String(200, strings.Repeat("x", 10_000)) // more than net/http keeps back
		panic("in the middle")
	})
	engine.GET("/hijack", func(c *gin.Context) {
		conn, _, err := c.Writer.Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		owned <- conn
		panic("after the hijack")
	})
	engine.GET("/fine", func(c *gin.Context) { c.String(200, "fine") })
	var handling sync.WaitGroup // the server does not wait for hijackers
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handling.Add(1)
		defer handling.Done()
		engine.ServeHTTP(w, r)
	}))
	defer server.Close()

	get := func(path string) (int, string, error) {
		response, err := http.Get(server.URL + path)
		if err != nil {
			return 0, "", err
		}
		defer func() { _ = response.Body.Close() }()
		body, err := io.ReadAll(response.Body)
		return response.StatusCode, string(body), err
	}

	if status, body, err := get("/early"); status != 500 || body != CodeInternal || err != nil {
		t.Errorf("early: %d %q %v", status, body, err)
	}
	if _, _, err := get("/late"); err == nil {
		t.Error("late: the client took the torn answer for a whole one")
	}

	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(conn, "GET /hijack HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	mine := <-owned
	handling.Wait() // the panic is over
	if status, body, err := get("/fine"); status != 200 || body != "fine" || err != nil {
		t.Errorf("fine: %d %q %v", status, body, err)
	}
	if _, err := io.WriteString(mine, "still mine"); err != nil {
		t.Error(err)
	}
	_ = mine.Close()
	if got, err := io.ReadAll(conn); string(got) != "still mine" || err != nil {
		t.Errorf("the hijacked connection carried %q, %v", got, err)
	}

	handling.Wait()
	got := lines()
	if len(got) != 3 {
		t.Fatalf("%d lines: %v", len(got), got)
	}
	first := got[0]
	if first["panic"] != "before the answer" || first["route"] != "/early" || first["requestId"] == "" ||
		!strings.Contains(first["stack"].(string), "recovery_test.go") {
		t.Errorf("line %v", first)
	}
	if counts := scrape(t, requests); !strings.Contains(counts, `{code="101",method="GET",route="/hijack"} 1`) {
		t.Errorf("the websocket is not counted as such:\n%s", counts)
	}
}
