package handlers

import (
	"encoding/json"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"jobwire/internal/delivery"
	"jobwire/internal/events"
	"jobwire/internal/presence"
)

type openAPIDocument struct {
	Paths      map[string]map[string]*openAPIOperation `yaml:"paths"`
	Components struct {
		Schemas map[string]struct {
			Required   []string       `yaml:"required"`
			Properties map[string]any `yaml:"properties"`
		} `yaml:"schemas"`
	} `yaml:"components"`
	Problems map[string]struct {
		Status int    `yaml:"status"`
		Title  string `yaml:"title"`
		Detail string `yaml:"detail"`
	} `yaml:"x-problems"`
}

type openAPIOperation struct {
	ID        string         `yaml:"operationId"`
	Security  []any          `yaml:"security"` // nil: as everywhere; empty: none
	Responses map[string]any `yaml:"responses"`
	Codes     []string       `yaml:"x-codes"`
	ItemCodes []string       `yaml:"x-item-codes"`

	method, path string
}

func readOpenAPI(t *testing.T) *openAPIDocument {
	t.Helper()
	document := new(openAPIDocument)
	if err := yaml.Unmarshal(openAPI, document); err != nil {
		t.Fatal(err)
	}
	return document
}

// operations are all of the document by their ids.
func (d *openAPIDocument) operations() map[string]*openAPIOperation {
	all := make(map[string]*openAPIOperation)
	for path, methods := range d.Paths {
		for method, operation := range methods {
			operation.method, operation.path = strings.ToUpper(method), path
			all[operation.ID] = operation
		}
	}
	return all
}

func TestOpenAPIHasTheRoutes(t *testing.T) {
	var routes, documented []string
	for _, route := range api(t, new(backend), smallLimits, silent()).Routes() {
		routes = append(routes, route.Method+" "+strings.ReplaceAll(route.Path, ":userId", "{userId}"))
	}
	for _, operation := range readOpenAPI(t).operations() {
		documented = append(documented, operation.method+" "+operation.path)
	}
	slices.Sort(routes)
	slices.Sort(documented)
	if !slices.Equal(routes, documented) {
		t.Errorf("routes:\n%s\nopenapi.yaml:\n%s", strings.Join(routes, "\n"), strings.Join(documented, "\n"))
	}
}

func TestOpenAPIHasTheProblems(t *testing.T) {
	documented := readOpenAPI(t).Problems
	for _, kind := range catalogue {
		if got := documented[kind.code]; got.Status != kind.status || got.Title != kind.title || got.Detail != kind.detail {
			t.Errorf("%s: %+v in openapi.yaml, %+v in the catalogue", kind.code, got, kind)
		}
		delete(documented, kind.code)
	}
	for code := range documented {
		t.Errorf("%s is not in the catalogue", code)
	}
	for name, operation := range readOpenAPI(t).operations() {
		for _, code := range append(slices.Clone(operation.Codes), operation.ItemCodes...) {
			if problems[code] == nil {
				t.Errorf("%s: %s is not in the catalogue", name, code)
			}
		}
		if _, ok := operation.Responses["default"]; ok != (len(operation.Codes) > 0) {
			t.Errorf("%s: %d codes, default response %v", name, len(operation.Codes), ok)
		}
	}
}

