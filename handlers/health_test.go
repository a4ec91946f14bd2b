package handlers

import (
	"strings"
	"testing"

	"github.com/VictoriaMetrics/metrics"
	"github.com/gin-gonic/gin"
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
	set := metrics.NewSet()
	set.NewGauge("jobwire_connections", func() float64 { return 7 })
	engine := gin.New()
	engine.Use(conforms(t))
	engine.GET("/metrics", NewHealth(new(backend), set).Metrics)
	w := get("/metrics").to(engine)
	for _, line := range []string{"jobwire_connections 7\n", "go_goroutines ", "process_resident_memory_bytes "} {
		if !strings.Contains(w.Body.String(), line) {
			t.Errorf("no %q", line)
		}
	}
	if got := w.Header().Get("Content-Type"); got != "text/plain; version=0.0.4; charset=utf-8" {
		t.Errorf("content type %q", got)
	}
	// Another set's metrics stay out, so several servers fit in one process.
	metrics.GetOrCreateCounter("jobwire_of_another_server").Inc()
	if strings.Contains(get("/metrics").to(engine).Body.String(), "jobwire_of_another_server") {
		t.Error("the global set is exported")
	}
}
