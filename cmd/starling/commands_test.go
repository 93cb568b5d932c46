package main_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"starling/frontend/auth"
	"starling/metadata"
	"starling/metadata/metadatatest"
)

// shell runs commands of the program on a database of its own.
type shell struct {
	t   *testing.T
	dsn string
}

func newShell(t *testing.T) *shell { return &shell{t: t, dsn: metadatatest.DSN(t)} }

func (s *shell) run(stdin string, args ...string) (stdout, stderr string, status int) {
	s.t.Helper()
	return run(s.t, invocation{args: args, stdin: stdin, env: []string{"STARLING_POSTGRES_DSN=" + s.dsn}})
}

// good runs a command that has to succeed, and returns its output.
func (s *shell) good(stdin string, args ...string) string {
	s.t.Helper()
	stdout, stderr, status := s.run(stdin, args...)
	if status != 0 || stderr != "" {
		s.t.Fatalf("%v: status %d\n%s%s", args, status, stdout, stderr)
	}
	return stdout
}

// says runs a command and compares its output.
func (s *shell) says(want, stdin string, args ...string) {
	s.t.Helper()
	if got := s.good(stdin, args...); got != want {
		s.t.Errorf("%v says %q, want %q", args, got, want)
	}
}

// bad runs a command that has to fail with a status and an error.
func (s *shell) bad(status int, want, stdin string, args ...string) {
	s.t.Helper()
	stdout, stderr, got := s.run(stdin, args...)
	if got != status || !strings.Contains(stderr, want) || !strings.HasPrefix(stderr, "starling: ") {
		s.t.Errorf("%v: status %d, want %d and %q\n%s%s", args, got, status, want, stdout, stderr)
	}
}

func (s *shell) open() *metadata.DB {
	s.t.Helper()
	db, err := metadata.Open(s.t.Context(), metadata.Config{DSN: s.dsn})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(db.Close)
	return db
}

func TestTenantsAndDomains(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	s.good("", "migrate")
	s.says("", "", "tenant", "list")
	s.says("tenant acme added\n", "", "tenant", "add", "acme")
	s.good("", "tenant", "add", "other")
	s.bad(1, "already exists", "", "tenant", "add", "acme")
	s.says("acme\nother\n", "", "tenant", "list")
	s.says("domain acme.example of tenant acme added\n", "", "domain", "add", "acme.example", "--tenant", "acme")
	s.good("", "domain", "add", "other.example", "--tenant", "other")
	s.bad(1, "already exists", "", "domain", "add", "acme.example", "--tenant", "other")
	s.bad(1, "not found", "", "domain", "add", "new.example", "--tenant", "nobody")
	s.bad(2, "tenant", "", "domain", "add", "new.example")
	s.says("acme.example\tacme\nother.example\tother\n", "", "domain", "list")
	s.says("other.example\tother\n", "", "domain", "list", "--tenant", "other")
	s.bad(1, "has domains", "", "tenant", "delete", "acme") // it has a domain
	s.good("x\n", "account", "add", "ann@other.example")
	s.bad(1, "domain other.example has accounts", "", "domain", "delete", "other.example")
	for _, name := range []string{"", "a\nb", " a", "\xff"} {
		s.bad(1, "not a possible name", "", "tenant", "add", name)
		s.bad(1, "not a possible name", "", "domain", "add", name, "--tenant", "acme")
	}
	for _, name := range []string{"a b.example", "a@b.example", "a..example", "example."} {
		s.bad(1, "not a possible name", "", "domain", "add", name, "--tenant", "acme")
	}
	s.says("acme\nother\n", "", "tenant", "list")
	s.good("", "domain", "delete", "acme.example")
	s.bad(1, "not found", "", "domain", "delete", "acme.example")
	s.good("", "tenant", "delete", "acme")
	s.says("other\n", "", "tenant", "list")
}

