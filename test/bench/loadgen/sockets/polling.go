package sockets

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
)

// polling is a client on HTTP long-polling: one GET after the other on
// Conn.fd, and what it has to say in POSTs on a connection of their own, since
// a GET is always waiting.
type polling struct {
	path    string // with the session's id, once that is known
	post    int    // the POSTs' connection; -1 while there is none
	posting bool   // a POST waits for its answer
	queue   []byte // packets that wait for the POST to end, as a payload
	partial []byte // an incomplete answer to a POST
}

// separator stands between the packets of a payload.
const separator = '\x1e'

// polled takes the answer to a GET in and asks for the next. It returns what
// is left over while the answer is not complete.
func (c *Conn) polled(data []byte) ([]byte, error) {
	body, size, err := answer(data)
	if err != nil || size == 0 {
		return data, err
	}
	if c.state == opening {
		sid := Field(body, `"sid":"`)
		if sid == nil {
			return nil, fmt.Errorf("no session in %.120q", body)
		}
		c.polling.path = c.pool.dialect.Path() + "&sid=" + string(sid)
		c.state = authenticating
	}
	for packet := range bytes.SplitSeq(body, []byte{separator}) {
		if err := c.pool.dialect.Message(c, packet, c.pool.emit); err != nil {
			return nil, err
		}
	}
	if c.state == closed {
		return nil, nil
	}
	p := c.pool
	p.out = append(p.out[:0], "GET "+c.polling.path+" HTTP/1.1\r\nHost: "+p.host+"\r\n\r\n"...)
	return data[size:], c.write(c.fd, p.out)
}

// post sends a packet, with the others that come while a POST is under way.
func (c *Conn) post(packet []byte) error {
	l := c.polling
	if len(l.queue) > 0 {
		l.queue = append(l.queue, separator)
	}
	l.queue = append(l.queue, packet...)
	if l.posting {
		return nil
	}
	return c.postQueue()
}

func (c *Conn) postQueue() error {
	l, p := c.polling, c.pool
	if l.post < 0 {
		fd, err := p.dial()
		if err != nil {
			return err
		}
		if err := p.watch(fd, c); err != nil {
			return err
		}
		l.post = fd
	}
	p.out = append(p.out[:0], "POST "+l.path+" HTTP/1.1\r\nHost: "+p.host+
		"\r\nContent-Type: text/plain;charset=UTF-8\r\nContent-Length: "...)
	p.out = strconv.AppendInt(p.out, int64(len(l.queue)), 10)
	p.out = append(append(p.out, "\r\n\r\n"...), l.queue...)
	l.queue, l.posting = l.queue[:0], true
	return c.write(l.post, p.out)
}

// posted takes in what was read from the POSTs' connection. A server may close
// it while it is idle.
func (c *Conn) posted(data []byte, err error) error {
	l := c.polling
	if err != nil || len(data) == 0 {
		c.pool.forget(l.post)
		l.post = -1
		if l.posting {
			return errors.Join(errors.New("connection closed during a POST"), err)
		}
		return nil
	}
	l.partial = append(l.partial, data...)
	_, size, err := answer(l.partial)
	if err != nil || size == 0 {
		return err
	}
	if size < len(l.partial) || !l.posting {
		return errors.New("an answer without a POST")
	}
	l.partial, l.posting = l.partial[:0], false
	if len(l.queue) == 0 {
		return nil
	}
	return c.postQueue()
}

// answer cuts the first whole HTTP answer off buf. size is 0 while it is not
// complete. Only a 200 of a stated length is expected.
func answer(buf []byte) (body []byte, size int, err error) {
	end := bytes.Index(buf, []byte("\r\n\r\n"))
	if end < 0 {
		return nil, 0, nil
	}
	if !bytes.HasPrefix(buf, []byte("HTTP/1.1 200 ")) {
		return nil, 0, fmt.Errorf("answered %.300q", buf)
	}
	length := -1
	for line := range bytes.SplitSeq(buf[:end], []byte("\r\n")) {
		if name, value, _ := bytes.Cut(line, []byte(":")); bytes.EqualFold(name, []byte("Content-Length")) {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				length = -1
			}
		}
	}
	if length < 0 || length > maxFrame {
		return nil, 0, fmt.Errorf("answer of no known length, or too long: %.300q", buf[:end])
	}
	if size = end + 4 + length; len(buf) < size {
		return nil, 0, nil
	}
	return buf[end+4 : size], size, nil
}
