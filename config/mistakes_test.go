package config

import (
	"fmt"
	"strings"
	"testing"
)

// mistakes are the lines of a failed Load.
func mistakes(t *testing.T, args []string, environ []string, file string) []string {
	t.Helper()
	cmd, err := Load(args, environ, files{"jobwire.yaml": file}.read)
	problems, ok := err.(interface{ Unwrap() []error })
	if !ok {
		t.Fatalf("%q: %+v, %v", args, cmd, err)
	}
	var lines []string
	for _, err := range problems.Unwrap() {
		lines = append(lines, err.Error())
	}
	if want := strings.Join(lines, "\n"); err.Error() != want {
		t.Errorf("the message is not that of its parts: %v", err)
	}
	return lines
}

func TestEveryMistakeIsNamedAtOnce(t *testing.T) {
	lines := mistakes(t,
		words("--adr :1 --ping-timeout 1ms --origins https://a.example/path --token x serve"),
		[]string{"JOBWIRE_JWT_SECRET=short-secret-value", "JOBWIRE_COALESCE=never", "JOBWIRE_MAX_BACH=3", "JOBWIRE_CONFIG=jobwire.yaml", "HOME=/"},
		"drain: 11m\nlog-format: xml\nlog_level: debug\npresence-audience: tennant\n")
	for i, wants := range [][]string{
		{"there is no flag --adr", "did you mean --addr?"},
		{"there is no flag --token"},
		{"JOBWIRE_MAX_BACH", "did you mean JOBWIRE_MAX_BATCH?"},
		{`"log_level"`, "did you mean log-level?", "file jobwire.yaml, line 3"},
		{"jwt-secret", "18 bytes", "at least 32", "environment JOBWIRE_JWT_SECRET"},
		{"coalesce", `"never"`, "500ms", "environment JOBWIRE_COALESCE"},
		{"drain", "11m", "1s to 10m", "file jobwire.yaml, line 1"},
		{"presence-audience", `"tennant"`, "everyone, tenant, none", "line 4"},
		{"ping-timeout", "1ms", "100ms to 10m", "flag --ping-timeout"},
		{"log-format", `"xml"`, "text, json", "line 2"},
		{"origins", "https://a.example/path", "flag --origins"},
		{"api-keys", "missing", "--api-keys, JOBWIRE_API_KEYS"},
	} {
		if i >= len(lines) {
			t.Fatalf("only %d of the mistakes:\n%s", len(lines), strings.Join(lines, "\n"))
		}
		for _, want := range wants {
			if !strings.Contains(lines[i], want) {
				t.Errorf("mistake %d: no %q in: %s", i, want, lines[i])
			}
		}
		if strings.Contains(lines[i], "short-secret-value") {
			t.Errorf("shows a secret: %s", lines[i])
		}
	}
	if len(lines) != 12 {
		t.Errorf("%d mistakes:\n%s", len(lines), strings.Join(lines, "\n"))
	}
}

