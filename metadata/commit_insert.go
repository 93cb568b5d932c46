package metadata

import (
	"time"

	"github.com/jackc/pgx/v5/pgtype"
)

// inserts are the new messages of a commit as arrays.
type inserts struct {
	mailbox  []int64
	uid      []int64
	date     []time.Time
	size     []int64
	email    []int64
	thread   []int64 // proposed
	object   []pgtype.UUID
	extent   [][]byte
	summary  [][]byte
	group    []int32 // of threads
	lookup   lookups
	remember threadRefs
}

func (p *plan) inserts() inserts {
	n := 0
	for _, ch := range p.changes {
		n += len(ch.Insert)
	}
	in := inserts{
		mailbox: make([]int64, 0, n), uid: make([]int64, 0, n), date: make([]time.Time, 0, n),
		size: make([]int64, 0, n), email: make([]int64, 0, n), thread: make([]int64, 0, n),
		object: make([]pgtype.UUID, 0, n), extent: make([][]byte, 0, n), summary: make([][]byte, 0, n),
	}
	var messages []*Message
	for _, ch := range p.changes {
		for i := range ch.Insert {
			m := &ch.Insert[i]
			messages = append(messages, m)
			in.mailbox = append(in.mailbox, int64(ch.Mailbox))
			in.uid = append(in.uid, int64(m.UID))
			in.date = append(in.date, m.InternalDate)
			in.size = append(in.size, m.Size)
			in.email = append(in.email, m.EmailID)
			in.object = append(in.object, pgtype.UUID{Bytes: m.Object, Valid: true})
			in.extent = append(in.extent, notNull(m.Extent))
			in.summary = append(in.summary, notNull(m.Summary))
		}
	}
	in.group, in.thread, in.lookup, in.remember = threads(p.Account, messages)
	return in
}

