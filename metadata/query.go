package metadata

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// patience is how much longer the client waits than the server works.
const patience = 5 * time.Second

// acquire takes a connection; the caller calls release.
func (db *DB) acquire(ctx context.Context) (conn *pgxpool.Conn, release func(), err error) {
	wait, cancel := context.WithTimeout(ctx, db.config.AcquireTimeout)
	defer cancel()
	if db.background != nil {
		select {
		case db.background <- struct{}{}:
		case <-wait.Done():
			return nil, nil, unavailable(ctx, wait.Err())
		}
	}
	conn, err = db.wait(ctx, wait)
	if err != nil {
		if db.background != nil {
			<-db.background
		}
		return nil, nil, unavailable(ctx, err)
	}
	began := time.Now()
	return conn, func() {
		conn.Release()
		db.queue.back(time.Since(began))
		if db.background != nil {
			<-db.background
		}
	}, nil
}

// wait waits for a connection until wait is done, unless that is in vain; ctx is the caller's.
func (db *DB) wait(ctx, wait context.Context) (*pgxpool.Conn, error) {
	if db.stubborn {
		return db.pool.Acquire(wait)
	}
	turn, err := db.queue.enter()
	if err != nil {
		return nil, err
	}
	conn, err := db.pool.Acquire(wait)
	db.queue.leave(turn, err == nil, ctx.Err() != nil)
	return conn, err
}

// unavailable leaves the caller's own cancellation as it is.
func unavailable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("%w: %w: %w", ErrUnavailable, errNoConnection, err)
}

// errNoConnection marks errors of calls that got none.
var errNoConnection = errors.New("no connection")

// rows runs a query that only reads, and calls each for every row. A
// connection that turns out to be dead before the first row is replaced.
func (db *DB) rows(ctx context.Context, what, sql string, args []any, each func(pgx.Rows) error) error {
	ctx, cancel := context.WithTimeout(ctx, db.config.StatementTimeout+patience)
	defer cancel()
	for try := 0; ; try++ {
		started, err := db.tryRows(ctx, what, sql, args, each)
		if err == nil {
			return nil
		}
		if !started && try < 2 && ctx.Err() == nil && errors.Is(err, errBroken) {
			db.pool.Reset() // the others are most likely dead too
			db.metrics.retries.Inc()
			continue
		}
		return fmt.Errorf("%s: %w", what, db.metrics.failed(classify(ctx, err)))
	}
}

func (db *DB) tryRows(ctx context.Context, what, sql string, args []any, each func(pgx.Rows) error) (started bool, err error) {
	conn, release, err := db.acquire(ctx)
	if err != nil {
		return true, err
	}
	defer release()
	db.trips.Add(1)
	run := db.metrics.begin(ctx, what)
	defer func() { run.end(err) }()
	rows, err := conn.Query(ctx, sql, args...)
	if err != nil {
		return false, broken(conn, err)
	}
	defer rows.Close()
	for rows.Next() {
		started = true
		if err := each(rows); err != nil {
			return true, err
		}
	}
	return started, broken(conn, rows.Err())
}

// row is rows for exactly one row; without one the error is pgx.ErrNoRows.
func (db *DB) row(ctx context.Context, what, sql string, args []any, into ...any) error {
	found := false
	err := db.rows(ctx, what, sql, args, func(rows pgx.Rows) error {
		found = true
		return rows.Scan(into...)
	})
	if err == nil && !found {
		return pgx.ErrNoRows
	}
	return err
}

// errBroken marks errors after which the connection was gone.
var errBroken = errors.New("connection lost")

// broken marks err if the connection did not survive it.
func broken(conn *pgxpool.Conn, err error) error {
	if err != nil && conn.Conn().IsClosed() {
		return fmt.Errorf("%w: %w", errBroken, err)
	}
	return err
}

// classify maps what PostgreSQL and the network say to the sentinels.
func classify(ctx context.Context, err error) error {
	var refused *pgconn.PgError
	if errors.As(err, &refused) {
		switch {
		case refused.Code == "23505" && refused.TableName != "message": // there it would be a UID given out twice, a bug or damage
			return fmt.Errorf("%w: %w", ErrExists, err)
		case temporary(refused.Code):
			return fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		return err
	}
	if errors.Is(err, ErrUnavailable) || errors.Is(ctx.Err(), context.Canceled) {
		return err
	}
	if errors.Is(err, errBroken) || errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return err
}

// temporary says that the server would have done it at another time: shutdowns,
// lock and statement timeouts, deadlocks, lack of resources, a standby.
func temporary(code string) bool {
	switch code[:2] {
	case "08", "40", "53", "57", "58":
		return true
	}
	switch code {
	case "55P03", "25P03", "25006", "55000":
		return true
	}
	return false
}