func TestAccounts(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	s.good("", "tenant", "add", "acme")
	s.good("", "domain", "add", "acme.example", "--tenant", "acme")
	const ann = "ann@acme.example"
	s.says("account ann@acme.example added\n", "secret one\n", "account", "add", "Ann@Acme.Example", "--quota-bytes", "10M", "--quota-messages", "5")
	s.bad(1, "already exists", "x\n", "account", "add", ann)
	s.bad(1, "not found", "x\n", "account", "add", "ann@nowhere.example")
	for _, name := range []string{"", "acme.example", "@acme.example", "ann\n@acme.example"} {
		s.bad(1, "not a possible name", "x\n", "account", "add", name)
		s.bad(1, "not a possible name", "", "account", "alias", "add", ann, name)
	}
	s.bad(2, "no password was given", "", "account", "add", "bea@acme.example")
	s.bad(2, "is not a size", "x\n", "account", "add", "bea@acme.example", "--quota-bytes", "lots")
	s.bad(2, "negative", "x\n", "account", "add", "bea@acme.example", "--quota-messages", "-1")
	s.bad(2, "--hash", "", "account", "add", "bea@acme.example", "--hash", "{NOSUCH}x")
	hash, err := auth.Hash("secret two")
	if err != nil {
		t.Fatal(err)
	}
	s.good("", "account", "add", "bea@acme.example", "--hash", hash)
	s.says("ann@acme.example\tactive\t0/10485760 bytes\t0/5 messages\nbea@acme.example\tactive\t0 bytes\t0 messages\n",
		"", "account", "list")
	s.says("", "", "account", "list", "--domain", "other.example")

	db := s.open()
	login := func(name string) metadata.Login {
		t.Helper()
		l, err := db.Login(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	password := func(name, want string) {
		t.Helper()
		if ok, err := auth.Verify(login(name).PasswordHash, want); err != nil || !ok {
			t.Errorf("%s: password %q: %v, %v", name, want, ok, err)
		}
	}
	password(ann, "secret one")
	password("bea@acme.example", "secret two")
	list, err := db.List(t.Context(), login(ann).Account.ID)
	if err != nil || len(list.Mailboxes) < 5 {
		t.Errorf("mailboxes %+v, %v", list.Mailboxes, err)
	}

	s.good("secret three\r\n", "account", "passwd", ann)
	password(ann, "secret three")
	s.bad(1, "not found", "x\n", "account", "passwd", "nobody@acme.example")
	s.bad(2, "no password was given", "\n", "account", "passwd", ann)

	s.good("", "account", "quota", ann, "--quota-bytes", "1G")
	if got := login(ann).Account.Limits; got != (metadata.Quota{Bytes: 1 << 30, Messages: 5}) {
		t.Errorf("limits %+v", got)
	}
	s.bad(2, "--quota-bytes, --quota-messages or both", "", "account", "quota", ann)
	s.good("", "account", "quota", ann, "--quota-messages", "0")
	if got := login(ann).Account.Limits; got != (metadata.Quota{Bytes: 1 << 30}) {
		t.Errorf("limits %+v", got)
	}
	s.good("", "account", "suspend", ann)
	if got := login(ann).Account.State; got != metadata.Suspended {
		t.Errorf("state %v", got)
	}
	s.good("", "account", "resume", ann)
	if got := login(ann).Account.State; got != metadata.Active {
		t.Errorf("state %v", got)
	}
	s.bad(1, "not found", "", "account", "suspend", "nobody@acme.example")
	testAliases(s, ann)

	s.bad(2, "--yes", "", "account", "delete", ann)
	s.good("", "account", "delete", ann, "--yes")
	if out := s.good("", "account", "list"); strings.Contains(out, "ann@acme.example\tactive") {
		t.Errorf("a deleted account is listed: %q", out)
	}
}

func testAliases(s *shell, ann string) {
	s.t.Helper()
	s.good("", "account", "alias", "add", ann, "info@acme.example")
	s.good("", "account", "alias", "add", ann, "sales@acme.example")
	s.bad(1, "already exists", "", "account", "alias", "add", "bea@acme.example", "info@acme.example")
	s.says("info@acme.example\nsales@acme.example\n", "", "account", "alias", "list", ann)
	s.good("", "account", "alias", "remove", ann, "info@acme.example")
	s.bad(1, "not found", "", "account", "alias", "remove", ann, "info@acme.example")
	s.says("sales@acme.example\n", "", "account", "alias", "list", ann)
	s.bad(1, "not found", "", "account", "alias", "list", "nobody@acme.example")
}

// What is wrong with the command line or the settings is status 2; what fails is 1.
func TestCommandLine(t *testing.T) {
	t.Parallel()
	s := &shell{t: t, dsn: "postgres://127.0.0.1:1/none?connect_timeout=1"}
	s.bad(2, "unknown command", "", "fly")
	for _, group := range [][]string{{"account"}, {"account", "alias"}, {"domain"}, {"tenant"}, {"epoch"}} {
		s.bad(2, "unknown command", "", append(group, "fly")...)
	}
	if out := s.good("", "account"); !strings.Contains(out, "passwd") {
		t.Errorf("account alone says %q", out)
	}
	s.bad(2, "unknown flag", "", "serve", "--fly")
	s.bad(2, "", "", "tenant", "add")
	s.bad(2, "nats.urls: is not set", "", "serve")
	s.bad(1, "postgres", "", "tenant", "list")
	s.bad(2, "no such file", "", "serve", "-c", filepath.Join(t.TempDir(), "none"))
	if out := s.good("", "version"); !strings.HasPrefix(out, "starling ") {
		t.Errorf("version says %q", out)
	}
	if out := s.good("", "--help"); !strings.Contains(out, "serve") || !strings.Contains(out, "dev") {
		t.Errorf("help says %q", out)
	}
	if out := s.good("", "config"); !strings.Contains(out, "\nimap:\n") {
		t.Errorf("config says %q", out)
	}
}

// A configuration file stands in for the environment.
func TestConfigFlag(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	file := filepath.Join(t.TempDir(), "starling.yaml")
	if err := os.WriteFile(file, []byte("postgres:\n  dsn: "+s.dsn+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	stdout, stderr, status := run(t, invocation{args: []string{"-c", file, "tenant", "add", "filed"}})
	if status != 0 {
		t.Fatalf("status %d: %s%s", status, stdout, stderr)
	}
	s.says("filed\n", "", "tenant", "list")
}

// A command that works on what is kept refuses the settings that a node refuses: on another store, or with another
// idea of what an orphan is, it would do harm.
func TestCommandsLookAtSettings(t *testing.T) {
	t.Parallel()
	for setting, want := range map[string]string{
		"STARLING_BLOBS_DISK=/var/mail":     "blobs.disk: is set beside blobs.s3",
		"STARLING_MAIL_ORPHAN_GRACE=1s":     "mail.orphan_grace: is 1s",
		"STARLING_MAIL_RETENTION=-1h":       "mail.retention: is -1h",
		"STARLING_NATS_URLS=localhost":      "nats.urls: ",
		"STARLING_POSTGRES_MAX_CONNS=99999": "postgres.max_conns: is 99999",
	} {
		for _, command := range [][]string{{"gc"}, {"check"}, {"rebuild", "--list"}, {"undelete", "ann@acme.example"}, {"account", "show", "ann@acme.example"}} {
			_, stderr, status := run(t, invocation{args: command, env: []string{
				"STARLING_POSTGRES_DSN=postgres://127.0.0.1:1/none", "STARLING_BLOBS_S3_ENDPOINT=http://127.0.0.1:1", "STARLING_BLOBS_S3_BUCKET=mail", setting,
			}})
			if status != 2 || !strings.Contains(stderr, want) {
				t.Errorf("%v with %s: status %d, %q; want 2, %q", command, setting, status, stderr, want)
			}
		}
	}
}
