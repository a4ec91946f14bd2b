package handlers

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gin-gonic/gin"

	"jobwire/config"
	"jobwire/internal/auth"
	"jobwire/internal/delivery"
	"jobwire/internal/engine"
	"jobwire/internal/events"
	"jobwire/internal/presence"
	"jobwire/internal/realtime"
	"jobwire/middleware"
)

// These tests hold docs/protocol.md to the code: what one of them lists and
// the other does not have is an error either way.

// table is the rows, cell by cell and without quotes, of the table below a
// heading of docs/protocol.md whose first column has that title.
func table(t *testing.T, heading, column string) [][]string {
	t.Helper()
	text, err := os.ReadFile("../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(text), "# "+heading+"\n")
	if !found {
		t.Fatalf("no heading %q", heading)
	}
	section, _, _ = strings.Cut(section, "\n#")
	var rows [][]string
	in, heads := false, true // in that table; the next row is the head of one
	for line := range strings.Lines(section) {
		if !strings.HasPrefix(line, "|") {
			in, heads = false, true
			continue
		}
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range cells {
			cells[i] = strings.ReplaceAll(strings.TrimSpace(cells[i]), "`", "")
		}
		switch {
		case heads:
			in, heads = cells[0] == column, false
		case in && !strings.HasPrefix(cells[0], "--"):
			rows = append(rows, cells)
		}
	}
	if len(rows) == 0 {
		t.Fatalf("no table of %q below %q", column, heading)
	}
	return rows
}

func firstColumn(rows [][]string) []string {
	var column []string
	for _, row := range rows {
		column = append(column, row[0])
	}
	return column
}

// constants are the string constants of a package whose names match.
func constants(t *testing.T, dir, pattern string) map[string]string {
	t.Helper()
	named := regexp.MustCompile(pattern)
	found := make(map[string]string)
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(node ast.Node) bool {
			spec, ok := node.(*ast.ValueSpec)
			if !ok || len(spec.Names) != 1 || len(spec.Values) != 1 || !named.MatchString(spec.Names[0].Name) {
				return true
			}
			if literal, ok := spec.Values[0].(*ast.BasicLit); ok && literal.Kind == token.STRING {
				found[spec.Names[0].Name], _ = strconv.Unquote(literal.Value)
			}
			return true
		})
	}
	if len(found) == 0 {
		t.Fatalf("no constants %s in %s", pattern, dir)
	}
	return found
}

func same(t *testing.T, what string, documented, real []string) {
	t.Helper()
	slices.Sort(documented)
	slices.Sort(real)
	if !slices.Equal(documented, real) {
		t.Errorf("%s\ndocumented: %q\nin the code: %q", what, documented, real)
	}
}

func values(m map[string]string) []string { return slices.Collect(maps.Values(m)) }

// members are the names of an object's members, as the page writes them.
func members(t *testing.T, value any) string {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	decoder := json.NewDecoder(strings.NewReader(string(text)))
	var names []string
	_, _ = decoder.Token()
	for decoder.More() {
		name, err := decoder.Token()
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, name.(string))
		var skipped json.RawMessage
		if err := decoder.Decode(&skipped); err != nil {
			t.Fatal(err)
		}
	}
	return "{" + strings.Join(names, ", ") + "}"
}

func TestProtocolOfEventsToTheClient(t *testing.T) {
	rows := table(t, "Events to the client", "event")
	rows = slices.DeleteFunc(rows, func(row []string) bool { return row[0] == "any other name" })
	same(t, "events", firstColumn(rows), values(constants(t, "../internal/events", "^(Job[A-Z]|Authenticated$|Unauthorized$|User(On|Off)line$|OnlineUsers$)")))

	shapes := map[string]string{
		events.Authenticated: members(t, greeting{}),
		events.OnlineUsers:   members(t, onlineUsers(t)),
		events.JobStalled:    members(t, delivery.StalledData("j", time.Time{})),
		events.Unauthorized:  members(t, map[string]int{"code": 0, "message": 0}),
	}
	for _, row := range rows {
		name, data, hasID := row[0], row[1], row[2]
		if want, ok := shapes[name]; ok && data != want {
			t.Errorf("%s carries %s, the page says %s", name, want, data)
		}
		isMessage := name == events.JobStalled || events.CheckName(name) == nil && events.KindOf(name).Logged()
		if hasID != map[bool]string{true: "yes", false: "no"}[isMessage] {
			t.Errorf("%s: id %q", name, hasID)
		}
		if (data == "the worker's") != (events.CheckName(name) == nil) {
			t.Errorf("%s: its data is %q", name, data)
		}
	}
}

