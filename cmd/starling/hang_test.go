package main_test

import (
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"starling/chaos"
)

// hole is a proxy before the PostgreSQL of a cluster, and the setting that leads a node to it.
func (c *cluster) hole() (proxy *chaos.Proxy, env string) {
	c.t.Helper()
	i := slices.IndexFunc(c.env, func(s string) bool { return strings.HasPrefix(s, "STARLING_POSTGRES_DSN=") })
	dsn, err := url.Parse(strings.TrimPrefix(c.env[i], "STARLING_POSTGRES_DSN="))
	if err != nil || !filepath.IsAbs(dsn.Query().Get("host")) {
		c.t.Skip("PostgreSQL is not on a Unix socket")
	}
	query := dsn.Query()
	port := query.Get("port")
	if port == "" {
		port = "5432"
	}
	if proxy, err = chaos.NewProxy(); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(proxy.Close)
	proxy.Backend("unix", filepath.Join(query.Get("host"), ".s.PGSQL."+port))
	user := query.Get("user")
	if user == "" {
		user = dsn.User.Username()
	}
	query.Del("host")
	query.Del("port")
	query.Del("user")
	query.Set("sslmode", "disable")
	through := url.URL{Scheme: "postgres", User: url.User(user), Host: proxy.Addr(), Path: dsn.Path, RawQuery: query.Encode()}
	return proxy, "STARLING_POSTGRES_DSN=" + through.String()
}

// A PostgreSQL that takes connections and never answers, on those that there are neither, has
// few wait and nobody for ever: commands end with NO [UNAVAILABLE], deliveries with 451, and
// most of them at once. Connections stay, IDLE too, and all goes on by itself.
func TestPostgresHangs(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	proxy, dsn := c.hole()
	c.env = append(c.env, dsn, "STARLING_IMAP_KEEP_ALIVE=1s")
	n := c.serve()
	c.deliver(0, testUser, numberedMail(1))
	idle := patientTalk(t, n.imap)
	idle.say("c idle\r\n")
	idle.hear("+ ")
	// One of each does what may be in doubt, or waits for its turn; the others read.
	commands := []string{
		"store 1 +flags (\\Seen)", "append INBOX {5+}\r\nhello", "create New", "noop", "status Archive (messages)", "select Archive", "fetch 1 envelope", `list "" *`,
	}
	clients := make([]*talker, 8*len(commands))
	for i := range clients {
		clients[i] = patientTalk(t, n.imap)
	}
	doubtful := patientTalk(t, n.imap)
	mta := talk(t, n.lmtp)
	if err := mta.conn.SetDeadline(time.Now().Add(5 * patience)); err != nil {
		t.Fatal(err)
	}
	mta.hear("220")
	mta.say("LHLO mta.example.org\r\nMAIL FROM:<sender@example.org>\r\n")
	mta.hear("250 2.0.0")

	proxy.Set(chaos.Up, chaos.Toxic{Hole: true})
	proxy.Set(chaos.Down, chaos.Toxic{Hole: true})
	doubtful.say("c store 1 +flags (\\Flagged)\r\n")
	until(t, "a commit is under way", func() bool { // before all that might take its connection
		return figure(scrape(t, n), "starling_postgres_connections", "used") > 0
	})
	all := func(tag, want string) {
		t.Helper()
		var running sync.WaitGroup
		var longest atomic.Int64
		began := time.Now()
		for i, k := range clients {
			running.Go(func() {
				if _, err := fmt.Fprintf(k.conn, "%s %s\r\n", tag, commands[i%len(commands)]); err != nil {
					t.Error(err)
					return
				}
				if said, err := k.answer(tag); err != nil || !strings.HasPrefix(said, want) {
					t.Errorf("%s: %q, %v; want %q", commands[i%len(commands)], said, err, want)
				}
				longest.Store(max(longest.Load(), int64(time.Since(began))))
			})
		}
		running.Wait()
		t.Logf("%s: all answered after %v", tag, time.Duration(longest.Load()))
	}
	all("d", "d NO [UNAVAILABLE]")
	all("e", "e NO [UNAVAILABLE]")
	if said := doubtful.hear("c NO"); !strings.Contains(said, "c NO [UNAVAILABLE]") {
		t.Errorf("a commit of which nobody knows what became: %q", said)
	}
	idle.hear("* OK Still here")
	mta.say("RCPT TO:<" + testUser + ">\r\n")
	mta.hear("451 4.3.0")
	awaitReady(t, n.admin, 503, "postgres: .*\n(degraded: .*\n)*")
	if status, text := askAdmin(t, http.MethodGet, n.admin, "/livez"); status != http.StatusOK {
		t.Errorf("/livez: %d %s", status, text)
	}
	figures := scrape(t, n)
	if away := figure(figures, "starling_postgres_shed_total", "away"); away < float64(len(clients))/2 {
		t.Errorf("%v calls were turned away at once", away)
	}
	if figure(figures, "starling_dependency_up", "postgres") != 0 || figure(figures, "starling_postgres_errors_total", "timeout") == 0 {
		t.Error("the figures tell of no trouble")
	}
	if figure(figures, "starling_postgres_in_doubt_total", "unknown") == 0 {
		t.Error("no commit was in doubt")
	}

	proxy.Heal()
	awaitReady(t, n.admin, 200, "ok\n(degraded: .*\n)*")
	until(t, "a recipient is taken again", func() bool { // others may be trying to connect still
		mta.say("RCPT TO:<" + testUser + ">\r\n")
		line, err := mta.r.ReadString('\n')
		return err == nil && strings.HasPrefix(line, "250")
	})
	mta.say("RSET\r\n")
	mta.hear("250")
	commands = []string{"noop", "select INBOX"}
	all("f", "f OK")
	c.deliver(0, testUser, numberedMail(2))
	idle.hear("* 2 EXISTS")
	if status := n.stop(syscall.SIGTERM); status != 0 {
		t.Errorf("status %d", status)
	}
	if said := n.output.String(); strings.Contains(said, `"level":"error"`) {
		t.Errorf("the node said:\n%s", said)
	}
}

