package metadata

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

//go:embed migrations/*.sql
var migrations embed.FS

const (
	// schemaSupported is the schema that this release knows.
	schemaSupported = 4
	// migrateTries bounds how often a migration waits for the locks of others.
	migrateTries = 30
)

// Migrate brings the schema up to what this release knows. It is safe to run
// several times and by several at once, and while releases serve that the
// schema still supports: it waits 2 s for a lock, lets the others go on, and
// tries again. The DSN must lead to PostgreSQL itself, not to a pooler.
//
// It also gives the role that it runs as the settings that serving needs, in
// this database only, for connections that come through a pooler.
func Migrate(ctx context.Context, dsn string) error {
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		return fmt.Errorf("read the DSN: %w", err)
	}
	config.RuntimeParams["lock_timeout"] = "2s"
	config.RuntimeParams["statement_timeout"] = "0"
	config.RuntimeParams["client_min_messages"] = "warning"
	db := stdlib.OpenDB(*config)
	defer db.Close()
	if err := migrateSchema(ctx, db, schemaSupported); err != nil {
		return fmt.Errorf("migrate the schema: %w", err)
	}
	if _, err := db.ExecContext(ctx, roleSettings); err != nil {
		return fmt.Errorf("give the role its settings: %w", err)
	}
	return nil
}

func migrateSchema(ctx context.Context, db *sql.DB, to int64) error {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	locker, err := lock.NewPostgresSessionLocker()
	if err != nil {
		return err
	}
	provider, err := goose.NewProvider(goose.DialectPostgres, db, files,
		goose.WithSessionLocker(locker), goose.WithDisableGlobalRegistry(true), goose.WithTableName("migration"))
	if err != nil {
		return err
	}
	for try := 1; ; try++ {
		_, err = provider.UpTo(ctx, to)
		var refused *pgconn.PgError
		if err == nil || !errors.As(err, &refused) || refused.Code != "55P03" || try == migrateTries {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-time.After(time.Second):
		}
	}
}

// roleSettings are what sessionSettings gives direct connections.
const roleSettings = `
do $$
declare
  setting text[];
begin
  -- two that change the settings of one role at once hinder each other
  perform pg_advisory_xact_lock(hashtext('starling: settings of the role'));
  foreach setting slice 1 in array array[
    ['plan_cache_mode', 'force_generic_plan'],
    ['default_transaction_isolation', 'read committed'],
    ['lock_timeout', '3s'],
    ['statement_timeout', '15s'],
    ['idle_in_transaction_session_timeout', '5s'],
    ['client_connection_check_interval', '10s'],
    ['tcp_user_timeout', '10s']]
  loop
    execute format('alter role current_user in database %I set %I = %L', current_database(), setting[1], setting[2]);
  end loop;
end
$$`
