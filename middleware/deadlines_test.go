package middleware

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
)

const brief = 50 * time.Millisecond // a limit that the test waits for

func TestLongPolls(t *testing.T) {
	readErr := make(chan error, 1)
	engine := gin.New()
	engine.POST("/read", func(c *gin.Context) {
		_, err := io.ReadAll(c.Request.Body)
		readErr <- err
	})
	engine.GET("/quick", func(c *gin.Context) { c.String(200, "quick") })
	poll := func(c *gin.Context) {
		select {
		case <-time.After(4 * brief):
			c.String(200, "polled")
		case <-c.Request.Context().Done():
			c.String(500, "the server gave up")
		}
	}
	engine.GET("/poll", LongPolls(), poll)
	engine.POST("/poll", LongPolls(), poll)
	server := httptest.NewUnstartedServer(engine)
	server.Config.ReadTimeout, server.Config.WriteTimeout = brief, 2*brief
	server.Start()
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

	t.Run("elsewhere a body that never comes", func(t *testing.T) {
		send(t, dial(t), "POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
		if err := <-readErr; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("reading ended with %v", err)
		}
	})

	t.Run("a long poll on a connection that was limited before", func(t *testing.T) {
		conn := dial(t)
		answers := bufio.NewReader(conn)
		for path, want := range map[string]string{"/quick": "quick", "/poll": "polled"} {
			send(t, conn, "GET "+path+" HTTP/1.1\r\nHost: x\r\n\r\n")
			response, err := http.ReadResponse(answers, nil)
			if err != nil {
				t.Fatalf("%s: %v", path, err)
			}
			body, err := io.ReadAll(response.Body)
			if err != nil || string(body) != want {
				t.Errorf("%s: %d %q %v", path, response.StatusCode, body, err)
			}
		}
	})

	t.Run("a body that nobody wants and that never comes", func(t *testing.T) {
		conn := dial(t)
		send(t, conn, "POST /poll HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
		// The answer may come or not; what matters is that the server lets go of the connection.
		if _, err := io.ReadAll(conn); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error("the server still waits for it")
		}
	})
}
