package metadata_test

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"starling/metadata"
	"starling/metadata/metadatatest"

	"github.com/jackc/pgx/v5"
)

// emptyDSN leads to a database without a schema.
func emptyDSN(t *testing.T) string {
	t.Helper()
	dsn := metadatatest.DSN(t)
	config, err := pgx.ParseConfig(dsn)
	check(t, err)
	conn, err := pgx.ConnectConfig(t.Context(), config)
	check(t, err)
	defer conn.Close(t.Context())
	_, err = conn.Exec(t.Context(), "drop schema public cascade; create schema public")
	check(t, err)
	return dsn
}

func TestMigrateAtOnce(t *testing.T) {
	t.Parallel()
	dsn := emptyDSN(t)
	db, err := metadata.Open(t.Context(), metadata.Config{DSN: dsn, QueryMode: "exec"})
	check(t, err)
	defer db.Close()
	if err := db.CheckSchema(t.Context()); !errors.Is(err, metadata.ErrSchemaOld) || !strings.Contains(err.Error(), "starling migrate") {
		t.Fatalf("without a schema: %v, want to be told to migrate", err)
	}
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			if err := metadata.Migrate(t.Context(), dsn); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	check(t, db.CheckSchema(t.Context()))
	settings := pairs[string, string](t, db, `
select name, setting
from pg_settings
where name in ('plan_cache_mode', 'lock_timeout', 'statement_timeout')`)
	if settings["plan_cache_mode"] != "force_generic_plan" || settings["lock_timeout"] != "3000" || settings["statement_timeout"] != "15000" {
		t.Errorf("the role has the settings %v", settings)
	}
	inboxOf(t, db)
}

// Work in the background leaves connections to commands.
func TestBackground(t *testing.T) {
	t.Parallel()
	db := metadatatest.Open(t, func(c *metadata.Config) {
		c.MaxConns, c.CommandConns, c.AcquireTimeout = 3, 1, time.Second // time for a dial
	})
	n := inboxOf(t, db)
	n = do(t, db, n, n.appending(1))
	back := db.Background()
	var busy sync.WaitGroup
	reading, release := make(chan struct{}), make(chan struct{})
	end := sync.OnceFunc(func() { close(release) })
	defer end()
	for range 2 {
		busy.Go(func() {
			err := back.Messages(t.Context(), n.box.Account, n.box.ID, []metadata.UIDRange{{First: 1, Last: 1}}, 0, func(*metadata.Message) error {
				reading <- struct{}{}
				<-release
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
		<-reading
	}
	_, err := back.List(t.Context(), n.box.Account)
	wantErr(t, err, metadata.ErrUnavailable)
	check(t, errOf(db.List(t.Context(), n.box.Account)))
	end()
	busy.Wait()
	check(t, errOf(back.List(t.Context(), n.box.Account)))
	if s := db.Stats(); s.RoundTrips != back.Stats().RoundTrips || s.Conns == 0 || s.Conns > 3 {
		t.Errorf("stats are %+v", s)
	}
}

// A server that refuses is not stormed.
func TestDialsArePaced(t *testing.T) {
	t.Parallel()
	w, through, _ := newWire(t, func(c *metadata.Config) {
		c.MinBackoff, c.MaxBackoff, c.AcquireTimeout = 50*time.Millisecond, 100*time.Millisecond, 400*time.Millisecond
	})
	w.setDown(true)
	w.cut()
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if err := through.Ping(t.Context()); !errors.Is(err, metadata.ErrUnavailable) {
				t.Errorf("got %v, want to hear that it is unavailable", err)
			}
		})
	}
	all.Wait()
	if dials := w.refused.Load(); dials == 0 || dials > 40 {
		t.Errorf("%d dials in less than a second", dials)
	}
	w.setDown(false)
	for until := time.Now().Add(time.Minute); ; {
		err := through.Ping(t.Context())
		if err == nil {
			break
		}
		if time.Now().After(until) {
			t.Fatal(err)
		}
	}
}

// A database that is opened while PostgreSQL is away says so, does not storm it, and
// works once it is there.
func TestOpenBeforeTheServer(t *testing.T) {
	t.Parallel()
	w, early, _ := newWire(t, func(c *metadata.Config) {
		c.AcquireTimeout, c.MinBackoff, c.MaxBackoff = 200*time.Millisecond, 50*time.Millisecond, 100*time.Millisecond
	})
	w.setDown(true)
	for range 3 {
		wantErr(t, early.CheckSchema(t.Context()), metadata.ErrUnavailable)
		wantErr(t, early.Ping(t.Context()), metadata.ErrUnavailable)
	}
	if dials := w.refused.Load(); dials == 0 || dials > 60 {
		t.Errorf("%d dials for six questions", dials)
	}
	w.setDown(false)
	for until := time.Now().Add(time.Minute); ; {
		err := early.CheckSchema(t.Context())
		if err == nil {
			break
		}
		if wantErr(t, err, metadata.ErrUnavailable); time.Now().After(until) {
			t.Fatal(err)
		}
	}
	check(t, early.Ping(t.Context()))
}
