package handlers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"jobwire/internal/auth"
	"jobwire/internal/delivery"
	"jobwire/internal/events"
	"jobwire/internal/realtime"
)

// teller is a JobTeller that does what the test says.
type teller func(q delivery.JobsQuery, answer func(delivery.JobsPage, error))

func (tell teller) JobsInOrder(_ context.Context, q delivery.JobsQuery, answer func(delivery.JobsPage, error)) {
	tell(q, answer)
}

// quiet is the world around a session that only asks for jobs.
type quiet struct {
	Audience
	Replayer
}

func (quiet) Leave(context.Context, string, string, string) error { return nil }

type leaves struct{ Replayer }

func (leaves) Leave(string) {}

// briefly is the life of a session without presence and replay.
type briefly struct{ *Sessions }

func (briefly) Connected(_ context.Context, session *realtime.Session) {
	session.JoinUser()
	session.Live(events.ID{})
}

// desk is a hub whose clients can ask for jobs.
type desk struct {
	*httptest.Server
	hub      *realtime.Hub
	sessions *Sessions
	clock    atomic.Int64 // of the limit, in ns
}

func newDesk(t *testing.T, jobs JobTeller) *desk {
	authenticate := func(h realtime.Handshake) (auth.Identity, error) {
		var payload struct{ Token string }
		err := json.Unmarshal(h.Auth, &payload)
		return auth.Identity{UserID: payload.Token, ExpiresAt: time.Now().Add(time.Hour)}, err
	}
	d := &desk{sessions: NewSessions(authenticate, quiet{}, leaves{}, silent())}
	d.sessions.asks.now = func() time.Time { return time.Unix(1e9, d.clock.Load()) }
	d.hub = realtime.New(realtime.Config{Logger: silent()}, briefly{d.sessions})
	RegisterClientEvents(d.hub, d.sessions, jobs, nil)
	d.Server = httptest.NewServer(d.hub)
	t.Cleanup(func() {
		_ = d.hub.Shutdown(context.Background())
		d.Close()
	})
	return d
}

// client is a websocket that speaks Engine.IO and Socket.IO by hand.
type client struct {
	t  *testing.T
	ws *websocket.Conn
}

func (d *desk) connect(t *testing.T, user string) *client {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	ws, _, err := websocket.Dial(ctx, strings.Replace(d.URL, "http", "ws", 1)+"/socket.io/?EIO=4&transport=websocket", nil)
	if err != nil {
		t.Fatal(err)
	}
	ws.SetReadLimit(1 << 20)
	t.Cleanup(func() { _ = ws.CloseNow() })
	c := &client{t, ws}
	c.read() // what the engine offers
	c.write(`40{"token":"` + user + `"}`)
	if got := c.read(); !strings.HasPrefix(got, `40{"sid":`) {
		t.Fatalf("got %s", got)
	}
	return c
}

func (c *client) write(text string) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := c.ws.Write(ctx, websocket.MessageText, []byte(text)); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) read() string {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for {
		_, text, err := c.ws.Read(ctx)
		if err != nil {
			c.t.Fatal(err)
		}
		if string(text) != "2" { // a ping
			return string(text)
		}
	}
}

func (c *client) expect(texts ...string) {
	c.t.Helper()
	for _, want := range texts {
		if got := c.read(); got != want {
			c.t.Fatalf("got  %s\nwant %s", got, want)
		}
	}
}

