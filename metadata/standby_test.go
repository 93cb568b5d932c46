package metadata_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"starling/metadata"
	"starling/metadata/postgres"
)

// deserted is a server whose commits wait for a standby that never comes.
type deserted struct {
	t        *testing.T
	open     func(resolving time.Duration) *metadata.DB
	db       *metadata.DB
	operator *pgxpool.Pool // of commits that do not wait
}

// newDeserted starts one. prepare is called before commits wait.
func newDeserted(t *testing.T, prepare func(db *metadata.DB)) *deserted {
	t.Helper()
	server := startServer(t, postgres.Config{
		Dir: filepath.Join(serverFolder(t), "pg"), Disposable: true, Settings: map[string]string{"synchronous_commit": "on"},
	})
	dsn := server.DSN("postgres")
	check(t, metadata.Migrate(t.Context(), dsn))
	d := &deserted{t: t, open: func(resolving time.Duration) *metadata.DB {
		db, err := metadata.Open(t.Context(), metadata.Config{DSN: dsn, ResolveTimeout: resolving})
		check(t, err)
		t.Cleanup(db.Close)
		return db
	}}
	d.db, d.operator = d.open(20*time.Second), d.open(0).Pool()
	prepare(d.db)
	d.exec("alter system set synchronous_standby_names = 'nobody'")
	d.exec("select pg_reload_conf()")
	for !d.commitsWait() {
	}
	return d
}

// commitsWait reports whether they do yet: the checkpointer sees to it, some time after the settings are read anew.
func (d *deserted) commitsWait() bool {
	done := make(chan error, 1)
	go func() { done <- errOf(d.operator.Exec(d.t.Context(), "comment on database postgres is 'a commit'")) }()
	for waited := false; ; {
		if pid := d.waits("comment on%"); pid != 0 {
			waited = true
			d.cancel(pid)
		}
		select {
		case err := <-done:
			check(d.t, err)
			return waited
		default:
		}
	}
}

func (d *deserted) exec(sql string) {
	d.t.Helper()
	_, err := d.operator.Exec(d.t.Context(), sql)
	check(d.t, err)
}

// waiting returns a backend that waits for the standby with a query like this.
func (d *deserted) waiting(like string) (pid int) {
	d.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); pid == 0; pid = d.waits(like) {
		if time.Now().After(deadline) {
			d.t.Fatalf("nobody waits for the standby with %s", like)
		}
	}
	return pid
}

// waits returns such a backend if there is one; else 0.
func (d *deserted) waits(like string) (pid int) {
	d.t.Helper()
	check(d.t, d.operator.QueryRow(d.t.Context(), `
select coalesce(max(pid), 0)
from pg_stat_activity
where wait_event = 'SyncRep' and query like $1::text`, like).Scan(&pid))
	return pid
}

func (d *deserted) cancel(pid int) {
	d.t.Helper()
	_, err := d.operator.Exec(d.t.Context(), "select pg_cancel_backend($1::int)", pid)
	check(d.t, err)
}

// there: the standby is there, or given up by the operator.
func (d *deserted) there() {
	d.t.Helper()
	d.exec("alter system reset synchronous_standby_names")
	d.exec("select pg_reload_conf()")
}

// A commit whose wait for a synchronous standby is cancelled is reported as a
// success, with a warning. It is one only when the standby has it.
func TestCancelledStandbyWait(t *testing.T) {
	t.Parallel()
	var n *node
	d := newDeserted(t, func(db *metadata.DB) { n = inboxOf(t, db) })
	done := make(chan error, 1)
	c := n.appending(1)
	go func() { done <- errOf(d.db.Commit(t.Context(), c)) }()
	d.cancel(d.waiting("%update mailbox%"))
	d.waiting("commit") // now the look at what became of it waits
	select {
	case err := <-done:
		t.Fatalf("the commit ended with %v, and no standby had it", err)
	default:
	}
	d.there()
	check(t, <-done)
	n = load(t, d.db, n.box)
	sound(t, d.db, n)
	if n.box.Messages != 1 {
		t.Errorf("%d messages", n.box.Messages)
	}
}

// What another's commit changed whose wait was cancelled can be read. To say that it is so waits for the standby.
func TestConfirm(t *testing.T) {
	t.Parallel()
	var n *node
	d := newDeserted(t, func(db *metadata.DB) { n = inboxOf(t, db) })
	ended := make(chan error, 2)
	hasty := d.open(time.Nanosecond)
	go func() { ended <- errOf(hasty.Commit(t.Context(), n.appending(1))) }()
	d.cancel(d.waiting("%update mailbox%"))
	wantErr(t, <-ended, metadata.ErrInDoubt)
	seen := load(t, d.db, n.box)
	if seen.box.Messages != 1 {
		t.Fatalf("%d messages can be read", seen.box.Messages)
	}
	ref := metadata.BoxRef{Account: n.box.Account, Mailbox: n.box.ID}
	go func() {
		v, err := d.db.Confirm(t.Context(), ref)
		if err == nil && v != seen.box.Version {
			t.Errorf("confirmed %+v, seen %+v", v, seen.box.Version)
		}
		ended <- err
	}()
	d.cancel(d.waiting("%for no key update%"))
	wantErr(t, <-ended, metadata.ErrUnavailable)

	go func() {
		_, err := d.db.CommitLocked(t.Context(), ref.Account, []metadata.MailboxID{ref.Mailbox}, []metadata.Version{seen.box.Version},
			func([]metadata.Load) (*metadata.Commit, error) { return nil, nil })
		ended <- err
	}()
	d.cancel(d.waiting("commit"))
	wantErr(t, <-ended, metadata.ErrUnavailable)

	go func() { ended <- errOf(d.db.Confirm(t.Context(), ref)) }()
	d.waiting("%for no key update%")
	d.there()
	check(t, <-ended)
	if v, err := d.db.Confirm(t.Context(), metadata.BoxRef{Account: ref.Account, Mailbox: 99}); err != nil || v != (metadata.Version{}) {
		t.Errorf("a mailbox that is not there has the version %+v, %v", v, err)
	}
}
