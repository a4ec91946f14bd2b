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
func (m *members) warnings(event *Event) []Warning {
	switch {
	case event.Name == JobProgress:
		if m.dataProgress != nil && !isPercentage(m.dataProgress) {
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

// slipOf returns the known name that a worker probably meant by a name of its own, "" when there is none: the two differ by at
// most two letters, case and separators aside, or the own one says the same in another word.
func slipOf(name string) string {
	var letters [MaxNameLen]byte
	word := letters[:0]
	for i := range len(name) {
		if c := name[i]; isLetter(c) || '0' <= c && c <= '9' {
			word = append(word, c|0x20) // digits have that bit
		}
	}
	switch string(word) {
	case "jobdone", "jobfinished", "jobfinish", "jobsuccess", "jobsucceeded", "jobcompletion":
		return JobCompleted
	case "joberror", "joberrored", "jobfailure":
		return JobFailed
	}
	const near = 2
	for _, known := range [...]struct{ word, name string }{
		{"jobprogress", JobProgress}, {"jobcompleted", JobCompleted}, {"jobfailed", JobFailed},
	} {
		if len(word) >= len(known.word)-near && len(word) <= len(known.word)+near && Distance(string(word), known.word) <= near {
			return known.name
		}
	}
	return ""
}

// Distance is how many bytes have to be put in, left out or replaced to make one word the other.
func Distance(a, b string) int {
	// Levenshtein's table, one row at a time: row[j] is the distance of what was read of a to b[:j].
	row := make([]int, 0, MaxNameLen+1) // on the stack, for all names of events
	for j := range len(b) + 1 {
		row = append(row, j)
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replaced := diagonal
			if a[i] != b[j] {
				replaced++
			}
			diagonal = row[j+1]
			row[j+1] = min(replaced, diagonal+1, row[j]+1)
		}
	}
	return row[len(b)]
}
