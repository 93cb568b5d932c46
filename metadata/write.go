package metadata

import (
	"context"
	cryptorand "crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// random63 is a random number from 1 to 2^63-1.
func random63() int64 {
	for {
		var b [8]byte
		_, _ = cryptorand.Read(b[:])                                   // never fails
		if n := int64(binary.LittleEndian.Uint64(b[:]) >> 1); n != 0 { //nolint:gosec // 63 bits
			return n
		}
	}
}

// writeRow is writeRows for at most one row; without one the error is pgx.ErrNoRows.
func (db *DB) writeRow(ctx context.Context, what, sql string, args []any, into ...any) error {
	found := false
	err := db.writeRows(ctx, what, sql, args, func(rows pgx.Rows) error {
		found = true
		return rows.Scan(into...)
	})
	if err == nil && !found {
		return pgx.ErrNoRows
	}
	return err
}

// writeRows runs one statement that changes something, and calls each for
// every row that it returns. It does not end with ctx, so that it is not left
// in doubt because somebody hung up; if the answer is lost all the same, the
// error is ErrInDoubt.
func (db *DB) writeRows(ctx context.Context, what, sql string, args []any, each func(pgx.Rows) error) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), db.config.StatementTimeout+patience)
	defer cancel()
	for try := 0; ; try++ {
		err := db.tryWriteRows(ctx, what, sql, args, each)
		switch {
		case err == nil:
			return nil
		case pgconn.SafeToRetry(err) && errors.Is(err, errBroken) && try < 2:
			db.pool.Reset() // it was not sent; the other connections are most likely dead too
			db.metrics.retries.Inc()
		case errors.Is(err, ErrInDoubt):
			return fmt.Errorf("%s: %w", what, db.metrics.failed(err))
		default:
			return fmt.Errorf("%s: %w", what, db.metrics.failed(classify(ctx, err)))
		}
	}
}

func (db *DB) tryWriteRows(ctx context.Context, what, sql string, args []any, each func(pgx.Rows) error) error {
	conn, release, err := db.acquire(ctx)
	if err != nil {
		return err
	}
	defer release()
	db.trips.Add(1)
	pg := conn.Conn().PgConn()
	doubtless(pg)
	run := db.metrics.begin(ctx, what)
	rows, err := conn.Query(ctx, sql, args...)
	if err == nil {
		for rows.Next() && err == nil {
			err = each(rows)
		}
		rows.Close()
		err = errors.Join(err, rows.Err())
	}
	err = broken(conn, err)
	run.end(err)
	if db.doubtful(pg) || errors.Is(err, errBroken) && !pgconn.SafeToRetry(err) {
		return fmt.Errorf("%w: %w", ErrInDoubt, errors.Join(ErrUnavailable, err))
	}
	return err
}

// doubtKey is where a connection notes that the server warned.
const doubtKey = "starling.doubt"

// noteDoubt sees the server's notices. When the wait for a synchronous standby
// is cut short, the server reports success with a warning: the change is on
// the primary, but may be lost with it.
func noteDoubt(pg *pgconn.PgConn, n *pgconn.Notice) {
	if n.Code == "01000" || n.Code == "57P01" {
		pg.CustomData()[doubtKey] = true
	}
}

func doubtless(pg *pgconn.PgConn) { delete(pg.CustomData(), doubtKey) }

// doubtful says whether the server warned, or turned out meanwhile to be of the past.
func (db *DB) doubtful(pg *pgconn.PgConn) bool {
	return pg.CustomData()[doubtKey] != nil || db.epochs.past(pg)
}

// rollback ends a transaction even if the context of its work has ended. On a
// connection that is gone there is nothing left to end.
func rollback(ctx context.Context, tx pgx.Tx) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	if err := tx.Rollback(ctx); err != nil && !errors.Is(err, pgx.ErrTxClosed) && !tx.Conn().IsClosed() {
		return fmt.Errorf("roll back: %w", err)
	}
	return nil
}
