package handlers

import (
	"context"

	"jobwire/internal/auth"
	"jobwire/internal/realtime"
	"jobwire/middleware"
)

// RegisterClientEvents lists all that a client may send. Add a row to offer
// more: a name, a payload type, and a function from it to the ack.
func RegisterClientEvents(hub *realtime.Hub, sessions *Sessions, jobs JobTeller, verifier middleware.TokenVerifier) {
	realtime.Handle(hub, "authenticate", refreshToken(verifier))
	realtime.Handle(hub, "get_online_users", sessions.getOnlineUsers)
	realtime.HandleInOrder(hub, "get_jobs", sessions.getJobs(jobs))
}

type tokenPayload struct {
	Token string `json:"token"`
}

// refreshToken exchanges the token of a live socket for a newer one of the
// same user, so that the connection outlives the old one's expiry.
func refreshToken(verifier middleware.TokenVerifier) func(context.Context, *realtime.Session, tokenPayload) (any, error) {
	return func(ctx context.Context, session *realtime.Session, in tokenPayload) (any, error) {
		id, err := verifier.Verify(ctx, auth.TrimBearer(in.Token))
		if err != nil {
			return nil, err
		}
		if err := session.Refresh(id); err != nil {
			return nil, err
		}
		return newIdentity(id), nil
	}
}

func (s *Sessions) getOnlineUsers(ctx context.Context, session *realtime.Session, _ struct{}) (any, error) {
	id := session.Identity()
	return s.audience.OnlineUsers(ctx, id.UserID, id.Tenant)
}
