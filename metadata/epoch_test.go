package metadata_test

import (
	"errors"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"starling/metadata"
	"starling/metadata/metadatatest"
	"starling/metadata/postgres"
)

// pair is a primary, its standby, and a way to one of them.
type pair struct {
	old, promoted *postgres.Server
	way           *wire
	to            atomic.Pointer[postgres.Server]
}

// newPair starts both, with the schema.
func newPair(t *testing.T) *pair {
	t.Helper()
	dir := serverFolder(t)
	p := &pair{old: startServer(t, postgres.Config{Dir: filepath.Join(dir, "old"), Disposable: true})}
	check(t, metadata.Migrate(t.Context(), p.old.DSN("postgres")))
	host, port := filepath.Dir(p.old.Socket()), strings.TrimPrefix(filepath.Ext(p.old.Socket()), ".")
	p.promoted = startServer(t, postgres.Config{
		Dir: filepath.Join(dir, "new"), Disposable: true, Origin: &postgres.Origin{Host: host, Port: port, Slot: "one", Name: "standby"},
	})
	p.to.Store(p.old)
	p.way = &wire{t: t, dial: func() (net.Conn, error) { return net.Dial("unix", p.to.Load().Socket()) }}
	var err error
	p.way.listen, err = net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	p.way.done.Add(1)
	go p.way.serve()
	t.Cleanup(p.way.close)
	return p
}

// open opens a database by the way, as a node does.
func (p *pair) open(t *testing.T, dsn string, figures prometheus.Registerer) *metadata.DB {
	t.Helper()
	db, err := metadata.Open(t.Context(), metadata.Config{
		DSN: dsn, Metrics: figures, MinBackoff: time.Millisecond, MaxBackoff: 20 * time.Millisecond,
		AcquireTimeout: time.Second, ResolveTimeout: 2 * time.Second,
	})
	check(t, err)
	t.Cleanup(db.Close)
	return db
}

// A primary that was failed over and lives on is refused by who has seen the new one, on new connections and on those that
// there are, and by who has heard of it; nothing is read from it or written to it. Who has not heard cannot know.
func TestPast(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	figures := prometheus.NewPedanticRegistry()
	dsn := "postgres://" + postgres.Superuser + "@" + p.way.listen.Addr().String() + "/postgres?sslmode=disable"
	db := p.open(t, dsn, figures)
	n := inboxOf(t, db)
	n = do(t, db, n, n.appending(1))
	before := db.SeenEpoch()
	for caught := false; !caught; { // up, which it is when it has the message
		rows, err := p.promoted.Exec(t.Context(), "select count(*) from message")
		check(t, err)
		caught = rows[0][0] == "1"
	}
	check(t, p.promoted.Promote(t.Context()))

	// Who knows of nothing goes on, with the old one.
	n = do(t, db, n, n.appending(1))
	heard := p.open(t, p.old.DSN("postgres"), nil)
	check(t, errOf(heard.List(t.Context(), n.box.Account)))

	p.to.Store(p.promoted)
	p.way.cut()
	after := load(t, db, n.box)
	sound(t, db, after)
	if after.box.Messages != 1 || after.box.Epoch>>24 != before>>24+1 || db.SeenEpoch() != after.box.Epoch {
		t.Fatalf("the new primary has %d messages in epoch %d, the old had %d", after.box.Messages, after.box.Epoch, before)
	}

	heard.LearnEpoch(db.SeenEpoch())
	p.to.Store(p.old)
	p.way.cut()
	for name, err := range map[string]error{
		"a read":          errOf(db.List(t.Context(), n.box.Account)),
		"a commit":        errOf(db.Commit(t.Context(), after.appending(1))),
		"one of the past": errOf(db.Commit(t.Context(), n.appending(1))),
		"a locked one": errOf(db.CommitLocked(t.Context(), n.box.Account, []metadata.MailboxID{n.box.ID}, []metadata.Version{{}},
			func([]metadata.Load) (*metadata.Commit, error) {
				t.Error("it is computed on the past")
				return nil, nil
			})),
		"another write":   errOf(db.Subscribe(t.Context(), n.box.Account, "x")),
		"the probe":       db.Ping(t.Context()),
		"who has heard":   errOf(heard.List(t.Context(), n.box.Account)),
		"its first write": errOf(heard.Subscribe(t.Context(), n.box.Account, "x")),
	} {
		switch {
		case name == "one of the past" && errors.Is(err, metadata.ErrConflict):
		case !errors.Is(err, metadata.ErrUnavailable):
			t.Errorf("%s: got %v, want %v", name, err, metadata.ErrUnavailable)
		case name == "the probe" && !strings.Contains(err.Error(), "its timeline is 1 and its generation 0, those that were seen are 2 and 0"):
			t.Errorf("%s: %v", name, err)
		}
	}
	rows, err := p.old.Exec(t.Context(), "select (select count(*) from message), (select count(*) from subscription where name = 'x')")
	check(t, err)
	if rows[0][0] != "2" || rows[0][1] != "0" {
		t.Errorf("the old primary has %v messages and subscriptions, want the two messages of before", rows[0])
	}
	check(t, testutil.GatherAndCompare(figures, strings.NewReader(`
# HELP starling_postgres_epoch The highest epoch of the database that was seen: its timeline times 2^24, and its generation.
# TYPE starling_postgres_epoch gauge
starling_postgres_epoch 3.3554432e+07
`), "starling_postgres_epoch"))
	families, err := figures.Gather()
	check(t, err)
	for _, f := range families {
		if f.GetName() == "starling_postgres_past_refused_total" && f.GetMetric()[0].GetCounter().GetValue() == 0 {
			t.Error("nothing was counted as refused")
		}
	}

	p.to.Store(p.promoted)
	p.way.cut()
	for until := time.Now().Add(time.Minute); db.Ping(t.Context()) != nil; {
		if time.Now().After(until) {
			t.Fatal("it does not find back")
		}
	}
	do(t, db, after, after.appending(1))
}

