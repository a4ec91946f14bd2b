package engine

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

// pair returns both ends of a connection; the first was accepted by Listen's listener.
func pair(t *testing.T) (accepted, client net.Conn) {
	t.Helper()
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := Listen(inner)
	defer l.Close()
	client, err = net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if accepted, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { accepted.Close(); client.Close() })
	return accepted, client
}

// More than the kernel holds goes both ways at once, so that both directions have to wait, and the end comes at the end.
func TestListenedConnectionsCarryEverything(t *testing.T) {
	accepted, client := pair(t)
	text := bytes.Repeat([]byte("0123456789abcdef\n"), 1<<20)
	sent := make(chan error, 2)
	for _, nc := range []net.Conn{accepted, client} {
		go func() {
			n, err := nc.Write(text)
			if err == nil && n != len(text) {
				err = io.ErrShortWrite
			}
			sent <- errors.Join(err, nc.(interface{ CloseWrite() error }).CloseWrite())
		}()
	}
	got := make(chan []byte, 2)
	for _, nc := range []net.Conn{accepted, client} {
		go func() {
			time.Sleep(20 * time.Millisecond)
			all, err := io.ReadAll(nc)
			if err != nil {
				t.Error(err)
			}
			got <- all
		}()
	}
	for range 2 {
		if err := recv(t, sent, "end of a write"); err != nil {
			t.Error(err)
		}
		if all := recv(t, got, "text"); !bytes.Equal(all, text) {
			t.Errorf("%d bytes of %d, or other ones", len(all), len(text))
		}
	}
	if n, err := accepted.Read(nil); n != 0 || err != nil {
		t.Errorf("reading nothing gives %d, %v", n, err)
	}
}

// net/http looks at these errors.
func TestErrorsOfListenedConnections(t *testing.T) {
	ends := map[string]struct {
		end  func(accepted, client net.Conn)
		want error
	}{
		"deadline": {func(accepted, _ net.Conn) { accepted.SetReadDeadline(time.Now().Add(10 * time.Millisecond)) }, os.ErrDeadlineExceeded},
		"close":    {func(accepted, _ net.Conn) { accepted.Close() }, net.ErrClosed},
		"end":      {func(_, client net.Conn) { client.Close() }, io.EOF},
		"reset": {func(_, client net.Conn) {
			client.(*net.TCPConn).SetLinger(0)
			client.Close()
		}, syscall.ECONNRESET},
	}
	for name, tc := range ends {
		t.Run(name, func(t *testing.T) {
			accepted, client := pair(t)
			failed := make(chan error, 1)
			go func() {
				_, err := accepted.Read(make([]byte, 10))
				failed <- err
			}()
			time.Sleep(5 * time.Millisecond) // mostly it waits by then
			tc.end(accepted, client)
			err := recv(t, failed, "end of a read")
			if !errors.Is(err, tc.want) {
				t.Fatalf("%v, want %v", err, tc.want)
			}
			var op *net.OpError
			if !errors.Is(err, io.EOF) && (!errors.As(err, &op) || op.Op != "read") {
				t.Errorf("%#v is no read's *net.OpError", err)
			}
			var timeout net.Error
			if errors.As(err, &timeout) && timeout.Timeout() != (name == "deadline") {
				t.Errorf("Timeout() is %v", timeout.Timeout())
			}
		})
	}
	t.Run("write", func(t *testing.T) {
		accepted, client := pair(t)
		written := make(chan int, 1)
		var err error
		go func() {
			var n int
			n, err = accepted.Write(make([]byte, 64<<20))
			written <- n
		}()
		if _, err := client.Read(make([]byte, 1)); err != nil { // it has begun, and nobody reads any more
			t.Fatal(err)
		}
		accepted.SetWriteDeadline(time.Now())
		n := recv(t, written, "end of a write")
		if !errors.Is(err, os.ErrDeadlineExceeded) || n == 0 || n == 64<<20 {
			t.Errorf("%d, %v", n, err)
		}
		client.Close()
		accepted.SetWriteDeadline(time.Time{})
		for until := time.Now().Add(patience); err == nil || errors.Is(err, os.ErrDeadlineExceeded); {
			if _, err = accepted.Write([]byte("x")); time.Now().After(until) {
				t.Fatal("writes to nobody succeed")
			}
		}
		if !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
			t.Error(err)
		}
	})
}

// net/http ends a read with a deadline in the past and goes on with another one.
func TestDeadlinesOfListenedConnections(t *testing.T) {
	accepted, client := pair(t)
	room := make([]byte, 1)
	read := func(want error) {
		t.Helper()
		if _, err := accepted.Read(room); !errors.Is(err, want) {
			t.Fatalf("%v, want %v", err, want)
		}
	}
	write := func() {
		t.Helper()
		if _, err := client.Write([]byte("x")); err != nil {
			t.Error(err)
		}
	}

	accepted.SetReadDeadline(time.Now().Add(5 * time.Millisecond))
	read(os.ErrDeadlineExceeded) // now the runtime itself has one that has passed
	accepted.SetReadDeadline(time.Time{})
	time.AfterFunc(5*time.Millisecond, write)
	read(nil)

	accepted.SetReadDeadline(time.Now().Add(patience))
	time.AfterFunc(5*time.Millisecond, write)
	read(nil)
	accepted.SetReadDeadline(time.Now().Add(5 * time.Millisecond)) // before the one that was waited for
	read(os.ErrDeadlineExceeded)

	accepted.SetReadDeadline(time.Unix(1, 0))
	write()
	read(os.ErrDeadlineExceeded) // also when there is something to read
	accepted.SetReadDeadline(time.Time{})
	read(nil)

	time.AfterFunc(5*time.Millisecond, func() { accepted.SetReadDeadline(time.Unix(1, 0)) })
	read(os.ErrDeadlineExceeded)
	accepted.SetDeadline(time.Time{})
	if _, err := accepted.Write(room); err != nil {
		t.Error(err)
	}
	write()
	read(nil)

	accepted.SetDeadline(time.Now().Add(time.Millisecond))
	time.Sleep(2 * time.Millisecond)
	if _, err := accepted.Write(room); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%v, although the deadline has passed", err) // net/http would answer who was given up
	}
}

func TestListenedConnectionsTakeNoMemoryForACall(t *testing.T) {
	accepted, client := pair(t)
	message, room := []byte("hello"), make([]byte, 5)
	if n := testing.AllocsPerRun(200, func() {
		if _, err := client.Write(message); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(accepted, room); err != nil {
			t.Fatal(err)
		}
		if _, err := accepted.Write(room); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(client, room); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
