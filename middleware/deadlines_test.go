package middleware

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
)

const brief = 50 * time.Millisecond // a limit that the test waits for

func TestDeadlines(t *testing.T) {
	readErr := make(chan error, 1)
	release := make(chan struct{})
	engine := gin.New()
	limited := engine.Group("/limited", Deadlines(brief, brief))
	limited.POST("/read", func(c *gin.Context) {
		_, err := io.ReadAll(c.Request.Body)
		readErr <- err
	})
	limited.GET("/quick", func(c *gin.Context) { c.String(200, "quick") })
	limited.GET("/endless", func(c *gin.Context) {
		chunk := strings.Repeat("x", 1<<16)
		for {
			if _, err := c.Writer.WriteString(chunk); err != nil {
				readErr <- err
				return
			}
		}
	})
	engine.GET("/poll", Deadlines(0, 0), func(c *gin.Context) {
		<-release
		c.String(200, "polled")
	})
	server := httptest.NewServer(engine)
	defer server.Close()

	dial := func(t *testing.T) net.Conn {
		conn, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		return conn
	}
	send := func(t *testing.T, conn net.Conn, text string) {
		if _, err := io.WriteString(conn, text); err != nil {
			t.Fatal(err)
		}
	}

	t.Run("a body that never comes", func(t *testing.T) {
		send(t, dial(t), "POST /limited/read HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
		if err := <-readErr; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("reading ended with %v", err)
		}
	})

	t.Run("an answer that nobody takes", func(t *testing.T) {
		send(t, dial(t), "GET /limited/endless HTTP/1.1\r\nHost: x\r\n\r\n")
		if err := <-readErr; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("writing ended with %v", err)
		}
	})

	t.Run("a long poll on a connection that was limited before", func(t *testing.T) {
		conn := dial(t)
		answers := bufio.NewReader(conn)
		for _, path := range []string{"/limited/quick", "/poll"} {
			send(t, conn, "GET "+path+" HTTP/1.1\r\nHost: x\r\n\r\n")
			if path == "/poll" {
				time.AfterFunc(2*brief, func() { close(release) })
			}
			response, err := http.ReadResponse(answers, nil)
			if err != nil {
				t.Fatalf("%s: %v", path, err)
			}
			body, err := io.ReadAll(response.Body)
			if err != nil || response.StatusCode != 200 {
				t.Errorf("%s: %d %q %v", path, response.StatusCode, body, err)
			}
		}
	})
}
