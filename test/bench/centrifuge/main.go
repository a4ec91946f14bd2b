// Command centrifuge is the bench's strongest Go peer: the centrifuge library
// with its own protocol (JSON over websocket), one personal channel per user
// subscribed by the server, and the same token and POST as jobwire. It runs
// with the library's defaults: heartbeats every 25 s, memory broker, no
// history.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strconv"

	"github.com/centrifugal/centrifuge"

	"jobwire/test/bench/relay"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "centrifuge:", err)
		os.Exit(1)
	}
}

func run() error {
	settings, err := relay.FromEnv()
	if err != nil {
		return err
	}
	node, err := centrifuge.New(centrifuge.Config{})
	if err != nil {
		return fmt.Errorf("new node: %w", err)
	}
	node.OnConnecting(func(_ context.Context, e centrifuge.ConnectEvent) (centrifuge.ConnectReply, error) {
		user, err := settings.Verify(e.Token)
		if err != nil {
			return centrifuge.ConnectReply{}, centrifuge.DisconnectInvalidToken
		}
		return centrifuge.ConnectReply{
			Credentials:   &centrifuge.Credentials{UserID: user},
			Subscriptions: map[string]centrifuge.SubscribeOptions{channel(user): {}},
		}, nil
	})
	if err := node.Run(); err != nil {
		return fmt.Errorf("run node: %w", err)
	}
	defer node.Shutdown(context.Background())

	publish := func(user, event string, data json.RawMessage) (int, error) {
		text := make([]byte, 0, len(event)+len(data)+24)
		text = append(text, `{"event":`...)
		text = strconv.AppendQuote(text, event)
		text = append(text, `,"data":`...)
		text = append(append(text, data...), '}')
		if _, err := node.Publish(channel(user), text); err != nil {
			return 0, err
		}
		return node.Hub().NumSubscribers(channel(user)), nil
	}
	mux := http.NewServeMux()
	mux.Handle("GET /ws", centrifuge.NewWebsocketHandler(node, centrifuge.WebsocketConfig{}))
	mux.Handle("POST /v1/events", settings.Events(publish))
	return settings.Serve(mux)
}

// channel is the personal channel of a user.
func channel(user string) string { return "#" + user }
