package metadata

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// Usage is how much an account holds, what is expunged not counted.
func (db *DB) Usage(ctx context.Context, account AccountID) (Quota, error) {
	var used Quota
	err := db.row(ctx, "read the usage", `
select q.bytes, q.messages
from quota q
where q.account_id = $1::bigint
union all
select coalesce(sum(m.bytes), 0)::bigint, coalesce(sum(m.messages), 0)::bigint
from mailbox m
where m.account_id = $1::bigint and not m.dropped
having not exists (select 1 from quota q where q.account_id = $1::bigint)`,
		[]any{account}, &used.Bytes, &used.Messages)
	return used, err
}

// Fits says whether more can be added to what an account holds, by its limits as they are
// now. It is what can be known before the commit, which decides.
func (db *DB) Fits(ctx context.Context, account AccountID, more Quota) (bool, error) {
	var fits bool
	err := db.row(ctx, "compare the usage with the limits", `
select not exists (
  select 1
  from quota q
  where q.account_id = $1::bigint
    and (q.max_bytes > 0 and q.bytes + $2::bigint > q.max_bytes
      or q.max_messages > 0 and q.messages + $3::bigint > q.max_messages))`,
		[]any{account, more.Bytes, more.Messages}, &fits)
	return fits, err
}

// SetLimits sets what an account may hold; with both 0 it is not limited any
// more. What it holds already stays, also above the limit. The error is
// ErrNotFound if there is no such account.
//
// Only accounts with a limit are counted as they change. The first limit
// therefore counts anew, and gives all mailboxes a new stamp: commits that
// are under way, and would not charge what they add, lose and come again.
func (db *DB) SetLimits(ctx context.Context, name string, limits Quota) error {
	what := fmt.Sprintf("set the limits of %q", name)
	if limits.Bytes < 0 || limits.Messages < 0 {
		return fmt.Errorf("%s: negative", what)
	}
	var id AccountID
	var limited bool
	err := db.writeRow(ctx, what, `
with a as materialized (
  select account_id
  from account
  where name = $1::text),
gone as (
  delete from quota q
  using a
  where q.account_id = a.account_id and $2::bigint = 0 and $3::bigint = 0
  returning 1),
changed as (
  update quota q
  set max_bytes = $2::bigint, max_messages = $3::bigint
  from a
  where q.account_id = a.account_id and ($2::bigint > 0 or $3::bigint > 0)
  returning 1)
select a.account_id, ($2::bigint = 0 and $3::bigint = 0) or exists (select 1 from changed)
from a`,
		[]any{strings.ToLower(name), limits.Bytes, limits.Messages}, &id, &limited)
	if err != nil || limited {
		return notFound(err, "account %q", name)
	}
	if err := db.firstLimit(ctx, id, limits); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// firstLimit counts under the locks of all mailboxes. The account's lock keeps
// new ones away, so the counting is a statement of its own, behind that lock.
func (db *DB) firstLimit(ctx context.Context, id AccountID, limits Quota) error {
	return db.underLock(ctx, "set the first limit", id, func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `
with l as materialized (
  select id, bytes, messages
  from mailbox
  where account_id = $1::bigint and not dropped
  order by id
  for update),
s as (
  update mailbox m
  set stamp = m.stamp # $4::bigint
  from (select count(*) from l) locked
  where m.account_id = $1::bigint and not m.dropped)
insert into quota (account_id, bytes, messages, max_bytes, max_messages)
select $1::bigint, coalesce(sum(l.bytes), 0)::bigint, coalesce(sum(l.messages), 0)::bigint, $2::bigint, $3::bigint
from l
on conflict (account_id) do update set max_bytes = excluded.max_bytes, max_messages = excluded.max_messages`,
			id, limits.Bytes, limits.Messages, random63())
		return err
	})
}

// underLock runs fn in a transaction that has the account's row, so that no mailbox is made
// or deleted meanwhile.
func (db *DB) underLock(ctx context.Context, what string, id AccountID, fn func(context.Context, pgx.Tx) error) (err error) {
	if err := ctx.Err(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), db.config.StatementTimeout+patience)
	defer cancel()
	conn, release, err := db.acquire(ctx)
	if err != nil {
		return db.metrics.failed(err)
	}
	defer release()
	run := db.metrics.begin(ctx, what)
	defer func() {
		run.end(err)
		err = db.metrics.failed(classify(ctx, broken(conn, err)))
	}()
	tx, err := conn.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, rollback(ctx, tx))
		}
	}()
	db.trips.Add(4)
	if _, err := tx.Exec(ctx, `
update account
set listseq = listseq
where account_id = $1::bigint`, id); err != nil {
		return err
	}
	if err := fn(ctx, tx); err != nil {
		return err
	}
	return tx.Commit(ctx)
}
