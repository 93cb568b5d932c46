package metadata

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// The collector's work is found here, and claimed before it is done: by a row
// with a time, by the clock of PostgreSQL, in statements of their own. A claim
// only spares nodes from doing the same work twice. What keeps them from doing
// harm are the compare-and-set of each commit (collect_mailbox.go) and the second
// look before an object goes (collect_objects.go).

// ErrHeld says that an account is on hold: the collector leaves it alone.
var ErrHeld = errors.New("account is on hold")

// Claim takes the work on a mailbox, or with mailbox 0 on an account itself,
// for a time; owner is who asks. Who has it already gets it for longer. It
// reports whether nobody else has it.
func (db *DB) Claim(ctx context.Context, ref BoxRef, owner int64, d time.Duration) (bool, error) {
	var by int64
	err := db.writeRow(ctx, "claim work", `
insert into lease as l (account_id, mailbox_id, owner, until)
values ($1::bigint, $2::bigint, $3::bigint, now() + $4::bigint * interval '1 microsecond')
on conflict (account_id, mailbox_id) do update set owner = excluded.owner, until = excluded.until
where l.until < now() or l.owner = excluded.owner
returning l.owner`,
		[]any{ref.Account, ref.Mailbox, owner, d.Microseconds()}, &by)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	return err == nil, err
}

// Release gives up what Claim took. What is not given up ends by itself.
func (db *DB) Release(ctx context.Context, ref BoxRef, owner int64) error {
	var by int64
	err := db.writeRow(ctx, "release work", `
delete from lease
where account_id = $1::bigint and mailbox_id = $2::bigint and owner = $3::bigint
returning owner`,
		[]any{ref.Account, ref.Mailbox, owner}, &by)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	return err
}

// Due is a mailbox of which messages are to be collected.
type Due struct {
	BoxRef
	Through int64 // the modseq up to which what was expunged is due; of a deleted mailbox 0
	day     time.Time
}

// DueExpunged lists mailboxes with messages that were expunged longer ago than
// the retention, by the clock of PostgreSQL. Days count as a whole: a message is
// due when its day is past the retention; with a retention of 0 it is due at
// once. Accounts on hold or being deleted are left out. With an account that is
// not 0 only its mailboxes come. The list goes on behind after, nil for its begin.
func (db *DB) DueExpunged(ctx context.Context, account AccountID, retention time.Duration, after *Due, limit int) ([]Due, error) {
	if after == nil {
		after = &Due{day: time.Unix(0, 0)}
	}
	var all []Due
	err := db.rows(ctx, "find expunged messages", `
select e.account_id, e.mailbox_id, e.day, (
    select max(x.modseq)
    from expunged x
    where x.account_id = e.account_id and x.mailbox_id = e.mailbox_id
      and x.day <= ((now() - $1::bigint * interval '1 microsecond') at time zone 'utc')::date
        - case when $1::bigint > 0 then 1 else 0 end)
from expunged e
join account a on a.account_id = e.account_id and not a.hold and a.state <> 3
join mailbox m on m.account_id = e.account_id and m.id = e.mailbox_id and not m.dropped
where e.day <= ((now() - $1::bigint * interval '1 microsecond') at time zone 'utc')::date
    - case when $1::bigint > 0 then 1 else 0 end
  and (e.day, e.account_id, e.mailbox_id) > ($2::date, $3::bigint, $4::bigint)
  and ($5::bigint = 0 or e.account_id = $5::bigint)
order by e.day, e.account_id, e.mailbox_id
limit $6::bigint`,
		[]any{retention.Microseconds(), after.day, after.Account, after.Mailbox, account, int64(limit)},
		func(rows pgx.Rows) error {
			var d Due
			if err := rows.Scan(&d.Account, &d.Mailbox, &d.day, &d.Through); err != nil {
				return err
			}
			all = append(all, d)
			return nil
		})
	return all, err
}

