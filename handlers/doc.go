// Package handlers answers: HTTP calls of workers and operators, and what
// happens on the sockets of users.
//
// In flow requests that middleware has let pass, and the calls of the hub;
// out flow calls to delivery, presence and the hub, and their answers. A
// handler binds, calls and answers. What the answers to errors are is chosen
// in problem.go and nowhere else.
//
// openapi.yaml describes the HTTP calls and is served; docs/protocol.md is the
// contract with frontends and workers in prose. Tests hold both to the code.
package handlers
