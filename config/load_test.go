package config

import (
	"errors"
	"io/fs"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	testSecret = "0123456789abcdef0123456789abcdef"
	testKey    = "abcdefghijklmnopqrstuvwx"
)

// secrets is what serve cannot do without.
var secrets = []string{"JOBWIRE_JWT_SECRET=" + testSecret, "JOBWIRE_API_KEYS=worker=" + testKey}

// files is a file system for Load.
type files map[string]string

func (f files) read(name string) ([]byte, error) {
	content, ok := f[name]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return []byte(content), nil
}

func words(line string) []string { return strings.Fields(line) }

func load(t *testing.T, args string, environ []string, file string) *Command {
	t.Helper()
	cmd, err := Load(words(args), environ, files{"jobwire.yaml": file}.read)
	if err != nil {
		t.Fatalf("%s: %v", args, err)
	}
	return cmd
}

func TestDefaultsAreThoseOfTheDocumentation(t *testing.T) {
	s := load(t, "", secrets, "").Settings
	want := Settings{
		Addr: ":3000", Drain: 10 * time.Second,
		JWTSecrets: []Secret{testSecret}, JWTUserClaim: "sub", APIKeys: s.APIKeys,
		DataDir: "./data", Coalesce: 100 * time.Millisecond, Retention: 24 * time.Hour, RetentionEvents: 1000, RetentionBytes: 4 * MiB,
		RetentionJobs: 1000, RetentionJobsBytes: 4 * MiB,
		MaxEventBytes: 64 * KiB, MaxBatch: 1000, MaxBatchBytes: 8 * MiB,
		PresenceGrace: 10 * time.Second, PresenceAudience: "everyone", PresenceTenantClaim: "tenant",
		PingInterval: 25 * time.Second, PingTimeout: 20 * time.Second, HandshakeTimeout: 10 * time.Second, HandshakeRate: 200, HandshakeBurst: 2000,
		MaxConnections: 100000, MaxUnauthenticated: 10000, MaxSocketsPerUser: 1000, MaxPayload: 64 * KiB, MaxQueue: 4 * MiB, EventRate: 1000,
		LogLevel: slog.LevelInfo, LogFormat: "text",
	}
	if !reflect.DeepEqual(s, want) {
		t.Errorf("got %+v\nwant %+v", s, want)
	}
	if len(s.APIKeys) != 1 || s.APIKeys[0].Name != "worker" || s.APIKeys[0].Secret != testKey {
		t.Errorf("API keys %v", s.APIKeys)
	}
}

func TestFlagsWinOverEnvironmentOverFileOverDefault(t *testing.T) {
	const file = "ping-interval: 4s\ndrain: 4s\ncoalesce: 4s\n"
	env := append(slices.Clone(secrets), "JOBWIRE_PING_INTERVAL=3s", "JOBWIRE_DRAIN=3s", "JOBWIRE_COALESCE=", "JOBWIRE_CONFIG=jobwire.yaml")
	cmd := load(t, "--ping-interval 2s", env, file)
	s := cmd.Settings
	if s.PingInterval != 2*time.Second || s.Drain != 3*time.Second || s.Coalesce != 4*time.Second || s.PingTimeout != 20*time.Second {
		t.Errorf("flag %v, environment %v, file %v, default %v", s.PingInterval, s.Drain, s.Coalesce, s.PingTimeout)
	}
	dump := cmd.Dump()
	for _, line := range []string{
		"ping-interval 2s flag --ping-interval", "drain 3s environment JOBWIRE_DRAIN",
		"coalesce 4s file jobwire.yaml, line 3", "ping-timeout 20s default",
	} {
		if !slices.ContainsFunc(strings.Split(dump, "\n"), func(l string) bool { return strings.Join(words(l), " ") == line }) {
			t.Errorf("no line %q in\n%s", line, dump)
		}
	}
}

