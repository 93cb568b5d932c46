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
}

// What is wrong with the command line or the settings is status 2; what fails is 1.
func TestCommandLine(t *testing.T) {
	t.Parallel()
	s := &shell{t: t, dsn: "postgres://127.0.0.1:1/none?connect_timeout=1"}
	s.bad(2, "unknown command", "", "fly")
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
