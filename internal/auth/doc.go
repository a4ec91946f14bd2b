// Package auth decides who is speaking: it verifies the tokens of users ([Verifier]) and knows the
// API keys of workers ([Keys]).
//
// In flow strings that clients and workers sent; out flow an [Identity], the name of a key, or an [*events.Error]. The package
// knows neither HTTP nor sockets, and never puts a token or a key into an error.
package auth
