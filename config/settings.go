package config

import (
	"log/slog"
	"net/netip"
	"time"

	"jobwire/internal/auth"
)

// Settings is everything that can be set about a server. Tags: key (flag, file member and, in capitals,
// environment variable), for (commands that read it besides serve), group (heading in --help; holds until
// the next), value (what --help calls the value), help, default, and min and max, or enum, for what is allowed.
type Settings struct {
	ConfigFile string `key:"config" for:"emit,token" group:"General" value:"FILE" help:"YAML file with further settings, - for the standard input"`
	Dev        bool   `key:"dev" help:"for trying out: 127.0.0.1 only, own secrets, data in memory, demo on" default:"false"`
	Demo       bool   `key:"demo" help:"serve the demo page at /demo/, and tokens for whoever asks there" default:"false"`

	Addr           string         `key:"addr" for:"emit" group:"Listening" value:"HOST:PORT" help:"address to listen on" default:":3000"`
	Origins        []string       `key:"origins" value:"LIST" help:"origins whose pages may connect, or *; none: same origin only"`
	TrustedProxies []netip.Prefix `key:"trusted-proxies" value:"LIST" help:"addresses or networks whose X-Forwarded-For is believed"`
	DebugAddr      string         `key:"debug-addr" value:"HOST:PORT" help:"loopback address to serve Go's profiles on; none: nowhere"`
	Drain          time.Duration  `key:"drain" value:"TIME" help:"how long a shutdown may take" default:"10s" min:"1s" max:"10m"`

	JWTSecrets   []Secret   `key:"jwt-secret" for:"token" group:"Who may speak" value:"LIST" help:"HMAC secrets of user tokens, 32 bytes or more; several rotate; required"`
	JWTUserClaim string     `key:"jwt-user-claim" for:"token" value:"CLAIM" help:"claim with the user id" default:"sub"`
	JWTIssuer    string     `key:"jwt-issuer" for:"token" value:"ISS" help:"required iss of tokens; not checked when empty"`
	JWTAudience  []string   `key:"jwt-audience" for:"token" value:"LIST" help:"tokens must be for one of these; not checked when empty"`
	APIKeys      []auth.Key `key:"api-keys" for:"emit" value:"LIST" help:"workers' keys as name=key, 24 characters or more; required"`

	DataDir            string        `key:"data-dir" group:"Delivery" value:"DIR" help:"where events are kept; memory: nowhere" default:"./data"`
	Coalesce           time.Duration `key:"coalesce" value:"TIME" help:"least time between two progress events of a job; 0: send every one" default:"100ms" min:"0s" max:"1m"`
	Retention          time.Duration `key:"retention" value:"TIME" help:"how long a user's events are kept" default:"24h" min:"1s" max:"8760h"`
	RetentionEvents    int           `key:"retention-events" value:"N" help:"how many events are kept for a user" default:"1000" min:"1" max:"1000000"`
	RetentionBytes     Size          `key:"retention-bytes" value:"SIZE" help:"how many bytes of events are kept for a user" default:"4MiB" min:"1KiB" max:"1GiB"`
	RetentionJobs      int           `key:"retention-jobs" value:"N" help:"how many jobs are kept for a user" default:"1000" min:"1" max:"1000000"`
	RetentionJobsBytes Size          `key:"retention-jobs-bytes" value:"SIZE" help:"how many bytes of jobs are kept for a user" default:"4MiB" min:"2KiB" max:"1GiB"`
	MaxStoreBytes      Size          `key:"max-store-bytes" value:"SIZE" help:"size of the store at which new events are refused; 0: no limit" default:"0"`
	MaxEventBytes      Size          `key:"max-event-bytes" value:"SIZE" help:"body of one event" default:"64KiB" min:"1KiB" max:"16MiB"`
	MaxBatch           int           `key:"max-batch" value:"N" help:"events in one batch" default:"1000" min:"1" max:"100000"`
	MaxBatchBytes      Size          `key:"max-batch-bytes" value:"SIZE" help:"body of one batch" default:"8MiB" min:"1KiB" max:"1GiB"`

	PresenceGrace       time.Duration `key:"presence-grace" group:"Presence" value:"TIME" help:"how long a user may be gone before user_offline is sent" default:"10s" min:"0s" max:"1h"`
	PresenceAudience    string        `key:"presence-audience" value:"WHO" help:"who gets presence: everyone, tenant (same tenant claim) or none" default:"everyone" enum:"everyone,tenant,none"`
	PresenceTenantClaim string        `key:"presence-tenant-claim" for:"token" value:"CLAIM" help:"claim with the tenant" default:"tenant"`

	PingInterval       time.Duration `key:"ping-interval" group:"Connections" value:"TIME" help:"time between heartbeats" default:"25s" min:"100ms" max:"10m"`
	PingTimeout        time.Duration `key:"ping-timeout" value:"TIME" help:"how long a heartbeat's answer may take" default:"20s" min:"100ms" max:"10m"`
	HandshakeTimeout   time.Duration `key:"handshake-timeout" value:"TIME" help:"how long a connection may take to show its token" default:"10s" min:"100ms" max:"5m"`
	HandshakeRate      int           `key:"handshake-rate" value:"N" help:"new connections a second from one address; 0: no limit" default:"200" min:"0" max:"1000000"`
	HandshakeBurst     int           `key:"handshake-burst" value:"N" help:"new connections at once from one address" default:"2000" min:"1" max:"1000000"`
	MaxConnections     int           `key:"max-connections" value:"N" help:"connections in all; 0: no limit" default:"100000" min:"0" max:"10000000"`
	MaxUnauthenticated int           `key:"max-unauthenticated" value:"N" help:"connections that have not shown a token yet" default:"10000" min:"1" max:"10000000"`
	MaxSocketsPerUser  int           `key:"max-sockets-per-user" value:"N" help:"sockets (tabs, devices) of one user" default:"1000" min:"1" max:"1000000"`
	MaxPayload         Size          `key:"max-payload" value:"SIZE" help:"one message from a client" default:"64KiB" min:"1KiB" max:"100MiB"`
	MaxQueue           Size          `key:"max-queue" value:"SIZE" help:"output waiting for a slow client before it is cut off" default:"4MiB" min:"1MiB" max:"1GiB"` // the least is more than the longest online_users, which is sent on every connect
	EventRate          int           `key:"event-rate" value:"N" help:"events a second from one client; 0: no limit" default:"1000" min:"0" max:"1000000"`

	LogLevel  slog.Level `key:"log-level" group:"Logs" value:"LEVEL" help:"debug, info, warn or error" default:"info"`
	LogFormat string     `key:"log-format" value:"FORMAT" help:"text or json" default:"text" enum:"text,json"`
}

