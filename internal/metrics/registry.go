// Package metrics is what /metrics shows of a node. In flow the numbers that its parts keep of themselves, read when a scrape
// asks, and durations, as they are measured; out flow the exposition formats of Prometheus.
//
// Every name is in the table of docs/protocol.md, in the words of its HELP.
package metrics

import (
	"cmp"
	"net/http"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Registry holds the metrics of one node; several nodes fit in a process. Its methods are safe for concurrent use.
type Registry struct {
	registry        *prometheus.Registry
	syncs, receipts prometheus.Histogram
}

// New is a registry with the metrics of the process, of the build and of durations. It is there before the parts of the node,
// which take its StoreSynced and ReceiptCame; their other numbers come with Register.
func New(version string) *Registry {
	r := &Registry{
		registry: prometheus.NewRegistry(),
		syncs: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "jobwire_store_sync_duration_seconds",
			Help:    "Time that a sync of the store to the disk took.",
			Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}),
		receipts: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "jobwire_receipt_seconds",
			Help:    "Time from the POST of a message until a client of the user confirmed it; a user who is away takes long.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 60, 600, 3600, 21600, 86400},
		}),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "jobwire_build_info",
		Help:        "What is running; always 1.",
		ConstLabels: prometheus.Labels{"version": version, "goversion": runtime.Version(), "revision": revision()},
	})
	build.Set(1)
	r.registry.MustRegister(build, r.syncs, r.receipts,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// revision is the commit that the binary was built from, if its build could tell.
func revision() string {
	var commit, modified string
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			switch {
			case s.Key == "vcs.revision":
				commit = s.Value
			case s.Key == "vcs.modified" && s.Value == "true":
				modified = "-modified"
			}
		}
	}
	return cmp.Or(commit, "unknown") + modified
}

// StoreSynced observes one sync of the store. It does not allocate.
func (r *Registry) StoreSynced(took time.Duration) { r.syncs.Observe(took.Seconds()) }

// ReceiptCame observes one receipt, so long after its message was POSTed. It does not allocate.
func (r *Registry) ReceiptCame(after time.Duration) { r.receipts.Observe(after.Seconds()) }

// Register adds the numbers of the parts, and collectors that parts are themselves. It is called once.
func (r *Registry) Register(parts Parts, others ...prometheus.Collector) {
	r.registry.MustRegister(parts)
	r.registry.MustRegister(others...)
}

// Handler answers a scrape, in the format and the compression that it asks for.
func (r *Registry) Handler() http.Handler {
	return promhttp.HandlerFor(r.registry, promhttp.HandlerOpts{})
}
