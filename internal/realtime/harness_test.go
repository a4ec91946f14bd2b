package realtime

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"

	"jobwire/internal/auth"
	"jobwire/internal/events"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait of a test for something that must happen.
const patience = 10 * time.Second

// recorder is a Lifecycle that takes {"token":"<user>"} for a token of that user and tells what happened.
type recorder struct {
	authenticate func(Handshake) (auth.Identity, error) // nil: by token
	connected    func(*Session)                         // nil: nothing
	left         chan departure
	confirmed    chan confirmation

	mu       sync.Mutex
	sessions map[*Session]int // Connected minus Disconnected; never anything but 0 or 1
	wrong    string
}

type departure struct{ user, reason string }

type confirmation struct {
	user string
	id   events.ID
}

func newRecorder() *recorder {
	return &recorder{
		left: make(chan departure, 20_000), confirmed: make(chan confirmation, 20_000),
		sessions: make(map[*Session]int),
	}
}

func (r *recorder) Authenticate(h Handshake) (auth.Identity, error) {
	if r.authenticate != nil {
		return r.authenticate(h)
	}
	var payload struct{ Token string }
	if h.Auth != nil {
		if err := json.Unmarshal(h.Auth, &payload); err != nil {
			return auth.Identity{}, err
		}
	}
	if payload.Token == "" {
		return auth.Identity{}, &events.Error{Code: auth.CodeTokenMissing, Detail: "no token was sent"}
	}
	return auth.Identity{UserID: payload.Token, ExpiresAt: time.Now().Add(time.Hour)}, nil
}

func (r *recorder) Connected(_ context.Context, s *Session) {
	r.count(s, 1)
	if r.connected != nil {
		r.connected(s)
	}
	if !hasJoined(s) {
		s.JoinUser()
		s.Live(events.ID{})
	}
}

// hasJoined reports whether JoinUser was called.
func hasJoined(s *Session) bool {
	members := s.hub.users.appendMembers(nil, s.userID)
	return slices.ContainsFunc(members, func(m member) bool { return m.session == s && m.shown != unseen })
}

func (r *recorder) Disconnected(s *Session, reason string) {
	r.count(s, -1)
	r.left <- departure{s.UserID(), reason}
}

func (r *recorder) count(s *Session, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sessions[s] += n; r.sessions[s] < 0 || r.sessions[s] > 1 {
		r.wrong = "Connected and Disconnected do not alternate"
	}
	if r.sessions[s] == 0 {
		delete(r.sessions, s)
	}
}

func (r *recorder) Confirmed(user string, id events.ID) { r.confirmed <- confirmation{user, id} }

func (r *recorder) waitLeft(t testing.TB) departure {
	t.Helper()
	select {
	case d := <-r.left:
		return d
	case <-time.After(patience):
		t.Fatal("nobody was disconnected")
		return departure{}
	}
}

// stand is a hub on a real listener.
type stand struct {
	*Hub
	*recorder
	url string
	srv *httptest.Server
}

func newStand(t testing.TB, config Config, prepare ...func(*recorder, *Hub)) *stand {
	t.Helper()
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	r := newRecorder()
	h := New(config, r)
	for _, p := range prepare {
		p(r, h)
	}
	s := &stand{Hub: h, recorder: r, srv: httptest.NewServer(h)}
	s.url = s.srv.URL
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := h.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		s.srv.Close()
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.wrong != "" {
			t.Error(r.wrong)
		}
		if len(r.sessions) != 0 {
			t.Errorf("%d sessions were never disconnected", len(r.sessions))
		}
		if st := h.Stats(); st.Unauthenticated != 0 || st.Sessions != 0 || st.Rooms != 0 {
			t.Errorf("left over: %d unauthenticated, %d sessions, %d rooms", st.Unauthenticated, st.Sessions, st.Rooms)
		}
		if n := h.deadlines.Len(); n != 0 {
			t.Errorf("left over: %d deadlines", n)
		}
	})
	return s
}

// eventually waits for a number of the hub to become what it must.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// client is a bare websocket client: it speaks in wire text.
type client struct {
	t  testing.TB
	ws *websocket.Conn
	// mute leaves pings unanswered; pings counts those read.
	mute  bool
	pings int
}

