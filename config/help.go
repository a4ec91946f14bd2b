package config

import (
	"cmp"
	"fmt"
	"regexp"
	"strings"

	"jobwire/internal/auth"
	"jobwire/internal/events"
)

var does = map[string]string{ //nolint:gosec // a command, not a token
	Serve:       "run the server; the default",
	Token:       "print a user token that a server with the same settings accepts",
	Emit:        "send one event to a running server, as a worker does",
	ConfigCheck: "report every mistake in the settings, or show them all and where they were set",
	Version:     "print the version",
	"help":      "show this, or the help of a command",
}

func (cmd *Command) help() string {
	var text strings.Builder
	if cmd.Name != Serve {
		fmt.Fprintf(&text, "Usage: jobwire %s [flags]\n\n%s: %s\n", cmd.Name, cmd.Name, does[cmd.Name])
	} else {
		text.WriteString("jobwire shows users the progress of their jobs, as it happens.\n\nUsage: jobwire [command] [flags]\n\nCommands\n")
		for _, name := range append(commands, "help") {
			fmt.Fprintf(&text, "  %-14s %s\n", name, does[name])
		}
		text.WriteString("\nFlags win over environment variables, those over the file, the file over defaults.\n" +
			"In the file a setting has the name of its flag, without the dashes.\n")
	}
	group := ""
	for _, o := range cmd.options {
		if !cmd.reads(o) {
			continue
		}
		if o.group != group {
			group = o.group
			fmt.Fprintf(&text, "\n%s\n", group)
		}
		head := fmt.Sprintf("  %-34s %s", "--"+o.key+" "+o.tag.Get("value"), o.env)
		fmt.Fprintf(&text, "%s\n      %s", strings.TrimRight(head, " "), o.tag.Get("help"))
		if preset := o.tag.Get("default"); preset != "" && !o.isBool() {
			fmt.Fprintf(&text, " (default %s)", preset)
		}
		text.WriteString("\n")
	}
	return text.String()
}

// Dump shows every setting, one a line: key, value as it was written, and where. Secrets are hidden.
func (cmd *Command) Dump() string {
	var text strings.Builder
	for _, o := range cmd.options {
		if !o.isSetting() {
			continue
		}
		value := cmp.Or(o.raw, "-")
		switch target := o.target.(type) {
		case *[]Secret:
			value = fmt.Sprintf("%s (%d)", hidden, len(*target))
		case *[]auth.Key:
			value = regexp.MustCompile("=[^,]*").ReplaceAllString(o.raw, "="+hidden)
		}
		fmt.Fprintf(&text, "%-22s %-28s %s\n", o.key, value, cmp.Or(o.source, "default"))
	}
	return text.String()
}

// didYouMean is a question to end a message with, "" when no candidate is near.
func didYouMean(word string, candidates []string) string {
	best, distance := "", 3
	for _, candidate := range candidates {
		d := events.Distance(strings.ToLower(word), strings.ToLower(candidate))
		if bare := strings.Trim(word, "-"); len(bare) > 3 && strings.Contains(candidate, bare) {
			d = min(d, 2) // a word left out, as in --secret
		}
		if d < distance {
			best, distance = "; did you mean "+candidate+"?", d
		}
	}
	return best
}
