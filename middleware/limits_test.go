package middleware

import (
	"fmt"
	"net/http"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gin-gonic/gin"
)

func limited(cfg LimiterConfig) (http.Handler, *Limiter) {
	limiter := NewLimiter(cfg, trusting("10.0.0.0/8"))
	engine := gin.New()
	engine.Any("/socket.io/", limiter.Sockets(), func(c *gin.Context) { c.String(200, "passed") })
	engine.POST("/demo/token", limiter.Guard(refuseForTest), func(c *gin.Context) { c.String(200, "passed") })
	return engine, limiter
}

func TestHandshakeRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, limiter := limited(LimiterConfig{Rate: 0.5, Burst: 3})
		ask := func(path string, headers ...string) (int, string, string) {
			w := do(h, request("GET", path, headers...))
			return w.Code, w.Body.String(), w.Header().Get("Retry-After")
		}
		const handshake = "/socket.io/?EIO=4&transport=websocket"
		for i := range 3 {
			if code, _, _ := ask(handshake); code != 200 {
				t.Fatalf("handshake %d: %d", i, code)
			}
		}
		for range 5 { // being refused costs nothing more
			if code, body, after := ask(handshake); code != 429 || after != "2" || body != `{"code":4,"message":"Too many requests"}` {
				t.Fatalf("got %d %q, retry after %q", code, body, after)
			}
		}
		if code, _, _ := ask(handshake + "&sid=abc"); code != 200 {
			t.Errorf("a request of a session was refused with %d", code)
		}
		if code, _, _ := ask(handshake + "&sid="); code != 429 {
			t.Errorf("an empty sid passed with %d", code)
		}

		time.Sleep(1500 * time.Millisecond)
		if code, _, after := ask(handshake); code != 429 || after != "1" {
			t.Errorf("after 1.5 s: %d, retry after %q", code, after)
		}
		time.Sleep(500 * time.Millisecond)
		if code, _, _ := ask(handshake); code != 200 {
			t.Errorf("after 2 s: %d", code)
		}
		if got := [2]int{int(limiter.Refused()), limiter.remembered()}; got != [2]int{7, 1} {
			t.Errorf("stats %+v", got)
		}
	})
}

func TestRateIsPerAddress(t *testing.T) {
	for name, tc := range map[string]struct {
		first, second string // peers, or the address that a proxy names
		shared        bool
	}{
		"the same":                {"192.0.2.1:1", "192.0.2.1:2", true},
		"two IPv4 neighbours":     {"192.0.2.1:1", "192.0.2.2:1", false},
		"one /64":                 {"[2001:db8::1]:1", "[2001:db8::ffff:1]:1", true},
		"two /64":                 {"[2001:db8:0:1::1]:1", "[2001:db8:0:2::1]:1", false},
		"IPv4 in IPv6":            {"192.0.2.1:1", "[::ffff:192.0.2.1]:1", true},
		"two IPv4 in IPv6":        {"[::ffff:192.0.2.2]:1", "[::ffff:192.0.2.1]:1", false},
		"no address is one peer ": {"@", "@", true},
	} {
		t.Run(name, func(t *testing.T) {
			h, _ := limited(LimiterConfig{Rate: 0.001, Burst: 1})
			ask := func(peer, forwarded string) int {
				r := request("GET", "/socket.io/")
				r.RemoteAddr = peer
				if forwarded != "" {
					r.Header.Set("X-Forwarded-For", forwarded)
				}
				return do(h, r).Code
			}
			if code := ask(tc.first, ""); code != 200 {
				t.Fatalf("the first got %d", code)
			}
			want := 200
			if tc.shared {
				want = 429
			}
			if code := ask(tc.second, ""); code != want {
				t.Errorf("the second got %d, want %d", code, want)
			}
			if tc.second != "@" {
				if code := ask("10.0.0.1:1", tc.second); code != 429 {
					t.Errorf("the second behind a proxy got %d, want 429", code)
				}
			}
		})
	}
}

func TestGuardedByRate(t *testing.T) {
	h, _ := limited(LimiterConfig{Rate: 0.1, Burst: 1})
	if w := do(h, request("POST", "/demo/token")); w.Code != 200 {
		t.Errorf("first: %d", w.Code)
	}
	if w := do(h, request("POST", "/demo/token")); w.Code != 429 || w.Body.String() != CodeRateLimited || w.Header().Get("Retry-After") != "10" {
		t.Errorf("second: %d %q %v", w.Code, w.Body, w.Header())
	}
}

func TestNoLimit(t *testing.T) {
	h, limiter := limited(LimiterConfig{})
	for range 1000 {
		if w := do(h, request("GET", "/socket.io/")); w.Code != 200 {
			t.Fatal(w.Code)
		}
	}
	if got := [2]int{int(limiter.Refused()), limiter.remembered()}; got != [2]int{} {
		t.Errorf("refused, remembered: %v", got)
	}
}

func TestLimiterMemoryIsBounded(t *testing.T) {
	limiter := NewLimiter(LimiterConfig{Rate: 1, Burst: 2, Addresses: 100}, NewProxies(nil))
	start := time.Unix(1_700_000_000, 0)
	regular := netip.MustParseAddr("192.0.2.1")
	limiter.take(regular, start)
	limiter.take(regular, start)
	for i := range 10_000 {
		addr := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		limiter.take(addr, start)
		if n := limiter.remembered(); n > 101 {
			t.Fatalf("%d addresses after %d", n, i)
		}
		if i%20 == 0 && limiter.take(regular, start) == 0 {
			t.Fatalf("after %d others an address that keeps asking was forgotten", i)
		}
	}

	// Idle addresses go, one refill after the other.
	limiter.take(regular, start.Add(2*time.Second))
	limiter.take(regular, start.Add(4*time.Second))
	if n := limiter.remembered(); n != 1 {
		t.Errorf("%d addresses remembered when only one still asks", n)
	}
}

// What was dropped for its age was full again: forgetting gives nothing away.
func TestForgettingGivesNothingAway(t *testing.T) {
	limiter := NewLimiter(LimiterConfig{Rate: 1, Burst: 10}, NewProxies(nil))
	addr := netip.MustParseAddr("192.0.2.1")
	start := time.Unix(1_700_000_000, 0)
	accepted := 0
	for ms := range 60_000 {
		if limiter.take(addr, start.Add(time.Duration(ms)*time.Millisecond)) == 0 {
			accepted++
		}
	}
	if accepted < 69 || accepted > 70 {
		t.Errorf("%d accepted in 60 s at 1/s with a burst of 10", accepted)
	}
}

func TestLimiterIsSafeForConcurrentUse(t *testing.T) {
	limiter := NewLimiter(LimiterConfig{Rate: 1e-9, Burst: 50, Addresses: 1000}, NewProxies(nil))
	now := time.Unix(1_700_000_000, 0)
	var group sync.WaitGroup
	for worker := range 8 {
		group.Go(func() {
			for i := range 200 {
				limiter.take(netip.MustParseAddr("192.0.2.1"), now)
				limiter.take(netip.MustParseAddr(fmt.Sprintf("10.0.%d.%d", worker, i%50)), now)
			}
		})
	}
	group.Wait()
	if got := limiter.Refused(); got != 8*200-50 {
		t.Errorf("stats %+v", got)
	}
}

// remembered is how many addresses have a bucket.
func (l *Limiter) remembered() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.young) + len(l.old)
}
