package config

import (
	"fmt"
	"slices"
	"strings"
)

// Problem is one thing that is wrong with the configuration. Load returns all
// of them joined, each on a line of its own.
type Problem struct {
	Key    string // the setting, as in the file; "" when the trouble is not with one
	Source string // where its value was written, or how it can be given when it was not
	Detail string // what is wrong and what would be right; never a secret
}

// Error is one line.
func (p *Problem) Error() string {
	line := p.Detail
	if p.Key != "" {
		line = p.Key + " " + line
	}
	if p.Source != "" {
		line += " (" + p.Source + ")"
	}
	return line
}

// problem reports what is wrong with the value of an option. detail completes
// the sentence that begins with the key.
func (o *option) problem(detail string, args ...any) *Problem {
	p := &Problem{Key: o.key, Detail: fmt.Sprintf(detail, args...), Source: o.source}
	if !o.isSet() {
		p.Source = o.flag()
		if o.env != "" {
			p.Source += ", " + o.env
		}
	}
	return p
}

// quoted is the value as written, for an error text.
func (o *option) quoted() string {
	const limit = 80
	switch {
	case o.isSecret():
		return "(not shown)"
	case len(o.raw) > limit:
		return fmt.Sprintf("%.*q…", limit, o.raw)
	}
	return fmt.Sprintf("%q", o.raw)
}

// didYouMean is a question to end an error with, "" when no candidate is near.
func didYouMean(word string, candidates []string) string {
	best, distance := "", 1+max(1, len(word)/4)
	for _, candidate := range candidates {
		if d := editDistance(word, candidate); d < distance {
			best, distance = candidate, d
		}
	}
	if best == "" {
		// A word left out is the other common mistake: --secret.
		for _, candidate := range candidates {
			if len(strings.Trim(word, "-")) > 3 && strings.Contains(candidate, strings.Trim(word, "-")) {
				best = candidate
				break
			}
		}
	}
	if best == "" {
		return ""
	}
	return "; did you mean " + best + "?"
}

// editDistance counts the insertions, deletions, replacements and swaps of
// neighbours that turn a into b.
func editDistance(a, b string) int {
	before, row := []int(nil), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		next := make([]int, len(b)+1)
		next[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			next[j] = min(row[j]+1, next[j-1]+1, row[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				next[j] = min(next[j], before[j-2]+1)
			}
		}
		before, row = row, next
	}
	return row[len(b)]
}

// sortedKeys lists what f says of each option, without the empty ones.
func sortedKeys(list []*option, f func(*option) string) []string {
	var keys []string
	for _, o := range list {
		if key := f(o); key != "" {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}
