package metadata

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// objectScanTimeout bounds reading all objects that an account's messages
// name. There is no index on them, because every message that comes in would
// pay for it; the collector reads the account once for many objects instead.
const objectScanTimeout = 10 * time.Minute

// AccountsWithDoomed lists accounts with objects that were doomed longer ago
// than the window: those behind after, at most limit, by id. Accounts on hold or
// being deleted are left out.
func (db *DB) AccountsWithDoomed(ctx context.Context, account AccountID, window time.Duration, after AccountID, limit int) ([]AccountID, error) {
	return db.accountIDs(ctx, "find doomed objects", `
select distinct d.account_id
from doomed d
join account a on a.account_id = d.account_id and not a.hold and a.state <> 3
where d.at <= now() - $1::bigint * interval '1 microsecond'
  and d.account_id > $2::bigint
  and ($3::bigint = 0 or d.account_id = $3::bigint)
order by d.account_id
limit $4::bigint`,
		window.Microseconds(), after, account, int64(limit))
}

func (db *DB) accountIDs(ctx context.Context, what, sql string, args ...any) ([]AccountID, error) {
	var all []AccountID
	err := db.rows(ctx, what, sql, args, func(rows pgx.Rows) error {
		var id AccountID
		all = append(all, id)
		return rows.Scan(&all[len(all)-1])
	})
	return all, err
}

// Doomed lists objects of an account that were doomed longer ago than the
// window: those behind after, at most limit, in their order. Whether they may
// be deleted has to be asked of Named.
func (db *DB) Doomed(ctx context.Context, account AccountID, window time.Duration, after ObjectID, limit int) ([]ObjectID, error) {
	var all []ObjectID
	err := db.rows(ctx, "list doomed objects", `
select d.object
from doomed d
where d.account_id = $1::bigint
  and d.at <= now() - $2::bigint * interval '1 microsecond'
  and d.object > $3::uuid
  and not exists (select 1 from account a where a.account_id = $1::bigint and a.hold)
order by d.object
limit $4::bigint`,
		[]any{account, window.Microseconds(), pgtype.UUID{Bytes: after, Valid: true}, int64(limit)}, func(rows pgx.Rows) error {
			var o pgtype.UUID
			err := rows.Scan(&o)
			all = append(all, o.Bytes)
			return err
		})
	return all, err
}

// Named are those of the objects that a message of the account names, be it
// an expunged or moved one, or that have owners by their count. It reads the
// whole account as of one moment: a message that is moved meanwhile is not missed.
func (db *DB) Named(ctx context.Context, account AccountID, objects []ObjectID) (named map[ObjectID]struct{}, err error) {
	asked := make(map[ObjectID]struct{}, len(objects))
	for _, o := range objects {
		asked[o] = struct{}{}
	}
	named = make(map[ObjectID]struct{})
	var o pgtype.UUID
	err = db.scan(ctx, "read the objects of an account", `
select object
from message
where account_id = $1::bigint
union all
select object
from blob_share
where account_id = $1::bigint and refs > 0`, []any{account}, func(rows pgx.Rows) error {
		err := rows.Scan(&o)
		if _, ok := asked[o.Bytes]; ok {
			named[o.Bytes] = struct{}{}
		}
		return err
	})
	return named, err
}

// scan is rows for a statement that reads a whole account: it has objectScanTimeout.
func (db *DB) scan(ctx context.Context, what, sql string, args []any, each func(pgx.Rows) error) error {
	ctx, cancel := context.WithTimeout(ctx, objectScanTimeout+patience)
	defer cancel()
	conn, release, err := db.acquire(ctx)
	if err != nil {
		return fmt.Errorf("%s: %w", what, db.metrics.failed(err))
	}
	defer release()
	run := db.metrics.begin(ctx, what)
	err = pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		db.trips.Add(3)
		if _, err := tx.Exec(ctx, `select set_config('statement_timeout', $1::text, true)`, milliseconds(objectScanTimeout)); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, sql, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			if err := each(rows); err != nil {
				return err
			}
		}
		return rows.Err()
	})
	err = broken(conn, err)
	run.end(err)
	if err != nil {
		return fmt.Errorf("%s: %w", what, db.metrics.failed(classify(ctx, err)))
	}
	return nil
}

// Forget takes objects from the doomed: they are deleted.
func (db *DB) Forget(ctx context.Context, account AccountID, objects []ObjectID) error {
	return db.writeRows(ctx, "forget deleted objects", `
with s as (
  delete from blob_share
  where account_id = $1::bigint and object = any ($2::uuid[]) and refs <= 0)
delete from doomed
where account_id = $1::bigint and object = any ($2::uuid[])`,
		[]any{account, uuids(objects)}, func(pgx.Rows) error { return nil })
}

// Postpone begins the delay of doomed objects anew, because a row still names
// them: that of a message that was moved away and is yet to be collected.
func (db *DB) Postpone(ctx context.Context, account AccountID, objects []ObjectID) error {
	return db.writeRows(ctx, "postpone doomed objects", `
update doomed
set at = now()
where account_id = $1::bigint and object = any ($2::uuid[])`,
		[]any{account, uuids(objects)}, func(pgx.Rows) error { return nil })
}

// Doom dooms orphans: objects that are older than any commit that could name
// them, and that Named does not know. It returns how many were not doomed yet.
// None is doomed while the epoch is not accepted, or the account on hold or
// being deleted.
func (db *DB) Doom(ctx context.Context, account AccountID, objects []ObjectID) (doomed int64, err error) {
	err = db.writeRow(ctx, "doom orphans", `
with d as (
  insert into doomed (account_id, object)
  select a.account_id, u.object
  from account a
  cross join unnest($2::uuid[]) u(object)
  where a.account_id = $1::bigint and not a.hold and a.state <> 3
    and exists (select 1 from cluster c where c.accepted = epoch())
  order by u.object
  on conflict (account_id, object) do nothing
  returning 1)
select count(*)
from d`,
		[]any{account, uuids(objects)}, &doomed)
	return doomed, err
}

func uuids(objects []ObjectID) []pgtype.UUID {
	all := make([]pgtype.UUID, len(objects))
	for i, o := range objects {
		all[i] = pgtype.UUID{Bytes: o, Valid: true}
	}
	return all
}

// AccountsToScan lists accounts whose objects were not compared with their
// messages for an interval, the longest ago first; otherwise as
// AccountsWithDoomed. An account that is asked for by its id is always due.
func (db *DB) AccountsToScan(ctx context.Context, account AccountID, interval time.Duration, limit int) ([]AccountID, error) {
	return db.accountIDs(ctx, "find accounts to look through", `
select a.account_id
from account a
where (a.account_id = $1::bigint or $1::bigint = 0 and a.scanned <= now() - $2::bigint * interval '1 microsecond')
  and not a.hold and a.state <> 3
order by a.scanned
limit $3::bigint`,
		account, interval.Microseconds(), int64(limit))
}

// Scanned notes that an account's objects were compared with its messages now.
func (db *DB) Scanned(ctx context.Context, account AccountID) error {
	err := db.writeRow(ctx, "note that the account was looked through", `
update account
set scanned = now()
where account_id = $1::bigint
returning account_id`,
		[]any{account}, &account)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil // deleted meanwhile
	}
	return err
}
