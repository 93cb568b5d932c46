package metadata

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// DeletedMailbox is a mailbox that was deleted and can be brought back.
type DeletedMailbox struct {
	Mailbox           // as it was when it was deleted
	At      time.Time // when that was
}

// DeletedMailboxes lists the deleted mailboxes of an account that the collector has not
// taken yet, the last deleted first.
func (db *DB) DeletedMailboxes(ctx context.Context, account AccountID) ([]DeletedMailbox, error) {
	var all []DeletedMailbox
	err := db.rows(ctx, "list deleted mailboxes", `
select m.id, m.name, m.uidvalidity, m.uidnext, m.modseq, m.stamp, m.epoch,
  m.messages, m.unseen, m.deleted, m.bytes, m.deleted_bytes,
  m.recent, m.horizon, m.jumps, m.keywords, m.special_use, m.listseq, m.dropped,
  m.dropped_at
from mailbox m
where m.account_id = $1::bigint and m.dropped
order by m.dropped_at desc, m.id desc`,
		[]any{account}, func(rows pgx.Rows) error {
			d := DeletedMailbox{Mailbox: Mailbox{Account: account}}
			if err := rows.Scan(append(d.into(), &d.At)...); err != nil {
				return err
			}
			all = append(all, d)
			return nil
		})
	return all, err
}

// ExpungedDay is a day, by UTC, on which messages of a mailbox were expunged.
type ExpungedDay struct {
	Day    time.Time
	ModSeq int64 // of the last that was expunged on it
}

// ExpungedDays lists the days on which messages were expunged that the collector has not
// taken yet, rising. A message was expunged on the first of them whose modseq is not
// below its own.
func (db *DB) ExpungedDays(ctx context.Context, ref BoxRef) ([]ExpungedDay, error) {
	var all []ExpungedDay
	err := db.rows(ctx, "read the days of expunges", `
select e.day, e.modseq
from expunged e
where e.account_id = $1::bigint and e.mailbox_id = $2::bigint
order by e.day`,
		[]any{ref.Account, ref.Mailbox}, func(rows pgx.Rows) error {
			var d ExpungedDay
			if err := rows.Scan(&d.Day, &d.ModSeq); err != nil {
				return err
			}
			all = append(all, d)
			return nil
		})
	return all, err
}

// RestoreMailbox brings a deleted mailbox back, with its messages and their UIDs, under a
// name. Clients were told that it is gone, and may have seen another one of that name:
// so it has a new UIDVALIDITY. A special use that another mailbox has by now it loses.
// What comes back is charged to the quota. lost is how many messages the collector had
// taken already: they are expunged.
//
// The error is ErrNoMailbox if there is no such deleted mailbox (any more), ErrExists if
// the name is taken, ErrOverQuota, or ErrNotFound if the account is being deleted;
// ErrConflict if the collector is at work on it.
func (db *DB) RestoreMailbox(ctx context.Context, ref BoxRef, name string) (c ListChange, lost int, err error) {
	what := fmt.Sprintf("restore mailbox %q", name)
	l := loading{account: ref.Account}
	if err := db.rows(ctx, "load deleted mailbox", loadSQL, []any{ref.Account, ref.Mailbox, int64(0), int64(0), int64(0)}, l.row); err != nil {
		return ListChange{}, 0, err
	}
	if !l.found || !l.Mailbox.Dropped {
		return ListChange{}, 0, fmt.Errorf("%s: %w", what, ErrNoMailbox)
	}
	l.Mailbox.Account = ref.Account
	r := recount{db: db, ref: ref, box: l.Mailbox, chunks: make(map[int32]*Chunk), counts: make(map[int32]*chunkCount)}
	for _, chunk := range l.Chunks {
		r.chunks[chunk.No()], r.counts[chunk.No()] = chunk, new(chunkCount)
	}
	if err := r.read(ctx, 0, 1<<32-1); err != nil {
		return ListChange{}, 0, fmt.Errorf("%s: %w", what, err)
	}
	changed, lost := r.expungeLost()
	c, err = db.restoreMailbox(ctx, what, name, &l.Mailbox, r.found().Counted, changed)
	return c, lost, err
}

// expungeLost marks the messages without a row as expunged, and returns the chunks that
// it changed.
func (r *recount) expungeLost() (changed []*Chunk, lost int) {
	for no, chunk := range r.chunks {
		var edit *Edit
		for i := range chunk.Len() {
			s := chunk.Slot(i)
			if !s.Live() || r.counts[no].rows[i/64]>>(i%64)&1 != 0 {
				continue
			}
			if edit == nil {
				edit = chunk.Edit()
			}
			edit.Set(i, Slot{Flags: s.Flags | Expunged, ModSeq: r.box.ModSeq + 1})
			lost++
		}
		if edit != nil {
			r.chunks[no] = edit.Chunk()
			changed = append(changed, r.chunks[no])
		}
	}
	return changed, lost
}

