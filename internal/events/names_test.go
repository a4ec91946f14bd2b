package events

import (
	"errors"
	"strings"
	"testing"
)

// code is the code of an error, "" for none.
func code(t *testing.T, err error) string {
	t.Helper()
	if err == nil {
		return ""
	}
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("%T is not an *Error: %v", err, err)
	}
	if e.Detail == "" || e.Error() == "" {
		t.Errorf("code %s has no text", e.Code)
	}
	return e.Code
}

func TestCheckName(t *testing.T) {
	for _, tc := range []struct {
		behaviour, want string
		names           []string
	}{
		{"job events and a worker's own names pass", "", []string{
			JobProgress, JobCompleted, JobFailed, "a", "Z", "order:created", "a.b-c_d:9", "report_ready", "A" + strings.Repeat("x", 63)}},
		{"names that Node backends emit pass", "", []string{
			"error", "connection", "message", "data", "ping", "pong", "close", "reconnect", "Connect", "Disconnect"}},
		{"client to server names pass", "", []string{"authenticate", "get_online_users"}},
		{"other shapes are invalid", CodeInvalidEventName, []string{
			"", "9a", "_a", ".a", ":a", "-a", "a b", "a\n", "a\x00", `a"`, `a\`, "é", "aé", "a/b", "a@b", "[", "`", "{", "A" + strings.Repeat("x", 64)}},
		{"names of Socket.IO are reserved", CodeReservedEventName, []string{
			"connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"}},
		{"names of the server are reserved", CodeReservedEventName, []string{
			Authenticated, Unauthorized, UserOnline, UserOffline, OnlineUsers, JobStalled}},
	} {
		for _, name := range tc.names {
			if got := code(t, CheckName(name)); got != tc.want {
				t.Errorf("%s: CheckName(%q) gives %q, want %q", tc.behaviour, name, got, tc.want)
			}
		}
	}
}

// A page tells the server's own events from a worker's by their names alone.
func TestWorkersCannotSendTheServersOwnEvents(t *testing.T) {
	for _, name := range []string{Authenticated, Unauthorized, UserOnline, UserOffline, OnlineUsers, JobStalled} {
		if CheckName(name) == nil || KindOf(name) != Message {
			t.Errorf("%s is open to workers", name)
		}
	}
}

func TestCheckUserID(t *testing.T) {
	for id, ok := range map[string]bool{
		"u": true, "42": true, "user@example.com": true, "Zoë 王": true, "a/b?c#d": true, "\u2028": true, "\ufffd": true,
		strings.Repeat("x", MaxUserIDLen): true, strings.Repeat("x", MaxUserIDLen+1): false, strings.Repeat("é", 65): false,
		"": false, "a\x00b": false, "a\n": false, "\x7f": false, "\u0085": false, "\u009f": false, "a\xff": false, "\xc3": false, "\xed\xa0\x80": false,
	} {
		want := ""
		if !ok {
			want = CodeInvalidUserID
		}
		if got := code(t, CheckUserID(id)); got != want {
			t.Errorf("CheckUserID(%q) gives %q, want %q", id, got, want)
		}
	}
}

func TestCheckIdempotencyKey(t *testing.T) {
	for key, ok := range map[string]bool{
		"k": true, "6f1c 2": true, strings.Repeat("x", MaxIdempotencyKeyLen): true,
		"": false, "a\t": false, "\xff": false, strings.Repeat("x", MaxIdempotencyKeyLen+1): false,
	} {
		want := ""
		if !ok {
			want = CodeInvalidIdempotencyKey
		}
		if got := code(t, CheckIdempotencyKey(key)); got != want {
			t.Errorf("CheckIdempotencyKey(%q) gives %q, want %q", key, got, want)
		}
	}
}
