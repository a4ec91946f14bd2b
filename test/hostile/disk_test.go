//go:build linux

package hostile

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// nobody is who runs the node whose files become unreadable: root may read them all the same.
const nobody = 65534

// What is done to the store's files under a running node ends in 503 and a node that is not ready, never in a hang or in
// wrong data; what is undone is got over without a restart; and the node ends within its drain, whatever has become of its disk.
func TestFilesOfTheStoreFailUnderARunningNode(t *testing.T) {
	t.Parallel()
	each := func(suffix string, do func(path string) error) func(dir string) error {
		return func(dir string) error {
			paths, err := filepath.Glob(filepath.Join(dir, "*"+suffix))
			if err == nil && len(paths) == 0 {
				err = fmt.Errorf("no %s there", suffix)
			}
			for _, path := range paths {
				err = errors.Join(err, do(path))
			}
			return err
		}
	}
	away := func(path string) error { return os.Rename(path, path+".away") }
	back := func(path string) error { return os.Rename(path, strings.TrimSuffix(path, ".away")) }
	for name, c := range map[string]struct {
		harm, undo func(dir string) error
		unnoticed  bool // it may be: what is open stays readable
	}{
		"tables cut": {harm: each(".sst", func(path string) error {
			info, err := os.Stat(path)
			return errors.Join(err, os.Truncate(path, info.Size()/2))
		})},
		"tables flipped":    {harm: each(".sst", flip)},
		"tables removed":    {harm: each(".sst", os.Remove)},
		"tables moved away": {harm: each(".sst", away), undo: each(".sst.away", back)},
		"log moved away":    {harm: each(".log", away), undo: each(".log.away", back)},
		"everything gone":   {harm: each("", os.Remove)},
		"files unreadable": {
			harm:      each(".sst", func(path string) error { return os.Chmod(path, 0) }),
			undo:      each(".sst", func(path string) error { return os.Chmod(path, 0o600) }),
			unnoticed: true,
		},
		"directory unreadable": {
			harm: func(dir string) error { return os.Chmod(dir, 0) },
			undo: func(dir string) error { return os.Chmod(dir, 0o700) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(openTempDir(t), "data")
			flags := []string{ownAddress(), "--data-dir=" + dir, "--drain=5s", "--retention-events=100000"}
			l := &ledger{answered: map[string]string{}, users: 100}
			n := startAs(t, nobody, flags...)
			for range 5 * l.users {
				if status := l.post(t, n); status != http.StatusAccepted {
					t.Fatalf("answered %d", status)
				}
			}
			n.stop(t) // now all is in tables
			n = startAs(t, nobody, append(flags, "--addr="+n.addr)...)
			n.failing = true
			l.post(t, n) // there is a log, too
			if err := c.harm(dir); err != nil {
				t.Fatal(err)
			}
			noticed := false
			for range 3 * l.users {
				l.look(t, n)
				if status := l.post(t, n); status == http.StatusServiceUnavailable {
					noticed = true
					break
				}
			}
			if !noticed && !c.unnoticed {
				within(t, "the failure is noticed", func() bool { return l.post(t, n) == http.StatusServiceUnavailable })
			}
			if noticed {
				within(t, "the node is not ready", func() bool { return n.ready(t) == http.StatusServiceUnavailable })
			}
			if c.undo != nil {
				if err := c.undo(dir); err != nil {
					t.Fatal(err)
				}
				within(t, "the node is ready again", func() bool { return n.ready(t) == http.StatusOK })
				within(t, "events are taken again", func() bool { return l.post(t, n) == http.StatusAccepted })
				for range l.users {
					l.look(t, n)
				}
				if missing := l.missing(); len(missing) > 0 {
					t.Errorf("%d of %d answered events were not shown, %s for one", len(missing), len(l.answered), missing[0])
				}
			}
			n.terminate(t, 15*time.Second) // the drain, on a busy machine
			if status, ok := n.state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
				t.Errorf("ended by %s", status.Signal())
			}
		})
	}
}

// flip inverts a byte of every kilobyte.
func flip(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	for at := 100; at < len(text); at += 1000 {
		_, e := f.WriteAt([]byte{^text[at]}, int64(at))
		err = errors.Join(err, e)
	}
	return errors.Join(err, f.Close())
}

// openTempDir is a directory for the test that everybody may write to.
func openTempDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, path := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(path, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func within(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); pause() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// ready is the status of /readyz.
func (n *node) ready(t *testing.T) int {
	t.Helper()
	status, _, err := n.call(http.MethodGet, "/readyz", "")
	if err != nil {
		t.Fatal(err)
	}
	return status
}

// ledger knows what was answered, and holds every tab against it.
type ledger struct {
	users, posts, looks int

	mu       sync.Mutex
	answered map[string]string // user and id → data
	seen     map[string]bool   // of these
}

func (l *ledger) user(i int) string { return fmt.Sprintf("disk-%d", i%l.users) }

// post publishes one message to the next user, and returns the status of the answer.
func (l *ledger) post(t *testing.T, n *node) int {
	t.Helper()
	l.posts++
	user := l.user(l.posts)
	data := fmt.Sprintf(`{"of":%q,"text":%q}`, user, strings.Repeat(fmt.Sprint(l.posts, " "), 200))
	answer, err := n.post(user, "note", data)
	var refused *refusedError
	if errors.As(err, &refused) {
		if refused.status != http.StatusServiceUnavailable || !strings.Contains(refused.body, `"store_unavailable"`) {
			t.Fatalf("answered %d %.200s", refused.status, refused.body)
		}
		return refused.status
	}
	if err != nil {
		t.Fatal(err)
	}
	l.mu.Lock()
	l.answered[user+" "+answer.ID] = data
	l.mu.Unlock()
	return http.StatusAccepted
}

// look opens a page of the next user. It may be refused or closed, but what it shows must be what was answered.
func (l *ledger) look(t *testing.T, n *node) {
	t.Helper()
	l.looks++
	user := l.user(l.looks)
	tab, err := n.open(visit{user: user, heard: func(packet string) {
		e, err := parseEvent(packet)
		if err != nil {
			t.Error(err)
		}
		if e.name != "note" {
			return
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		if data, ok := l.answered[user+" "+e.id]; !ok && !strings.Contains(string(e.data), fmt.Sprintf(`{"of":%q,`, user)) || ok && data != string(e.data) {
			t.Errorf("%s was shown %s %.100s, and had %.100s", user, e.id, e.data, data)
		}
		if l.seen == nil {
			l.seen = map[string]bool{}
		}
		l.seen[user+" "+e.id] = true
	}})
	if err != nil {
		return
	}
	_, _ = tab.call("get_online_users") // is handled after the replay
	tab.leave()
}

// missing is what was answered and no page has shown.
func (l *ledger) missing() (list []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for key := range l.answered {
		if !l.seen[key] {
			list = append(list, key)
		}
	}
	return list
}
