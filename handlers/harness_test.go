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

	disconnected string // user id and last packet
	jobs         func(userID string) ([]delivery.Job, error)
	ready        error

	cursor string
	limit  int
	count  int
	asked  []string
	list   func(cursor string, limit int) ([]presence.Status, string)
	status func(userID string) presence.Status
}

func (b *backend) Publish(_ context.Context, event events.Event) (delivery.Result, error) {
	b.published = append(b.published, event)
	if b.publish != nil {
		return b.publish(event)
	}
	return delivery.Result{ID: events.ID{Ms: 1763900000000, Seq: uint64(len(b.published) - 1)}, Status: delivery.StatusSent, Sockets: 2}, nil
}

func (b *backend) PublishAndWait(ctx context.Context, event events.Event, d time.Duration) (delivery.Result, bool, error) {
	b.waited = d
	result, err := b.Publish(ctx, event)
	return result, err == nil && event.Name == events.JobCompleted, err
}

func (b *backend) PublishBatch(ctx context.Context, batch []events.Event) []delivery.Answer {
	answers := make([]delivery.Answer, len(batch))
	for i, event := range batch {
		answers[i].Result, answers[i].Err = b.Publish(ctx, event)
	}
	return answers
}

func (b *backend) DisconnectUser(userID string, last []byte) int {
	b.disconnected = userID + " " + string(last)
	return 3
}

func (b *backend) Jobs(_ context.Context, userID string) ([]delivery.Job, error) {
	b.asked = append(b.asked, userID)
	if b.jobs != nil {
		return b.jobs(userID)
	}
	return nil, nil
}

func (b *backend) Ready(context.Context) error { return b.ready }

func (b *backend) List(cursor string, limit int) ([]presence.Status, string) {
	b.cursor, b.limit = cursor, limit
	if b.list != nil {
		return b.list(cursor, limit)
	}
	return nil, ""
}

func (b *backend) Count() int { return b.count }

func (b *backend) Get(userID string) presence.Status {
	b.asked = append(b.asked, userID)
	if b.status != nil {
		return b.status(userID)
	}
	return presence.Status{UserID: userID}
}

func (b *backend) Query(userIDs []string) ([]presence.Status, error) {
	list := make([]presence.Status, len(userIDs))
	for i, id := range userIDs {
		list[i] = b.Get(id)
	}
	return list, nil
}

// smallLimits keep the bodies of tests short.
var smallLimits = EventsConfig{MaxEventBytes: 256, MaxBatchItems: 4, MaxBatchBytes: 1024}

// api is the HTTP API as a server puts it together, in front of b.
func api(b *backend, cfg EventsConfig, log *slog.Logger) *gin.Engine {
	engine := gin.New()
	Prepare(engine)
	engine.Use(middleware.AssignRequestID(), middleware.AccessLog(log, slog.LevelDebug, keys{}), middleware.Recovery(log, Problem))

	health := NewHealth(b, metrics.New("test").Handler())
	engine.GET("/livez", health.Live)
	engine.GET("/readyz", health.Ready)
	engine.GET("/metrics", health.Metrics)
	engine.GET("/openapi.yaml", OpenAPI)

	publisher, users, who := NewEvents(b, cfg), NewUsers(b, b), NewPresence(b)
	v1 := engine.Group("/v1", middleware.APIKey(keys{testKey: "tests"}, Problem))
	v1.POST("/events", publisher.Publish)
	v1.POST("/events/batch", publisher.Batch)
	v1.GET("/users/:userId/jobs", users.Jobs)
	v1.POST("/users/:userId/disconnect", users.Disconnect)
	v1.GET("/presence", who.List)
	v1.GET("/presence/count", who.Count)
	v1.GET("/presence/:userId", who.Get)
	v1.POST("/presence/query", who.Query)
	return engine
}

func silent() *slog.Logger { return slog.New(slog.DiscardHandler) }

// call is one request; headers are "Name: value".
type call struct {
	method, path string
	body         string
	headers      []string
	stranger     bool      // sends no API key
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
	if !c.stranger {
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
