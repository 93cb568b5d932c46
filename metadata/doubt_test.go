package metadata_test

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"starling/metadata"
	"starling/metadata/metadatatest"

	"github.com/jackc/pgx/v5"
)

// wire stands between the client and PostgreSQL. Armed, it treats the next
// bytes that the client sends in its own way, once.
type wire struct {
	t      *testing.T
	listen net.Listener
	dial   func() (net.Conn, error)
	done   sync.WaitGroup

	mu    sync.Mutex
	armed func(sent []byte, p *wirePair)
	down  bool
	// refused counts the connections that came while it was down.
	refused atomic.Int64
	pairs   []*wirePair
}

// wirePair is a connection through the wire. Once muted, the client gets
// nothing any more, and does not notice either; what the server says is noted.
type wirePair struct {
	client, server net.Conn
	muted          atomic.Bool
	answered       chan struct{}
}

// newWire returns a database opened through a wire, and one opened directly.
func newWire(t *testing.T, options ...func(*metadata.Config)) (w *wire, through, direct *metadata.DB) {
	t.Helper()
	dsn := metadatatest.DSN(t)
	config, err := pgx.ParseConfig(dsn)
	check(t, err)
	w = &wire{t: t, dial: func() (net.Conn, error) {
		if filepath.IsAbs(config.Host) {
			return net.Dial("unix", filepath.Join(config.Host, fmt.Sprintf(".s.PGSQL.%d", config.Port)))
		}
		return net.Dial("tcp", net.JoinHostPort(config.Host, fmt.Sprint(config.Port)))
	}}
	w.listen, err = net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	w.done.Add(1)
	go w.serve()
	t.Cleanup(w.close)
	open := func(dsn string) *metadata.DB {
		// One flight for each statement, so that what is sent next is the whole of it.
		c := metadata.Config{DSN: dsn, QueryMode: "exec", MinBackoff: time.Millisecond, MaxBackoff: 20 * time.Millisecond}
		for _, option := range options {
			option(&c)
		}
		db, err := metadata.Open(t.Context(), c)
		check(t, err)
		t.Cleanup(db.Close)
		return db
	}
	return w, open(fmt.Sprintf("postgres://%s@%s/%s?sslmode=disable", config.User, w.listen.Addr(), config.Database)), open(dsn)
}

func (w *wire) serve() {
	defer w.done.Done()
	for {
		client, err := w.listen.Accept()
		if err != nil {
			return
		}
		w.mu.Lock()
		server, err := w.dial()
		if err != nil || w.down {
			w.refused.Add(1)
			_ = client.Close()
			w.mu.Unlock()
			continue
		}
		p := &wirePair{client: client, server: server, answered: make(chan struct{})}
		w.pairs = append(w.pairs, p)
		w.done.Add(2)
		w.mu.Unlock()
		go w.ask(p)
		go w.answer(p)
	}
}

func (w *wire) ask(p *wirePair) {
	defer w.done.Done()
	buf := make([]byte, 1<<20)
	for {
		n, err := p.client.Read(buf)
		if err != nil {
			_ = p.server.Close()
			return
		}
		w.mu.Lock()
		armed := w.armed
		w.armed = nil
		w.mu.Unlock()
		if armed != nil {
			p.muted.Store(true)
			armed(buf[:n], p)
			return
		}
		if _, err := p.server.Write(buf[:n]); err != nil {
			_ = p.client.Close()
			return
		}
	}
}

func (w *wire) answer(p *wirePair) {
	defer w.done.Done()
	buf := make([]byte, 1<<20)
	for {
		n, err := p.server.Read(buf)
		switch {
		case p.muted.Load():
			close(p.answered)
			return
		case err == nil:
			_, err = p.client.Write(buf[:n])
		}
		if err != nil {
			_ = p.client.Close()
			return
		}
	}
}

func (w *wire) arm(armed func(sent []byte, p *wirePair)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.armed = armed
}

func (w *wire) setDown(down bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down = down
}

// cut cuts all connections.
func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.pairs {
		_ = p.client.Close()
		_ = p.server.Close()
	}
}

func (w *wire) close() {
	_ = w.listen.Close()
	w.cut()
	w.done.Wait()
}

