package server

import (
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"time"
)

// serveProfiles offers Go's own profiles on the debug address, if there is one. Config has seen to it that it is on loopback.
func (s *Server) serveProfiles() error {
	if s.settings.DebugAddr == "" {
		return nil
	}
	listener, err := net.Listen("tcp", s.settings.DebugAddr)
	if err != nil {
		return fmt.Errorf("debug address: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	s.debug = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	s.log.Info("serving profiles", "addr", listener.Addr().String())
	go func() { _ = s.debug.Serve(listener) }() // ends with Close, in drain
	return nil
}