func TestSingleMistakes(t *testing.T) {
	for _, tc := range []struct {
		args string
		want string
	}{
		{"srve", `there is no command "srve"; did you mean serve?`},
		{"config chek", `did you mean config check?`},
		{"serve now", `there is no command "serve now"`},
		{"-addr :1", "there is no flag -addr; did you mean --addr?"},
		{"--secret abc", "did you mean --jwt-secret?"},
		{"--addr", "addr needs a value"},
		{"--addr --demo", "addr needs a value"},
		{"--demo=maybe", "neither true nor false"},
		{"--user u", "--user is a flag of the command emit and token"},
		{"token --user u --event e", "--event is a flag of the command emit"},
		{"--addr 3000", "write it like :3000"},
		{"--addr :70000", "write it like :3000"},
		{"--addr :http", "write it like :3000"},
		{"--addr=", "write it like :3000"},
		{"--dev --addr :3000", "--dev"},
		{"--dev --addr 0.0.0.0:3000", "--dev"},
		{"--dev --addr 192.0.2.1:3000", "use 127.0.0.1:3000"},
		{"--dev --addr example.com:3000", "--dev"},
		{"--origins *,https://a.example", "* beside others"},
		{"--origins null", "write it like https://app.example.com"},
		{"--origins app.example.com", "write it like https://app.example.com"},
		{"--origins localhost:3000", "write it like"},
		{"--origins https://*.example.com", "name every origin"},
		{"--origins https://a.example/", "ends after host and port"},
		{"--origins https://u@a.example", "ends after host and port"},
		{"--trusted-proxies 10.0.0.0/33", "neither an address nor a network"},
		{"--trusted-proxies proxy.local", "neither an address nor a network"},
		{"--trusted-proxies ::ffff:10.0.0.0/95", "more than the IPv4 addresses"},
		{"--jwt-secret=", "jwt-secret is too weak"},
		{"--jwt-secret " + testSecret + ",short", "secret 2 has 5 bytes"},
		{"--jwt-user-claim=", "jwt-user-claim is empty"},
		{"--jwt-user-claim exp", "already has a meaning"},
		{"--jwt-user-claim tenant", "the claim with the user id"},
		{"--api-keys worker=short", `key "worker" has 5 bytes, want at least 24`},
		{"--api-keys a=x,b=y", `key "a" has 1 bytes, want at least 24; key "b" has 1 bytes`},
		{"--api-keys " + testKey, "part 1 is not name=key"},
		{"--api-keys worker=" + testKey + "ä", `key "worker" has characters`},
		{"--data-dir=", "data-dir is empty"},
		{"--drain 0s", "want 1s to 10m"}, // no shutdown could be clean
		{"--drain 999ms", "want 1s to 10m"},
		{"--retention 90d", "not a duration"},
		{"--retention 0s", "want 1s to 8760h"},
		{"--retention-bytes 1KiB", "less than one event may have"},
		{"--max-event-bytes 8MiB --retention-bytes 8MiB --retention-jobs-bytes 16MiB --max-batch-bytes 8MiB", "max-queue is 4MiB"},
		{"--retention-jobs 0", "want 1 to 1000000"},
		{"--retention-jobs-bytes 64KiB", "less than a job's progress and its end may have; raise it, or lower max-event-bytes (64KiB)"},
		{"--max-store-bytes 1MiB", "less than one user may fill"},
		{"--max-store-bytes=-1", "not a size"},
		{"--max-queue 8KiB --max-event-bytes 4KiB", "want 1MiB to 1GiB"},
		{"--max-event-bytes 64Kib", "not a size"},
		{"--max-event-bytes -1", "not a size"},
		{"--max-event-bytes 99999999999GiB", "not a size"},
		{"--max-batch 1e3", "not a whole number"},
		{"--max-batch 0", "want 1 to 100000"},
		{"--handshake-rate -1", "want 0 to"},
		{"--log-level loud", "debug, info, warn, error"},
		{"--config nowhere.yaml", "config cannot be read"},
		{"token", "user is no user id"},
		{"token --user u --ttl 0s", "want 1s to 87600h"},
		{"emit --user u --event connect --data 1", "reserved by Socket.IO"},
		{"emit --user u --event e --data {", "data is not valid JSON"},
		{"emit --user u --event e --data 1 --url ftp://x", "not a URL"},
	} {
		environ := secrets
		if strings.HasPrefix(tc.args, "--api-keys") {
			environ = secrets[:1]
		}
		lines := mistakes(t, words(tc.args), environ, "")
		if len(lines) != 1 || !strings.Contains(lines[0], tc.want) {
			t.Errorf("%s:\n got %q\nwant %q", tc.args, lines, tc.want)
		}
	}
}

