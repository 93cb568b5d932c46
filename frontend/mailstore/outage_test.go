package mailstore

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"starling/metadata"
)

// gate stands between a node and PostgreSQL, and can be shut.
type gate struct {
	dsn, to string
	l       net.Listener
	running sync.WaitGroup

	mu    sync.Mutex
	shut  bool
	conns map[net.Conn]struct{}
	lose  string // the next question with this in it is not let through: both sides lose the connection
	then  func() // before the one who asked knows
}

func newGate(t *testing.T, dsn string) *gate {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil || !filepath.IsAbs(u.Query().Get("host")) {
		t.Skip("PostgreSQL is not on a Unix socket")
	}
	query := u.Query()
	port := query.Get("port")
	if port == "" {
		port = "5432"
	}
	g := &gate{to: filepath.Join(query.Get("host"), ".s.PGSQL."+port), conns: make(map[net.Conn]struct{})}
	dir := t.TempDir()
	query.Set("host", dir)
	u.RawQuery = query.Encode()
	g.dsn = u.String()
	if g.l, err = new(net.ListenConfig).Listen(t.Context(), "unix", filepath.Join(dir, ".s.PGSQL."+port)); err != nil {
		t.Fatal(err)
	}
	g.running.Go(g.serve)
	t.Cleanup(func() {
		_ = g.l.Close()
		g.set(true)
		g.running.Wait()
	})
	return g
}

func (g *gate) serve() {
	for {
		in, err := g.l.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("unix", g.to) //nolint:noctx // of a test
		g.mu.Lock()
		if err != nil || g.shut {
			_ = in.Close()
			if out != nil {
				_ = out.Close()
			}
			g.mu.Unlock()
			continue
		}
		g.conns[in], g.conns[out] = struct{}{}, struct{}{}
		g.mu.Unlock()
		pipe := func(to, from net.Conn) {
			_, _ = io.Copy(to, from)
			_, _ = to.Close(), from.Close()
		}
		g.running.Go(func() { pipe(losing{out, g}, in) })
		g.running.Go(func() { pipe(in, out) })
	}
}

// set shuts the gate, which cuts all connections, or opens it.
func (g *gate) set(shut bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = shut
	for c := range g.conns {
		_ = c.Close()
	}
	clear(g.conns)
}

// losing is the server's side of a connection.
type losing struct {
	net.Conn
	gate *gate
}

func (l losing) Write(p []byte) (int, error) {
	g := l.gate
	g.mu.Lock()
	var then func()
	if g.then != nil && bytes.Contains(p, []byte(g.lose)) {
		then, g.then = g.then, nil
	}
	g.mu.Unlock()
	if then == nil {
		return l.Conn.Write(p)
	}
	then()
	_ = l.Conn.Close()
	return 0, net.ErrClosed
}

// behind is a node that reaches PostgreSQL through the gate.
func (c *cluster) behind(g *gate) *node {
	c.t.Helper()
	return c.node(func(cfg *Config) {
		db, err := metadata.Open(c.t.Context(), metadata.Config{
			DSN: g.dsn, AcquireTimeout: 500 * time.Millisecond, MinBackoff: time.Millisecond, MaxBackoff: 10 * time.Millisecond,
		})
		if err != nil {
			c.t.Fatal(err)
		}
		c.t.Cleanup(db.Close)
		cfg.DB, cfg.Sweep = db, 20*time.Millisecond
	})
}

// works waits until an operation has its place in the world again.
func works(t *testing.T, what string, do func() error) {
	t.Helper()
	var err error
	for until := time.Now().Add(patience); time.Now().Before(until); {
		if err = do(); err == nil {
			return
		}
	}
	t.Fatalf("%s: %v", what, err)
}