// patientTalk is a connection with INBOX selected, on which a test waits longer than usual.
func patientTalk(t *testing.T, address string) *talker {
	t.Helper()
	k := talk(t, address)
	if err := k.conn.SetDeadline(time.Now().Add(5 * patience)); err != nil {
		t.Fatal(err)
	}
	k.hear("* OK")
	k.say(fmt.Sprintf("a login %s %q\r\nb select INBOX\r\n", testUser, testPassword))
	k.hear("b OK")
	return k
}

// answer reads up to the answer to a tag, or a BYE, on any goroutine.
func (k *talker) answer(tag string) (string, error) {
	for {
		line, err := k.r.ReadString('\n')
		if err != nil || strings.HasPrefix(line, tag+" ") || strings.HasPrefix(line, "* BYE") {
			return line, err
		}
	}
}

// A node ends a moment after its grace, whatever PostgreSQL does: what waits for an answer is given up, and nobody is told
// that it happened.
func TestPostgresHangsAtTheEnd(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	proxy, dsn := c.hole()
	c.env = append(c.env, dsn, "STARLING_SHUTDOWN_GRACE=1s", "STARLING_SHUTDOWN_DELAY=0s")
	n := c.serve()
	c.deliver(0, testUser, numberedMail(1))
	writes, reads := patientTalk(t, n.imap), patientTalk(t, n.imap)
	proxy.Set(chaos.Up, chaos.Toxic{Hole: true})
	proxy.Set(chaos.Down, chaos.Toxic{Hole: true})
	for _, k := range []struct {
		*talker
		command, shows string
	}{
		{writes, "store 1 +flags (\\Seen)", "starling_postgres_acquires_total"},
		{reads, "noop", "starling_imap_received_bytes_total"}, // it may wait for an answer that another waits for
	} {
		before := figure(scrape(t, n), k.shows)
		k.say("c " + k.command + "\r\n")
		until(t, k.command+" is under way", func() bool { return figure(scrape(t, n), k.shows) > before })
	}
	began := time.Now()
	if status := n.stop(syscall.SIGTERM); status > 1 { // 1: commands were cut off
		t.Errorf("status %d", status)
	}
	if took := time.Since(began); took > 12*time.Second { // its own timeouts take 20 s and more
		t.Errorf("it ended after %v", took)
	}
	for _, k := range []*talker{writes, reads} {
		if said, err := k.answer("c"); err == nil && !strings.HasPrefix(said, "c NO") && !strings.HasPrefix(said, "* BYE") {
			t.Errorf("told %q", said)
		}
	}
	proxy.Heal()
	if said := n.output.String(); strings.Contains(said, `"level":"error"`) {
		t.Errorf("the node said:\n%s", said)
	}
}
