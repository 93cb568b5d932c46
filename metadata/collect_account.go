package metadata

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// DeletingAccounts lists accounts that are to be deleted since longer ago than
// wait: those behind after, at most limit, by id. Accounts on hold are left out.
func (db *DB) DeletingAccounts(ctx context.Context, account AccountID, wait time.Duration, after AccountID, limit int) ([]AccountID, error) {
	return db.accountIDs(ctx, "find accounts to be deleted", `
select a.account_id
from account a
where a.state = 3 and not a.hold
  and a.state_since <= now() - $1::bigint * interval '1 microsecond'
  and a.account_id > $2::bigint
  and ($3::bigint = 0 or a.account_id = $3::bigint)
order by a.account_id
limit $4::bigint`,
		wait.Microseconds(), after, account, int64(limit))
}

// emptyBatch is how many rows of a table one statement deletes.
const emptyBatch = 5000

// EmptyAccount deletes all rows of an account that is being deleted, in
// batches, but for those by which it is still known. First its mailboxes are
// marked as deleted: after that no commit can add anything. It returns how many
// messages were deleted. The error is ErrHeld if the account is on hold, or not
// being deleted.
func (db *DB) EmptyAccount(ctx context.Context, account AccountID) (messages int64, err error) {
	if err := db.dropMailboxes(ctx, account); err != nil {
		return 0, err
	}
	for i, sql := range emptying {
		for n := int64(emptyBatch); n == emptyBatch; {
			err := db.writeRow(ctx, "empty an account", sql, []any{account, int64(emptyBatch)}, &n)
			if err != nil {
				return messages, err
			}
			if i == 0 {
				messages += n
			}
		}
	}
	return messages, nil
}

// emptying are the statements that delete a batch of rows from each table of an
// account, as long as it is being deleted. The mailboxes go last, so that a
// node that dies in between leaves nothing that is not found again.
var emptying = []string{
	`
with g as (
  delete from message
  where account_id = $1::bigint
    and ctid = any (array(
      select m.ctid
      from message m
      where m.account_id = $1::bigint
        and exists (select 1 from account a where a.account_id = $1::bigint and a.state = 3 and not a.hold)
      limit $2::bigint))
  returning 1)
select count(*)
from g`,
	`
with g as (
  delete from flags
  where account_id = $1::bigint
    and ctid = any (array(
      select f.ctid
      from flags f
      where f.account_id = $1::bigint
        and exists (select 1 from account a where a.account_id = $1::bigint and a.state = 3 and not a.hold)
      limit $2::bigint))
  returning 1)
select count(*)
from g`,
	`
with g as (
  delete from thread_ref
  where account_id = $1::bigint
    and ctid = any (array(
      select t.ctid
      from thread_ref t
      where t.account_id = $1::bigint
        and exists (select 1 from account a where a.account_id = $1::bigint and a.state = 3 and not a.hold)
      limit $2::bigint))
  returning 1)
select count(*)
from g`,
	`
with g as (
  delete from delivery
  where account_id = $1::bigint
    and ctid = any (array(
      select d.ctid
      from delivery d
      where d.account_id = $1::bigint
        and exists (select 1 from account a where a.account_id = $1::bigint and a.state = 3 and not a.hold)
      limit $2::bigint))
  returning 1)
select count(*)
from g`,
	`
with g as (
  delete from blob_share
  where account_id = $1::bigint
    and ctid = any (array(
      select s.ctid
      from blob_share s
      where s.account_id = $1::bigint
        and exists (select 1 from account a where a.account_id = $1::bigint and a.state = 3 and not a.hold)
      limit $2::bigint))
  returning 1)
select count(*)
from g`,
	`
with g as (
  delete from doomed
  where account_id = $1::bigint
    and ctid = any (array(
      select d.ctid
      from doomed d
      where d.account_id = $1::bigint
        and exists (select 1 from account a where a.account_id = $1::bigint and a.state = 3 and not a.hold)
      limit $2::bigint))
  returning 1)
select count(*)
from g`,
	`
with live as materialized (
  select 1
  from account a
  where a.account_id = $1::bigint and a.state = 3 and not a.hold),
e as (
  delete from expunged
  where account_id = $1::bigint and exists (select 1 from live)),
s as (
  delete from subscription
  where account_id = $1::bigint and exists (select 1 from live)),
q as (
  delete from quota
  where account_id = $1::bigint and exists (select 1 from live)),
l as (
  delete from lease
  where account_id = $1::bigint and mailbox_id <> 0 and exists (select 1 from live)),
m as (
  delete from mailbox
  where account_id = $1::bigint and dropped and exists (select 1 from live))
select 0 * $2::bigint`,
}

// dropMailboxes marks all mailboxes of an account that is being deleted.
func (db *DB) dropMailboxes(ctx context.Context, account AccountID) error {
	var id AccountID
	err := db.writeRow(ctx, "mark the mailboxes of an account as deleted", `
with a as materialized (
  select account_id
  from account
  where account_id = $1::bigint and state = 3 and not hold),
l as materialized (
  select w.id
  from a,
    lateral (
      select m.id
      from mailbox m
      where m.account_id = $1::bigint and not m.dropped
      order by m.id
      for update) w),
m as (
  update mailbox m
  set dropped = true, dropped_at = now(), modseq = m.modseq + 1, stamp = $2::bigint
  from (select count(*) as n from l) locked
  where m.account_id = $1::bigint and not m.dropped and locked.n > 0)
select account_id
from a`,
		[]any{account, random63()}, &id)
	if errors.Is(err, pgx.ErrNoRows) {
		return fmt.Errorf("account %x: %w", int64(account), ErrHeld)
	}
	return err
}

// NoteListing notes whether a listing of a deleted account's objects found
// none, and reports whether another one found none the interval before, and
// none found any in between: then nothing that was on its way when the account was
// deleted can still arrive.
func (db *DB) NoteListing(ctx context.Context, account AccountID, empty bool, interval time.Duration) (done bool, err error) {
	err = db.writeRow(ctx, "note a listing", `
with o as materialized (
  select emptied
  from account
  where account_id = $1::bigint and state = 3 and not hold
  for update)
update account a
set emptied = case when $2::boolean then coalesce(o.emptied, now()) end
from o
where a.account_id = $1::bigint
returning $2::boolean and o.emptied is not null and o.emptied + $3::bigint * interval '1 microsecond' <= now()`,
		[]any{account, empty, interval.Microseconds()}, &done)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, fmt.Errorf("account %x: %w", int64(account), ErrHeld)
	}
	return done, err
}

// RemoveAccount removes what is left of an account of which EmptyAccount
// deleted all rows: it is not there any more, and its addresses are free.
func (db *DB) RemoveAccount(ctx context.Context, account AccountID) error {
	err := db.writeRow(ctx, "remove an account", `
with a as (
  delete from account a
  where a.account_id = $1::bigint and a.state = 3 and not a.hold
    and not exists (select 1 from mailbox m where m.account_id = $1::bigint)
    and not exists (select 1 from message g where g.account_id = $1::bigint)
  returning a.account_id),
d as (
  delete from address d
  using a
  where d.account_id = a.account_id),
c as (
  delete from credential c
  using a
  where c.account_id = a.account_id),
l as (
  delete from lease l
  using a
  where l.account_id = a.account_id)
select account_id
from a`,
		[]any{account}, &account)
	if errors.Is(err, pgx.ErrNoRows) {
		return fmt.Errorf("account %x: %w", int64(account), ErrHeld)
	}
	return err
}
