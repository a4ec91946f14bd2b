package server

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/gin-gonic/gin"
	"github.com/goccy/go-yaml"
	"go.uber.org/goleak"

	"jobwire/config"
	"jobwire/internal/auth"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const apiKey = "a-worker-key-of-the-tests-0123456789"

// settingsOf is a configuration as an operator would write it.
func settingsOf(t testing.TB, args ...string) config.Settings {
	t.Helper()
	cmd, err := config.Load(append([]string{
		"--addr=127.0.0.1:0", "--data-dir=memory", "--drain=5s",
		"--jwt-secret=" + strings.Repeat("s", 32), "--api-keys=test=" + apiKey,
	}, args...), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return cmd.Settings
}

// node is a served Server.
type node struct {
	*Server
	url  string
	stop context.CancelFunc
	done chan struct{} // closed when Serve has returned err
	err  error
}

func start(t testing.TB, args ...string) *node {
	t.Helper()
	s, err := New(settingsOf(t, args...), "test", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	n := &node{Server: s, url: "http://" + listener.Addr().String(), stop: stop, done: make(chan struct{})}
	go func() {
		defer close(n.done)
		n.err = s.Serve(ctx, listener)
	}()
	t.Cleanup(func() {
		stop()
		<-n.done
		http.DefaultClient.CloseIdleConnections()
	})
	return n
}

func (n *node) post(t *testing.T, body string) (int, string) {
	t.Helper()
	request, err := http.NewRequest(http.MethodPost, n.url+"/v1/events", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+apiKey)
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(answer)
}

// connect is a tab of a user; frames are read with its next.
func (n *node) connect(t testing.TB, user string) *tab {
	t.Helper()
	token, err := auth.Mint(n.settings.Minting(), user, "", time.Minute, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	conn, _, err := websocket.Dial(ctx, n.url+"/socket.io/?EIO=4&transport=websocket", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.CloseNow() })
	c := &tab{t: t, ctx: ctx, conn: conn}
	c.expect(`0{"sid":`)
	if err := conn.Write(ctx, websocket.MessageText, fmt.Appendf(nil, `40{"token":%q}`, token)); err != nil {
		t.Fatal(err)
	}
	c.expect(`40{"sid":`)
	c.expect(`42["authenticated",{"userId":"` + user + `"`)
	if list := c.expect(`42["online_users",{"users":["`); !strings.Contains(list, `"`+user+`"`) {
		t.Fatalf("%s is not in %s", user, list)
	}
	return c
}

type tab struct {
	t    testing.TB
	ctx  context.Context
	conn *websocket.Conn
}

// expect reads the next frame that is not about who else has come or gone: those
// come when they come.
func (c *tab) expect(prefix string) string {
	c.t.Helper()
	for {
		_, frame, err := c.conn.Read(c.ctx)
		if err != nil {
			c.t.Fatalf("waiting for %s: %v", prefix, err)
		}
		if bytes.HasPrefix(frame, []byte(`42["user_online"`)) {
			continue
		}
		if !bytes.HasPrefix(frame, []byte(prefix)) {
			c.t.Fatalf("got %s, want %s…", frame, prefix)
		}
		return string(frame)
	}
}

func TestAnEventReachesItsUserOnly(t *testing.T) {
	n := start(t)
	alice, bob := n.connect(t, "alice"), n.connect(t, "bob")
	status, answer := n.post(t, `{"userId":"alice","event":"note","data":{"n":12345678901234567890,"z":1,"a":"ü"}}`)
	if status != http.StatusAccepted || !strings.Contains(answer, `"status":"sent","sockets":1`) {
		t.Fatalf("answered %d %s", status, answer)
	}
	alice.expect(`42["note",{"n":12345678901234567890,"z":1,"a":"ü"},"`)
	n.post(t, `{"userId":"bob","event":"note","data":"for bob"}`)
	bob.expect(`42["note","for bob","`) // and so not alice's before it
}

func TestADrainFlushes(t *testing.T) {
	n := start(t, "--coalesce=1m")
	alice := n.connect(t, "alice")
	n.post(t, `{"userId":"alice","event":"job_progress","data":{"jobId":"j","progress":1}}`)
	alice.expect(`42["job_progress",{"jobId":"j","progress":1}]`)
	n.post(t, `{"userId":"alice","event":"job_progress","data":{"jobId":"j","progress":2}}`)

	n.stop()
	alice.expect(`42["job_progress",{"jobId":"j","progress":2}]`) // it was held back for a minute
	if _, _, err := alice.conn.Read(alice.ctx); websocket.CloseStatus(err) != websocket.StatusGoingAway {
		t.Errorf("the socket ended with %v, want close code 1001", err)
	}
	if <-n.done; n.err != nil {
		t.Errorf("Serve returned %v", n.err)
	}
	if _, err := http.Get(n.url + "/livez"); err == nil {
		t.Error("the server still accepts")
	}
}

func TestAFailingListenerEndsTheServer(t *testing.T) {
	s, err := New(settingsOf(t), "test", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener.Close()
	if err := s.Serve(context.Background(), listener); err == nil || !strings.HasPrefix(err.Error(), "accept: ") {
		t.Errorf("Serve returned %v", err)
	}
}

func TestAStoreInUseIsAnError(t *testing.T) {
	dir := t.TempDir()
	settings := settingsOf(t, "--data-dir="+dir)
	first, err := New(settings, "test", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if second, err := New(settings, "test", slog.New(slog.DiscardHandler)); err == nil {
		second.Close()
		t.Error("two servers share one data directory")
	}
}

func TestMonitorsMayAskWithHead(t *testing.T) {
	n := start(t)
	for _, path := range []string{"/livez", "/readyz"} {
		response, err := http.Head(n.url + path)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != http.StatusOK {
			t.Errorf("HEAD %s: %s", path, response.Status)
		}
	}
}

func TestTheDemoIsFoundWithoutItsSlash(t *testing.T) {
	n := start(t, "--demo")
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	for path, want := range map[string]string{"/demo": "/demo/", "/demo?user=ada": "/demo/?user=ada"} {
		response, err := client.Get(n.url + path)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		// Temporary, or browsers would remember it for whatever listens on that port next.
		if response.StatusCode != http.StatusTemporaryRedirect || response.Header.Get("Location") != want {
			t.Errorf("%s: %s to %q, want %q", path, response.Status, response.Header.Get("Location"), want)
		}
	}
	client.CloseIdleConnections()
}

// What the OpenAPI document promises and what is routed are the same.
func TestRoutesAreTheDocumentedOnes(t *testing.T) {
	n := start(t)
	response, err := http.Get(n.url + "/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var document struct {
		Paths map[string]map[string]any `yaml:"paths"`
	}
	if err := yaml.NewDecoder(response.Body).Decode(&document); err != nil {
		t.Fatal(err)
	}
	var documented []string
	for path, methods := range document.Paths {
		for method := range methods {
			if method != "parameters" {
				documented = append(documented, strings.ToUpper(method)+" "+strings.NewReplacer("{", ":", "}", "").Replace(path))
			}
		}
	}
	var routed []string
	for _, route := range n.http.Handler.(*gin.Engine).Routes() {
		if !strings.HasPrefix(route.Path, "/socket.io/") && route.Method != http.MethodHead { // a HEAD is a GET without its body
			routed = append(routed, route.Method+" "+route.Path)
		}
	}
	slices.Sort(documented)
	slices.Sort(routed)
	if !slices.Equal(documented, routed) {
		t.Errorf("documented: %q\nrouted:     %q", documented, routed)
	}
}
