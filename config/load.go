// Package config turns arguments, environment and an optional YAML file into one typed, validated
// value: [Load] returns the [Command] to run with its [Settings].
//
// The fields of Settings are the only list of settings there is. From the key in a field's tag
// follow the flag (--key), the environment variable (JOBWIRE_KEY) and the member of the file (key).
// Flags win over environment, environment over file, file over defaults.
//
// Load is pure: it opens no file and reads no environment by itself. It reports every mistake at
// once, each with the place where it was made, and never shows the value of a secret.
package config

import (
	"cmp"
	"crypto/rand"
	"errors"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// The commands of the program.
const (
	Serve       = "serve"
	Token       = "token"
	Emit        = "emit"
	ConfigCheck = "config check"
	Version     = "version"
)

var commands = []string{Serve, Token, Emit, ConfigCheck, Version}

// Command is what the program was asked to do.
type Command struct {
	Name     string // one of the commands
	Args     Arguments
	Settings Settings

	options                []*option // the fields of Args and Settings
	byKey                  map[string]*option
	flags, variables, keys []string // what there is, for those who misspell it
	problems               []error
}

// HelpRequest is the error that Load returns when help was asked for. It is no failure: print it to
// standard output and exit with 0.
type HelpRequest struct{ Text string }

// Error is the help text.
func (h *HelpRequest) Error() string { return h.Text }

// Load reads args (without the program's name), environ (as os.Environ gives it) and, through readFile, the file that they may
// name. The file "-" is the standard input: of --config, and of emit's --data. It fails with a *HelpRequest, or with every
// mistake there is, joined: each one line with the key, what is wrong and what would be right, and the place.
//
// In the environment an empty value counts as none, and a JOBWIRE_ variable that nothing reads is a
// mistake, except for those that Kubernetes and Docker set for a service named jobwire.
func Load(args, environ []string, readFile func(string) ([]byte, error)) (*Command, error) {
	cmd := &Command{byKey: map[string]*option{}}
	cmd.addOptions(&cmd.Args)
	cmd.addOptions(&cmd.Settings, Serve, ConfigCheck)
	words, help := cmd.parseArgs(args)
	cmd.Name = cmp.Or(strings.Join(words, " "), Serve)
	known := slices.Contains(commands, cmd.Name)
	switch {
	case help && !known:
		cmd.Name = Serve
		fallthrough
	case help:
		return nil, &HelpRequest{cmd.help()}
	case !known:
		cmd.problem("there is no command %.60q%s", cmd.Name, didYouMean(cmd.Name, commands))
		return nil, errors.Join(cmd.problems...)
	case cmd.Name == Version && len(cmd.problems) == 0:
		return cmd, nil // it must work wherever it is called
	}
	for _, o := range cmd.options {
		if o.source != "" && !o.isSetting() && !cmd.reads(o) {
			cmd.problem("--%s is a flag of the command %s", o.key, strings.Join(o.commands, " and "))
		}
	}
	cmd.applyEnviron(environ)
	cmd.applyFile(readFile)
	cmd.applyDev()
	for _, o := range cmd.options {
		err := parse(o.target, o.raw)
		cmd.require(o.key, err == nil || o.raw+o.source == "", "%v", err)
	}
	if cmd.Name == Emit && cmd.Args.Data == "-" {
		data, err := readFile("-")
		cmd.require("data", err == nil, "cannot be read from the standard input: %v", err)
		cmd.Args.Data = string(data)
	}
	if cmd.check(); len(cmd.problems) > 0 {
		return nil, errors.Join(cmd.problems...)
	}
	return cmd, nil
}

// parseArgs sets the options that args give, of whatever command, since flags may stand before the
// words that name it. Of several flags of one name the last counts.
func (cmd *Command) parseArgs(args []string) (words []string, help bool) {
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		name, value, inline := strings.Cut(arg, "=")
		key := strings.TrimLeft(name, "-")
		o := cmd.byKey[key]
		takesNext := !inline && (o == nil || !o.isBool())
		switch {
		case arg == "-h" || arg == "-help" || arg == "--help" || arg == "help" && len(words) == 0:
			help = true
		case arg == "--version":
			words = append(words, Version)
		case arg == "-" || !strings.HasPrefix(arg, "-"):
			words = append(words, arg)
		case o == nil || name != "--"+key:
			cmd.problem("there is no flag %.60s%s", name, didYouMean("--"+key, append(cmd.flags, "--help", "--version")))
			if takesNext && len(args) > 0 && !strings.HasPrefix(args[0], "-") {
				args = args[1:] // a value must not pass for a command
			}
		case !takesNext:
			if !inline {
				value = "true"
			}
			o.raw, o.source = value, "flag --"+key
		case len(args) == 0 || strings.HasPrefix(args[0], "--"):
			cmd.problem("%s needs a value (flag --%[1]s)", key)
		default:
			o.raw, o.source = args[0], "flag --"+key
			args = args[1:]
		}
	}
	return words, help
}

// injected matches what Kubernetes and Docker tell about a service named jobwire, or jobwire-something,
// in variables that begin like ours.
var injected = regexp.MustCompile(`_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)=|_PORT=(tcp|udp|sctp)://`)

func (cmd *Command) applyEnviron(environ []string) {
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		key := strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(name, envPrefix), "_", "-"))
		switch o := cmd.byKey[key]; {
		case !strings.HasPrefix(name, envPrefix) || value == "":
		case o != nil && o.env == name:
			o.set(value, "environment "+name)
		case !injected.MatchString(entry):
			cmd.problem("nothing reads the environment variable %.60s%s", name, didYouMean(name, cmd.variables))
		}
	}
}

// applyDev gives what was left open the values with which the program can be tried out at once. The
// secrets are new at every start.
func (cmd *Command) applyDev() {
	o := cmd.byKey["dev"]
	if dev, _ := strconv.ParseBool(o.raw); !dev || !cmd.reads(o) {
		return
	}
	for key, value := range map[string]string{
		"addr":       "127.0.0.1:3000",
		"data-dir":   InMemory,
		"demo":       "true",
		"jwt-secret": rand.Text() + rand.Text(),
		"api-keys":   "dev=" + rand.Text(),
	} {
		cmd.byKey[key].set(value, "made by --dev")
	}
}
