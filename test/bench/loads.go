package main

import (
	"slices"
	"strings"
)

// load is one run of the generator against one freshly started server.
type load struct {
	name     string
	args     string   // of the generator
	quick    string   // further args under -quick; the last one of a flag wins
	profile  string   // further args under -profile, where the load is over too soon
	only     []string // servers it makes sense for; nil for all
	turns    int      // how often a round plays it, see further; 0 is once
	presence bool     // the server tells everyone who comes
	disk     bool     // the server keeps its data on disk
}

func (l load) suits(server string) bool { return l.only == nil || slices.Contains(l.only, server) }

// further tells whether a server gets the load again in later turns of a
// round: a figure that swings from run to run needs more of them, and only
// from those that a bar compares.
func (l load) further(server string) bool {
	return slices.ContainsFunc(lines, func(line line) bool {
		return line.load == l.name && line.bar != nil && (server == "jobwire" || server == line.bar.peer)
	})
}

func (l load) arguments(o options) []string {
	args := strings.Fields(l.args)
	if o.quick {
		args = append(args, strings.Fields(l.quick)...)
	}
	if o.profile {
		args = append(args, strings.Fields(l.profile)...)
	}
	return args
}

var own = []string{"jobwire"}

// loads are all runs, in the order in which a round plays them. Peers make no
// difference between kinds of events, so kinds other than the plainest are
// for jobwire alone and are compared with the peers' plain one.
var loads = []load{
	{name: "memory", args: "-scenario memory -conns 1000 -n 10000 -settle 10s", quick: "-n 5000 -settle 3s"},
	{name: "connect", args: "-scenario connect -n 10000 -warm 500", quick: "-n 2000", profile: "-n 15000", turns: 5},
	{name: "post", args: "-scenario post -kind jobs -n 100000 -warm 10000", quick: "-n 40000", turns: 5},
	{name: "post-progress", args: "-scenario post -kind progress -n 100000 -warm 10000", quick: "-n 40000", only: own},
	{name: "post-completed", args: "-scenario post -kind completed -n 100000 -warm 10000", quick: "-n 40000", only: own},
	{name: "post-custom", args: "-scenario post -kind custom -n 100000 -warm 10000", quick: "-n 40000", only: own},
	{name: "fanout", args: "-scenario fanout -kind progress -conns 1000 -n 300 -warm 30", quick: "-n 150"},
	{name: "fanout-completed", args: "-scenario fanout -kind completed -conns 1000 -n 300 -warm 30", quick: "-n 150", only: own},
	{name: "latency", args: "-scenario latency -kind progress -workers 64 -rate 2000 -n 20000 -warm 4000", quick: "-n 8000 -warm 2000", turns: 5},
	{name: "latency-completed", args: "-scenario latency -kind completed -workers 64 -rate 2000 -n 20000 -warm 4000", quick: "-n 8000 -warm 2000", only: own},
	{name: "burst", args: "-scenario burst -kind completed -conns 10 -n 10000 -workers 20"},
	{name: "burst-batch", args: "-scenario burst -kind completed -conns 10 -n 10000 -workers 4 -batch 100", only: own},
	{name: "presence", args: "-scenario presence -conns 1000 -users 100 -n 200", only: []string{"jobwire", "node"}, presence: true},
	{name: "durable", args: "-scenario post -kind completed -workers 64 -n 40000 -warm 4000", quick: "-n 15000 -warm 2000", only: own, disk: true},
}

func loadNames() []string {
	var names []string
	for _, l := range loads {
		names = append(names, l.name)
	}
	return names
}

// line is one line of the table: one metric of one load.
type line struct {
	title    string
	load     string // where jobwire's value comes from
	peerLoad string // where the peers' come from, when it is another load
	metric   string
	digits   int // after the point
	bar      *bar
}

func (l line) source(server string) string {
	if server != "jobwire" && l.peerLoad != "" {
		return l.peerLoad
	}
	return l.load
}

// bar is what jobwire has to reach.
type bar struct {
	text string
	// factor × the value of peer is the most that jobwire may need.
	factor float64
	peer   string
	// zero asks for 0 in every round.
	zero bool
	// atLeast is the least of a rate; or half of the disk's limit will do.
	atLeast float64
}

func atMost(factor float64, peer, text string) *bar {
	return &bar{factor: factor, peer: peer, text: text}
}

