package config_test

import (
	"testing"

	"jobwire/config"
	"jobwire/handlers"
	"jobwire/internal/auth"
	"jobwire/internal/delivery"
	"jobwire/internal/engine"
	"jobwire/internal/realtime"
)

// What --help calls the default is what a package below does when it is told nothing.
func TestPackagesBelowHaveTheDefaultsOfTheSettings(t *testing.T) {
	cmd, err := config.Load([]string{"--dev"}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	s := cmd.Settings
	hub, transports, limits := realtime.Config{}.WithDefaults(), engine.Config{}.WithDefaults(), delivery.Limits{}.WithDefaults()
	for key, pair := range map[string][2]any{
		"jwt-user-claim":       {s.JWTUserClaim, auth.DefaultUserClaim},
		"retention":            {s.Retention, limits.Retention},
		"retention-events":     {s.RetentionEvents, limits.Messages},
		"retention-bytes":      {int(s.RetentionBytes), limits.MessagesBytes},
		"retention-jobs":       {s.RetentionJobs, limits.Jobs},
		"retention-jobs-bytes": {int(s.RetentionJobsBytes), limits.JobsBytes},
		"max-event-bytes":      {int(s.MaxEventBytes), handlers.DefaultMaxEventBytes},
		"max-batch":            {s.MaxBatch, handlers.DefaultMaxBatchItems},
		"max-batch-bytes":      {int(s.MaxBatchBytes), handlers.DefaultMaxBatchBytes},
		"handshake-timeout":    {s.HandshakeTimeout, hub.HandshakeTimeout},
		"max-unauthenticated":  {s.MaxUnauthenticated, hub.MaxUnauthenticated},
		"max-sockets-per-user": {s.MaxSocketsPerUser, hub.MaxSocketsPerUser},
		"event-rate":           {float64(s.EventRate), hub.EventRate},
		"ping-interval":        {s.PingInterval, transports.PingInterval},
		"ping-timeout":         {s.PingTimeout, transports.PingTimeout},
		"max-payload":          {int(s.MaxPayload), transports.MaxPayload},
		"max-queue":            {int(s.MaxQueue), transports.MaxQueue},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s is %v by default, and %v below", key, pair[0], pair[1])
		}
	}
}