func notNull(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

func (p *plan) deliveries() (digests [][]byte, mailboxes, uids []int64) {
	digests = make([][]byte, len(p.Deliveries))
	mailboxes, uids = make([]int64, len(p.Deliveries)), make([]int64, len(p.Deliveries))
	for i := range p.Deliveries {
		d := &p.Deliveries[i]
		digests[i], mailboxes[i], uids[i] = d.Digest[:], int64(d.Mailbox), int64(d.UID)
	}
	return digests, mailboxes, uids
}

// deadline is null where there is none.
func (p *plan) deadline() pgtype.Timestamptz {
	return pgtype.Timestamptz{Time: p.Deadline, Valid: !p.Deadline.IsZero()}
}

// insert is the statement for several messages that come into one mailbox at once. What can
// be seen to be refused is refused by the compare-and-set itself; what comes
// up short behind it, because others were faster, ends the statement.
func (p *plan) insert() {
	ch := p.changes[0]
	numbers, slots := ch.images()
	digests, _, uids := p.deliveries()
	in := p.inserts()
	p.sql = `
with m as (
  update mailbox
  set modseq = $6::bigint,
    stamp = $7::bigint,
    uidnext = greatest(uidnext, $8::bigint),
    messages = messages + $9::bigint,
    unseen = unseen + $10::bigint,
    deleted = deleted + $11::bigint,
    bytes = bytes + $12::bigint,
    deleted_bytes = deleted_bytes + $13::bigint,
    keywords = coalesce($14::text[], keywords)
  where account_id = $1::bigint and id = $2::bigint
    and modseq = $3::bigint and stamp = $4::bigint and epoch = $5::bigint and epoch = (select e.epoch from current_epoch e)
    and dropped is not true
    and ($36::text = '' or name = $36::text)
    and ($17::timestamptz is null or clock_timestamp() < $17::timestamptz)
    and not exists (
      select 1
      from unnest($20::bytea[]) u(digest),
        lateral (select 1 from delivery d where d.account_id = $1::bigint and d.digest = u.digest limit 1) d)
    and not exists (
      select 1
      from quota q
      where q.account_id = $1::bigint
        and ($18::bigint > 0 and q.max_bytes > 0 and q.bytes + $18::bigint > q.max_bytes
          or $19::bigint > 0 and q.max_messages > 0 and q.messages + $19::bigint > q.max_messages))
  returning id),
q as (
  update quota q
  set bytes = q.bytes + $18::bigint, messages = q.messages + $19::bigint
  from m
  where q.account_id = $1::bigint
    and ($18::bigint <= 0 or q.max_bytes = 0 or q.bytes + $18::bigint <= q.max_bytes)
    and ($19::bigint <= 0 or q.max_messages = 0 or q.messages + $19::bigint <= q.max_messages)
  returning 1),
go as materialized (
  select m.id
  from m, (select count(*) from q) charged),
f as (
  insert into flags (account_id, mailbox_id, chunk, slots, max_modseq)
  select $1::bigint, go.id, u.chunk, u.slots, $6::bigint
  from go, unnest($15::int[], $16::bytea[]) u(chunk, slots)
  on conflict (account_id, mailbox_id, chunk)
    do update set slots = excluded.slots, max_modseq = excluded.max_modseq),
d as (
  insert into delivery (account_id, digest, mailbox_id, uid)
  select $1::bigint, u.digest, go.id, u.uid
  from go, unnest($20::bytea[], $21::bigint[]) u(digest, uid)
  on conflict (account_id, digest) do nothing
  returning 1),
t as materialized (
  select distinct on (u.grp) u.grp, k.thread_id
  from go, unnest($22::int[], $23::bigint[]) with ordinality u(grp, hash, n),
    lateral (
      select r.thread_id, r.at
      from thread_ref r
      where r.account_id = $1::bigint and r.msgid_hash = u.hash
      limit 1) k
  order by u.grp, k.at, u.n),
i as (
  insert into message (account_id, mailbox_id, uid, internal_date, save_date, size,
    email_id, thread_id, object, extent, summary)
  select $1::bigint, go.id, u.uid, u.internal_date, now(), u.size,
    u.email_id, coalesce(t.thread_id, u.thread_id), u.object, u.extent, u.summary
  from go
  cross join unnest($24::bigint[], $25::timestamptz[], $26::bigint[], $27::bigint[], $28::bigint[],
    $29::uuid[], $30::bytea[], $31::bytea[], $32::int[])
    u(uid, internal_date, size, email_id, thread_id, object, extent, summary, grp)
  left join t on t.grp = u.grp),
r as (
  insert into thread_ref (account_id, msgid_hash, thread_id)
  select $1::bigint, u.hash, coalesce(t.thread_id, u.thread_id)
  from go
  cross join unnest($33::bigint[], $34::int[], $35::bigint[], $37::bigint[]) u(hash, grp, thread_id, derived)
  left join t on t.grp = u.grp
  where coalesce(t.thread_id, u.thread_id) <> u.derived
  order by u.hash
  on conflict (account_id, msgid_hash) do nothing)
select
  case
    when exists (select 1 from m) then
      case
        when not exists (select 1 from q) and exists (select 1 from quota where account_id = $1::bigint)
          then refuse('quota')
        when (select count(*) from d) < cardinality($20::bytea[]) then refuse('delivered')
        else ''
      end
    when w.dropped then 'mailbox'
    when w.modseq <> $3::bigint or w.stamp <> $4::bigint or w.epoch <> $5::bigint or w.epoch <> epoch() then 'conflict'
    when exists (
      select 1
      from unnest($20::bytea[]) u(digest),
        lateral (select 1 from delivery d where d.account_id = $1::bigint and d.digest = u.digest limit 1) d)
      then 'delivered'
    when clock_timestamp() >= $17::timestamptz then 'late'
    when exists (
      select 1
      from quota q
      where q.account_id = $1::bigint
        and ($18::bigint > 0 and q.max_bytes > 0 and q.bytes + $18::bigint > q.max_bytes
          or $19::bigint > 0 and q.max_messages > 0 and q.messages + $19::bigint > q.max_messages))
      then 'quota'
    else 'conflict'
  end,
  now()
from mailbox w
where w.account_id = $1::bigint and w.id = $2::bigint`
	p.args = []any{
		p.Account, ch.Mailbox, ch.Seen.ModSeq, ch.Seen.Stamp, ch.Seen.Epoch,
		ch.ModSeq, p.stamps[0], ch.UIDNext,
		ch.Delta.Messages, ch.Delta.Unseen, ch.Delta.Deleted, ch.Delta.Bytes, ch.Delta.DeletedBytes, ch.Keywords,
		numbers, slots, p.deadline(), p.Charge.Bytes, p.Charge.Messages, digests, uids,
		in.lookup.group, in.lookup.hash,
		in.uid, in.date, in.size, in.email, in.thread, in.object, in.extent, in.summary, in.group,
		in.remember.hash, in.remember.group, in.remember.thread, ch.Name, in.remember.derived,
	}
}
