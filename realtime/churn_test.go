package realtime

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/zishang520/socket.io/v2/socket"
)

// Clients that authenticate and vanish, at every moment of the connect flow, while others emit to them: no session, room,
// deadline or goroutine stays. The stand checks that at its end.
func TestAuthenticateAndVanish(t *testing.T) {
	n := 10_000
	if testing.Short() {
		n = 1000
	}
	s := newStand(t, Config{}, func(r *recorder, h *Hub) {
		r.connected = func(s *Session) {
			s.Join("all")
			s.Emit(message("authenticated", `{}`, 0))
			h.EmitRoom("all", s.UserID(), message("user_online", `{"userId":"`+s.UserID()+`"}`, 0))
		}
	})
	const workers = 16
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range n / workers {
				c, err := s.tryDial(t)
				if err != nil {
					t.Error(err)
					return
				}
				user := fmt.Sprint("user", (w+i)%5)
				if c.tryWrite(websocket.MessageText, []byte(`40{"token":"`+user+`"}`)) != nil {
					continue
				}
				switch rand.IntN(4) {
				case 0: // at once, while the CONNECT is being judged
				case 1:
					time.Sleep(time.Duration(rand.IntN(200)) * time.Microsecond)
				case 2:
					_, _ = c.tryRead()
				case 3:
					if m, err := c.tryRead(); err == nil && strings.HasPrefix(m, "40{") {
						_ = c.tryWrite(websocket.MessageText, []byte("41"))
					}
				}
				c.vanish()
				s.EmitUser(user, message("x", `1`, 0))
			}
		})
	}
	wg.Wait()
	eventually(t, "all have left", func() bool {
		st := s.Stats()
		return st.Sessions == 0 && st.Unauthenticated == 0 && st.Rooms == 0
	})
	sockets := 0
	s.io.Sockets().Sockets().Range(func(socket.SocketId, *socket.Socket) bool { sockets++; return true })
	if sockets != 0 {
		t.Errorf("the library keeps %d sockets", sockets)
	}
}
