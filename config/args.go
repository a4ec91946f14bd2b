package config

import (
	"fmt"
	"strings"
)

// arguments is a command line taken apart: words are what is no flag, flags
// the raw values by key.
type arguments struct {
	words    []string
	flags    []givenFlag
	help     bool
	problems []error
}

type givenFlag struct{ name, value string }

// parseArgs takes args apart without knowing which command they are for:
// known says for every flag of any command whether it stands alone, as those
// of truth values do. Flags may stand before and after words.
func parseArgs(args []string, known map[string]bool) arguments {
	var a arguments
	for i := 0; i < len(args); i++ {
		arg := args[i]
		switch {
		case arg == "--":
			a.words = append(a.words, args[i+1:]...)
			return a
		case arg == "-h" || arg == "-help" || arg == "--help":
			a.help = true
			continue
		case arg == "--version":
			a.words = append(a.words, Version)
			continue
		case !strings.HasPrefix(arg, "-") || arg == "-":
			a.words = append(a.words, arg)
			continue
		}
		name, value, inline := strings.Cut(strings.TrimPrefix(arg, "--"), "=")
		standsAlone, exists := known[name]
		switch {
		case !strings.HasPrefix(arg, "--") || !exists:
			name = strings.TrimLeft(arg, "-")
			name, _, _ = strings.Cut(name, "=")
			dashes := arg[:len(arg)-len(strings.TrimLeft(arg, "-"))]
			a.problems = append(a.problems, &Problem{Detail: fmt.Sprintf("there is no flag %s%s%s", dashes, clip(name), didYouMean("--"+name, flagNames(known)))})
			// Its value, if that is what follows, must not pass for a command.
			if !inline && !known[name] && i+1 < len(args) && !strings.HasPrefix(args[i+1], "-") {
				i++
			}
		case inline:
			a.flags = append(a.flags, givenFlag{name, value})
		case standsAlone:
			a.flags = append(a.flags, givenFlag{name, "true"})
		case i+1 == len(args) || strings.HasPrefix(args[i+1], "--"):
			a.problems = append(a.problems, &Problem{Key: name, Detail: "needs a value", Source: "--" + name})
		default:
			i++
			a.flags = append(a.flags, givenFlag{name, args[i]})
		}
	}
	return a
}

func flagNames(known map[string]bool) []string {
	names := []string{"--help", "--version"}
	for name := range known {
		names = append(names, "--"+name)
	}
	return names
}
