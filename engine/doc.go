// Package engine is an Engine.IO protocol 4 server: websocket, HTTP long-polling, upgrade, heartbeat, graceful close.
package engine