func TestClientsAskForTheJobsOfTheirOwnUser(t *testing.T) {
	for name, tc := range map[string]struct {
		argument string
		want     delivery.JobsQuery
	}{
		"no argument":     {``, delivery.JobsQuery{Limit: 50}},
		"null":            {`,null`, delivery.JobsQuery{Limit: 50}},
		"an empty object": {`,{}`, delivery.JobsQuery{Limit: 50}},
		"null members":    {`,{"limit":null,"before":null}`, delivery.JobsQuery{Limit: 50}},
		"a limit":         {`,{"limit":1}`, delivery.JobsQuery{Limit: 1}},
		"the next page":   {`,{"limit":200,"before":"1763900000000-7"}`, delivery.JobsQuery{Limit: 200, Before: events.ID{Ms: 1763900000000, Seq: 7}}},
	} {
		t.Run(name, func(t *testing.T) {
			asked := make(chan delivery.JobsQuery, 1)
			d := newDesk(t, teller(func(q delivery.JobsQuery, answer func(delivery.JobsPage, error)) {
				if q.UserID != "alice" {
					t.Errorf("alice asks for the jobs of %s", q.UserID)
				}
				asked <- q
				answer(delivery.JobsPage{}, nil)
			}))
			c := d.connect(t, "alice")
			c.write(`421["get_jobs"` + tc.argument + `]`)
			c.expect(`431[{"jobs":[]}]`)
			tc.want.UserID = "alice"
			if got := <-asked; got != tc.want {
				t.Errorf("asked for %+v, want %+v", got, tc.want)
			}
		})
	}
}

func TestQuestionsForJobsThatDoNotFit(t *testing.T) {
	d := newDesk(t, teller(func(delivery.JobsQuery, func(delivery.JobsPage, error)) { t.Error("asked") }))
	c := d.connect(t, "alice")
	for _, argument := range []string{
		`{"limit":"many"}`, `{"limit":0}`, `{"limit":-1}`, `{"limit":201}`, `{"limit":1.5}`, `{"limit":1e400}`, `{"limit":99999999999999999999}`, `{"limit":[]}`,
		`{"before":"yesterday"}`, `{"before":""}`, `{"before":"0-0"}`, `{"before":"01-1"}`, `{"before":7}`, `{"before":"1-1","limit":0}`,
		`{"userId":"bob"}`, `[]`, `"50"`, `50`, `{},{}`,
	} {
		c.write(`421["get_jobs",` + argument + `]`)
		if got := c.read(); !strings.HasPrefix(got, `431[{"error":{"code":"invalid_payload","message":"`) {
			t.Errorf("%s: %s", argument, got)
		}
	}
}

// What a client is told is what a worker is told.
func TestClientsAndWorkersSeeTheSameJobs(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 678000000, time.UTC)
	page := delivery.JobsPage{Next: events.ID{Ms: 15, Seq: 2}, Jobs: []delivery.Job{
		{JobID: "ü<&>", State: delivery.JobRunning, Attempt: 2, Progress: json.RawMessage(`{"z":1,"n":12345678901234567890,"html":"<b>&\u2028"}`), StartedAt: at, UpdatedAt: at},
		{JobID: "b", State: delivery.JobFailed, End: &delivery.JobEnd{Event: "video:gone", Data: json.RawMessage(`"\ud800"`), ID: "17-1"}, StartedAt: at, UpdatedAt: at},
	}}
	d := newDesk(t, teller(func(_ delivery.JobsQuery, answer func(delivery.JobsPage, error)) { answer(page, nil) }))
	c := d.connect(t, "alice")
	c.write(`421["get_jobs"]`)
	b := &backend{jobs: func(delivery.JobsQuery) (delivery.JobsPage, error) { return page, nil }}
	c.expect("431[" + get("/v1/users/alice/jobs").to(api(t, b, smallLimits, silent())).Body.String() + "]")
}

func TestFailedQuestionsForJobs(t *testing.T) {
	for code, err := range map[string]error{
		"store_unavailable": fmt.Errorf("%w: %w", delivery.ErrStoreUnavailable, errors.New("secret detail")),
		"shutting_down":     delivery.ErrClosed,
		"internal":          errors.New("secret detail"),
	} {
		d := newDesk(t, teller(func(_ delivery.JobsQuery, answer func(delivery.JobsPage, error)) {
			answer(delivery.JobsPage{}, err)
		}))
		c := d.connect(t, "alice")
		c.write(`421["get_jobs"]`)
		if got := c.read(); !strings.HasPrefix(got, `431[{"error":{"code":"`+code+`","message":"`) || strings.Contains(got, "secret") {
			t.Errorf("%s: %s", code, got)
		}
	}
}

