package realtime

import (
	"fmt"
	"log/slog"
	"net"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"jobwire/internal/engine"
	"jobwire/internal/events"
)

func TestEmitReachesAllSocketsOfTheUserAndNobodyElse(t *testing.T) {
	s := newStand(t, Config{})
	a1, a2, b := s.connect(t, "alice"), s.connect(t, "alice"), s.connect(t, "bob")
	if n := s.EmitUser("alice", message("job_progress", `{"big":12345678901234567890,"é":1.0}`, 7)); n != 2 {
		t.Errorf("reached %d", n)
	}
	if n := s.EmitUser("nobody", message("x", `1`, 0)); n != 0 {
		t.Errorf("nobody is %d sockets", n)
	}
	s.EmitUser("bob", message("for_bob", `1`, 0))
	a1.expect(`42["job_progress",{"big":12345678901234567890,"é":1.0},"7-0"]`)
	a2.expect(`42["job_progress",{"big":12345678901234567890,"é":1.0},"7-0"]`)
	b.expect(`42["for_bob",1]`)
}

func TestLongUserNamesAreRoomsToo(t *testing.T) {
	s := newStand(t, Config{})
	user := strings.Repeat("ü", events.MaxUserIDLen/2)
	c := s.connect(t, user)
	if s.EmitUser(user, message("x", `1`, 0)) != 1 {
		t.Error("not reached")
	}
	c.expect(`42["x",1]`)
}

func TestEmitsKeepTheirOrderOnEverySocket(t *testing.T) {
	const n = 3000
	s := newStand(t, Config{})
	clients := make([]*client, 10)
	for i := range clients {
		clients[i] = s.connect(t, "alice")
	}
	go func() {
		for i := range n {
			s.EmitUser("alice", message("n", fmt.Sprint(i), 0))
		}
	}()
	for _, c := range clients {
		for i := range n {
			c.expect(fmt.Sprintf(`42["n",%d]`, i))
		}
	}
}

func TestRoomsLeaveOutTheirUser(t *testing.T) {
	s := newStand(t, Config{}, func(r *recorder, _ *Hub) {
		r.connected = func(s *Session) { s.Join("all"); s.Join("all"); s.Join("other") }
	})
	alice, bob := s.connect(t, "alice"), s.connect(t, "bob")
	for _, c := range []struct {
		name       string
		packets    []RoomPacket
		reached    int
		alice, bob []string
	}{
		{"nothing", nil, 0, nil, nil},
		{"one, without its user", []RoomPacket{notice("a", "alice")}, 1, nil, []string{"a"}},
		{"one for all", []RoomPacket{notice("a", "")}, 2, []string{"a"}, []string{"a"}},
		{"the first and the last are left out", []RoomPacket{notice("a", "alice"), notice("b", ""), notice("c", "bob")}, 2,
			[]string{"b", "c"}, []string{"a", "b"}},
		{"one in the middle is left out", []RoomPacket{notice("a", "carol"), notice("b", "alice"), notice("c", "")}, 2,
			[]string{"a", "c"}, []string{"a", "b", "c"}},
	} {
		before := s.Stats().Deliveries
		if n := s.EmitRoom("all", c.packets); n != c.reached {
			t.Errorf("%s: reached %d", c.name, n)
		}
		if n := s.Stats().Deliveries - before; n != uint64(len(c.alice)+len(c.bob)) {
			t.Errorf("%s: counted as %d deliveries", c.name, n)
		}
		for to, names := range map[*client][]string{alice: c.alice, bob: c.bob} {
			for _, name := range names {
				to.expect(`42["` + name + `",1]`)
			}
		}
	}
	s.EmitUser("alice", message("end", `1`, 0)) // and so nothing else was before it
	s.EmitUser("bob", message("end", `1`, 0))
	alice.expect(`42["end",1]`)
	bob.expect(`42["end",1]`)
	if n := s.Stats().Rooms; n != 3 { // one room beside that of the user
		t.Errorf("%d rooms", n)
	}
}