// InMemory is the DataDir that keeps nothing.
const InMemory = "memory"

// Verifier is the configuration of the verifier of user tokens. The tenant claim is read only with the
// audience tenant, so that otherwise a token may have anything under that name.
func (s *Settings) Verifier() auth.VerifierConfig {
	cfg := s.Minting()
	if s.PresenceAudience != "tenant" {
		cfg.TenantClaim = ""
	}
	return cfg
}

// Minting is what auth.Mint needs to make tokens that this server accepts.
func (s *Settings) Minting() auth.VerifierConfig {
	cfg := auth.VerifierConfig{
		UserClaim:   s.JWTUserClaim,
		TenantClaim: s.PresenceTenantClaim,
		Issuer:      s.JWTIssuer,
		Audience:    s.JWTAudience,
	}
	for _, secret := range s.JWTSecrets {
		cfg.Secrets = append(cfg.Secrets, []byte(secret))
	}
	return cfg
}

// Arguments are flags of the commands that the tag for names, and no settings.
type Arguments struct {
	User           string        `key:"user" for:"emit,token" group:"Arguments" value:"ID" help:"user to send to, or that the token is for; required" env:"-"`
	Tenant         string        `key:"tenant" for:"token" value:"T" help:"tenant of the user" env:"-"`
	TTL            time.Duration `key:"ttl" for:"token" value:"TIME" help:"how long the token is valid" default:"1h" min:"1s" max:"87600h" env:"-"`
	Event          string        `key:"event" for:"emit" value:"NAME" help:"name of the event; required" env:"-"`
	Data           string        `key:"data" for:"emit" value:"JSON" help:"data of the event, - for the standard input; required" env:"-"`
	IdempotencyKey string        `key:"idempotency-key" for:"emit" value:"KEY" help:"makes a repeat of this call harmless" env:"-"`
	URL            string        `key:"url" for:"emit" value:"URL" help:"server to send to; default: this machine, at the port of --addr"`
	APIKey         Secret        `key:"api-key" for:"emit" value:"KEY" help:"key to send with; default: the first of --api-keys"`
}
