package main

// line is one line of the table: one metric of one load.
type line struct {
	title   string
	load    string
	metric  string
	minus   string   // a load whose metric is taken off, run by run
	tuned   []string // loads of other setups, each a line of its own without a bar
	digits  int      // after the point
	against versus   // what jobwire's value is divided by, run by run
	bar     *bar
}

// versus is another value that a line is compared with; none without server.
type versus struct {
	server string
	load   string // empty: the line's own
	metric string // empty: the line's own
}

func (l line) againstLoad() string {
	if l.against.load != "" {
		return l.against.load
	}
	return l.load
}

func (l line) againstMetric() string {
	if l.against.metric != "" {
		return l.against.metric
	}
	return l.metric
}

// comparison says what a ratio is to.
func (l line) comparison() string {
	switch {
	case l.against.server != own.name:
		return "of " + l.against.server
	case l.againstLoad() != l.load:
		return "of " + l.againstLoad()
	}
	return "of control"
}

// bar is what jobwire has to reach: with the ratio when the line is compared
// with something, else with the value itself.
type bar struct {
	text  string
	most  float64
	least float64 // instead of most, unless 0
	zero  bool    // 0 in every run, instead of both
}

// name is the title with what is not as shipped.
func (l line) name() string {
	setup := loadOf(l.load).setup
	switch {
	case setup == shipped:
		return l.title
	case l.title == "":
		return "… tuned: " + setup.String()
	}
	return l.title + " (tuned: " + setup.String() + ")"
}

// expanded are the lines with those of their other setups.
func expanded(list []line) []line {
	var all []line
	for _, l := range list {
		all = append(all, l)
		for _, load := range l.tuned {
			other := line{load: load, metric: l.metric, digits: l.digits, against: l.against}
			if other.against.server != "" {
				other.against.load = l.againstLoad()
			}
			all = append(all, other)
		}
	}
	return all
}

// reached tells whether a value is within the bar.
func (b *bar) reached(v float64) bool {
	switch {
	case b.zero:
		return v == 0
	case b.least > 0:
		return v >= b.least
	}
	return v <= b.most
}

func atMost(most float64, text string) *bar { return &bar{most: most, text: text} }

var none = &bar{zero: true, text: "0"}

// diskLimit is the metric that the bench itself adds to loads that ask for it.
const diskLimit = "disk_limit_s"

var (
	toBare       = versus{server: "bare"}
	toCentrifuge = versus{server: "centrifuge"}
	toNode       = versus{server: "node"}
)

var (
	progressTuned = []string{"progress-silent", "progress-tuned"}
	rateTuned     = []string{"rate-silent", "rate-tuned"}
)

// to is another load of the same jobwire.
func to(load string) versus { return versus{server: own.name, load: load} }

// lines are the table with its bars.
var lines = []line{
	{title: "memory per idle authenticated connection (RSS slope), kB", load: "memory", metric: "slope_rss_kb", tuned: []string{"memory-tuned"}, digits: 1, against: toBare, bar: atMost(1, "≤ bare")},

	{title: "server CPU per connect, ms; as shipped with telling the 10,000 of each other", load: "connect", metric: "cpu_ms", digits: 3},
	{load: "connect-silent", metric: "cpu_ms", digits: 3, against: versus{server: "bare", load: "connect"}, bar: atMost(1.1, "≤ 1.1 × bare")},

	{title: "server CPU per POSTed progress, as fast as answered, µs", load: "progress", metric: "cpu_us", tuned: progressTuned, digits: 1, against: toCentrifuge, bar: atMost(1, "≤ centrifuge")},

	{title: "the same at 2,000 POST/s, µs", load: "rate", metric: "cpu_us", tuned: rateTuned, digits: 1, against: toCentrifuge, bar: atMost(1, "≤ centrifuge")},

	{title: "latency at 2,000 POST/s, p50, ms", load: "rate", metric: "p50_ms", tuned: rateTuned, digits: 3, against: toCentrifuge, bar: atMost(1, "≤ centrifuge")},
	{title: "… p99, ms", load: "rate", metric: "p99_ms", tuned: rateTuned, digits: 2, against: toCentrifuge, bar: atMost(1, "≤ centrifuge")},
	{title: "… p99.9, ms", load: "rate", metric: "p999_ms", tuned: rateTuned, digits: 2, against: toCentrifuge, bar: atMost(1, "≤ centrifuge")},

	{title: "CPU per POST right after 1,000 users have come, µs", load: "after", metric: "cpu_us", digits: 1, against: to("after-silent"), bar: atMost(1.3, "≤ 1.3 × without presence")},
	{title: "durable POST/s from 64 workers", load: "durable", metric: "post_s", against: to("progress"), bar: &bar{least: 0.8, text: "≥ 0.8 × progress"}},
	{title: "p99.9 of POSTs while 30,000 receipts are stored, ms", load: "settle", metric: "p999_ms", digits: 2, against: versus{server: own.name, metric: "control_p999_ms"}, bar: atMost(2, "≤ 2 × without")},

	{title: "fan-out to 1,000 sockets, CPU per delivery, µs", load: "fanout", metric: "cpu_us", tuned: []string{"fanout-tuned"}, digits: 2, against: toBare, bar: atMost(0.6, "≤ 0.6 × bare")},

	{title: "1,000 users come, websocket: CPU for telling them of each other, s", load: "arrival", minus: "arrival-silent", metric: "cpu_s", digits: 2, bar: atMost(0.6, "≤ 0.6 s")},
	{title: "… not told, of 999,000", load: "arrival", metric: "lost", bar: none},
	{title: "1,000 users come, polling: CPU for telling them of each other, s", load: "arrival-polling", minus: "arrival-polling-silent", metric: "cpu_s", digits: 2, bar: atMost(0.6, "≤ 0.6 s")},
	{title: "… not told, of 999,000", load: "arrival-polling", metric: "lost", bar: none},
	{title: "restart under 1,000 users: CPU until all know all, s", load: "storm", metric: "cpu_s", digits: 2, against: toNode},
	{title: "… not told, of 999,000", load: "storm", metric: "lost", bar: none},

	{title: "burst of 10,000 events to 10 sockets: lost, repeated or out of order", load: "burst", metric: "faults", bar: none},
	{title: "… in batches of 100", load: "burst-batch", metric: "faults", bar: none},
	{title: "presence, 1,000 watching 200 arrive: lost or repeated of 200,000", load: "presence", metric: "faults", bar: none},
}