func TestProtocolOfEventsFromTheClient(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "client_events.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var registered []string
	ast.Inspect(file, func(node ast.Node) bool {
		if call, ok := node.(*ast.CallExpr); ok && len(call.Args) == 3 {
			if selector, ok := call.Fun.(*ast.SelectorExpr); ok && strings.HasPrefix(selector.Sel.Name, "Handle") {
				name, err := strconv.Unquote(call.Args[1].(*ast.BasicLit).Value)
				if err != nil {
					t.Error(err)
				}
				registered = append(registered, name)
			}
		}
		return true
	})
	rows := table(t, "Events from the client", "event")
	same(t, "client events", firstColumn(rows), registered)
	want := map[string][2]string{
		"authenticate":     {members(t, tokenPayload{}), members(t, identity{})},
		"get_online_users": {"none", members(t, onlineUsers(t))},
		"get_jobs":         {members(t, jobsQuestion{}), members(t, jobList{Next: "1-0"})},
	}
	for _, row := range rows {
		if shape, ok := want[row[0]]; ok && (row[1] != shape[0] || !strings.HasPrefix(row[2], shape[1])) {
			t.Errorf("%s: takes %s and acks %s, the page says %q", row[0], shape[0], shape[1], row)
		}
	}
}

func TestProtocolOfSocketCodes(t *testing.T) {
	tokens := values(constants(t, "../internal/auth", "^CodeToken"))
	handshake := table(t, "Connecting", "code")
	same(t, "handshake codes", firstColumn(handshake), append(slices.Clone(tokens), realtime.CodeTooManySockets, realtime.CodeInternal))
	for _, row := range handshake {
		want := row[0] // the hub's own refusals carry their code as the message
		if slices.Contains(tokens, row[0]) {
			want = "unauthorized"
		}
		if row[2] != want {
			t.Errorf("%s: err.message %q, want %q", row[0], row[2], want)
		}
	}
	all := append(values(constants(t, "../internal/realtime", "^Code")), middleware.CodeRateLimited, delivery.CodeStoreUnavailable, delivery.CodeShuttingDown)
	elsewhere := []string{realtime.CodeTooManySockets, realtime.CodeDisconnected}
	same(t, "ack codes", append(firstColumn(table(t, "Events from the client", "code")), elsewhere...), all)

	if !strings.Contains(page(t), "`"+realtime.CodeDisconnected+"`") || !strings.Contains(page(t), "`"+auth.CodeTokenExpired+"`") {
		t.Error("the codes of unauthorized are missing")
	}
}

func page(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestProtocolOfCloseReasons(t *testing.T) {
	reasons := values(constants(t, "../internal/engine", "^Reason"))
	reasons = append(reasons, values(constants(t, "../internal/realtime", "^Reason"))...)
	reasons = append(reasons, values(constants(t, ".", "^reason"))...)
	same(t, "close reasons", firstColumn(table(t, "Closed connections", "reason")), reasons)
}

// What Engine.IO, the origins and the limiter really answer.
func TestProtocolOfRefusedRequests(t *testing.T) {
	accept := func(*engine.Conn, *http.Request) engine.Handler { return nil }
	proxies := middleware.NewProxies(nil)
	origins, err := middleware.NewOrigins(nil, proxies)
	if err != nil {
		t.Fatal(err)
	}
	limiter := middleware.NewLimiter(middleware.LimiterConfig{Rate: 1e-9, Burst: 1}, proxies)
	served := engine.NewServer(engine.Config{MaxPayload: 10}, accept)
	router := gin.New()
	router.Any("/socket.io/", origins.Sockets(), gin.WrapH(served))
	router.GET("/limited/", limiter.Sockets(), func(*gin.Context) {})
	full := engine.NewServer(engine.Config{MaxConns: 1}, func(*engine.Conn, *http.Request) engine.Handler { return still{} })
	router.GET("/full/", gin.WrapH(full))
	defer func() { _ = full.Shutdown(t.Context()) }()
	crowded := realtime.New(realtime.Config{MaxUnauthenticated: 1, Logger: silent()}, nil)
	router.GET("/crowded/", gin.WrapH(crowded))
	defer func() { _ = crowded.Shutdown(t.Context()) }()

	const open = "?EIO=4&transport=polling"
	ask := func(method, url string, headers ...string) *httptest.ResponseRecorder {
		return call{method: method, path: url, headers: headers}.to(router)
	}
	ask("GET", "/limited/"+open)
	ask("GET", "/full/"+open)
	ask("GET", "/crowded/"+open)
	upgrade := []string{"Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="}
	answers := []*httptest.ResponseRecorder{
		ask("GET", "/socket.io/?EIO=4&transport=pigeon"),
		ask("GET", "/socket.io/?EIO=3&transport=polling"),
		ask("GET", "/socket.io/"+open+"&sid=unknown"),
		ask("POST", "/socket.io/"+open),
		ask("GET", "/socket.io/"+open+"&j=1"),
		ask("GET", "/socket.io/?EIO=4&transport=websocket", append(upgrade, "Sec-WebSocket-Version: 8")...),
		ask("GET", "/socket.io/"+open, "Origin: https://evil.example"),
		ask("GET", "/limited/"+open),
		ask("GET", "/full/"+open),
		ask("GET", "/crowded/"+open),
	}
	var real []string
	for _, w := range answers {
		var body struct {
			Code    any    `json:"code"`
			Message string `json:"message"`
		}
		if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
			t.Fatalf("%d %q: %v", w.Code, w.Body, err)
		}
		text, _ := json.Marshal(body.Code)
		real = append(real, strings.Join([]string{strconv.Itoa(w.Code), strings.Trim(string(text), `"`), body.Message}, " "))
	}
	real = append(real, "413 3 Payload too large") // needs a session; the engine's own tests have it
	var documented []string
	for _, row := range table(t, "Refused requests", "status") {
		documented = append(documented, strings.Join(row[:3], " "))
	}
	same(t, "refused requests", documented, real)
}