func TestMistakesInTheFile(t *testing.T) {
	for _, tc := range []struct{ behaviour, file, want string }{
		{"an unknown key", "\n\npingInterval: 1s", `there is no setting "pingInterval"; did you mean ping-interval? (file jobwire.yaml, line 3)`},
		{"a key of a command", "user: u", `there is no setting "user"`},
		{"another file", "config: other.yaml", "cannot name another file"},
		{"a list at the top", "- a", "must be a YAML mapping"},
		{"a text at the top", "ping-interval", "must be a YAML mapping"},
		{"two documents", "drain: 1s\n---\ndrain: 2s", "single YAML document"},
		{"a key twice", "drain: 1s\ndrain: 2s", "not valid YAML at line 2"},
		{"broken YAML", "drain: [1s\njwt-secret: " + testSecret, "not valid YAML"},
		{"a list in a list", "origins: [[a]]", "line 1"},
		{"a comma inside an element", "origins: ['a,b']", "line 1"},
		{"a list where one value belongs", "drain: [1s, 2s]", "drain"},
		{"an anchor", "drain: &x 1s", "line 1"},
		{"an alias", "drain: 1s\nping-timeout: *x", "line 2"},
	} {
		lines := mistakes(t, words("--config jobwire.yaml"), secrets, tc.file)
		if len(lines) != 1 || !strings.Contains(lines[0], tc.want) {
			t.Errorf("%s:\n got %q\nwant %q", tc.behaviour, lines, tc.want)
		}
		if strings.Contains(strings.Join(lines, ""), testSecret) {
			t.Errorf("%s: shows a secret", tc.behaviour)
		}
	}
}

// A value that cannot be read hides no other mistake.
func TestEveryMistakeInTheFileIsNamedAtOnce(t *testing.T) {
	lines := mistakes(t, words("--config jobwire.yaml"), secrets, "drain: &x 1s\nping-timeout: *x\norigins: [[a]]\nlog-format: !!str xml\nmax-batch: 0\n")
	for i, key := range []string{"drain", "ping-timeout", "origins", "log-format", "max-batch"} {
		if i >= len(lines) || !strings.HasPrefix(lines[i], key+" ") || !strings.Contains(lines[i], fmt.Sprint("line ", i+1)) {
			t.Errorf("%s, line %d, is missing in:\n%s", key, i+1, strings.Join(lines, "\n"))
		}
	}
}

func TestAnEmptyFileSetsNothing(t *testing.T) {
	for _, file := range []string{"", "\n", "# comments only\n", "---\n", "drain:\n", "drain: null\n"} {
		if s := load(t, "--config jobwire.yaml", secrets, file).Settings; s.Drain.String() != "10s" {
			t.Errorf("%q: drain %v", file, s.Drain)
		}
	}
}

func TestVariablesOfAnOrchestratorAreNotMistakes(t *testing.T) {
	load(t, "", append([]string{
		"JOBWIRE_SERVICE_HOST=10.0.0.1", "JOBWIRE_SERVICE_PORT=3000", "JOBWIRE_SERVICE_PORT_HTTP=3000", "JOBWIRE_PORT=tcp://10.0.0.1:3000",
		"JOBWIRE_PORT_3000_TCP=tcp://10.0.0.1:3000", "JOBWIRE_PORT_3000_TCP_PROTO=tcp", "JOBWIRE_PORT_3000_TCP_ADDR=10.0.0.1", "JOBWIRE_WEB_PORT=tcp://10.0.0.1:80",
	}, secrets...), "")
	if lines := mistakes(t, nil, append([]string{"JOBWIRE_PORT=3000"}, secrets...), ""); len(lines) != 1 || !strings.Contains(lines[0], "JOBWIRE_PORT") {
		t.Errorf("JOBWIRE_PORT=3000 is a mistake: %q", lines)
	}
}

func FuzzFile(f *testing.F) {
	for _, file := range []string{"drain: 1s", "api-keys: {a: b}", "origins:\n - a\n - b", "a: &x [1]\nb: *x", "? x", "- -", "{", "!!int a: b", "a: |\n x"} {
		f.Add(file)
	}
	f.Fuzz(func(t *testing.T, file string) {
		_, err := Load(words("--config jobwire.yaml"), secrets, files{"jobwire.yaml": file}.read)
		if err != nil && strings.Contains(err.Error(), testSecret) {
			t.Error("shows a secret")
		}
	})
}
