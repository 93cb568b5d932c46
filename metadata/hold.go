package metadata

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype/zeronull"
)

// Hold is why the collector leaves an account alone.
type Hold struct {
	Held   bool
	Reason string    // "": not known
	Since  time.Time // zero: not known
}

// SetHold keeps the collector away from an account, for a reason, or lets it in again if
// that is empty. A hold that is there keeps its time. The error is ErrNotFound if there
// is no such account.
func (db *DB) SetHold(ctx context.Context, name, reason string) error {
	var id AccountID
	err := db.writeRow(ctx, fmt.Sprintf("set the hold of %q", name), `
update account
set hold = $2::text <> '',
  hold_reason = nullif($2::text, ''),
  hold_since = case when $2::text = '' then null when hold then coalesce(hold_since, now()) else now() end
where name = $1::text
returning account_id`,
		[]any{strings.ToLower(name), reason}, &id)
	return notFound(err, "account %q", name)
}

// LiftHold lets the collector in again if the account is on hold for this reason; for any other it stays.
// It reports whether it was. The error is ErrNotFound if there is no such account.
func (db *DB) LiftHold(ctx context.Context, account AccountID, reason string) (lifted bool, err error) {
	err = db.writeRow(ctx, "lift the hold of an account", `
with a as (
  update account
  set hold = false, hold_reason = null, hold_since = null
  where account_id = $1::bigint and hold and hold_reason = $2::text
  returning 1)
select exists (select 1 from a)
from account
where account_id = $1::bigint`,
		[]any{account, reason}, &lifted)
	return lifted, notFound(err, "account %x", int64(account))
}

// Hold reads whether an account is on hold, and why. The error is ErrNotFound if there
// is no such account.
func (db *DB) Hold(ctx context.Context, account AccountID) (Hold, error) {
	var h Hold
	err := db.row(ctx, "read the hold", `
select hold, coalesce(hold_reason, ''), hold_since
from account
where account_id = $1::bigint`,
		[]any{account}, &h.Held, &h.Reason, (*zeronull.Timestamptz)(&h.Since))
	return h, notFound(err, "account %x", int64(account))
}

// Left is how many rows an account has, what is deleted and not yet collected included.
type Left struct {
	Mailboxes  int64 // deleted ones included
	Messages   int64 // expunged ones included
	Flags      int64 // chunks of 128
	Deliveries int64 // of the last days
	Threads    int64
	Doomed     int64 // objects to be deleted
	Other      int64 // all else: of the directory, and the collector's own
}

// Left counts the rows of an account in all tables, by reading them: it is for reports.
// Of an account that is not there any more it finds none.
func (db *DB) Left(ctx context.Context, account AccountID) (Left, error) {
	var l Left
	err := db.scan(ctx, "count what is left of an account", `
select
  (select count(*) from mailbox where account_id = $1::bigint),
  (select count(*) from message where account_id = $1::bigint),
  (select count(*) from flags where account_id = $1::bigint),
  (select count(*) from delivery where account_id = $1::bigint),
  (select count(*) from thread_ref where account_id = $1::bigint),
  (select count(*) from doomed where account_id = $1::bigint),
  (select count(*) from account where account_id = $1::bigint)
    + (select count(*) from address where account_id = $1::bigint)
    + (select count(*) from credential where account_id = $1::bigint)
    + (select count(*) from quota where account_id = $1::bigint)
    + (select count(*) from blob_share where account_id = $1::bigint)
    + (select count(*) from subscription where account_id = $1::bigint)
    + (select count(*) from expunged where account_id = $1::bigint)
    + (select count(*) from lease where account_id = $1::bigint)`,
		[]any{account}, func(rows pgx.Rows) error {
			return rows.Scan(&l.Mailboxes, &l.Messages, &l.Flags, &l.Deliveries, &l.Threads, &l.Doomed, &l.Other)
		})
	return l, err
}
