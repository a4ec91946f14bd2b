package events

import "strconv"

// The codes of a [Warning]. Like those of an [Error] they are part of the contract with workers.
const (
	WarnProgressOutOfRange = "progress_out_of_range" // data.progress of job_progress is no number from 0 to 100
	WarnEventNameUnusual   = "event_name_unusual"    // a name of the worker's own that looks like a slip of a known one
)

// Warning says what a worker may not have meant by an event that was taken all the same.
type Warning struct {
	Code   string `json:"code"`
	Field  string `json:"field"`
	Detail string `json:"detail"` // one sentence for a person; it quotes no values
}

// warnings returns what is odd about a good event; nil, and without an allocation, for most.
func (s *scanner) warnings(event *Event, m *members) []Warning {
	switch {
	case event.Name == JobProgress:
		if text := s.text(m.dataProgress); len(text) > 0 && !isPercentage(text) {
			return []Warning{{WarnProgressOutOfRange, "data.progress", "progress is a number from 0 to 100"}}
		}
	case event.Kind == Message:
		if meant := slipOf(event.Name); meant != "" {
			return []Warning{{WarnEventNameUnusual, "event",
				"did you mean " + meant + "? A name of your own changes no job, unless it comes with a kind"}}
		}
	}
	return nil
}

// isPercentage reports whether a JSON value is a number from 0 to 100.
func isPercentage(text []byte) bool {
	if c := text[0]; c != '-' && (c < '0' || c > '9') {
		return false
	}
	n, err := strconv.ParseFloat(string(text), 64)
	return err == nil && n >= 0 && n <= 100
}

// slipOf returns the known name that a worker probably meant by a name of its own, "" when there is none: the two differ by
// at most two letters, case and separators aside, or the own one says the same in another word.
func slipOf(name string) string {
	var folded [MaxNameLen]byte
	n := 0
	for i := 0; i < len(name); i++ {
		switch c := name[i]; {
		case isLetter(c):
			folded[n] = c | 0x20
			n++
		case '0' <= c && c <= '9':
			folded[n] = c
			n++
		}
	}
	word := folded[:n]
	switch string(word) {
	case "jobdone", "jobfinished", "jobfinish", "jobsuccess", "jobsucceeded", "jobcompletion":
		return JobCompleted
	case "joberror", "joberrored", "jobfailure":
		return JobFailed
	}
	for _, known := range [...]struct{ folded, name string }{
		{"jobprogress", JobProgress}, {"jobcompleted", JobCompleted}, {"jobfailed", JobFailed},
	} {
		if isNear(word, known.folded) {
			return known.name
		}
	}
	return ""
}

// isNear reports whether at most two letters have to be put in, left out or replaced to make one word the other.
func isNear(word []byte, known string) bool {
	const most, longest = 2, len("jobcompleted")
	if len(word) < len(known)-most || len(word) > len(known)+most {
		return false
	}
	// Levenshtein's table, one row at a time: above[j] is the distance of what was read of word to known[:j].
	var rows [2][longest + 1]int
	above, row := &rows[0], &rows[1]
	for j := range len(known) + 1 {
		above[j] = j
	}
	for i, c := range word {
		row[0] = i + 1
		for j := range len(known) {
			row[j+1] = min(above[j+1], row[j]) + 1
			if replaced := above[j]; c == known[j] {
				row[j+1] = min(row[j+1], replaced)
			} else {
				row[j+1] = min(row[j+1], replaced+1)
			}
		}
		above, row = row, above
	}
	return above[len(known)] <= most
}