// DueDropped lists mailboxes that were deleted longer ago than the retention;
// otherwise as DueExpunged, by account and mailbox.
func (db *DB) DueDropped(ctx context.Context, account AccountID, retention time.Duration, after *Due, limit int) ([]Due, error) {
	if after == nil {
		after = &Due{}
	}
	var all []Due
	err := db.rows(ctx, "find deleted mailboxes", `
select m.account_id, m.id
from mailbox m
join account a on a.account_id = m.account_id and not a.hold and a.state <> 3
where m.dropped and m.dropped_at <= now() - $1::bigint * interval '1 microsecond'
  and (m.account_id, m.id) > ($2::bigint, $3::bigint)
  and ($4::bigint = 0 or m.account_id = $4::bigint)
order by m.account_id, m.id
limit $5::bigint`,
		[]any{retention.Microseconds(), after.Account, after.Mailbox, account, int64(limit)},
		func(rows pgx.Rows) error {
			var d Due
			if err := rows.Scan(&d.Account, &d.Mailbox); err != nil {
				return err
			}
			all = append(all, d)
			return nil
		})
	return all, err
}

// ForgetDeliveries forgets deliveries older than age, and returns how many.
// Only accounts behind after are looked at, a number of them, and the last of
// these is returned; 0 says that there are no more.
func (db *DB) ForgetDeliveries(ctx context.Context, account, after AccountID, age time.Duration) (forgotten int64, last AccountID, err error) {
	const accounts, each = 1000, 10_000
	var all []AccountID
	err = db.rows(ctx, "find old deliveries", `
select distinct d.account_id
from delivery d
where d.at < now() - $1::bigint * interval '1 microsecond'
  and d.account_id > $2::bigint
  and ($3::bigint = 0 or d.account_id = $3::bigint)
order by d.account_id
limit $4::bigint`,
		[]any{age.Microseconds(), after, account, int64(accounts)}, func(rows pgx.Rows) error {
			err := rows.Scan(&last)
			all = append(all, last)
			return err
		})
	if err != nil {
		return 0, 0, err
	}
	for _, id := range all {
		n := int64(each)
		for n == each {
			if err := db.writeRow(ctx, "forget old deliveries", `
with gone as (
  delete from delivery d
  where d.account_id = $1::bigint
    and d.digest = any (array(
      select o.digest
      from delivery o
      where o.account_id = $1::bigint and o.at < now() - $2::bigint * interval '1 microsecond'
      limit $3::bigint))
  returning 1)
select count(*)
from gone`,
				[]any{id, age.Microseconds(), int64(each)}, &n); err != nil {
				return forgotten, 0, fmt.Errorf("account %x: %w", int64(id), err)
			}
			forgotten += n
		}
	}
	return forgotten, last, nil
}

// Now is the time by the clock of PostgreSQL, by which deadlines and ages go.
func (db *DB) Now(ctx context.Context) (now time.Time, err error) {
	err = db.row(ctx, "read the clock", `select clock_timestamp()`, nil, &now)
	return now, err
}

// EpochAccepted reports whether the epoch of the database is the one of which
// an operator last said that all is well with it. A new database begins with
// one that is accepted. After a restore to an older point, objects without a row
// may be the last copies of acknowledged mail, so that none is given up then.
func (db *DB) EpochAccepted(ctx context.Context) (accepted bool, err error) {
	err = db.row(ctx, "read the accepted epoch", `
select coalesce(accepted = epoch(), false)
from cluster`, nil, &accepted)
	return accepted, err
}

// AcceptEpoch says that all is well with the database as it is, and returns
// its epoch: from now on objects without a row are orphans.
func (db *DB) AcceptEpoch(ctx context.Context) (epoch int64, err error) {
	err = db.writeRow(ctx, "accept the epoch", `
update cluster
set accepted = epoch()
returning accepted`, nil, &epoch)
	return epoch, err
}