// still is a client's connection that does nothing.
type still struct{}

func (still) Message([]byte, bool) engine.Task { return nil }
func (still) Pong(uint32)                      {}
func (still) Closed(string) engine.Task        { return nil }

func TestProtocolOfCalls(t *testing.T) {
	var real []string
	for _, operation := range readOpenAPI(t).operations() {
		real = append(real, operation.method+" "+operation.path)
	}
	same(t, "calls", firstColumn(table(t, "Calls", "call")), real)

	var fields []string
	schema := readOpenAPI(t).Components.Schemas
	same(t, "fields of an event", firstColumn(table(t, "Sending events", "field")), append(fields, slices.Collect(maps.Keys(schema["Event"].Properties))...))
	same(t, "statuses", firstColumn(table(t, "Sending events", "status")), values(constants(t, "../internal/delivery", "^Status[A-Z]")))
	same(t, "reasons", firstColumn(table(t, "Sending events", "reason")), values(constants(t, "../internal/delivery", "^Reason[A-Z]")))
	same(t, "warnings", firstColumn(table(t, "Sending events", "warning")), values(constants(t, "../internal/events", "^Warn[A-Z]")))
	for _, name := range reservedNames {
		if !strings.Contains(page(t), "`"+name+"`") || events.CheckName(name) == nil {
			t.Errorf("%s is not reserved, or the page does not say so", name)
		}
	}
}

func TestProtocolOfKinds(t *testing.T) {
	var names []string
	for _, row := range table(t, "Sending events", "kind") {
		names = append(names, row[1])
		// The name says that kind: one that differs would be refused.
		body := `{"userId":1,"event":"` + row[1] + `","kind":"` + row[0] + `","data":{"jobId":1}}`
		if _, _, err := events.Parse([]byte(body)); err != nil {
			t.Errorf("%s: %v", row, err)
		}
	}
	same(t, "names of kinds", names, []string{events.JobProgress, events.JobCompleted, events.JobFailed})
}

func TestProtocolOfJobs(t *testing.T) {
	var fields []string
	for _, typed := range []reflect.Type{reflect.TypeFor[delivery.Job](), reflect.TypeFor[delivery.JobEnd]()} {
		for field := range typed.Fields() {
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			switch {
			case name == "-", name == "end": // its members stand for it
			case typed == reflect.TypeFor[delivery.JobEnd]():
				fields = append(fields, "end."+name)
			default:
				fields = append(fields, name)
			}
		}
	}
	same(t, "members of a job", firstColumn(table(t, "Jobs", "member")), fields)
	same(t, "states of a job", firstColumn(table(t, "Jobs", "state")), values(constants(t, "../internal/delivery", "^Job[A-Z]")))
}

var reservedNames = []string{
	events.Authenticated, events.Unauthorized, events.UserOnline, events.UserOffline, events.OnlineUsers, events.JobStalled,
	"connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener",
}

func TestProtocolOfErrors(t *testing.T) {
	var documented, real []string
	for _, row := range table(t, "Errors", "code") {
		documented = append(documented, row[0]+" "+row[1])
	}
	for _, kind := range catalogue {
		real = append(real, kind.code+" "+strconv.Itoa(kind.status))
	}
	same(t, "errors", documented, real)

	// Whatever code the packages behind give, the catalogue has it.
	for _, code := range append(values(constants(t, "../internal/events", "^Code")), values(constants(t, "../internal/delivery", "^Code"))...) {
		if problems[code] == nil {
			t.Errorf("%s is not in the catalogue", code)
		}
	}
}

