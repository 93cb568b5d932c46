package metadata_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"starling/metadata"
	"starling/metadata/postgres"
)

// A commit whose wait for a synchronous standby is cancelled is reported as a
// success, with a warning. It is one only when the standby has it.
func TestCancelledStandbyWait(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("/tmp", "starling-standby-")
	check(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	check(t, os.Chmod(dir, 0o755)) //nolint:gosec // the server's user passes through
	server, err := postgres.Start(t.Context(), postgres.Config{
		Dir: filepath.Join(dir, "pg"), Disposable: true, Settings: map[string]string{"synchronous_commit": "on"},
	})
	if errors.Is(err, postgres.ErrNotInstalled) {
		t.Skip(err)
	}
	check(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := server.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	dsn := server.DSN("postgres")
	check(t, metadata.Migrate(t.Context(), dsn))
	open := func() *metadata.DB {
		db, err := metadata.Open(t.Context(), metadata.Config{DSN: dsn, ResolveTimeout: 20 * time.Second})
		check(t, err)
		t.Cleanup(db.Close)
		return db
	}
	db, operator := open(), open().Pool()
	n := inboxOf(t, db)
	exec := func(sql string) {
		t.Helper()
		_, err := operator.Exec(t.Context(), sql)
		check(t, err)
	}
	// waiting returns the backend that waits for the standby, other than the one given.
	waiting := func(other int) (pid int) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); pid == 0; {
			check(t, operator.QueryRow(t.Context(), `
select coalesce(max(pid), 0)
from pg_stat_activity
where wait_event = 'SyncRep' and query not like 'alter%' and (query like '%update mailbox%') = ($1::int = 0)`, other).Scan(&pid))
			if pid == 0 && time.Now().After(deadline) {
				t.Fatal("nobody waits for the standby")
			}
		}
		return pid
	}
	exec("alter system set synchronous_standby_names = 'nobody'")
	exec("select pg_reload_conf()")
	for deadline, set := time.Now().Add(20*time.Second), ""; set != "nobody"; {
		check(t, operator.QueryRow(t.Context(), "select current_setting('synchronous_standby_names')").Scan(&set))
		if time.Now().After(deadline) {
			t.Fatal("the setting does not arrive")
		}
	}
	done := make(chan error, 1)
	c := n.appending(1)
	go func() { done <- errOf(db.Commit(t.Context(), c)) }()
	pid := waiting(0)
	_, err = operator.Exec(t.Context(), "select pg_cancel_backend($1::int)", pid)
	check(t, err)
	waiting(pid) // now the look at what became of it waits
	select {
	case err := <-done:
		t.Fatalf("the commit ended with %v, and no standby had it", err)
	default:
	}
	exec("alter system reset synchronous_standby_names")
	exec("select pg_reload_conf()") // and the standby is there, or given up by the operator
	check(t, <-done)
	n = load(t, db, n.box)
	sound(t, db, n)
	if n.box.Messages != 1 {
		t.Errorf("%d messages", n.box.Messages)
	}
}
