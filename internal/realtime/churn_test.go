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
			h.EmitRoom("all", []RoomPacket{notice("user_online", s.UserID()), notice("user_online", "")})
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

// The connection may close when the library has just looked, and connect its socket all the same: in the library's goroutine or
// in the session's, that socket is taken out of the library again, and nobody hears of a session.
func TestGhostSocketsAreTakenOut(t *testing.T) {
	for name, meet := range map[string]func(h *Hub, sock *socket.Socket){
		"in the library's goroutine": func(h *Hub, sock *socket.Socket) { h.connection(sock) },
		"in the session's":           func(h *Hub, sock *socket.Socket) { (&Session{hub: h, closed: true}).onConnected(sock) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newStand(t, Config{})
			c := s.connect(t, "alice")
			var sock *socket.Socket
			s.io.Sockets().Sockets().Range(func(_ socket.SocketId, found *socket.Socket) bool { sock = found; return false })
			session := sock.Handshake().Auth.(*Session)
			session.mu.Lock()
			session.closed = true // as if the end came first
			session.mu.Unlock()
			meet(s.Hub, sock)
			if _, still := s.io.Sockets().Sockets().Load(sock.Id()); still {
				t.Error("the library keeps the ghost")
			}
			if n := s.Stats().Connected; n != 1 {
				t.Errorf("%d sessions", n)
			}
			c.vanish()
			s.waitLeft(t)
		})
	}
}
