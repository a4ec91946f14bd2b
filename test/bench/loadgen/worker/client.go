// Package worker is the HTTP side of the load generator: one keep-alive
// connection that posts JSON and reads the answer, with as little work of its
// own as possible. Bodies flow in, status and answer flow out.
package worker

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httputil"
	"strconv"
	"time"
)

// answerTimeout bounds one POST: past it a server is stuck, not slow.
const answerTimeout = 30 * time.Second

// Client posts on one connection. It is used by one goroutine at a time.
type Client struct {
	conn   net.Conn
	in     *bufio.Reader
	head   []byte // request up to the value of Content-Length
	out    []byte // scratch for one request
	answer []byte // scratch for one answer's body
}

// Dial connects to a server's path. key is sent as a bearer token.
func Dial(addr, path, key string) (*Client, error) {
	conn, err := net.DialTimeout("tcp4", addr, 5*time.Second)
	if err != nil {
		return nil, err
	}
	return &Client{
		conn: conn, in: bufio.NewReaderSize(conn, 32<<10),
		head: []byte("POST " + path + " HTTP/1.1\r\nHost: " + addr + "\r\nAuthorization: Bearer " + key +
			"\r\nContent-Type: application/json\r\nContent-Length: "),
	}, nil
}

// Close ends the connection.
func (c *Client) Close() error { return c.conn.Close() }

// Post sends one body and waits for the answer. The answer is valid until the
// next call.
func (c *Client) Post(body []byte) (status int, answer []byte, err error) {
	c.out = append(c.out[:0], c.head...)
	c.out = strconv.AppendInt(c.out, int64(len(body)), 10)
	c.out = append(c.out, "\r\n\r\n"...)
	c.out = append(c.out, body...)
	if err := c.conn.SetDeadline(time.Now().Add(answerTimeout)); err != nil {
		return 0, nil, err
	}
	if _, err := c.conn.Write(c.out); err != nil {
		return 0, nil, fmt.Errorf("post: %w", err)
	}
	status, answer, err = c.read()
	if err != nil {
		return 0, nil, fmt.Errorf("answer: %w", err)
	}
	return status, answer, nil
}

var errAnswer = errors.New("malformed answer")

func (c *Client) read() (int, []byte, error) {
	line, err := c.line()
	if err != nil {
		return 0, nil, err
	}
	if len(line) < 12 || !bytes.HasPrefix(line, []byte("HTTP/1.1 ")) {
		return 0, nil, fmt.Errorf("%w: %.100q", errAnswer, line)
	}
	status, err := strconv.Atoi(string(line[9:12]))
	if err != nil {
		return 0, nil, fmt.Errorf("%w: %.100q", errAnswer, line)
	}
	length, chunked := 0, false
	for {
		line, err := c.line()
		if err != nil {
			return 0, nil, err
		}
		if len(line) == 0 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch {
		case bytes.EqualFold(name, []byte("Content-Length")):
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil || length < 0 || length > 8<<20 {
				return 0, nil, fmt.Errorf("%w: %.100q", errAnswer, line)
			}
		case bytes.EqualFold(name, []byte("Transfer-Encoding")):
			chunked = true
		}
	}
	if chunked {
		return c.readChunked(status)
	}
	if cap(c.answer) < length {
		c.answer = make([]byte, length)
	}
	c.answer = c.answer[:length]
	_, err = io.ReadFull(c.in, c.answer)
	return status, c.answer, err
}

func (c *Client) readChunked(status int) (int, []byte, error) {
	body, err := io.ReadAll(httputil.NewChunkedReader(c.in))
	if err != nil {
		return 0, nil, err
	}
	if _, err := c.line(); err != nil { // the empty line after the last chunk
		return 0, nil, err
	}
	return status, body, nil
}

func (c *Client) line() ([]byte, error) {
	line, err := c.in.ReadSlice('\n')
	if err != nil {
		return nil, err
	}
	return bytes.TrimRight(line, "\r\n"), nil
}