func TestEveryKindOfValueIsReadFromEverySource(t *testing.T) {
	const asFile = `
# every kind of value
jwt-secret:
  - 01234567890123456789012345678901   # digits stay text
  - "abcdefghijklmnopqrstuvwxyzabcdef"
api-keys:
  billing: aaaaaaaaaaaaaaaaaaaaaaaa
  render: "bbbbbbbbbbbbbbbbbbbbbbbb="
origins: [https://App.example.com:443, "http://localhost:8080"]
trusted-proxies: 10.0.0.0/8
retention-bytes: 8MiB
max-batch: 10
coalesce: 0
demo: true
log-level: debug
jwt-issuer:
`
	asFlags := words(`--jwt-secret 01234567890123456789012345678901,abcdefghijklmnopqrstuvwxyzabcdef
		--api-keys billing=aaaaaaaaaaaaaaaaaaaaaaaa,render=bbbbbbbbbbbbbbbbbbbbbbbb= --origins=https://App.example.com:443,http://localhost:8080
		--trusted-proxies 10.0.0.0/8 --retention-bytes 8388608 --max-batch 10 --coalesce 0 --demo --log-level debug`)
	var asEnv []string
	for i := 0; i < len(asFlags); i++ {
		name, value, inline := strings.Cut(strings.TrimPrefix(asFlags[i], "--"), "=")
		switch {
		case inline:
		case name == "demo":
			value = "true"
		default:
			i++
			value = asFlags[i]
		}
		asEnv = append(asEnv, "JOBWIRE_"+strings.ToUpper(strings.ReplaceAll(name, "-", "_"))+"="+value)
	}
	fromFile := load(t, "--config jobwire.yaml", nil, asFile).Settings
	fromFile.ConfigFile = ""
	fromFlags := load(t, strings.Join(asFlags, " "), nil, "").Settings
	fromEnv := load(t, "", asEnv, "").Settings
	if !reflect.DeepEqual(fromFile, fromFlags) || !reflect.DeepEqual(fromEnv, fromFlags) {
		t.Errorf("file  %+v\nflags %+v\nenv   %+v", fromFile, fromFlags, fromEnv)
	}
	if !slices.Equal(fromFile.Origins, []string{"https://app.example.com", "http://localhost:8080"}) {
		t.Errorf("origins %q", fromFile.Origins)
	}
	if fromFile.JWTSecrets[0] != "01234567890123456789012345678901" || fromFile.APIKeys[1].Secret != "bbbbbbbbbbbbbbbbbbbbbbbb=" {
		t.Error("secrets are not as written")
	}
	if fromFile.Coalesce != 0 || !fromFile.Demo || fromFile.LogLevel != slog.LevelDebug || fromFile.RetentionBytes != 8*MiB || len(fromFile.TrustedProxies) != 1 {
		t.Errorf("%+v", fromFile)
	}
}

// Peers are known by their IPv4 address where they have one, so that is how their networks are kept.
func TestProxiesInTheFormThatPeersHave(t *testing.T) {
	for written, want := range map[string]string{
		"10.1.2.3/8":           "10.0.0.0/8",
		"192.0.2.7":            "192.0.2.7/32",
		"2001:db8::1/32":       "2001:db8::/32",
		"::ffff:192.0.2.7":     "192.0.2.7/32",
		"::ffff:192.0.2.7/128": "192.0.2.7/32",
		"::ffff:10.0.0.0/104":  "10.0.0.0/8",
		"::ffff:0:0/96":        "0.0.0.0/0",
	} {
		got := load(t, "--trusted-proxies "+written, secrets, "").Settings.TrustedProxies
		if len(got) != 1 || got[0].String() != want {
			t.Errorf("%s: got %v, want %s", written, got, want)
		}
	}
}

func TestCommands(t *testing.T) {
	for line, want := range map[string]string{
		"": Serve, "serve": Serve, "--demo serve": Serve, "serve --addr :1 --demo": Serve, "config check": ConfigCheck, "config --demo check": ConfigCheck,
		"version": Version, "--version": Version, "token --user u": Token, "--user u token --ttl 5m": Token, "emit --user u --event e --data 1": Emit,
	} {
		if got := load(t, line, secrets, "").Name; got != want {
			t.Errorf("%q is %q, want %q", line, got, want)
		}
	}
}

func TestCommandsNeedOnlyWhatTheyRead(t *testing.T) {
	load(t, "version", []string{"JOBWIRE_PING_INTERVAL=nonsense", "JOBWIRE_WHAT=1"}, "")
	token := load(t, "token --user u --tenant acme", []string{secrets[0], "JOBWIRE_PING_INTERVAL=nonsense"}, "")
	if cfg := token.Settings.Minting(); len(cfg.Secrets) != 1 || cfg.TenantClaim != "tenant" || token.Args.TTL != time.Hour {
		t.Errorf("%+v %+v", cfg, token.Args)
	}
	emit := load(t, "emit --user u --event e --data {}", []string{secrets[1], "JOBWIRE_ADDR=0.0.0.0:4000"}, "")
	if emit.Args.URL != "http://127.0.0.1:4000" || emit.Args.APIKey != testKey {
		t.Errorf("%+v with key %q", emit.Args, string(emit.Args.APIKey))
	}
	emit = load(t, "emit --user u --event e --data {}", []string{"JOBWIRE_API_KEY=k", "JOBWIRE_URL=https://jobs.example/"}, "")
	if emit.Args.URL != "https://jobs.example" || emit.Args.APIKey != "k" {
		t.Errorf("%+v with key %q", emit.Args, string(emit.Args.APIKey))
	}
}

func TestEmitReadsItsDataFromTheStandardInput(t *testing.T) {
	const data = "{\"jobId\": \"j\"}\n"
	cmd, err := Load(words("emit --user u --event job_failed --data -"), secrets[1:], files{"-": data}.read)
	if err != nil || cmd.Args.Data != data {
		t.Errorf("data %q, error %v", cmd.Args.Data, err)
	}
	for _, tc := range []struct {
		stdin files
		want  string
	}{
		{files{}, "data cannot be read from the standard input"},
		{files{"-": ""}, "data is not valid JSON"},
	} {
		if _, err := Load(words("emit --user u --event e --data -"), secrets[1:], tc.stdin.read); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("error %v, want %q", err, tc.want)
		}
	}
	if _, err := Load(words("token --user u --config -"), nil, files{"-": "jwt-secret: " + testSecret}.read); err != nil {
		t.Error("settings from the standard input:", err)
	}
}

