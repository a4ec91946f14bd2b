package config

import (
	"fmt"
	"slices"
	"strings"
)

const help = "help"

// commands lists what the program can do. reads names the settings that
// matter to a command; nil stands for all of them.
var commands = []struct {
	name, does string
	reads      []string
}{
	{Serve, "run the server; the default", nil},
	{Token, "print a user token", []string{"config", "jwt-secret", "jwt-user-claim", "jwt-issuer", "jwt-audience", "presence-tenant-claim"}},
	{Emit, "send one event, as a worker does", []string{"config", "addr", "api-keys"}},
	{ConfigCheck, "say whether the configuration is right, and show it", nil},
	{Version, "print the version", []string{}},
	{help, "show this, or the help of a command", []string{}},
}

// commandName finds the command that words ask for.
func commandName(words []string) (string, error) {
	text := strings.Join(words, " ")
	if text == "" {
		return Serve, nil
	}
	var names []string
	for _, command := range commands {
		if command.name == text || command.name == help && words[0] == help {
			return command.name, nil
		}
		names = append(names, command.name)
	}
	return "", &Problem{Detail: fmt.Sprintf("there is no command %q%s", clip(text), didYouMean(text, names))}
}

// commandHelp tells which command help is wanted about, "" for all.
func commandHelp(name string, words []string) string {
	if name == help {
		name, _ = commandName(words[1:])
		if len(words) == 1 {
			return ""
		}
		return name
	}
	if len(words) == 0 {
		return ""
	}
	return name
}

// reads reports whether an option matters to the command at hand.
func (cmd *Command) reads(o *option) bool {
	if slices.Contains(cmd.own, o) {
		return true
	}
	for _, command := range commands {
		if command.name == cmd.Name {
			return command.reads == nil || slices.Contains(command.reads, o.key)
		}
	}
	return true
}

// help writes the help of a command, or of the program when name is "".
func (cmd *Command) help(name string) string {
	var text strings.Builder
	cmd.Name = Serve
	switch name {
	case Token:
		text.WriteString("Usage: jobwire token --user ID [flags]\n\nPrints a token that a server with the same settings accepts.\n")
		cmd.Name, cmd.own = Token, options(&cmd.Token)
	case Emit:
		text.WriteString("Usage: jobwire emit --user ID --event NAME --data JSON [flags]\n\nSends one event to a running server and prints its answer.\n")
		cmd.Name, cmd.own = Emit, options(&cmd.Emit)
	case ConfigCheck:
		text.WriteString("Usage: jobwire config check [flags]\n\nNames everything that is wrong, or shows every setting and where it was set.\n")
	case Version:
		return "Usage: jobwire version\n"
	default:
		text.WriteString("jobwire shows users the progress of their jobs, as it happens.\n\nUsage: jobwire [command] [flags]\n\nCommands\n")
		for _, command := range commands {
			fmt.Fprintf(&text, "  %-14s %s\n", command.name, command.does)
		}
	}
	text.WriteString("\nFlags win over environment variables, those over the file, the file over defaults.\n" +
		"In the file a setting has the name of its flag, without the dashes.\n")
	group := ""
	for _, o := range slices.Concat(cmd.own, cmd.settings) {
		if !cmd.reads(o) {
			continue
		}
		if o.group != group {
			group = o.group
			fmt.Fprintf(&text, "\n%s\n", group)
		}
		head := fmt.Sprintf("  %-34s %s", o.flag()+" "+o.value, o.env)
		fmt.Fprintf(&text, "%s\n      %s", strings.TrimRight(head, " "), o.help)
		if o.preset != "" && !o.isBool() {
			fmt.Fprintf(&text, " (default %s)", o.preset)
		}
		text.WriteString("\n")
	}
	return text.String()
}

// Dump shows the settings that the command reads, one a line: key, value,
// and where the value was written. Secrets are hidden.
func (cmd *Command) Dump() string {
	var text strings.Builder
	for _, o := range slices.Concat(cmd.own, cmd.settings) {
		if cmd.reads(o) {
			value := format(o.target)
			if value == "" {
				value = "-"
			}
			fmt.Fprintf(&text, "%-22s %-28s %s\n", o.key, value, o.source)
		}
	}
	return text.String()
}
