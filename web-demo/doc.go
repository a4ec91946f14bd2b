// Package webdemo is the demo page: a frontend on the official socket.io-client and, beside it, a panel that plays the worker
// through the real HTTP API.
//
// The page is embedded. The client script is an npm dependency and not tracked: `make demo` and `make build` bring it to
// page/lib before the binary is built. A binary built without it works; its page names the command.
//
// Whoever can reach the page may become any user, so [Handler] is mounted only
// where the operator asked for a demo (--dev, --demo).
package webdemo
