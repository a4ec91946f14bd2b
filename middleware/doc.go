// Package middleware is what every request passes before a handler sees it:
// request ids, the access log, request metrics, recovery, the patience for long
// polls, the API keys of workers, the origins of browsers, the handshake rate
// of addresses, and the tokens of sockets.
//
// In flow requests as they come from the network; out flow the same requests
// with an id ([RequestID]), or a refusal. Refusals on /socket.io/ have the form that
// Engine.IO gives them; all others are written by the [Refuse] function that
// the server passes in, so that the catalogue of error codes stays in one
// place, which is not this one.
//
// Meant order: AssignRequestID, Requests.Count, AccessLog, Recovery, and then by
// group: APIKey for /v1/; LongPolls, Origins.Sockets and Limiter.Sockets for
// /socket.io/.
//
// Nothing here keeps a *gin.Context or its writer after the request: Gin
// hands both to the next one.
package middleware
