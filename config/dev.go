package config

import (
	"crypto/rand"

	"jobwire/internal/auth"
)

const (
	devAddr    = "127.0.0.1:3000"
	devKeyName = "dev"
	sourceDev  = "made by --dev"
)

// applyDev gives what was left open the values with which the program can be
// tried out at once. The secrets are new at every start.
func (cmd *Command) applyDev() {
	byKey := index(cmd.settings)
	preset := func(key string, set func()) {
		if o := byKey[key]; !o.isSet() {
			set()
			o.source = sourceDev
		}
	}
	s := &cmd.Settings
	preset("addr", func() { s.Addr = devAddr })
	preset("data-dir", func() { s.DataDir = InMemory })
	preset("demo", func() { s.Demo = true })
	preset("jwt-secret", func() { s.JWTSecrets = []Secret{Secret(rand.Text() + rand.Text())} })
	preset("api-keys", func() { s.APIKeys = []auth.Key{{Name: devKeyName, Secret: rand.Text()}} })
}
