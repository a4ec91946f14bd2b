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
	extra    bool     // left out of -quick, unless it is asked for by name
	presence bool     // Node tells everyone who comes, as jobwire does
	setup    setup    // of jobwire
	flags    string   // further ones of jobwire
	aged     bool     // jobwire has run for a while, see settledIn

	diskLimit bool // the disk is measured too, see diskLimit
}

func (l load) suits(c contender) bool {
	name := c.name
	if c.jobwire {
		name = own.name
	}
	return l.only == nil || slices.Contains(l.only, name)
}

// further tells whether a server gets the load again in later turns of a
// round: a figure that swings from run to run needs more of them, and only
// from those that a bar compares.
func (l load) further(c contender) bool {
	return slices.ContainsFunc(lines, func(line line) bool {
		switch {
		case line.bar == nil:
			return false
		case c.jobwire:
			return l.name == line.load || l.name == line.minus || line.against.server == own.name && line.againstLoad() == l.name
		}
		return line.against.server == c.name && line.againstLoad() == l.name
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

var (
	onlyJobwire = []string{"jobwire"}
	withNode    = []string{"jobwire", "node"} // those that know presence
)

// The setups that the price of the defaults is taken apart with.
var (
	silentSetup = setup{silent: true}               // without presence
	tunedSetup  = setup{silent: true, memory: true} // and without the disk
)

const (
	memoryArgs  = "-scenario memory -conns 1000 -n 10000 -rest 5s -limit 75s"
	memoryQuick = "-conns 300 -n 1500 -rest 1s"

	connectArgs  = "-scenario connect -n 10000 -warm 500 -limit 75s"
	connectQuick = "-n 1000 -warm 100"

	progressArgs  = "-scenario post -kind progress -workers 64 -n 60000 -warm 10000"
	progressQuick = "-n 15000 -warm 4000"

	rateArgs  = "-scenario latency -kind progress -workers 64 -rate 2000 -n 16000 -warm 3000"
	rateQuick = "-n 2000 -warm 500"

	afterArgs  = "-scenario latency -kind progress -workers 64 -rate 2000 -n 10000 -warm 0 -rest 0s"
	afterQuick = "-n 3000"

	fanoutArgs  = "-scenario fanout -conns 1000 -n 200 -warm 20"
	fanoutQuick = "-n 80"
)

// loads are all runs, in the order in which a round plays them; what is
// compared with each other stands together. Peers make no difference between
// kinds of events, nor do they have setups, so what is about those is for
// jobwire alone.
var loads = []load{
	{name: "memory", args: memoryArgs, quick: memoryQuick},
	{name: "memory-tuned", args: memoryArgs, quick: memoryQuick, only: onlyJobwire, setup: tunedSetup},

	{name: "connect", args: connectArgs, quick: connectQuick, profile: "-n 15000", turns: 2},
	{name: "connect-silent", args: connectArgs, quick: connectQuick, profile: "-n 15000", turns: 2, only: onlyJobwire, setup: silentSetup},

	{name: "progress", args: progressArgs, quick: progressQuick, profile: "-n 100000", turns: 2},
	{name: "durable", args: progressArgs + " -kind completed", quick: progressQuick, profile: "-n 60000", turns: 2, only: onlyJobwire, diskLimit: true},
	{name: "progress-silent", args: progressArgs, quick: progressQuick, only: onlyJobwire, setup: silentSetup},
	{name: "progress-tuned", args: progressArgs, quick: progressQuick, only: onlyJobwire, setup: tunedSetup},
	{name: "custom", args: progressArgs + " -kind custom", quick: progressQuick, only: onlyJobwire, extra: true},
	{name: "jobs", args: progressArgs + " -kind jobs", quick: progressQuick, only: onlyJobwire, extra: true},

	{name: "rate", args: rateArgs, quick: rateQuick, turns: 2},
	{name: "rate-silent", args: rateArgs, quick: rateQuick, only: onlyJobwire, setup: silentSetup},
	{name: "rate-tuned", args: rateArgs, quick: rateQuick, only: onlyJobwire, setup: tunedSetup},
	{name: "rate-durable", args: rateArgs + " -kind completed", quick: rateQuick, only: onlyJobwire, extra: true},

	{name: "after", args: afterArgs, quick: afterQuick, turns: 2, only: onlyJobwire, aged: true},
	{name: "after-silent", args: afterArgs, quick: afterQuick, turns: 2, only: onlyJobwire, setup: silentSetup},

	{name: "fanout", args: fanoutArgs, quick: fanoutQuick},
	{name: "fanout-tuned", args: fanoutArgs, quick: fanoutQuick, only: onlyJobwire, setup: tunedSetup, extra: true},
	{name: "fanout-durable", args: fanoutArgs + " -kind completed", quick: fanoutQuick, only: onlyJobwire, extra: true},

	{name: "burst", args: "-scenario burst -kind completed -conns 10 -n 10000 -workers 20"},
	{name: "burst-batch", args: "-scenario burst -kind completed -conns 10 -n 10000 -workers 4 -batch 100", only: onlyJobwire},

	{name: "presence", args: "-scenario presence -conns 1000 -users 100 -n 200", only: withNode, presence: true, aged: true},
	{name: "arrival", args: "-scenario arrival -n 1000 -presence", turns: 2, only: withNode, presence: true, aged: true},
	{name: "arrival-silent", args: "-scenario arrival -n 1000", turns: 2, only: withNode, setup: silentSetup},
	{name: "arrival-polling", args: "-scenario arrival -n 1000 -presence -polling", turns: 2, only: onlyJobwire, aged: true},
	{name: "arrival-polling-silent", args: "-scenario arrival -n 1000 -polling", turns: 2, only: onlyJobwire, setup: silentSetup},
	{name: "storm", args: "-scenario storm -n 1000 -presence", only: withNode, presence: true},

	// With heartbeats this often the run need not wait for them.
	{name: "settle", args: "-scenario settle -users 200 -workers 64 -rate 2000 -n 30000", quick: "-n 3000", only: onlyJobwire,
		setup: silentSetup, flags: "--ping-interval=4s"},
}

func loadNames() []string {
	var names []string
	for _, l := range loads {
		names = append(names, l.name)
	}
	return names
}

func loadOf(name string) load {
	i := slices.IndexFunc(loads, func(l load) bool { return l.name == name })
	if i < 0 {
		return load{}
	}
	return loads[i]
}