// details are printed below the table, without bars.
var details = []line{
	{title: "memory slope by PSS, kB", load: "memory", metric: "slope_pss_kb", digits: 1},
	{title: "RSS with 10,000 connections, MB", load: "memory", metric: "rss_large_mb", digits: 0},
	{title: "connects a second, 32 at a time", load: "connect", metric: "connects_s", tuned: []string{"connect-silent"}},

	{title: "progress as fast as answered by 64 workers, POST/s", load: "progress", metric: "post_s", tuned: progressTuned},
	{title: "… until the answer, p50, ms", load: "progress", metric: "p50_ms", tuned: progressTuned, digits: 2},
	{title: "… p99, ms", load: "progress", metric: "p99_ms", tuned: progressTuned, digits: 2},
	{title: "… p99.9, ms", load: "progress", metric: "p999_ms", tuned: progressTuned, digits: 2},
	{title: "disk against memory: CPU per POST, as fast as answered, µs", load: "progress-silent", metric: "cpu_us", digits: 1, against: to("progress-tuned")},
	{title: "disk against memory: CPU per POST at 2,000/s, µs", load: "rate-silent", metric: "cpu_us", digits: 1, against: to("rate-tuned")},
	{title: "disk against memory: p99.9 at 2,000/s, ms", load: "rate-silent", metric: "p999_ms", digits: 2, against: to("rate-tuned")},

	{title: "CPU per POSTed `job_completed`, with its receipt, µs", load: "durable", metric: "cpu_us", digits: 1, against: versus{server: "centrifuge", load: "progress"}},
	{title: "CPU per POSTed custom event, with its receipt, µs", load: "custom", metric: "cpu_us", digits: 1, against: versus{server: "centrifuge", load: "progress"}},
	{title: "CPU per POST of whole jobs, 19 times progress and an end, µs", load: "jobs", metric: "cpu_us", digits: 1, against: versus{server: "centrifuge", load: "progress"}},
	{title: "the disk's limit, 64 events a sync, events/s", load: "durable", metric: diskLimit},

	{title: "latency of `job_completed` at 2,000/s, p50, ms", load: "rate-durable", metric: "p50_ms", digits: 3},
	{title: "… p99.9, ms", load: "rate-durable", metric: "p999_ms", digits: 2},
	{title: "the generator's own lateness, p99.9, ms", load: "rate", metric: "pacer_late_p999_ms", digits: 2},
	{title: "right after 1,000 users have come: p50, ms", load: "after", metric: "p50_ms", digits: 3, against: to("after-silent")},
	{title: "… p99, ms", load: "after", metric: "p99_ms", digits: 2, against: to("after-silent")},
	{title: "… p99.9, ms", load: "after", metric: "p999_ms", digits: 2, against: to("after-silent")},
	{title: "receipts: users whose cursors are stored", load: "settle", metric: "users"},
	{title: "… p50 of POSTs, ms", load: "settle", metric: "p50_ms", digits: 3, against: versus{server: own.name, metric: "control_p50_ms"}},
	{title: "… p99, ms", load: "settle", metric: "p99_ms", digits: 2, against: versus{server: own.name, metric: "control_p99_ms"}},

	{title: "fan-out of `job_completed`: with a receipt from every socket, µs", load: "fanout-durable", metric: "cpu_us", digits: 2, against: versus{server: "bare", load: "fanout"}},
	{title: "fan-out, deliveries/s", load: "fanout", metric: "deliveries_s"},
	{title: "1,000 users come, websocket: all CPU, s", load: "arrival", metric: "cpu_s", digits: 2, against: toNode},
	{title: "… until all know all, s", load: "arrival", metric: "wall_s", digits: 2},
	{title: "1,000 users come, polling: all CPU, s", load: "arrival-polling", metric: "cpu_s", digits: 2},
	{title: "… until all know all, s", load: "arrival-polling", metric: "wall_s", digits: 2},
	{title: "restart under 1,000 users: until all know all, s", load: "storm", metric: "wall_s", digits: 2},
	{title: "presence, CPU per delivery, µs", load: "presence", metric: "cpu_us", digits: 2, against: toNode},
	{title: "burst, events/s accepted", load: "burst", metric: "events_s"},
	{title: "burst in batches of 100, events/s accepted", load: "burst-batch", metric: "events_s"},
	{title: "sockets of the burst that saw another order than the first", load: "burst", metric: "differing"},
}