// loseQuestion cuts the connection before the statement reaches the server.
func (w *wire) loseQuestion(then func()) {
	w.arm(func(_ []byte, p *wirePair) {
		_ = p.server.Close()
		then()
		_ = p.client.Close()
	})
}

// loseAnswer cuts it when the server has done the work and answered.
func (w *wire) loseAnswer(then func()) {
	w.arm(func(sent []byte, p *wirePair) {
		if _, err := p.server.Write(sent); err != nil {
			w.t.Error(err)
		}
		<-p.answered
		_ = p.server.Close()
		then()
		_ = p.client.Close()
	})
}

// doubting is a wire with a mailbox of five messages.
type doubting struct {
	*wire
	through, direct *metadata.DB
	n               *node
}

func newDoubting(t *testing.T, options ...func(*metadata.Config)) *doubting {
	t.Helper()
	d := &doubting{}
	d.wire, d.through, d.direct = newWire(t, options...)
	d.n = inboxOf(t, d.through)
	d.n = do(t, d.through, d.n, d.n.appending(5))
	return d
}

// other makes another commit, as another node would.
func (d *doubting) other(change func(n *node) *metadata.Commit) {
	l, err := d.direct.Load(d.t.Context(), d.n.box.Account, d.n.box.ID, metadata.Version{})
	if err == nil {
		_, err = d.direct.Commit(d.t.Context(), change(apply(nil, l)))
	}
	if err != nil {
		d.t.Error(err)
	}
}

func storeOf(flags metadata.Flags, uids ...uint32) func(n *node) *metadata.Commit {
	return func(n *node) *metadata.Commit { return n.storing(flags, uids...) }
}

func appendOf(count int) func(n *node) *metadata.Commit {
	return func(n *node) *metadata.Commit { return n.appending(count) }
}

func deliveryOf(text string) func(n *node) *metadata.Commit {
	return func(n *node) *metadata.Commit {
		c := n.appending(1)
		c.Deliveries = []metadata.Delivery{{Digest: digest(text), Mailbox: n.box.ID, UID: c.Changes[0].Insert[0].UID}}
		return c
	}
}

