package config

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
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

// Command is what the program was asked to do.
type Command struct {
	Name     string // one of the commands
	Settings Settings
	Token    TokenOptions // of the command token
	Emit     EmitOptions  // of the command emit

	settings []*option // of Settings, in order
	own      []*option // of the command itself
}

// HelpRequest is the error that Load returns when help was asked for. It is
// no failure: print it to standard output and exit with 0.
type HelpRequest struct{ Text string }

// Error is the help text.
func (h *HelpRequest) Error() string { return h.Text }

// Load reads args (without the program's name), environ (as os.Environ gives
// it) and, through readFile, the file that they may name. The file "-" is the
// standard input: of --config, and of emit's --data.
//
// It fails with a *HelpRequest, or with every *Problem there is, joined. In
// the environment an empty value counts as none, and a JOBWIRE_ variable that
// nothing reads is an error, except for those that Kubernetes and Docker set
// for a service named jobwire.
func Load(args, environ []string, readFile func(string) ([]byte, error)) (*Command, error) {
	cmd := &Command{}
	cmd.settings = options(&cmd.Settings)
	own := map[string][]*option{Token: options(&cmd.Token), Emit: options(&cmd.Emit)}
	all := slices.Concat(cmd.settings, own[Token], own[Emit])

	known := map[string]bool{}
	for _, o := range all {
		known[o.key] = o.isBool()
	}
	line := parseArgs(args, known)
	problems := line.problems
	name, err := commandName(line.words)
	if err != nil {
		problems = append(problems, err)
	}
	if line.help || name == help {
		return nil, &HelpRequest{Text: cmd.help(commandHelp(name, line.words))}
	}
	cmd.Name, cmd.own = name, own[name]
	switch {
	case name == "":
		return nil, &Problems{problems}
	case name == Version && len(problems) == 0:
		return cmd, nil // it must work wherever it is called
	}

	env, errs := readEnviron(environ, all)
	problems = append(problems, errs...)
	cmd.applyFlags(line.flags, own, &problems)
	for _, o := range slices.Concat(cmd.settings, cmd.own) {
		if value, ok := env[o.env]; ok && !o.isSet() {
			o.raw, o.source = value, "environment "+o.env
		}
	}
	cmd.applyFile(readFile, &problems)

	for _, o := range slices.Concat(cmd.settings, cmd.own) {
		if err := o.resolve(); err != nil && cmd.reads(o) {
			problems = append(problems, err)
		}
	}
	if name == Emit && cmd.Emit.Data == "-" {
		data, err := readFile("-")
		if err != nil {
			problems = append(problems, index(cmd.own)["data"].problem("cannot be read from the standard input: %v", err))
		}
		cmd.Emit.Data = string(data)
	}
	if cmd.Settings.Dev && (name == Serve || name == ConfigCheck) {
		cmd.applyDev()
	}
	if problems = append(problems, cmd.validate()...); len(problems) > 0 {
		return nil, &Problems{problems}
	}
	return cmd, nil
}

// Problems is everything that is wrong, each a *Problem.
type Problems struct{ all []error }

// Error is a heading and a line for each problem.
func (p *Problems) Error() string {
	var text strings.Builder
	if len(p.all) == 1 {
		text.WriteString("the configuration has a mistake:")
	} else {
		fmt.Fprintf(&text, "the configuration has %d mistakes:", len(p.all))
	}
	for _, problem := range p.all {
		text.WriteString("\n  " + problem.Error())
	}
	return text.String()
}

// Unwrap returns the problems, in the order of the help text.
func (p *Problems) Unwrap() []error { return p.all }

// resolve gives the target its value: what was written, or the default.
func (o *option) resolve() error {
	text := o.raw
	if !o.isSet() {
		if text = o.preset; text == "" {
			return nil
		}
	}
	if err := parse(o.target, text); err != nil {
		o.failed = true
		// A list's error quotes the part that is wrong; others need the value.
		if o.isSecret() || strings.HasPrefix(err.Error(), "has ") {
			return o.problem("%v", err)
		}
		return o.problem("is %s, which %v", o.quoted(), err)
	}
	return nil
}

func (cmd *Command) applyFlags(flags []givenFlag, own map[string][]*option, problems *[]error) {
	mine := index(slices.Concat(cmd.settings, cmd.own))
	for _, given := range flags {
		o, ok := mine[given.name]
		if !ok {
			var others []string
			for _, name := range slices.Sorted(maps.Keys(own)) {
				if index(own[name])[given.name] != nil {
					others = append(others, name)
				}
			}
			*problems = append(*problems, &Problem{Detail: fmt.Sprintf("--%s is a flag of the command %s", given.name, strings.Join(others, " and "))})
			continue
		}
		o.raw, o.source = given.value, "flag "+o.flag() // of several the last counts
	}
}

func (cmd *Command) applyFile(readFile func(string) ([]byte, error), problems *[]error) {
	byKey := index(cmd.settings)
	self := byKey["config"]
	if self.raw == "" {
		return
	}
	content, err := readFile(self.raw)
	if err != nil {
		*problems = append(*problems, self.problem("cannot be read: %v", err))
		return
	}
	values, err := parseFile(content)
	if err != nil {
		*problems = append(*problems, self.problem("%s %v", self.raw, err))
		return
	}
	for _, value := range values {
		place := fmt.Sprintf("file %s, line %d", self.raw, value.line)
		o, ok := byKey[value.key]
		switch {
		case value.key == "config":
			*problems = append(*problems, &Problem{Key: "config", Detail: "cannot name another file from within a file", Source: place})
		case !ok:
			keys := sortedKeys(cmd.settings, func(o *option) string { return o.key })
			// Those who know the variables write max_batch here.
			hint := didYouMean(strings.ToLower(strings.ReplaceAll(value.key, "_", "-")), keys)
			*problems = append(*problems, &Problem{Detail: fmt.Sprintf("there is no setting %q%s", clip(value.key), hint), Source: place})
		case !o.isSet() && value.text != "":
			o.raw, o.source = value.text, place
		}
	}
}

// readEnviron picks the variables that options read, and reports those that
// only look as if they did.
func readEnviron(environ []string, all []*option) (map[string]string, []error) {
	names := sortedKeys(all, func(o *option) string { return o.env })
	env := map[string]string{}
	var unknown []string
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		switch {
		case !strings.HasPrefix(name, envPrefix) || value == "":
		case slices.Contains(names, name):
			env[name] = value
		case !injected(name, value):
			unknown = append(unknown, name)
		}
	}
	slices.Sort(unknown)
	var problems []error
	for _, name := range unknown {
		problems = append(problems, &Problem{Detail: fmt.Sprintf("nothing reads the environment variable %s%s", clip(name), didYouMean(name, names))})
	}
	return env, problems
}

// Kubernetes and Docker describe a service named jobwire, or jobwire-something,
// to its neighbours and to itself in variables that begin like ours.
var (
	serviceName = regexp.MustCompile(`_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$`)
	serviceURL  = regexp.MustCompile(`^(tcp|udp|sctp)://`)
)

func injected(name, value string) bool {
	return serviceName.MatchString(name) || strings.HasSuffix(name, "_PORT") && serviceURL.MatchString(value)
}

func index(list []*option) map[string]*option {
	byKey := make(map[string]*option, len(list))
	for _, o := range list {
		byKey[o.key] = o
	}
	return byKey
}

func clip(text string) string {
	if len(text) > 60 {
		return strings.ToValidUTF8(text[:60], "") + "…"
	}
	return text
}