func TestVerifierReadsTheTenantOnlyWhereItDecides(t *testing.T) {
	for audience, want := range map[string]string{"everyone": "", "none": "", "tenant": "org"} {
		s := load(t, "--presence-tenant-claim org --presence-audience "+audience, secrets, "").Settings
		if got := s.Verifier().TenantClaim; got != want {
			t.Errorf("%s: tenant claim %q, want %q", audience, got, want)
		}
	}
}

func TestDevMakesWhatIsMissing(t *testing.T) {
	first, second := load(t, "--dev", nil, ""), load(t, "--dev", nil, "")
	s := first.Settings
	if s.Addr != "127.0.0.1:3000" || s.DataDir != InMemory || !s.Demo {
		t.Errorf("%+v", s)
	}
	if len(s.JWTSecrets) != 1 || len(s.JWTSecrets[0]) < 32 || len(s.APIKeys) != 1 || len(s.APIKeys[0].Secret) < 24 || s.APIKeys[0].Name != "dev" {
		t.Error("no secrets, or weak ones")
	}
	if s.JWTSecrets[0] == second.Settings.JWTSecrets[0] || s.APIKeys[0].Secret == second.Settings.APIKeys[0].Secret {
		t.Error("the secrets are the same at every start")
	}
	if _, err := Load(words("token --user u --dev"), nil, files{}.read); err == nil {
		t.Error("a token was signed with a secret that no server has")
	}
	kept := load(t, "--dev --demo=false --addr [::1]:0 --data-dir d", secrets, "").Settings
	if kept.Demo || kept.Addr != "[::1]:0" || kept.DataDir != "d" || kept.JWTSecrets[0] != testSecret || kept.APIKeys[0].Secret != testKey {
		t.Errorf("what was set was replaced: %+v", kept)
	}
}

func TestHelp(t *testing.T) {
	for line, wants := range map[string][]string{
		"--help": {"Commands", "config check", "Listening", "Presence", "--addr HOST:PORT", "JOBWIRE_ADDR", "(default :3000)", "--retention-bytes SIZE", "(default 4MiB)"},
		"-h":     {"Commands"}, "help": {"Commands"}, "--nonsense --help": {"Commands"}, "help nonsense": {"Commands"},
		"token --help": {"jobwire token", "--user ID", "--ttl", "--jwt-secret"}, "help token": {"jobwire token"},
		"emit -h": {"jobwire emit", "--data JSON", "JOBWIRE_API_KEY"}, "config check --help": {"jobwire config check", "--addr"},
	} {
		_, err := Load(words(line), []string{"JOBWIRE_WHAT=1"}, files{}.read)
		var help *HelpRequest
		if !errors.As(err, &help) {
			t.Errorf("%s: %v", line, err)
			continue
		}
		for _, want := range wants {
			if !strings.Contains(help.Text, want) {
				t.Errorf("%s: no %q in\n%s", line, want, help.Text)
			}
		}
		for l := range strings.SplitSeq(help.Text, "\n") {
			if len([]rune(l)) > 110 || strings.HasSuffix(l, " ") {
				t.Errorf("%s: a line of %d: %q", line, len(l), l)
			}
		}
	}
	_, err := Load(words("token --help"), nil, files{}.read)
	if strings.Contains(err.Error(), "--ping-interval") {
		t.Error("the help of token lists settings that it does not read")
	}
}

// Every setting can be found in --help, under its flag and its variable.
func TestHelpListsEverySetting(t *testing.T) {
	_, err := Load(words("--help"), nil, files{}.read)
	cmd := Command{byKey: map[string]*option{}}
	cmd.addOptions(&cmd.Settings)
	for _, o := range cmd.options {
		if o.key == "" || o.tag.Get("help") == "" || o.group == "" || o.env == "" || o.tag.Get("value") == "" && !o.isBool() {
			t.Errorf("a setting lacks a tag: %+v", o)
		}
		if !strings.Contains(err.Error(), "--"+o.key) || !strings.Contains(err.Error(), o.env) {
			t.Errorf("%s is not in the help", o.key)
		}
	}
}

func TestSecretsAreNeverShown(t *testing.T) {
	env := []string{"JOBWIRE_JWT_SECRET=" + testSecret + "," + strings.ToUpper(testSecret), secrets[1]}
	cmd := load(t, "config check", env, "")
	if dump := cmd.Dump(); strings.Contains(dump, testSecret) || strings.Contains(dump, testKey) || !strings.Contains(dump, "[hidden] (2)") || !strings.Contains(dump, "worker=[hidden]") {
		t.Errorf("dump:\n%s", dump)
	}
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "settings", cmd.Settings)
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "settings", cmd.Settings, "secret", cmd.Settings.JWTSecrets[0])
	if strings.Contains(log.String(), testSecret) || strings.Contains(log.String(), testKey) {
		t.Errorf("log: %s", log.String())
	}
}
