//go:build linux

package hostile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// newHTTPClient has connections from many addresses, and as many as it is asked for.
func newHTTPClient() *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: source()}, Timeout: patience}
			return dialer.DialContext(ctx, network, addr)
		},
		MaxIdleConnsPerHost: 4096,
		DisableCompression:  true,
	}}
}

// polling is the client's side of HTTP long-polling, with the upgrade to websocket.
type polling struct {
	n   *node
	url string
	sid string

	ctx    context.Context // ends the requests under way
	cancel context.CancelFunc

	came []string // packets that were read and not yet taken; the reader's

	upgraded atomic.Pointer[wire] // a probe that was answered: the next poll is the last

	mu sync.Mutex // one POST at a time, and none across the upgrade
	ws *wire      // the transport, once upgraded; written under mu by the reader
}

// polling opens a session.
func (n *node) polling() (*polling, error) {
	p := &polling{n: n, url: "http://" + n.addr + "/socket.io/?EIO=4&transport=polling"}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	open, err := p.read()
	if err == nil {
		p.sid, err = sessionID(open)
	}
	if err != nil {
		p.cancel()
		return nil, err
	}
	p.url += "&sid=" + p.sid
	return p, nil
}

// refusedError is an answer other than 200.
type refusedError struct {
	status int
	body   string
}

func (r *refusedError) Error() string { return fmt.Sprintf("status %d: %s", r.status, r.body) }

// refusedWith reports whether err is an HTTP refusal with that status.
func refusedWith(err error, status int) bool {
	var refused *refusedError
	return errors.As(err, &refused) && refused.status == status
}

// request makes one call; the body of a GET is empty.
func (p *polling) request(method, body string) (string, error) {
	var content io.Reader
	if method == http.MethodPost {
		content = strings.NewReader(body)
	}
	request, err := http.NewRequestWithContext(p.ctx, method, p.url, content)
	if err != nil {
		return "", err
	}
	response, err := p.n.http.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = &refusedError{response.StatusCode, string(answer)}
	}
	return string(answer), err
}

// read returns the next packet.
func (p *polling) read() (string, error) {
	for len(p.came) == 0 {
		if p.ws == nil {
			if next := p.upgraded.Load(); next != nil {
				if err := p.settle(next); err != nil {
					return "", err
				}
			}
		}
		if p.ws != nil {
			return p.ws.packet()
		}
		payload, err := p.request(http.MethodGet, "")
		if err != nil {
			return "", err
		}
		p.came = strings.Split(payload, "\x1e")
	}
	packet := p.came[0]
	p.came = p.came[1:]
	return packet, nil
}

// settle makes the probed websocket the transport: no poll is under way, and no POST.
func (p *polling) settle(next *wire) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.ctx.Err(); err != nil { // close came before the probe was answered, and did not know of it
		next.vanish()
		return err
	}
	if _, err := next.Write(text("5")); err != nil {
		return err
	}
	next.SetDeadline(time.Time{})
	p.ws = next
	return nil
}

// write sends packets.
func (p *polling) write(packets ...string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ws != nil {
		_, err := p.ws.Write(texts(packets...))
		return err
	}
	_, err := p.request(http.MethodPost, strings.Join(packets, "\x1e"))
	return err
}

// upgrade probes a websocket, to which the reader moves when its poll has ended.
func (p *polling) upgrade() error {
	w, err := p.n.websocket("&sid=" + p.sid)
	if err != nil {
		return err
	}
	if _, err := w.Write(text("2probe")); err != nil {
		w.Close()
		return err
	}
	if answer, err := w.packet(); err != nil || answer != "3probe" {
		w.Close()
		return fmt.Errorf("probe: %q, %w", answer, err)
	}
	p.upgraded.Store(w)
	return nil
}

// close leaves without a word.
func (p *polling) close(abruptly bool) {
	p.cancel()
	if w := p.upgraded.Load(); w != nil {
		if abruptly {
			w.vanish()
		}
		w.Close()
	}
}

// direct is the client's side of a websocket session.
type direct struct {
	*wire
	mu sync.Mutex
}

func (n *node) direct() (*direct, error) {
	w, err := n.websocket("")
	if err != nil {
		return nil, err
	}
	open, err := w.packet()
	if err == nil {
		_, err = sessionID(open)
	}
	if err != nil {
		w.Close()
		return nil, err
	}
	w.SetDeadline(time.Time{}) // whoever waits for something says for how long
	return &direct{wire: w}, nil
}

func (d *direct) read() (string, error) { return d.packet() }

func (d *direct) write(packets ...string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, err := d.Write(texts(packets...))
	return err
}

func (d *direct) close(abruptly bool) {
	if abruptly {
		d.vanish()
	}
	d.Close()
}
