// Package embedded is the store without a service beside the process: on the disk or in memory, both over pebble, an LSM
// tree. In memory it is the same store over a file system in memory, without a log.
//
// Whoever reads it begins with publish.go: a call locks its user, decides about its entries (rules.go), hands what must be
// on the disk to the committer (commit.go), and tells the feeds when it is (feeds.go). What is decided about is in memory:
// the user's record and all its jobs (users.go); the data of messages stays on the disk.
//
// An [instance] is one opening of the directory. A failed write, damage, or a missing file ends it: everything decided on
// top of what the disk has is forgotten with it, every call fails at once, and the store opens the directory anew
// (health.go).
//
// Locks, in the order in which they are taken: a user's lock; then one of the mutexes of a shard, the committer, the list of
// dirty users. No two of the latter at once, and none while the disk is waited for. A user's lock is held while its records
// are read, never while a commit is waited for.
package embedded
