package logs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// pipe is a reader that can stand still, or go away.
type pipe struct {
	mu     sync.Mutex
	text   bytes.Buffer
	gone   bool
	paused chan struct{} // Write waits until it is closed; nil when it does not
}

func (p *pipe) Write(b []byte) (int, error) {
	p.mu.Lock()
	paused := p.paused
	p.mu.Unlock()
	if paused != nil {
		<-paused
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gone {
		return 0, errors.New("broken pipe")
	}
	return p.text.Write(b)
}

func TestLinesComeInOrder(t *testing.T) {
	var p pipe
	w := New(&p, 0, func(uint64) { t.Error("dropped") })
	var want strings.Builder
	for i := range 1000 {
		line := fmt.Sprintf("line %d\n", i)
		want.WriteString(line)
		if n, err := w.Write([]byte(line)); n != len(line) || err != nil {
			t.Fatal(n, err)
		}
	}
	if err := w.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if p.text.String() != want.String() || w.Dropped() != 0 {
		t.Errorf("%q", p.text.String())
	}
}

// A reader that stands still holds nobody up; when it reads on, it is told how much is missing.
func TestReaderThatStandsStill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pipe{paused: make(chan struct{})}
		var log *slog.Logger
		w := New(&p, 1000, func(n uint64) { log.Warn("log lines were dropped", "count", n) })
		log = slog.New(slog.NewTextHandler(w, nil))
		for i := range 1000 {
			log.Info("line", "i", i)
		}
		synctest.Wait()
		if w.Dropped() == 0 {
			t.Fatal("nothing was dropped")
		}
		dropped := w.Dropped()
		close(p.paused)
		synctest.Wait()
		text := p.text.String()
		if !strings.Contains(text, fmt.Sprintf("dropped\" count=%d", dropped)) || !strings.Contains(text, "i=0\n") {
			t.Errorf("%d dropped, and told %s", dropped, text)
		}
		if kept := strings.Count(text, "msg=line"); kept+int(dropped) != 1000 {
			t.Errorf("%d kept and %d dropped of 1000", kept, dropped)
		}
		log.Info("later")
		if err := w.Close(t.Context()); err != nil || !strings.Contains(p.text.String(), "msg=later") {
			t.Error(err)
		}
	})
}

func TestReaderThatIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pipe{gone: true}
		told := uint64(0)
		w := New(&p, 0, func(n uint64) { told += n })
		for range 10 {
			_, _ = w.Write([]byte("line\n"))
			synctest.Wait()
		}
		if w.Dropped() != 10 || told != 0 {
			t.Fatalf("%d dropped, %d told", w.Dropped(), told)
		}
		p.mu.Lock()
		p.gone = false
		p.mu.Unlock()
		_, _ = w.Write([]byte("line\n"))
		synctest.Wait()
		if told != 10 {
			t.Errorf("told %d", told)
		}
		_ = w.Close(t.Context())
	})
}

func TestCloseGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pipe{paused: make(chan struct{})}
		w := New(&p, 0, func(uint64) {})
		_, _ = w.Write([]byte("line\n"))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := w.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		close(p.paused)
	})
}