// Every schema's members are those that answers have and requests may have.
func TestOpenAPIHasTheFields(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 678901234, time.UTC)
	full := &backend{
		publish: func(event events.Event) (delivery.Result, error) {
			return delivery.Result{ID: events.ID{Ms: 1}, Status: delivery.StatusSent, Reason: delivery.ReasonJobFinished}, nil
		},
		jobs: func(delivery.JobsQuery) (delivery.JobsPage, error) {
			end := &delivery.JobEnd{Event: "job_completed", Data: json.RawMessage(`{}`), ID: "1-0"}
			return delivery.JobsPage{Next: events.ID{Ms: 1}, Jobs: []delivery.Job{
				{JobID: "j", State: delivery.JobCompleted, Progress: json.RawMessage(`{}`), End: end, StartedAt: at, UpdatedAt: at}}}, nil
		},
		list:   func(string, int) ([]presence.Status, string) { return nil, "next" },
		status: func(id string) presence.Status { return presence.Status{UserID: id, LastSeen: at} },
	}
	h := api(t, full, EventsConfig{}, silent())
	answerOf := func(c call, path ...any) any {
		w := c.to(h)
		var value any
		if err := json.Unmarshal(w.Body.Bytes(), &value); err != nil {
			t.Fatalf("%d %s: %v", w.Code, w.Body, err)
		}
		for _, step := range path {
			switch step := step.(type) {
			case string:
				value = value.(map[string]any)[step]
			case int:
				value = value.([]any)[step]
			}
		}
		return value
	}
	slip := event(`"userId":"u","event":"job_done","data":1`).with("Prefer: wait=1")
	mixed := batch(`{` + plain + `},7`)
	answers := map[string]any{
		"EventResult":    answerOf(slip),
		"Warning":        answerOf(slip, "warnings", 0),
		"BatchResult":    answerOf(mixed),
		"BatchRefusal":   answerOf(mixed, "results", 1),
		"JobList":        answerOf(get("/v1/users/a/jobs")),
		"Job":            answerOf(get("/v1/users/a/jobs"), "jobs", 0),
		"JobEnd":         answerOf(get("/v1/users/a/jobs"), "jobs", 0, "end"),
		"Disconnected":   answerOf(disconnect("")),
		"PresencePage":   answerOf(get("/v1/presence")),
		"PresenceCount":  answerOf(get("/v1/presence/count")),
		"PresenceStatus": answerOf(get("/v1/presence/a")),
		"PresenceAnswer": answerOf(query(`{"userIds":[1]}`)),
		"Health":         answerOf(get("/livez")),
		"Problem":        answerOf(event(`"userId":""`)),
	}
	schemas := readOpenAPI(t).Components.Schemas
	for name, sample := range answers {
		want := slices.Sorted(maps.Keys(sample.(map[string]any)))
		if got := slices.Sorted(maps.Keys(schemas[name].Properties)); !slices.Equal(got, want) {
			t.Errorf("%s: openapi.yaml has %v, the answer %v", name, got, want)
		}
		delete(schemas, name)
	}

	// What is left are requests: a request with all members passes (so the
	// code knows each), and one without a required member is refused.
	samples := map[string]struct {
		call   call
		object map[string]any
	}{
		"Event": {call{method: "POST", path: "/v1/events"}, map[string]any{
			"userId": "u", "event": "job_progress", "data": map[string]any{"jobId": 1},
			"kind": "progress", "jobId": 1, "attempt": 1, "idempotencyKey": "k", "staleAfter": 1}},
		"Batch":             {call{method: "POST", path: "/v1/events/batch"}, map[string]any{"events": []any{}}},
		"DisconnectRequest": {disconnect(""), map[string]any{"reason": "r"}},
		"PresenceQuery":     {query(""), map[string]any{"userIds": []any{"a"}}},
	}
	for name, sample := range samples {
		schema := schemas[name]
		if got, want := slices.Sorted(maps.Keys(schema.Properties)), slices.Sorted(maps.Keys(sample.object)); !slices.Equal(got, want) {
			t.Errorf("%s: openapi.yaml has %v, the test %v", name, got, want)
		}
		post := func(object map[string]any) int {
			text, err := json.Marshal(object)
			if err != nil {
				t.Fatal(err)
			}
			sample.call.body = string(text)
			return sample.call.to(h).Code
		}
		if status := post(sample.object); status >= 300 {
			t.Errorf("%s: all members are answered with %d", name, status)
		}
		for member := range sample.object {
			without := maps.Clone(sample.object)
			delete(without, member)
			if refused, required := post(without) == http.StatusBadRequest, slices.Contains(schema.Required, member); refused != required {
				t.Errorf("%s without %s: refused %v, required %v", name, member, refused, required)
			}
		}
		delete(schemas, name)
	}
	for name := range schemas {
		t.Errorf("nothing checks %s", name)
	}
	if !reflect.DeepEqual(answerOf(get("/v1/presence/a"), "lastSeen"), "2026-01-02T03:04:05.678Z") {
		t.Error("lastSeen is not RFC 3339 with milliseconds")
	}
}