// However many packets a room gets at a time, each session is written to once, also around the one that leaves it out.
func TestARoomIsWrittenToOncePerSession(t *testing.T) {
	writes := make(chan int, 1000)
	h := New(Config{Logger: slog.New(slog.DiscardHandler)}, &recorder{
		connected: func(s *Session) { s.Join("all") }, left: make(chan departure, 2), sessions: map[*Session]int{},
	})
	srv := httptest.NewUnstartedServer(h)
	srv.Listener = countedListener{srv.Listener, writes}
	srv.Start()
	s := &stand{Hub: h, url: srv.URL}
	defer srv.Close()
	defer h.Shutdown(t.Context())
	clients := []*client{s.connect(t, "alice"), s.connect(t, "bob")}
	eventually(t, "both are through with their CONNECT", func() bool { return h.engine.Stats().Buffered == 0 })
	for len(writes) > 0 {
		<-writes
	}
	var packets []RoomPacket
	for range 300 {
		packets = append(packets, notice("user_online", ""))
	}
	packets[100].ExceptUser = "alice"
	h.EmitRoom("all", packets)
	want := `42["user_online",1]`
	for i, c := range clients {
		for range 299 + i {
			c.expect(want)
		}
		c.vanish()
	}
	size := len(want) + 2 // with the frame's header
	sizes := []int{<-writes, <-writes}
	slices.Sort(sizes)
	if !slices.Equal(sizes, []int{299 * size, 300 * size}) || len(writes) != 0 {
		t.Errorf("writes of %v bytes, and %d more", sizes, len(writes))
	}
}

// countedListener tells the length of each write to a connection.
type countedListener struct {
	net.Listener
	writes chan<- int
}

func (l countedListener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	return countedConn{nc, l.writes}, err
}

type countedConn struct {
	net.Conn
	writes chan<- int
}

func (c countedConn) Write(b []byte) (int, error) {
	c.writes <- len(b)
	return c.Conn.Write(b)
}

// notice is a packet for a room that exceptUser does not get.
func notice(name, exceptUser string) RoomPacket {
	return RoomPacket{events.Encode(name, []byte("1"), events.ID{}), exceptUser}
}

func TestDisconnectUser(t *testing.T) {
	s := newStand(t, Config{})
	a1, a2, b := s.connect(t, "alice"), s.connect(t, "alice"), s.connect(t, "bob")
	last := events.Encode("unauthorized", []byte(`{"code":"revoked"}`), events.ID{})
	if n := s.DisconnectUser("alice", last); n != 2 {
		t.Errorf("disconnected %d", n)
	}
	for _, c := range []*client{a1, a2} {
		c.expect(`42["unauthorized",{"code":"revoked"}]`, `41`)
		c.expectClosed()
		if d := s.waitLeft(t); d.user != "alice" || d.reason != ReasonServerDisconnect {
			t.Errorf("%+v", d)
		}
	}
	if n := s.DisconnectUser("alice", nil); n != 0 {
		t.Errorf("still %d", n)
	}
	s.EmitUser("bob", message("x", `1`, 0))
	b.expect(`42["x",1]`)
}

func TestHoldKeepsBackUntilLive(t *testing.T) {
	sessions := make(chan *Session, 1)
	s := newStand(t, Config{}, func(r *recorder, h *Hub) {
		r.connected = func(s *Session) {
			s.Join("all")
			s.JoinUser()
			h.EmitUser("alice", message("n", `5`, 5))
			sessions <- s
		}
	})
	c := s.connect(t, "alice")
	session := <-sessions
	if n := s.EmitUser("alice", message("n", `6`, 6)); n != 1 {
		t.Errorf("a held session counts as reached; got %d", n)
	}
	s.EmitUser("alice", message("unstored", `0`, 0))
	s.EmitUser("alice", message("n", `7`, 7))
	s.EmitRoom("all", []RoomPacket{notice("user_online", "")})
	session.Emit(message("replayed", `4`, 4))
	c.expect(`42["user_online",1]`, `42["replayed",4,"4-0"]`)
	session.Live(events.ID{Ms: 6})
	s.EmitUser("alice", message("n", `8`, 8))
	c.expect(`42["unstored",0]`, `42["n",7,"7-0"]`, `42["n",8,"8-0"]`)
	session.Live(events.ID{}) // once more does nothing
	s.EmitUser("alice", message("n", `9`, 9))
	c.expect(`42["n",9,"9-0"]`)
}

