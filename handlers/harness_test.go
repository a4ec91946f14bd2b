package handlers

import (
	"context"
	"encoding/json"
	"flag"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/gin-gonic/gin"

	"jobwire/internal/delivery"
	"jobwire/internal/events"
	"jobwire/internal/metrics"
	"jobwire/internal/presence"
	"jobwire/middleware"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestMain(m *testing.M) {
	gin.SetMode(gin.ReleaseMode)
	flag.Parse()
	os.Exit(m.Run())
}

const testKey = "a-key-for-the-tests-only"

type keys map[string]string

func (k keys) Lookup(key string) (string, bool) {
	name, ok := k[key]
	return name, ok
}

// backend is everything behind the handlers. Its functions may be replaced;
// left alone they answer something plain.
type backend struct {
	published []events.Event
	waited    time.Duration
	publish   func(events.Event) (delivery.Result, error)
	batch     error // no event of a batch can be stored

	disconnected string // user id and reason
	disconnect   error
	query        delivery.JobsQuery
	jobs         func(delivery.JobsQuery) (delivery.JobsPage, error)
	ready        error

	cursor string
	limit  int
	count  int
	asked  []string
	list   func(cursor string, limit int) ([]presence.Status, string)
	status func(userID string) presence.Status
	away   error // what presence, and who disconnects, answer everything with
}

func (b *backend) Publish(_ context.Context, event events.Event) (delivery.Result, error) {
	b.published = append(b.published, event)
	if b.publish != nil {
		return b.publish(event)
	}
	return delivery.Result{ID: events.ID{Ms: 1763900000000, Seq: uint64(len(b.published) - 1)}, Status: delivery.StatusSent, Sockets: 2}, nil
}

func (b *backend) PublishAndWait(ctx context.Context, event events.Event, d time.Duration) (delivery.Result, bool, bool, error) {
	result, err := b.Publish(ctx, event)
	if err != nil || !event.Kind.Logged() || result.Status == delivery.StatusIgnored {
		return result, false, false, err
	}
	b.waited = d
	return result, event.Name == events.JobCompleted, true, nil
}

func (b *backend) PublishBatch(ctx context.Context, batch []events.Event) ([]delivery.Answer, error) {
	if b.batch != nil {
		return nil, b.batch
	}
	answers := make([]delivery.Answer, len(batch))
	for i, event := range batch {
		answers[i].Result, answers[i].Err = b.Publish(ctx, event)
	}
	return answers, nil
}

func (b *backend) Disconnect(_ context.Context, userID, reason string) (int, error) {
	if b.disconnect != nil {
		return 0, b.disconnect
	}
	b.disconnected = userID + " " + reason
	return 3, nil
}

func (b *backend) Jobs(_ context.Context, q delivery.JobsQuery) (delivery.JobsPage, error) {
	b.asked = append(b.asked, q.UserID)
	b.query = q
	if b.jobs != nil {
		return b.jobs(q)
	}
	return delivery.JobsPage{}, nil
}

func (b *backend) Ready(context.Context) error { return b.ready }

func (b *backend) List(_ context.Context, cursor string, limit int) ([]presence.Status, string, error) {
	b.cursor, b.limit = cursor, limit
	if b.list == nil {
		return nil, "", b.away
	}
	page, next := b.list(cursor, limit)
	return page, next, b.away
}

func (b *backend) Count(context.Context) (int, error) { return b.count, b.away }

func (b *backend) Get(_ context.Context, userID string) (presence.Status, error) {
	b.asked = append(b.asked, userID)
	if b.status != nil {
		return b.status(userID), b.away
	}
	return presence.Status{UserID: userID}, b.away
}

func (b *backend) Query(ctx context.Context, userIDs []string) ([]presence.Status, error) {
	list := make([]presence.Status, len(userIDs))
	for i, id := range userIDs {
		list[i], _ = b.Get(ctx, id)
	}
	return list, b.away
}

// smallLimits keep the bodies of tests short.
var smallLimits = EventsConfig{MaxEventBytes: 256, MaxBatchItems: 4, MaxBatchBytes: 1024}

// api is the HTTP API as a server puts it together, in front of b. What it answers must be as openapi.yaml says.
func api(t testing.TB, b *backend, cfg EventsConfig, log *slog.Logger) *gin.Engine {
	engine := gin.New()
	Prepare(engine)
	engine.Use(conforms(t), middleware.AssignRequestID(), middleware.AccessLog(log, slog.LevelDebug, keys{}), middleware.Recovery(log, Problem))

	health := NewHealth(b, metrics.New("test").Handler())
	engine.GET("/livez", Answer(health.Live))
	engine.GET("/readyz", Answer(health.Ready))
	engine.GET("/metrics", health.Metrics)
	engine.GET("/openapi.yaml", OpenAPI)

	publisher, users, who := NewEvents(b, cfg), NewUsers(b), NewPresence(b)
	v1 := engine.Group("/v1", middleware.APIKey(keys{testKey: "tests"}, Problem))
	v1.POST("/events", publisher.Publish)
	v1.POST("/events/batch", publisher.Batch)
	v1.GET("/users/:userId/jobs", Answer(users.Jobs))
	v1.POST("/users/:userId/disconnect", Answer(users.Disconnect))
	v1.GET("/presence", Answer(who.List))
	v1.GET("/presence/count", Answer(who.Count))
	v1.GET("/presence/:userId", Answer(who.Get))
	v1.POST("/presence/query", Answer(who.Query))
	return engine
}

func silent() *slog.Logger { return slog.New(slog.DiscardHandler) }

// call is one request; headers are "Name: value".
type call struct {
	method, path string
	body         string
	headers      []string
	keyless      bool      // sends no API key
	reader       io.Reader // instead of body
}

func (c call) request() *http.Request {
	var body io.Reader
	if c.body != "" {
		body = strings.NewReader(c.body)
	}
	if c.reader != nil {
		body = c.reader
	}
	r := httptest.NewRequest(c.method, c.path, body)
	r.Header.Set("X-Request-Id", "r1")
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	if !c.keyless {
		r.Header.Set("Authorization", "Bearer "+testKey)
	}
	for _, header := range c.headers {
		name, value, _ := strings.Cut(header, ":")
		if value = strings.TrimSpace(value); value == "-" {
			r.Header.Del(name)
		} else if name == "Content-Type" {
			r.Header.Set(name, value)
		} else {
			r.Header.Add(name, value)
		}
	}
	return r
}

func (c call) to(h http.Handler) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, c.request())
	return w
}

// expect checks status and body of an answer, byte for byte.
func expect(t *testing.T, w *httptest.ResponseRecorder, status int, body string) {
	t.Helper()
	if w.Code != status || w.Body.String() != body {
		t.Errorf("got  %d %s\nwant %d %s", w.Code, w.Body, status, body)
	}
}

func problemIn(t *testing.T, w *httptest.ResponseRecorder) problemBody {
	t.Helper()
	if got := w.Header().Get("Content-Type"); got != "application/problem+json" {
		t.Fatalf("%d with content type %q: %s", w.Code, got, w.Body)
	}
	var body problemBody
	decoder := json.NewDecoder(w.Body)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&body); err != nil {
		t.Fatal(err)
	}
	return body
}