func TestCommitInDoubt(t *testing.T) {
	t.Parallel()
	within := func(uids ...uint32) func(n *node) *metadata.Commit {
		return func(n *node) *metadata.Commit { return n.within(false, uids...) }
	}
	for name, test := range map[string]struct {
		mine  func(n *node) *metadata.Commit
		lost  string                           // what the wire loses: question or answer
		other []func(n *node) *metadata.Commit // what others commit before the node can ask
		want  error
	}{
		"store, question lost":                    {mine: storeOf(metadata.Seen, 1), lost: "question"},
		"store, answer lost":                      {mine: storeOf(metadata.Seen, 1), lost: "answer"},
		"append, question lost":                   {mine: appendOf(2), lost: "question"},
		"append, answer lost":                     {mine: appendOf(2), lost: "answer"},
		"copy, question lost":                     {mine: within(2), lost: "question"},
		"copy, answer lost":                       {mine: within(2), lost: "answer"},
		"delivery, answer lost":                   {mine: deliveryOf("x"), lost: "answer"},
		"store, overtaken elsewhere":              {mine: storeOf(metadata.Seen, 1), lost: "question", other: list(storeOf(metadata.Flagged, 2)), want: metadata.ErrConflict},
		"store, followed elsewhere":               {mine: storeOf(metadata.Seen, 1), lost: "answer", other: list(storeOf(metadata.Flagged, 2)), want: metadata.ErrConflict},
		"store, overtaken by the same":            {mine: storeOf(metadata.Seen, 1), lost: "question", other: list(storeOf(metadata.Seen, 1, 2)), want: metadata.ErrConflict},
		"store, overtaken there":                  {mine: storeOf(metadata.Seen, 1), lost: "question", other: list(storeOf(metadata.Flagged, 1)), want: metadata.ErrInDoubt},
		"store, followed there":                   {mine: storeOf(metadata.Seen, 1), lost: "answer", other: list(storeOf(metadata.Flagged, 1)), want: metadata.ErrInDoubt},
		"append, overtaken by an append":          {mine: appendOf(2), lost: "question", other: list(appendOf(2)), want: metadata.ErrConflict},
		"append, overtaken by a shorter append":   {mine: appendOf(2), lost: "question", other: list(storeOf(metadata.Seen, 1)), want: metadata.ErrConflict},
		"append, followed by others":              {mine: appendOf(2), lost: "answer", other: list(appendOf(1), storeOf(metadata.Seen, 6))},
		"copy, overtaken by an append":            {mine: within(2), lost: "question", other: list(appendOf(1)), want: metadata.ErrConflict},
		"copy, overtaken by a store":              {mine: within(2), lost: "question", other: list(storeOf(metadata.Seen, 1)), want: metadata.ErrConflict},
		"copy, followed by an append":             {mine: within(2), lost: "answer", other: list(appendOf(1))},
		"delivery, overtaken by an append":        {mine: deliveryOf("x"), lost: "question", other: list(appendOf(1)), want: metadata.ErrConflict},
		"delivery, overtaken by the same":         {mine: deliveryOf("x"), lost: "question", other: list(deliveryOf("x")), want: metadata.ErrDelivered},
		"delivery, overtaken by the same further": {mine: deliveryOf("x"), lost: "question", other: list(appendOf(1), deliveryOf("x")), want: metadata.ErrDelivered},
		"delivery, followed by others":            {mine: deliveryOf("x"), lost: "answer", other: list(appendOf(1))},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDoubting(t)
			seen := d.n.box.Version
			mine := test.mine(d.n)
			others := func() {
				for _, other := range test.other {
					d.other(other)
				}
			}
			if test.lost == "question" {
				d.loseQuestion(others)
			} else {
				d.loseAnswer(others)
			}
			done, err := d.through.Commit(t.Context(), mine)
			after := load(t, d.direct, d.n.box)
			sound(t, d.direct, after)
			if !errors.Is(err, test.want) || test.want == nil && err != nil {
				t.Fatalf("got %v, want %v", err, test.want)
			}
			wantModSeq := seen.ModSeq + int64(len(test.other))
			if test.lost == "answer" || test.want == nil {
				wantModSeq++
			}
			if after.box.ModSeq != wantModSeq {
				t.Errorf("the mailbox is at modseq %d, want %d", after.box.ModSeq, wantModSeq)
			}
			if test.want == nil && len(test.other) == 0 && after.box.Version != done.Version(mine, 0) {
				t.Errorf("the mailbox is at %+v, the commit said %+v", after.box.Version, done.Version(mine, 0))
			}
		})
	}
}

func list[T any](all ...T) []T { return all }

// A COPY leaves its source as it was, so that says nothing of whether it happened.
func TestCopyInDoubt(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		lost, rename bool // the question, not the answer; the target is renamed meanwhile
		rival        bool // somebody makes the same copy meanwhile
		other        func(n *node) *metadata.Commit
		want         error
		copied       int
	}{
		"answer lost":                   {copied: 1},
		"answer lost, target changed":   {other: appendOf(1), copied: 1},
		"question lost":                 {lost: true, copied: 1},
		"question lost, target changed": {lost: true, other: appendOf(1), want: metadata.ErrConflict},
		"question lost, same copy made": {lost: true, rival: true, want: metadata.ErrConflict, copied: 1},
		"question lost, target renamed": {lost: true, rename: true, want: metadata.ErrConflict},
		"answer lost, target renamed":   {rename: true, copied: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDoubting(t)
			source, target := d.n, create(t, d.through, d.n, "Archive")
			then := func() {
				d.n = target
				if test.other != nil {
					d.other(test.other)
				}
				if test.rival {
					if _, err := d.direct.Commit(t.Context(), source.transferring(target, false, 3)); err != nil {
						t.Error(err)
					}
				}
				if test.rename {
					if _, err := d.direct.RenameMailbox(t.Context(), target.box.Account, "Archive", "Old"); err != nil {
						t.Error(err)
					}
				}
			}
			if test.lost {
				d.loseQuestion(then)
			} else {
				d.loseAnswer(then)
			}
			c := source.transferring(target, false, 3)
			c.Changes[1].Name = "Archive"
			_, err := d.through.Commit(t.Context(), c)
			if !errors.Is(err, test.want) || test.want == nil && err != nil {
				t.Errorf("got %v, want %v", err, test.want)
			}
			after := load(t, d.direct, target.box)
			sound(t, d.direct, after)
			object := messages(t, d.direct, source.box)[3].Object
			copied := 0
			for _, m := range messages(t, d.direct, after.box) {
				if m.Object == object {
					copied++
				}
			}
			if copied != test.copied {
				t.Errorf("copied %d times, want %d", copied, test.copied)
			}
		})
	}
}

