package main_test

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"starling/metadata/metadatatest"
	"starling/metadata/postgres"
)

// askAdmin asks the admin listener at an address; status 0: nobody is there.
func askAdmin(t *testing.T, method, address, path string) (status int, text string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://"+address+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	r.Close = true
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err.Error()
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return 0, err.Error()
	}
	return answer.StatusCode, string(body)
}

// awaitReady asks /readyz until it answers so.
func awaitReady(t *testing.T, address string, status int, text string) {
	t.Helper()
	like := regexp.MustCompile("^(?:" + text + ")$")
	deadline := time.Now().Add(patience)
	for {
		gotStatus, got := askAdmin(t, http.MethodGet, address, "/readyz")
		if gotStatus == status && like.MatchString(got) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("/readyz says %d %q; want %d %q", gotStatus, got, status, text)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// ownPostgres is a PostgreSQL without a schema that a test stops and starts.
type ownPostgres struct {
	t      *testing.T
	config postgres.Config
	server *postgres.Server // nil: it is stopped
	dsn    string           // the same whenever it is started
}

func startPostgres(t *testing.T) *ownPostgres {
	t.Helper()
	needPostgres(t)
	dir := openFolder(t)
	p := &ownPostgres{t: t, config: postgres.Config{Dir: filepath.Join(dir, "data")}}
	p.dsn = "postgres:///postgres?host=" + dir + "&user=" + postgres.Superuser
	p.start()
	t.Cleanup(p.stop)
	return p
}

func (p *ownPostgres) start() {
	p.t.Helper()
	var err error
	if p.server, err = postgres.Start(p.t.Context(), p.config); err != nil {
		p.t.Fatal(err)
	}
	socket := p.server.Socket() // in another folder each time
	link := filepath.Join(filepath.Dir(p.config.Dir), filepath.Base(socket))
	if err := os.RemoveAll(link); err != nil {
		p.t.Fatal(err)
	}
	if err := os.Symlink(socket, link); err != nil {
		p.t.Fatal(err)
	}
}

func (p *ownPostgres) stop() {
	if p.server == nil {
		return
	}
	if err := p.server.Stop(context.WithoutCancel(p.t.Context())); err != nil {
		p.t.Error(err)
	}
	p.server = nil
}

// A node waits for a schema that it can work with, says so, and goes on by itself.
func TestServeWaitsForSchema(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	dsn := startPostgres(t).dsn
	env := append(append([]string{}, c.env...), "STARLING_POSTGRES_DSN="+dsn)
	sql := func(text string) { metadatatest.Exec(t, dsn, text) }
	serve := func() (*program, string) {
		t.Helper()
		p := start(t, invocation{args: []string{"serve"}, env: env})
		text := p.waitFor("the admin listener", func(s string) bool { return addresses(s)["HTTP"] != "" })
		return p, addresses(text)["HTTP"]
	}
	waiting := func(p *program) {
		t.Helper()
		text := p.waitFor("what it waits for", func(s string) bool { return strings.Contains(s, `"dependency":"schema"`) })
		if len(addresses(text)) != 1 || !strings.Contains(text, "starling migrate") && !strings.Contains(text, "newer release") {
			t.Errorf("it waits, and said\n%s", text)
		}
	}
	migrate := func() {
		t.Helper()
		if stdout, stderr, status := run(t, invocation{args: []string{"migrate"}, env: env}); status != 0 || !strings.Contains(stdout, "up to date") {
			t.Fatalf("migrate: status %d, %s%s", status, stdout, stderr)
		}
	}

	// Other commands do not wait.
	if _, stderr, status := run(t, invocation{args: []string{"tenant", "list"}, env: env}); status != 1 || !strings.Contains(stderr, "starling migrate") {
		t.Errorf("without a schema: status %d, %s", status, stderr)
	}
	p, at := serve()
	waiting(p)
	awaitReady(t, at, 503, "schema: schema is too old: .*starling migrate\n(degraded: .*\n)*")
	if status, _ := askAdmin(t, http.MethodGet, at, "/livez"); status != 200 {
		t.Errorf("/livez: %d while it waits", status)
	}
	// It can be stopped while it waits.
	if status := p.stop(syscall.SIGTERM); status != 0 {
		t.Errorf("stopped while it waits: status %d", status)
	}
	p, at = serve()
	waiting(p)
	migrate()
	p.waitFor("listeners", listens)
	awaitReady(t, at, 200, "ok\n(degraded: .*\n)*")
	migrate() // again is well
	if status := p.stop(syscall.SIGINT); status != 0 {
		t.Errorf("status %d", status)
	}

	sql(`update cluster set schema = schema + 100, oldest_reader = schema + 100`)
	p, at = serve()
	waiting(p)
	awaitReady(t, at, 503, "schema: schema is too new: .*\n(degraded: .*\n)*")
	if stdout, stderr, status := run(t, invocation{args: []string{"migrate"}, env: env}); status != 1 || !strings.Contains(stderr, "newer release") {
		t.Errorf("migrate, with the schema of a later release: status %d, %s%s", status, stdout, stderr)
	}
	sql(`update cluster set schema = schema - 100, oldest_reader = 1`)
	p.waitFor("listeners", listens)
	awaitReady(t, at, 200, "ok\n(degraded: .*\n)*")
	if status := p.stop(syscall.SIGTERM); status != 0 {
		t.Errorf("status %d", status)
	}
}

// A node that PostgreSQL is taken from lives on, is ready for a while, and serves
// again by itself.
func TestPostgresGoesAndComes(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	pg := startPostgres(t)
	env := append(append([]string{}, c.env...), "STARLING_POSTGRES_DSN="+pg.dsn)
	for _, args := range [][]string{
		{"migrate"},
		{"tenant", "add", "example"},
		{"domain", "add", "example.org", "--tenant", "example"},
		{"account", "add", testUser},
	} {
		if _, stderr, status := run(t, invocation{args: args, env: env, stdin: testPassword + "\n"}); status != 0 {
			t.Fatalf("%v: status %d, %s", args, status, stderr)
		}
	}
	p := start(t, invocation{args: []string{"serve"}, env: env})
	at := addresses(p.waitFor("listeners", listens))
	awaitReady(t, at["HTTP"], 200, "ok\n(degraded: .*\n)*")
	k := talk(t, at["IMAP"])
	k.hear("* OK")
	k.say("a login " + testUser + ` "` + testPassword + "\"\r\nb select INBOX\r\n")
	k.hear("b OK")

	pg.stop()
	awaitReady(t, at["HTTP"], 200, "ok\ndegraded: postgres: .*\n(degraded: .*\n)*")
	k.say("c status Archive (messages)\r\n")
	if said := k.hear("c NO [UNAVAILABLE]"); strings.Contains(said, "BYE") {
		t.Errorf("it said %q", said)
	}
	if status, text := askAdmin(t, http.MethodGet, at["HTTP"], "/livez"); status != 200 {
		t.Errorf("/livez: %d %s", status, text)
	}
	// After 20 s without, it is not ready.
	awaitReady(t, at["HTTP"], 503, "postgres: .*\n(degraded: .*\n)*")

	pg.start()
	awaitReady(t, at["HTTP"], 200, "ok\n(degraded: .*\n)*")
	k.say("d status Archive (messages)\r\n") // on the connection that was there all the time
	k.hear("d OK")
	if status := p.stop(syscall.SIGTERM); status != 0 {
		t.Errorf("status %d", status)
	}
}

// The view of a node, on the listener that make run names.
func TestNodeShowsItself(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	n := c.nodes[0]
	for _, where := range []string{n.imap, n.imap} {
		k := talk(t, where)
		k.hear("* OK")
		k.say("a login " + testUser + ` "` + testPassword + "\"\r\nb select INBOX\r\nc idle\r\n")
		k.hear("+ ")
	}
	var got struct {
		Hostname string
		Ready    bool
		IMAP     struct{ Sessions map[string]int }
		LMTP     struct{ Sessions int }
		NATS     struct {
			Connected bool
			Peers     int
		}
		Mailstore    struct{ Accounts, Sessions, Mailboxes int }
		Dependencies []struct {
			Name string
			Up   bool
		}
	}
	deadline := time.Now().Add(patience)
	for {
		status, text := askAdmin(t, http.MethodGet, n.admin, "/node")
		if err := json.Unmarshal([]byte(text), &got); status != 200 || err != nil {
			t.Fatalf("%d %v %s", status, err, text)
		}
		if got.IMAP.Sessions["idle"] == 2 && got.NATS.Connected && got.NATS.Peers == 1 && got.Ready &&
			len(got.Dependencies) == 3 && got.Mailstore.Accounts == 1 && got.Mailstore.Sessions == 2 && got.Mailstore.Mailboxes == 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("it says %s", text)
		}
		time.Sleep(10 * time.Millisecond)
	}
	if host, _, err := net.SplitHostPort(n.admin); err != nil || host != "127.0.0.1" {
		t.Errorf("it listens on %s", n.admin)
	}
}
