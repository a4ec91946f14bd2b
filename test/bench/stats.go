package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// series is one metric of one server over its runs; one that failed is missing
// from it.
type series map[int]float64

func (s series) values() []float64 {
	out := make([]float64, 0, len(s))
	for _, v := range s {
		out = append(out, v)
	}
	slices.Sort(out)
	return out
}

// median is the middle value, or the mean of the two in the middle. s is not
// empty.
func (s series) median() float64 { return s.quantile(0.5) }

func (s series) min() float64 { return s.values()[0] }
func (s series) max() float64 { return s.values()[len(s)-1] }

// over divides run by run: those with the same number are close in time, so
// what the machine does to one server it does to the other.
func (s series) over(peer series) series {
	out := series{}
	for run, v := range s {
		if p, ok := peer[run]; ok && p > 0 {
			out[run] = v / p
		}
	}
	return out
}

// minus takes off run by run.
func (s series) minus(other series) series {
	out := series{}
	for run, v := range s {
		if o, ok := other[run]; ok {
			out[run] = v - o
		}
	}
	return out
}

// quantile is the q-quantile, between two values in proportion to its
// distance from them. s is not empty.
func (s series) quantile(q float64) float64 {
	v := s.values()
	at := q * float64(len(v)-1)
	i := int(at)
	if i+1 == len(v) {
		return v[i]
	}
	return v[i] + (at-float64(i))*(v[i+1]-v[i])
}

// cell is a median with its spread.
func (s series) cell(digits int) string {
	if len(s) == 0 {
		return "–"
	}
	text := number(s.median(), digits)
	if low, high := number(s.min(), digits), number(s.max(), digits); low != high {
		text += fmt.Sprintf(" (%s–%s)", low, high)
	}
	return text
}

// number formats v with thousands separated by commas.
func number(v float64, digits int) string {
	text := strconv.FormatFloat(v, 'f', digits, 64)
	whole, rest, found := strings.Cut(text, ".")
	for i := len(whole) - 3; i > 0 && whole[i-1] != '-'; i -= 3 {
		whole = whole[:i] + "," + whole[i:]
	}
	if found {
		whole += "." + rest
	}
	return whole
}