// Emits go on while Live drains what was held: the order of ids holds.
func TestLiveKeepsTheOrderUnderLoad(t *testing.T) {
	sessions := make(chan *Session, 1)
	s := newStand(t, Config{}, func(r *recorder, _ *Hub) {
		r.connected = func(s *Session) { s.JoinUser(); sessions <- s }
	})
	for range 20 {
		c := s.connect(t, "alice")
		session := <-sessions
		const n = 500
		var wg sync.WaitGroup
		wg.Go(func() {
			for i := range n {
				s.EmitUser("alice", message("n", `1`, uint64(i+1)))
			}
		})
		eventually(t, "some are held", func() bool { return s.Stats().Deliveries > 0 })
		session.Live(events.ID{})
		wg.Wait()
		for i := range n {
			c.expect(fmt.Sprintf(`42["n",1,"%d-0"]`, i+1))
		}
		c.vanish()
		s.waitLeft(t)
	}
}

func TestHeldTooMuchClosesTheSocket(t *testing.T) {
	s := newStand(t, Config{MaxHeldBytes: 10_000}, func(r *recorder, _ *Hub) {
		r.connected = func(s *Session) { s.JoinUser() }
	})
	c := s.connect(t, "alice")
	big := message("n", `"`+strings.Repeat("x", 3000)+`"`, 1)
	for i, want := range []int{1, 1, 1, 0, 0} {
		if n := s.EmitUser("alice", big); n != want {
			t.Errorf("emit %d reached %d", i, n)
		}
	}
	c.expectClosed()
	if d := s.waitLeft(t); d.reason != ReasonSlowReplay {
		t.Errorf("%+v", d)
	}
}

func TestSlowReaderIsClosedNotBuffered(t *testing.T) {
	s := newStand(t, Config{Engine: engine.Config{MaxQueue: 100_000}})
	s.connect(t, "slow")
	alice := s.connect(t, "alice")
	big := message("n", `"`+strings.Repeat("x", 50_000)+`"`, 0)
	eventually(t, "the slow client is closed", func() bool { return s.EmitUser("slow", big) == 0 })
	if d := s.waitLeft(t); d.user != "slow" || d.reason != engine.ReasonSlowClient {
		t.Errorf("%+v", d)
	}
	s.EmitUser("alice", message("x", `1`, 0))
	alice.expect(`42["x",1]`)
}

func TestReceiptConfirmsWhatWasSentBeforeItsPing(t *testing.T) {
	s := newStand(t, Config{})
	c := s.connect(t, "alice")
	confirm := func(n uint64) Message { m := message("n", `1`, n); m.Confirm = true; return m }
	c.mute = true
	s.EmitUser("alice", confirm(1))
	c.expect(`42["n",1,"1-0"]`)
	s.EmitUser("alice", confirm(2)) // the first ping is in flight: none for these two
	s.EmitUser("alice", confirm(3))
	s.EmitUser("alice", message("n", `1`, 4)) // asks for nothing
	c.expect(`42["n",1,"2-0"]`, `42["n",1,"3-0"]`, `42["n",1,"4-0"]`)
	if c.pings != 1 {
		t.Fatalf("%d pings in flight", c.pings)
	}
	select {
	case got := <-s.confirmed:
		t.Fatalf("%+v was confirmed by nobody", got)
	default:
	}
	wait := func(want uint64) {
		t.Helper()
		select {
		case got := <-s.confirmed:
			if got.user != "alice" || got.id.Ms != want {
				t.Fatalf("confirmed %+v, want %d", got, want)
			}
		case <-time.After(patience):
			t.Fatalf("%d was never confirmed", want)
		}
	}
	c.write("3")
	wait(1)
	pinged := func(pings int) {
		t.Helper()
		eventually(t, "the next ping goes out", func() bool { // reading is what counts pings
			s.EmitUser("alice", message("marker", `1`, 0))
			c.expect(`42["marker",1]`)
			return c.pings >= pings
		})
		if c.pings != pings {
			t.Fatalf("%d pings", c.pings)
		}
	}
	pinged(2)
	c.write("3")
	wait(3)
	s.EmitUser("alice", confirm(2))
	s.EmitUser("alice", confirm(9))
	c.expect(`42["n",1,"2-0"]`, `42["n",1,"9-0"]`)
	pinged(3)
	c.write("3")
	wait(9)
}

