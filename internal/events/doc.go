// Package events is the vocabulary of jobwire: what a worker may say, how it
// is checked, and the form in which a client hears it.
//
// In flow the bodies that workers POST ([Parse], [ParseBatch]); out flow
// validated [Event] values, ids ([ID]) and Socket.IO packet texts ([Encode]).
// A worker's data is never decoded and encoded again: it leaves byte for byte
// as it came.
//
// The package imports the standard library only, holds no state and starts
// nothing. Every refusal is an [*Error] with a stable code.
package events