func TestProtocolOfBounds(t *testing.T) {
	fixed := map[string]string{
		"user id":                 strconv.Itoa(events.MaxUserIDLen) + " bytes",
		"event name":              strconv.Itoa(events.MaxNameLen) + " bytes",
		"job id":                  strconv.Itoa(events.MaxJobIDLen) + " bytes",
		"idempotency key":         strconv.Itoa(events.MaxIdempotencyKeyLen) + " bytes",
		"nesting of a body":       strconv.Itoa(events.MaxDepth) + " levels",
		"staleAfter":              strconv.FormatFloat(events.MinStaleAfter.Seconds(), 'g', -1, 64) + " to " + strconv.Itoa(int(events.MaxStaleAfter.Seconds())) + " seconds",
		"Prefer: wait":            strconv.Itoa(int(MaxWait.Seconds())) + " seconds",
		"reason of a disconnect":  strconv.Itoa(maxReasonLen) + " bytes",
		"page of presence":        strconv.Itoa(presence.ListLimit) + " users",
		"page of jobs":            strconv.Itoa(delivery.MaxJobsLimit) + " jobs",
		"data in a page of jobs":  strconv.Itoa(delivery.MaxJobsBytes>>10) + "KiB",
		"get_jobs at once":        strconv.Itoa(asksBurst),
		"get_jobs a second":       strconv.Itoa(asksRate),
		"ids of a presence query": strconv.Itoa(presence.QueryLimit),
		"users of online_users":   strconv.Itoa(presence.SnapshotLimit),
	}
	settings := make(map[string]string)
	for field := range reflect.TypeFor[config.Settings]().Fields() {
		settings["--"+field.Tag.Get("key")] = field.Tag.Get("default")
	}
	for _, row := range table(t, "Bounds", "what") {
		what, bound, setting := row[0], row[1], row[2]
		if setting == "" {
			if fixed[what] != bound {
				t.Errorf("%s: the page says %q, the code %q", what, bound, fixed[what])
			}
			delete(fixed, what)
		} else if got, ok := settings[setting]; !ok || got != bound {
			t.Errorf("%s: %s is %q by default (there is one: %v), the page says %q", what, setting, got, ok, bound)
		}
	}
	for what := range fixed {
		t.Errorf("%s is not on the page", what)
	}
	for _, flag := range regexp.MustCompile("`(--[a-z-]+)").FindAllStringSubmatch(page(t), -1) {
		if _, ok := settings[flag[1]]; !ok {
			t.Errorf("there is no %s", flag[1])
		}
	}
}

// onlineUsers is what clients get while these users are online.
func onlineUsers(t *testing.T, users ...string) json.RawMessage {
	t.Helper()
	s := presence.New(presence.Config{Audience: presence.Everyone}, noSockets{})
	defer s.Close()
	for _, user := range users {
		if _, err := s.Arrive(t.Context(), user, "", user); err != nil {
			t.Fatal(err)
		}
	}
	data, err := s.OnlineUsers(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// noSockets is an Announcer to none.
type noSockets struct{}

func (noSockets) Announce(string, []presence.Packet) {}

// The longest online_users fits into the smallest queue that an operator may set: else no client could connect on a busy node.
func TestTheSmallestQueueHoldsTheLongestOnlineUsers(t *testing.T) {
	serve := func(queue string) (*config.Command, error) {
		return config.Load([]string{"--max-queue=" + queue, "--max-event-bytes=1KiB", "--jwt-secret=" + strings.Repeat("s", 32), "--api-keys=k=" + testKey}, nil, nil)
	}
	smallest, err := serve("1MiB")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := serve("1023KiB"); err == nil {
		t.Error("a smaller queue is allowed")
	}
	users := make([]string, presence.SnapshotLimit)
	for i := range users {
		users[i] = fmt.Sprintf("%0*d", events.MaxUserIDLen, i)
		users[i] = strings.Repeat("<", events.MaxUserIDLen-4) + users[i][events.MaxUserIDLen-4:] // none takes more than <, six bytes for one
	}
	data := onlineUsers(t, users...)
	const beside = 64 << 10 // for the CONNECT reply, `authenticated`, and the first that comes behind
	if longest := len(events.Encode(events.OnlineUsers, data, events.ID{})); longest+beside > int(smallest.Settings.MaxQueue) {
		t.Errorf("online_users has up to %d bytes, the queue %v", longest, smallest.Settings.MaxQueue)
	}
}

func TestProtocolLinks(t *testing.T) {
	text := page(t)
	anchors := make(map[string]bool)
	for _, heading := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(text, -1) {
		anchors[strings.ReplaceAll(strings.ToLower(heading[1]), " ", "-")] = true
	}
	for _, link := range regexp.MustCompile(`\]\(([^)]+)\)`).FindAllStringSubmatch(text, -1) {
		if name, ok := strings.CutPrefix(link[1], "#"); ok {
			if !anchors[name] {
				t.Errorf("no heading for #%s", name)
			}
		} else if _, err := os.Stat(filepath.Join("../docs", link[1])); err != nil && !strings.Contains(link[1], "://") {
			t.Error(err)
		}
	}
}