// Who has not heard of an epoch yet in which a row is already does not take it for one of the past.
func TestNumbersAfterTheJump(t *testing.T) {
	t.Parallel()
	dsn := metadatatest.DSN(t)
	there := func(c *metadata.Config) { c.DSN = dsn }
	ahead, behind := metadatatest.Open(t, there), metadatatest.Open(t, there)
	n := inboxOf(t, ahead)
	n = do(t, ahead, n, n.appending(3))
	_, err := behind.MailboxByName(t.Context(), n.box.Account, "INBOX") // a connection asks for the epoch once
	check(t, err)
	check(t, errOf(ahead.BumpEpoch(t.Context())))
	after := load(t, ahead, n.box).box
	m, err := behind.MailboxByName(t.Context(), n.box.Account, "INBOX")
	check(t, err)
	if m.UIDNext != after.UIDNext || m.Version != after.Version {
		t.Errorf("UIDNEXT %d, %+v, and the row has %d, %+v", m.UIDNext, m.Version, after.UIDNext, after.Version)
	}
}

// Rows of mailboxes that nobody has taken into the database's epoch yet say the numbers that they then have.
func TestNumbersBeforeTheJump(t *testing.T) {
	t.Parallel()
	for _, bumps := range []int{1, 3} {
		db := metadatatest.Open(t)
		n := inboxOf(t, db)
		n = do(t, db, n, n.appending(3))
		for range bumps {
			check(t, errOf(db.BumpEpoch(t.Context())))
		}
		byName, err := db.MailboxByName(t.Context(), n.box.Account, "INBOX")
		check(t, err)
		told := map[string]metadata.Mailbox{"by name": byName}
		check(t, db.MailboxesByName(t.Context(), []metadata.NameRef{{Account: n.box.Account, Name: "INBOX"}}, func(_ int, m *metadata.Mailbox) {
			told["by names"] = *m
		}))
		list, err := db.List(t.Context(), n.box.Account)
		check(t, err)
		for _, m := range list.Mailboxes {
			if m.ID == n.box.ID {
				told["in the list"] = m
			}
		}
		after := load(t, db, n.box).box
		if after.UIDNext <= n.box.UIDNext+131_071 || after.ModSeq <= n.box.ModSeq+1 {
			t.Fatalf("no jump from %+v to %+v", n.box, after)
		}
		for how, m := range told {
			if m.UIDNext != after.UIDNext || m.ModSeq != after.ModSeq || m.Epoch != after.Epoch || m.Stamp == after.Stamp {
				t.Errorf("after %d epochs, %s: UIDNEXT %d, modseq %d, epoch %d, and the jump leads to %d, %d, %d",
					bumps, how, m.UIDNext, m.ModSeq, m.Epoch, after.UIDNext, after.ModSeq, after.Epoch)
			}
		}
		if len(told) != 3 {
			t.Errorf("read %d ways", len(told))
		}
	}
}

// Nobody crashes of a database whose schema was tampered with.
func TestNoEpoch(t *testing.T) {
	t.Parallel()
	dsn := metadatatest.DSN(t)
	open := func() *metadata.DB {
		db, err := metadata.Open(t.Context(), metadata.Config{DSN: dsn, AcquireTimeout: time.Second})
		check(t, err)
		t.Cleanup(db.Close)
		return db
	}
	_, err := open().Pool().Exec(t.Context(), "delete from cluster")
	check(t, err)
	if _, err := open().Epoch(t.Context()); !errors.Is(err, metadata.ErrUnavailable) {
		t.Errorf("the epoch: %v, want ErrUnavailable", err)
	}
}
