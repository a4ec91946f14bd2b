package handlers

import (
	"strings"
	"testing"
)

func TestHealth(t *testing.T) {
	h := api(t, new(backend), smallLimits, silent())
	keyless := func(path string) call { return call{method: "GET", path: path, keyless: true} }
	expect(t, keyless("/livez").to(h), 200, `{"status":"alive"}`)
	expect(t, keyless("/readyz").to(h), 200, `{"status":"ready"}`)
	if w := keyless("/openapi.yaml").to(h); w.Code != 200 || !strings.HasPrefix(w.Body.String(), "openapi: 3.1.0\n") ||
		w.Header().Get("Content-Type") != "application/yaml" {
		t.Errorf("%d %v", w.Code, w.Header())
	}
}

func TestMetrics(t *testing.T) {
	h := api(t, new(backend), smallLimits, silent())
	w := get("/metrics").to(h)
	for _, line := range []string{
		"# HELP jobwire_build_info ", "# TYPE jobwire_build_info gauge\n", `jobwire_build_info{goversion="go`,
		"\ngo_goroutines ", "\nprocess_resident_memory_bytes ",
	} {
		if !strings.Contains(w.Body.String(), line) {
			t.Errorf("no %q", line)
		}
	}
	if w.Code != 200 || !strings.HasPrefix(w.Header().Get("Content-Type"), "text/plain; version=0.0.4; charset=utf-8") ||
		w.Header().Get("Cache-Control") != "no-store" {
		t.Errorf("%d %v", w.Code, w.Header())
	}
	w = call{method: "GET", path: "/metrics", headers: []string{"Accept-Encoding: gzip"}}.to(h)
	if w.Code != 200 || w.Header().Get("Content-Encoding") != "gzip" || w.Header().Get("Cache-Control") != "no-store" {
		t.Errorf("compressed: %d %v", w.Code, w.Header())
	}
}
