package config

import (
	"reflect"
	"strings"

	"jobwire/internal/auth"
)

const envPrefix = "JOBWIRE_"

// option is one setting of one struct, as its tags describe it.
type option struct {
	target any // pointer to the field

	key, env    string // env is "" for what no environment sets
	group       string
	value, help string
	preset      string
	min, max    string
	enum        []string

	raw    string // as written, once anything but the default has set it
	source string // where raw was written; "default" before that
	failed bool   // raw could not be read, so nothing more is to be said of it
}

func (o *option) flag() string { return "--" + o.key }

func (o *option) isBool() bool {
	_, ok := o.target.(*bool)
	return ok
}

// isSecret reports whether the value must never be shown.
func (o *option) isSecret() bool {
	switch o.target.(type) {
	case *Secret, *[]Secret, *[]auth.Key:
		return true
	}
	return false
}

// isSet reports whether anything but the default gave the value.
func (o *option) isSet() bool { return o.source != sourceDefault }

const sourceDefault = "default"

// options lists the fields of the struct that target points to.
func options(target any) []*option {
	var list []*option
	v := reflect.ValueOf(target).Elem()
	group := ""
	for i := range v.NumField() {
		tag := v.Type().Field(i).Tag
		if g := tag.Get("group"); g != "" {
			group = g
		}
		o := &option{
			target: v.Field(i).Addr().Interface(),
			key:    tag.Get("key"),
			group:  group,
			value:  tag.Get("value"),
			help:   tag.Get("help"),
			preset: tag.Get("default"),
			min:    tag.Get("min"),
			max:    tag.Get("max"),
			source: sourceDefault,
		}
		if tag.Get("env") != "-" {
			o.env = envPrefix + strings.ToUpper(strings.ReplaceAll(o.key, "-", "_"))
		}
		if enum := tag.Get("enum"); enum != "" {
			o.enum = strings.Split(enum, ",")
		}
		list = append(list, o)
	}
	return list
}