// The first sending arrives when the second has succeeded: it must change nothing.
func TestLateSending(t *testing.T) {
	t.Parallel()
	d := newDoubting(t)
	deliver := make(chan struct{})
	delivered := make(chan error, 1)
	d.arm(func(sent []byte, p *wirePair) {
		_ = p.client.Close()
		<-deliver
		_, err := p.server.Write(sent)
		<-p.answered
		delivered <- err
	})
	c := d.n.appending(1)
	done, err := d.through.Commit(t.Context(), c)
	check(t, err)
	close(deliver)
	check(t, <-delivered)
	after := load(t, d.direct, d.n.box)
	sound(t, d.direct, after)
	if after.box.Version != done.Version(c, 0) || after.box.Messages != 6 {
		t.Errorf("after a late sending %+v", after.box)
	}
}

// A server that does not come back leaves the commit in doubt, within the time allowed.
func TestStaysInDoubt(t *testing.T) {
	t.Parallel()
	d := newDoubting(t, func(c *metadata.Config) { c.ResolveTimeout = 200 * time.Millisecond })
	d.loseAnswer(func() {
		d.setDown(true)
		d.cut()
	})
	c := d.n.appending(1)
	start := time.Now()
	_, err := d.through.Commit(t.Context(), c)
	wantErr(t, err, metadata.ErrInDoubt)
	wantErr(t, err, metadata.ErrUnavailable)
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	_, err = d.through.Load(t.Context(), d.n.box.Account, d.n.box.ID, metadata.Version{})
	wantErr(t, err, metadata.ErrUnavailable)
	d.setDown(false)
	if got := load(t, d.through, d.n.box); got.box.Messages != 6 {
		t.Errorf("%d messages", got.box.Messages)
	}
}

// A commit in doubt waits for the lock of whoever holds it: a plain look would
// miss a commit that is about to become visible.
func TestDoubtWaitsForTheLock(t *testing.T) {
	t.Parallel()
	d := newDoubting(t)
	tx, err := d.direct.Pool().Begin(t.Context())
	check(t, err)
	released := make(chan error, 1)
	_, err = tx.Exec(t.Context(), `select 1 from mailbox where account_id = $1 and id = $2 for update`, d.n.box.Account, d.n.box.ID)
	check(t, err)
	d.arm(func(sent []byte, p *wirePair) { // the statement waits for the lock, and the client is gone
		_, err := p.server.Write(sent)
		d.waiters("%update mailbox%")
		_ = p.client.Close()
		d.waiters("%for update") // the one that looks waits too
		released <- errors.Join(err, tx.Rollback(d.t.Context()))
	})
	c := d.n.appending(1)
	_, err = d.through.Commit(t.Context(), c)
	check(t, err)
	check(t, <-released)
	after := load(t, d.direct, d.n.box)
	sound(t, d.direct, after)
	if after.box.Messages != 6 {
		t.Errorf("%d messages", after.box.Messages)
	}
}

// waiters waits until a statement like that waits for a lock in this database.
func (d *doubting) waiters(like string) {
	for deadline := time.Now().Add(20 * time.Second); ; {
		var waits bool
		err := d.direct.Pool().QueryRow(d.t.Context(), `
select exists (
  select 1
  from pg_stat_activity
  where wait_event_type = 'Lock' and datname = current_database() and query like $1::text)`, like).Scan(&waits)
		if err == nil && !waits && time.Now().After(deadline) {
			err = fmt.Errorf("nothing like %q waits for a lock", like)
		}
		if err != nil {
			d.t.Error(err)
			return
		}
		if waits {
			return
		}
	}
}

// Reads go on by themselves when the connections of the pool have died.
func TestReadsSurviveDeadConnections(t *testing.T) {
	t.Parallel()
	d := newDoubting(t)
	d.cut()
	load(t, d.through, d.n.box)
	d.loseQuestion(func() {})
	_, err := d.through.CreateMailbox(t.Context(), d.n.box.Account, "x", nil)
	wantErr(t, err, metadata.ErrInDoubt) // what has no compare-and-set is not sent again
	create(t, d.through, d.n, "x")
}