// diskLimit is the metric that the bench itself adds to loads on disk.
const diskLimit = "disk_limit_s"

// lines are the table with its bars, then what explains it.
var lines = []line{
	{title: "memory per idle authenticated connection (RSS slope), kB", load: "memory", metric: "slope_rss_kb", digits: 1, bar: atMost(0.8, "node", "≤ 0.8 × Node")},
	{title: "server CPU per connect, ms", load: "connect", metric: "cpu_ms", digits: 3, bar: atMost(1, "centrifuge", "≤ centrifuge")},
	{title: "server CPU per POSTed event, µs", load: "post", metric: "cpu_us", digits: 1, bar: atMost(1, "centrifuge", "≤ centrifuge")},
	{title: "fan-out to 1,000 sockets, CPU per delivery, µs", load: "fanout", metric: "cpu_us", digits: 2, bar: atMost(1.1, "bare", "≤ 1.1 × bare")},
	{title: "latency at 2,000 POST/s, p50, ms", load: "latency", metric: "p50_ms", digits: 3, bar: atMost(1, "centrifuge", "≤ centrifuge")},
	{title: "… p99.9, ms", load: "latency", metric: "p999_ms", digits: 2, bar: atMost(1, "centrifuge", "≤ centrifuge")},
	{title: "burst of 10,000 events to 10 sockets: lost, repeated or out of order", load: "burst", metric: "faults", bar: &bar{zero: true, text: "0"}},
	{title: "… in batches of 100", load: "burst-batch", metric: "faults", bar: &bar{zero: true, text: "0"}},
	{title: "presence, 1,000 watching 200 arrive: lost or repeated of 200,000", load: "presence", metric: "faults", bar: &bar{zero: true, text: "0"}},
	{title: "durable events from 64 workers, on disk, POST/s", load: "durable", metric: "post_s", bar: &bar{atLeast: 5000, text: "≥ 5,000 or half the disk's limit"}},
}

// details are printed below the table, without bars.
var details = []line{
	{title: "memory slope by PSS, kB", load: "memory", metric: "slope_pss_kb", digits: 1},
	{title: "RSS with 10,000 connections (5,000 when quick), MB", load: "memory", metric: "rss_large_mb", digits: 0},
	{title: "connects a second, 32 at a time", load: "connect", metric: "connects_s"},
	{title: "CPU per POSTed `job_progress`, µs", load: "post-progress", peerLoad: "post", metric: "cpu_us", digits: 1},
	{title: "CPU per POSTed `job_completed`, with its receipt, µs", load: "post-completed", peerLoad: "post", metric: "cpu_us", digits: 1},
	{title: "CPU per POSTed custom event, with its receipt, µs", load: "post-custom", peerLoad: "post", metric: "cpu_us", digits: 1},
	{title: "POST/s, closed loop, 32 workers", load: "post", metric: "post_s"},
	{title: "POST/s, `job_completed`", load: "post-completed", peerLoad: "post", metric: "post_s"},
	{title: "fan-out of `job_completed`: with a receipt from every socket, µs", load: "fanout-completed", peerLoad: "fanout", metric: "cpu_us", digits: 2},
	{title: "fan-out, deliveries/s", load: "fanout", metric: "deliveries_s"},
	{title: "latency p99, ms", load: "latency", metric: "p99_ms", digits: 2},
	{title: "latency of `job_completed`, p50, ms", load: "latency-completed", peerLoad: "latency", metric: "p50_ms", digits: 3},
	{title: "latency of `job_completed`, p99.9, ms", load: "latency-completed", peerLoad: "latency", metric: "p999_ms", digits: 2},
	{title: "the generator's own lateness, p99.9, ms", load: "latency", metric: "pacer_late_p999_ms", digits: 2},
	{title: "burst, events/s accepted", load: "burst", metric: "events_s"},
	{title: "burst in batches of 100, events/s accepted", load: "burst-batch", metric: "events_s"},
	{title: "sockets of the burst that saw another order than the first", load: "burst", metric: "differing"},
	{title: "presence, CPU per delivery, µs", load: "presence", metric: "cpu_us", digits: 2},
	{title: "durable: the disk's limit, 64 events a sync, events/s", load: "durable", metric: diskLimit},
	{title: "durable: CPU per event, µs", load: "durable", metric: "cpu_us", digits: 1},
}