// restoreMailbox brings the mailbox back if it is still as it was seen. The deleted
// mailbox is locked before account and quota: nobody who has these waits for it.
func (db *DB) restoreMailbox(ctx context.Context, what, name string, seen *Mailbox, counted Counters, changed []*Chunk) (ListChange, error) {
	numbers, slots := (&Change{Chunks: changed}).images()
	c := ListChange{Mailbox: Mailbox{Account: seen.Account}}
	var outcome string
	err := db.writeRows(ctx, what, `
with w as materialized (
  select m.id
  from mailbox m
  where m.account_id = $1::bigint and m.id = $2::bigint and m.dropped
    and m.modseq = $3::bigint and m.stamp = $4::bigint
  for update),
a as (
  update account
  set listseq = listseq + 1,
    last_uidvalidity = greatest(last_uidvalidity + 1, extract(epoch from now())::bigint)
  from w
  where account_id = $1::bigint and state <> 3
    and not exists (
      select 1
      from mailbox o
      where o.account_id = $1::bigint and o.name = $5::text and not o.dropped)
  returning listseq, last_uidvalidity),
q as (
  update quota q
  set bytes = q.bytes + $10::bigint, messages = q.messages + $7::bigint
  from a
  where q.account_id = $1::bigint
    and ($10::bigint = 0 or q.max_bytes = 0 or q.bytes + $10::bigint <= q.max_bytes)
    and ($7::bigint = 0 or q.max_messages = 0 or q.messages + $7::bigint <= q.max_messages)
  returning 1),
m as (
  update mailbox m
  set dropped = false, dropped_at = null, name = $5::text, uidvalidity = a.last_uidvalidity,
    modseq = m.modseq + 1, stamp = $6::bigint, listseq = a.listseq,
    messages = $7::bigint, unseen = $8::bigint, deleted = $9::bigint, bytes = $10::bigint, deleted_bytes = $11::bigint,
    special_use = array(
      select u.use
      from unnest(m.special_use) u(use)
      where not exists (
        select 1
        from mailbox o
        where o.account_id = $1::bigint and not o.dropped and u.use = any (o.special_use)))
  from a
  where m.account_id = $1::bigint and m.id = $2::bigint
    and (exists (select 1 from q) or not exists (select 1 from quota n where n.account_id = $1::bigint))
  returning m.*),
f as (
  update flags f
  set slots = u.slots, max_modseq = $3::bigint + 1
  from m, unnest($12::int[], $13::bytea[]) u(chunk, slots)
  where f.account_id = $1::bigint and f.mailbox_id = $2::bigint and f.chunk = u.chunk)
select m.id, m.name, m.uidvalidity, m.uidnext, m.modseq, m.stamp, m.epoch,
  m.messages, m.unseen, m.deleted, m.bytes, m.deleted_bytes,
  m.recent, m.horizon, m.jumps, m.keywords, m.special_use, m.listseq, m.dropped,
  case
    when m.id is not null then ''
    when not exists (select 1 from w) then 'conflict'
    when not exists (select 1 from a) then 'exists'
    else 'quota'
  end
from (select 1) one
left join m on true`,
		[]any{
			seen.Account, seen.ID, seen.ModSeq, seen.Stamp, name, random63(),
			counted.Messages, counted.Unseen, counted.Deleted, counted.Bytes, counted.DeletedBytes, numbers, slots,
		}, func(rows pgx.Rows) error {
			if rows.RawValues()[0] == nil {
				return rows.Scan(append(make([]any, 19, 20), &outcome)...)
			}
			err := rows.Scan(append(c.Mailbox.into(), &outcome)...)
			c.ListSeq = c.Mailbox.ListSeq
			return err
		})
	switch {
	case err != nil:
		return ListChange{}, err
	case outcome == outcomeDone:
		return c, nil
	case outcome == "exists":
		if _, err := db.MailboxByName(ctx, seen.Account, name); errors.Is(err, ErrNoMailbox) {
			return ListChange{}, fmt.Errorf("%s: %w", what, ErrNotFound)
		}
		return ListChange{}, fmt.Errorf("%s: %w", what, ErrExists)
	}
	return ListChange{}, fmt.Errorf("%s: %w", what, outcomes[outcome])
}