// The answer leaves where the teller says so, and the client's next event is handled after it.
func TestAnAnswerAboutJobsHasAPlace(t *testing.T) {
	var d *desk
	tell := func(n int) {
		d.hub.EmitUser("alice", realtime.Message{Packet: events.Encode("x", fmt.Append(nil, n), events.ID{})})
	}
	d = newDesk(t, teller(func(_ delivery.JobsQuery, answer func(delivery.JobsPage, error)) {
		var elsewhere sync.WaitGroup
		elsewhere.Go(func() { // as a stream does
			tell(1)
			answer(delivery.JobsPage{}, nil)
			tell(2)
		})
		elsewhere.Wait()
	}))
	c := d.connect(t, "alice")
	c.write(`421["get_jobs"]`)
	c.write(`422["get_jobs",{"limit":0}]`)
	c.write(`42["get_jobs"]`) // without an ack nothing answers
	c.write(`423["nothing"]`)
	c.expect(`42["x",1]`, `431[{"jobs":[]}]`, `42["x",2]`,
		`432[{"error":{"code":"invalid_payload","message":"The argument does not fit: limit must be a number from 1 to 200."}}]`,
		`42["x",1]`, `42["x",2]`,
		`433[{"error":{"code":"unknown_event","message":"The server does not handle this event."}}]`)
}

func TestTooManyQuestionsForJobs(t *testing.T) {
	var jobs atomic.Pointer[[]delivery.Job]
	jobs.Store(new([]delivery.Job))
	d := newDesk(t, teller(func(_ delivery.JobsQuery, answer func(delivery.JobsPage, error)) {
		answer(delivery.JobsPage{Jobs: *jobs.Load()}, nil)
	}))
	ask := func(c *client, n int, want string) {
		t.Helper()
		for i := range n {
			c.write(fmt.Sprintf(`42%d["get_jobs"]`, i))
		}
		for i := range n {
			if got := c.read(); !strings.HasPrefix(got, fmt.Sprintf(`43%d[%s`, i, want)) {
				t.Fatalf("question %d: %s, want %s", i, got, want)
			}
		}
	}
	const answered, refused = `{"jobs":[`, `{"error":{"code":"rate_limited","message":"`
	c := d.connect(t, "alice")
	ask(c, asksBurst, answered)
	ask(c, 3, refused)
	d.clock.Add(int64(time.Second))
	ask(c, asksRate, answered)
	ask(c, 1, refused)
	ask(d.connect(t, "alice"), asksBurst, answered) // another tab has a bucket of its own

	// What an answer carries counts, too.
	d.clock.Add(int64(time.Hour))
	jobs.Store(&[]delivery.Job{
		{JobID: "j", Progress: json.RawMessage(`"` + strings.Repeat("x", 10*asksBytes) + `"`),
			End: &delivery.JobEnd{Data: json.RawMessage(`"` + strings.Repeat("x", 5*asksBytes) + `"`)}},
	})
	ask(c, asksBurst/16, answered) // each takes 16
	ask(c, 1, answered)            // the last may take more than there is
	jobs.Store(new([]delivery.Job))
	ask(c, 1, refused)
	d.clock.Add(int64(time.Second))
	ask(c, 1, answered)
}

func TestAClosedSessionLeavesNothingOfItsQuestions(t *testing.T) {
	d := newDesk(t, teller(func(_ delivery.JobsQuery, answer func(delivery.JobsPage, error)) {
		answer(delivery.JobsPage{}, nil)
	}))
	count := func() int {
		d.sessions.asks.mu.Lock()
		defer d.sessions.asks.mu.Unlock()
		return len(d.sessions.asks.bySession)
	}
	for range 3 {
		c := d.connect(t, "alice")
		c.write(`421["get_jobs"]`)
		c.expect(`431[{"jobs":[]}]`)
		if count() == 0 {
			t.Fatal("nothing is remembered of a session that asks")
		}
		_ = c.ws.CloseNow()
	}
	for deadline := time.Now().Add(10 * time.Second); count() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d sessions are remembered", count())
		}
	}
}
