package config

import (
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
)

const envPrefix = "JOBWIRE_"

// option is one field of Settings or Arguments.
type option struct {
	target   any // pointer to the field
	tag      reflect.StructTag
	key, env string   // env is "" for what no environment variable sets
	group    string   // its heading in the help
	commands []string // those that read it

	raw    string // the value as it was written
	source string // where it was written, "" for the default
	failed bool   // a mistake was reported, so nothing more is said of it
}

// addOptions adds the fields of the struct that target points to, with their defaults. The commands
// read all of them; the tag "for" adds further ones to a field.
func (cmd *Command) addOptions(target any, commands ...string) {
	group := ""
	v := reflect.ValueOf(target).Elem()
	for i := range v.NumField() {
		tag := v.Type().Field(i).Tag
		group = cmp.Or(tag.Get("group"), group)
		o := &option{target: v.Field(i).Addr().Interface(), tag: tag, key: tag.Get("key"), group: group, raw: tag.Get("default")}
		if tag.Get("env") != "-" {
			o.env = envPrefix + strings.ToUpper(strings.ReplaceAll(o.key, "-", "_"))
		}
		o.commands = slices.Concat(commands, split(tag.Get("for")))
		cmd.options, cmd.byKey[o.key] = append(cmd.options, o), o
		cmd.flags = append(cmd.flags, "--"+o.key)
		if o.env != "" {
			cmd.variables = append(cmd.variables, o.env)
		}
		if o.isSetting() {
			cmd.keys = append(cmd.keys, o.key)
		}
	}
}

// set is for sources in the order of their precedence: the first that has a value wins.
func (o *option) set(raw, source string) {
	if o.source == "" {
		o.raw, o.source = raw, source
	}
}

// isSetting reports whether files may set it, and flags of every command.
func (o *option) isSetting() bool { return slices.Contains(o.commands, Serve) }

func (o *option) isBool() bool {
	_, ok := o.target.(*bool)
	return ok
}

// reads reports whether an option matters to the command.
func (cmd *Command) reads(o *option) bool { return slices.Contains(o.commands, cmd.Name) }

func (cmd *Command) problem(format string, args ...any) {
	cmd.problems = append(cmd.problems, fmt.Errorf(format, args...))
}

// require reports a mistake in the value of an option unless ok. It says nothing about what the command
// does not read, and of each option only the first. detail completes a sentence that begins with the key.
func (cmd *Command) require(key string, ok bool, detail string, args ...any) {
	o := cmd.byKey[key]
	if ok || o.failed || !cmd.reads(o) {
		return
	}
	o.failed = true
	remedy := strings.TrimSuffix("--"+key+", "+o.env, ", ")
	cmd.problem("%s %s (%s)", key, fmt.Sprintf(detail, args...), cmp.Or(o.source, remedy))
}

// checkBounds compares a value with min and max, or with enum, of its tag.
func (cmd *Command) checkBounds(o *option) {
	if enum := o.tag.Get("enum"); enum != "" {
		cmd.require(o.key, slices.Contains(split(enum), o.raw), "is %.60q, want one of %s", o.raw, strings.ReplaceAll(enum, ",", ", "))
	}
	if low, high := o.tag.Get("min"), o.tag.Get("max"); high != "" {
		value := reflect.ValueOf(o.target).Elem()
		least, most := reflect.New(value.Type()), reflect.New(value.Type())
		if err := errors.Join(parse(least.Interface(), low), parse(most.Interface(), high)); err != nil {
			panic(err) // a tag is wrong
		}
		ok := value.Int() >= least.Elem().Int() && value.Int() <= most.Elem().Int()
		cmd.require(o.key, ok, "is %.60q, want %s to %s", o.raw, low, high)
	}
}