func (s *stand) dial(t testing.TB, header ...string) *client {
	t.Helper()
	c, err := s.tryDial(t, header...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (s *stand) tryDial(t testing.TB, header ...string) (*client, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	h := http.Header{}
	for i := 0; i < len(header); i += 2 {
		h.Set(header[i], header[i+1])
	}
	ws, _, err := websocket.Dial(ctx, s.url+"/socket.io/?EIO=4&transport=websocket", &websocket.DialOptions{HTTPHeader: h})
	if err != nil {
		return nil, err
	}
	ws.SetReadLimit(-1)
	c := &client{t: t, ws: ws}
	t.Cleanup(func() { ws.CloseNow() })
	if open := c.read(); !strings.HasPrefix(open, "0{") {
		return nil, errors.New("no open packet but " + open)
	}
	return c, nil
}

// connect dials and connects as a user.
func (s *stand) connect(t testing.TB, user string) *client {
	t.Helper()
	c := s.dial(t)
	c.write(`40{"token":"` + user + `"}`)
	if reply := c.read(); !strings.HasPrefix(reply, `40{"sid":`) {
		t.Fatalf("CONNECT was answered %q", reply)
	}
	return c
}

func (c *client) write(packets ...string) {
	c.t.Helper()
	for _, p := range packets {
		if err := c.tryWrite(websocket.MessageText, []byte(p)); err != nil {
			c.t.Fatalf("write %.40q: %v", p, err)
		}
	}
}

func (c *client) tryWrite(kind websocket.MessageType, data []byte) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return c.ws.Write(ctx, kind, data)
}

func (c *client) writeBinary(data []byte) {
	c.t.Helper()
	if err := c.tryWrite(websocket.MessageBinary, data); err != nil {
		c.t.Fatal(err)
	}
}

// tryRead returns the next message that is not a ping; pings are answered.
func (c *client) tryRead() (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		_, data, err := c.ws.Read(ctx)
		if err != nil {
			return "", err
		}
		if string(data) != "2" {
			return string(data), nil
		}
		c.pings++
		if !c.mute {
			if err := c.ws.Write(ctx, websocket.MessageText, []byte("3")); err != nil {
				return "", err
			}
		}
	}
}

func (c *client) read() string {
	c.t.Helper()
	m, err := c.tryRead()
	if err != nil {
		c.t.Fatalf("read: %v", err)
	}
	return m
}

func (c *client) expect(want ...string) {
	c.t.Helper()
	for _, w := range want {
		if got := c.read(); got != w {
			c.t.Fatalf("got %q, want %q", got, w)
		}
	}
}

// expectClosed reads until the server has closed, and returns what came before.
func (c *client) expectClosed() (before []string) {
	c.t.Helper()
	for {
		m, err := c.tryRead()
		if errors.Is(err, context.DeadlineExceeded) {
			c.t.Fatal("the connection stays open")
		}
		if err != nil {
			return before
		}
		before = append(before, m)
	}
}

// vanish drops the connection without a word.
func (c *client) vanish() { c.ws.CloseNow() }

// poller is a bare long-polling client.
type poller struct {
	t   testing.TB
	url string
}

func (s *stand) poll(t testing.TB) *poller {
	t.Helper()
	p := &poller{t, s.url + "/socket.io/?EIO=4&transport=polling"}
	var open struct{ SID string }
	if err := json.Unmarshal([]byte(p.get())[1:], &open); err != nil {
		t.Fatal(err)
	}
	p.url += "&sid=" + open.SID
	return p
}

func (p *poller) get() string {
	p.t.Helper()
	resp, err := http.Get(p.url)
	return p.body(resp, err)
}

func (p *poller) post(body string) string {
	p.t.Helper()
	resp, err := http.Post(p.url, "text/plain", strings.NewReader(body))
	return p.body(resp, err)
}

func (p *poller) body(resp *http.Response, err error) string {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return string(body)
}

// message is a stored event's.
func message(name, data string, n uint64) Message {
	id := events.ID{Ms: n}
	if n == 0 {
		id = events.ID{}
	}
	return Message{Packet: events.Encode(name, []byte(data), id), Place: id}
}