// While PostgreSQL is away, everything that needs it says so, sessions stay, and
// work resumes by itself.
func TestPostgreSQLAway(t *testing.T) {
	t.Parallel()
	c := newCluster(t, metadata.Quota{})
	g := newGate(t, c.dsn)
	x, y := c.behind(g), c.still()
	for i := range 3 {
		c.append(x, Inbox, mail(fmt.Sprint(i)))
	}
	mine := c.enter(x, Inbox)
	g.set(true)
	operations := map[string]func() error{
		"refresh": func() error { _, err := mine.Refresh(t.Context()); return err },
		"store": func() error {
			_, err := mine.Store(t.Context(), StoreFlags{View: mine.Snapshot(), UIDs: one(1), Mode: AddFlags, Flags: flagSet("seen")})
			return err
		},
		"expunge": func() error {
			_, err := mine.Expunge(t.Context(), mine.Snapshot(), nil)
			return err
		},
		"copy": func() error {
			_, err := mine.Copy(t.Context(), CopyArgs{View: mine.Snapshot(), UIDs: one(2), Dest: Inbox})
			return err
		},
		"append": func() error {
			_, err := upload(t.Context(), x.Account, Incoming{Mailbox: Inbox}, mail("x"), nil)
			return err
		},
		"open": func() error {
			m, err := x.Open(t.Context(), "Archive", func() {})
			if err == nil {
				m.Close()
			}
			return err
		},
		"recipient": func() error {
			a, _, err := x.Recipient(t.Context(), c.account.Name)
			if err == nil {
				a.Close()
			}
			return err
		},
	}
	done, err := mine.Store(t.Context(), StoreFlags{View: mine.Snapshot(), UIDs: one(1), Mode: AddFlags, Flags: flagSet("seen")})
	if err == nil || done.After != nil || done.Changed != nil {
		t.Errorf("a store that failed returned %+v, %v", done, err)
	}
	for what, do := range operations {
		if err := do(); !errors.Is(err, metadata.ErrUnavailable) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if mine.Snapshot().Len() != 3 || mine.Gone() {
		t.Error("what the node held is lost")
	}
	if s := c.check(Inbox); s.Len() != 3 || s.row.ModSeq != 4 {
		t.Errorf("what failed has changed the mailbox: %+v", s.row)
	}
	c.append(y, Inbox, mail("meanwhile")) // without a hint that could be followed up
	g.set(false)
	mine.await("what happened meanwhile", func() bool { return mine.Snapshot().Len() == 4 })
	for what, do := range operations {
		works(t, what, do)
	}
	same(t, mine.refresh(), c.check(Inbox))
}

// Connections that are cut at any moment lose nothing that was acknowledged, and
// nothing is there twice.
func TestConnectionsCut(t *testing.T) {
	t.Parallel()
	c := newCluster(t, metadata.Quota{})
	g := newGate(t, c.dsn)
	x := c.behind(g)
	c.enter(x, Inbox)
	var mu sync.Mutex
	var acknowledged []uint32
	refused := 0
	var running sync.WaitGroup
	for i := range 4 {
		running.Go(func() {
			for j := range 60 {
				done, err := upload(t.Context(), x.Account, Incoming{Mailbox: Inbox}, mail(fmt.Sprint(i, ".", j)), nil)
				mu.Lock()
				switch {
				case err == nil:
					acknowledged = append(acknowledged, done.UID)
				case errors.Is(err, metadata.ErrUnavailable):
					refused++
				default:
					t.Error(err)
				}
				enough := len(acknowledged) % 20
				mu.Unlock()
				if enough == 0 {
					g.set(false) // cuts all, and goes on
				}
			}
		})
	}
	running.Wait()
	slices.Sort(acknowledged)
	if len(slices.Compact(slices.Clone(acknowledged))) != len(acknowledged) {
		t.Error("a UID was given twice")
	}
	s := c.check(Inbox)
	for _, uid := range acknowledged {
		if !s.Slot(uid).Live() {
			t.Errorf("acknowledged message %d is not there", uid)
		}
	}
	if s.Len() < len(acknowledged) || s.Len() > len(acknowledged)+refused {
		t.Errorf("%d messages; %d were acknowledged, %d refused", s.Len(), len(acknowledged), refused)
	}
	t.Logf("%d acknowledged, %d refused, %d there", len(acknowledged), refused, s.Len())
}
