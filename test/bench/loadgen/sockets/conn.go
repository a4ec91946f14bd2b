package sockets

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

type state uint8

const (
	opening        state = iota // waiting for the answer to the upgrade request, or to the first poll
	authenticating              // transport open, server has not let us in
	live
	closed
)

// Conn is one client. Only the pool's thread touches it.
type Conn struct {
	Tag int // from its Spec

	pool    *Pool
	token   string   // dropped once live
	pid     []byte   // what a Socket.IO client presents when it comes back, and
	offset  []byte   // the id of the last message it had; nil where the server gave no pid
	partial []byte   // an incomplete frame or answer; nil most of the time
	polling *polling // nil on websocket
	fd      int
	owed    int // pings whose pongs are held back, see Pool.HoldPongs
	state   state
}

// Resume is what the client presents when it comes back, for a Spec.
func (c *Conn) Resume() (pid, offset string) { return string(c.pid), string(c.offset) }

// open dials and asks for the upgrade, or polls for the first time.
func (p *Pool) open(spec Spec) error {
	fd, err := p.dial()
	if err != nil {
		return err
	}
	c := &Conn{Tag: spec.Tag, pool: p, token: spec.Token, pid: []byte(spec.PID), offset: []byte(spec.Offset), fd: fd}
	if p.dialect.Polls() {
		c.polling = &polling{post: -1}
	}
	if err := c.write(fd, p.hello); err != nil {
		unix.Close(fd)
		return err
	}
	return p.watch(fd, c)
}

// watch has what arrives on fd handed to c. It closes fd when that fails.
func (p *Pool) watch(fd int, c *Conn) error {
	event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP, Fd: int32(fd)}
	if err := unix.EpollCtl(p.epoll, unix.EPOLL_CTL_ADD, fd, &event); err != nil {
		unix.Close(fd)
		return fmt.Errorf("epoll add: %w", err)
	}
	p.conns[int32(fd)] = c
	return nil
}

// dial connects to the server. On loopback connect returns at once; the send
// timeout bounds it all the same.
func (p *Pool) dial() (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	p.serial++
	if err := p.prepare(fd, p.serial); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// perSource is how many connections share one source address: far below the
// kernel's ephemeral ports, so that rows can follow one another.
const perSource = 5000

func (p *Pool) prepare(fd, serial int) error {
	timeout := unix.NsecToTimeval(int64(5 * time.Second))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &timeout); err != nil {
		return fmt.Errorf("send timeout: %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return fmt.Errorf("nodelay: %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1); err != nil {
		return fmt.Errorf("bind without port: %w", err)
	}
	source := unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, byte(1 + serial/perSource%250)}}
	if err := unix.Bind(fd, &source); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	err := unix.Connect(fd, &p.target)
	if errors.Is(err, unix.EINTR) {
		err = awaitConnect(fd) // the runtime signals its threads; the kernel goes on connecting
	}
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	return unix.SetNonblock(fd, true)
}

func awaitConnect(fd int) error {
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, 5000)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return err
		case n == 0:
			return unix.ETIMEDOUT
		}
		code, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
		if err == nil && code != 0 {
			err = unix.Errno(code)
		}
		return err
	}
}

// send says one thing to the server.
func (c *Conn) send(text []byte) error {
	if c.polling != nil {
		return c.post(text)
	}
	c.pool.out = appendFrame(c.pool.out[:0], opText, text)
	return c.write(c.fd, c.pool.out)
}

// write expects the kernel to take everything: clients say so little that a
// full send buffer means a server that does not read.
func (c *Conn) write(fd int, b []byte) error {
	n, err := unix.Write(fd, b)
	if err != nil {
		return fmt.Errorf("write: %w", err)
	}
	if n != len(b) {
		return fmt.Errorf("write: %d of %d bytes", n, len(b))
	}
	return nil
}

// pong answers an Engine.IO ping, at once or when the pool is told to.
func (c *Conn) pong() error {
	if !c.pool.holding {
		return c.send(eioPong)
	}
	if c.owed++; c.owed == 1 {
		c.pool.owing = append(c.pool.owing, c)
		c.pool.owingNow.Store(int64(len(c.pool.owing)))
	}
	return nil
}

// pay sends the pongs that were held back, in one write.
func (c *Conn) pay() error {
	if c.polling != nil {
		for ; c.owed > 0; c.owed-- {
			if err := c.post(eioPong); err != nil {
				return err
			}
		}
		return nil
	}
	c.pool.out = c.pool.out[:0]
	for ; c.owed > 0; c.owed-- {
		c.pool.out = appendFrame(c.pool.out, opText, eioPong)
	}
	return c.write(c.fd, c.pool.out)
}

// ready is called by the dialect when the server has let the client in.
func (c *Conn) ready() {
	if c.state != authenticating {
		return
	}
	c.state, c.token = live, ""
	c.pool.connected()
}

// received handles what one read brought.
func (c *Conn) received(data []byte) error {
	if len(c.partial) > 0 {
		c.partial = append(c.partial, data...)
		data = c.partial
	}
	consume := c.consume
	if c.polling != nil {
		consume = c.polled
	}
	rest, err := consume(data)
	if err != nil {
		return err
	}
	switch {
	case len(rest) == 0:
		c.partial = nil
	default:
		c.partial = append([]byte(nil), rest...)
	}
	return nil
}

func (c *Conn) consume(data []byte) ([]byte, error) {
	if c.state == opening {
		end := bytes.Index(data, []byte("\r\n\r\n"))
		if end < 0 {
			return data, nil
		}
		if !bytes.HasPrefix(data, []byte("HTTP/1.1 101 ")) {
			return nil, fmt.Errorf("upgrade refused: %.200q", data)
		}
		c.state = authenticating
		if hello := c.pool.dialect.Hello(c.token); hello != nil {
			if err := c.send(hello); err != nil {
				return nil, err
			}
		}
		data = data[end+4:]
	}
	for {
		op, payload, size, err := nextFrame(data)
		if err != nil || size == 0 {
			return data, err
		}
		if err := c.frame(op, payload); err != nil {
			return nil, err
		}
		data = data[size:]
	}
}

func (c *Conn) frame(op byte, payload []byte) error {
	switch op {
	case opText:
		return c.pool.dialect.Message(c, payload, c.pool.emit)
	case opPing:
		c.pool.out = appendFrame(c.pool.out[:0], opPong, payload)
		return c.write(c.fd, c.pool.out)
	case opClose:
		return fmt.Errorf("closed by the server: %.120q", payload)
	}
	return fmt.Errorf("%w: opcode %d", errProtocol, op)
}

// resolve turns host:port of a loopback server into a socket address. Load on
// any other address is refused.
func resolve(addr string) (unix.SockaddrInet4, error) {
	tcp, err := net.ResolveTCPAddr("tcp4", addr)
	if err != nil {
		return unix.SockaddrInet4{}, fmt.Errorf("address %q: %w", addr, err)
	}
	if !tcp.IP.IsLoopback() {
		return unix.SockaddrInet4{}, fmt.Errorf("address %q is not loopback", addr)
	}
	return unix.SockaddrInet4{Port: tcp.Port, Addr: [4]byte(tcp.IP.To4())}, nil
}
