// Package embedded remembers events without a service beside the process: in
// memory, or in one bbolt file.
//
// Both stores share everything that is a rule. The rules (rules.go,
// retention.go, reading.go) work on one sorted space of keys (keys.go) whose
// values are small binary records (records.go); the stores only say where the
// keys live. Memory keeps them in a [table]. Bolt keeps what is not yet on
// the disk in tables above the file (view.go), and moves them there in groups
// (commit.go).
package embedded