// A client that answers at once is still asked once an interval, and the last message is asked for.
func TestReceiptsAreAskedForOnceAnInterval(t *testing.T) {
	s := newStand(t, Config{ReceiptInterval: time.Hour})
	c := s.connect(t, "alice")
	confirm := func(n uint64) Message { m := message("n", `1`, n); m.Confirm = true; return m }
	confirmed := func(want uint64) {
		t.Helper()
		s.EmitUser("alice", message("marker", `1`, 0))
		c.expect(`42["marker",1]`) // reading is what answers a ping before it
		select {
		case got := <-s.confirmed:
			if got.id.Ms != want {
				t.Fatalf("confirmed %+v, want %d", got, want)
			}
		case <-time.After(patience):
			t.Fatalf("%d was never confirmed", want)
		}
	}
	s.EmitUser("alice", confirm(1))
	c.expect(`42["n",1,"1-0"]`)
	confirmed(1)
	for i := range 100 {
		s.EmitUser("alice", confirm(uint64(i+2)))
		c.expect(fmt.Sprintf(`42["n",1,"%d-0"]`, i+2))
	}
	if c.pings != 1 {
		t.Errorf("%d pings", c.pings)
	}
	s.asks.mu.Lock()
	list := s.asks.list
	s.asks.mu.Unlock()
	if len(list) != 1 {
		t.Fatalf("%d sessions are to be asked", len(list))
	}
	list[0].askNow(time.Now().UnixNano())
	confirmed(101)
}

// 1,000 durable events to clients that answer: all are confirmed, with far fewer pings than events.
func TestReceiptsCatchUp(t *testing.T) {
	s := newStand(t, Config{})
	c := s.connect(t, "alice")
	const n = 1000
	go func() {
		for i := range n {
			m := message("n", `1`, uint64(i+1))
			m.Confirm = true
			s.EmitUser("alice", m)
		}
	}()
	done := make(chan struct{})
	go func() {
		defer close(done)
		var last uint64
		for last < n {
			got := <-s.confirmed
			if got.id.Ms <= last {
				t.Errorf("%d confirmed after %d", got.id.Ms, last)
			}
			last = got.id.Ms
		}
	}()
	reading := make(chan struct{})
	go func() {
		defer close(reading)
		for {
			if _, err := c.tryRead(); err != nil {
				return
			}
		}
	}()
	select {
	case <-done:
	case <-time.After(patience):
		t.Error("not all confirmed")
	}
	c.vanish()
	<-reading
}

func TestHeldMessagesAskForReceiptsWhenSent(t *testing.T) {
	sessions := make(chan *Session, 1)
	s := newStand(t, Config{}, func(r *recorder, _ *Hub) {
		r.connected = func(s *Session) { s.JoinUser(); sessions <- s }
	})
	c := s.connect(t, "alice")
	m := message("n", `1`, 5)
	m.Confirm = true
	s.EmitUser("alice", m)
	(<-sessions).Live(events.ID{})
	c.expect(`42["n",1,"5-0"]`)
	s.EmitUser("alice", message("marker", `1`, 0))
	c.expect(`42["marker",1]`) // reading on answers the ping
	select {
	case got := <-s.confirmed:
		if got.id.Ms != 5 {
			t.Errorf("%+v", got)
		}
	case <-time.After(patience):
		t.Error("never confirmed")
	}
}

func TestNothingReachesASocketBeforeItsConnectReply(t *testing.T) {
	s := newStand(t, Config{})
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				s.EmitUser("alice", message("x", `1`, 0))
				time.Sleep(50 * time.Microsecond)
			}
		}
	})
	for range 200 {
		c := s.dial(t)
		c.write(`40{"token":"alice"}`)
		if first := c.read(); !strings.HasPrefix(first, "40{") {
			t.Errorf("first came %q", first)
		}
		c.vanish()
	}
	close(stop)
	wg.Wait()
}
