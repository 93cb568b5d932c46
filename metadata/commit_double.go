package metadata

// double is the statement for what changes two mailboxes: COPY, MOVE and
// REPLACE. It locks both in the order of their ids, and goes on only if both
// are as they were seen.
func (p *plan) double() {
	p.sql = `
with l as materialized (
  select c.n
  from unnest($2::bigint[], $3::bigint[], $4::bigint[], $45::text[]) with ordinality c(id, modseq, stamp, name, n),
    lateral (
      select 1
      from mailbox w
      where w.account_id = $1::bigint and w.id = c.id
        and w.modseq = c.modseq and w.stamp = c.stamp and w.epoch = $5::bigint and w.epoch = (select e.epoch from current_epoch e)
        and w.dropped is not true and (c.name = '' or w.name = c.name)
      limit 1
      for update) w),
ok as materialized (
  select 1
  from l
  having count(*) = 2
    and ($10::timestamptz is null or clock_timestamp() < $10::timestamptz)
    and not exists (
      select 1
      from unnest($13::bytea[]) u(digest),
        lateral (select 1 from delivery d where d.account_id = $1::bigint and d.digest = u.digest limit 1) d)
    and not exists (
      select 1
      from quota q
      where q.account_id = $1::bigint
        and ($11::bigint > 0 and q.max_bytes > 0 and q.bytes + $11::bigint > q.max_bytes
          or $12::bigint > 0 and q.max_messages > 0 and q.messages + $12::bigint > q.max_messages))),
q as (
  update quota q
  set bytes = q.bytes + $11::bigint, messages = q.messages + $12::bigint
  from ok
  where q.account_id = $1::bigint
    and ($11::bigint <> 0 or $12::bigint <> 0)
    and ($11::bigint <= 0 or q.max_bytes = 0 or q.bytes + $11::bigint <= q.max_bytes)
    and ($12::bigint <= 0 or q.max_messages = 0 or q.messages + $12::bigint <= q.max_messages)
  returning 1),
go as materialized (
  select 1
  from ok, (select count(*) from q) charged),
m1 as (
  update mailbox m
  set modseq = ($6::bigint[])[1],
    stamp = ($7::bigint[])[1],
    uidnext = greatest(m.uidnext, ($8::bigint[])[1]),
    messages = m.messages + ($9::bigint[])[1],
    unseen = m.unseen + ($9::bigint[])[2],
    deleted = m.deleted + ($9::bigint[])[3],
    bytes = m.bytes + ($9::bigint[])[4],
    deleted_bytes = m.deleted_bytes + ($9::bigint[])[5],
    keywords = coalesce($43::text[], m.keywords)
  from go
  where m.account_id = $1::bigint and m.id = ($2::bigint[])[1] and m.modseq <> ($6::bigint[])[1]),
m2 as (
  update mailbox m
  set modseq = ($6::bigint[])[2],
    stamp = ($7::bigint[])[2],
    uidnext = greatest(m.uidnext, ($8::bigint[])[2]),
    messages = m.messages + ($9::bigint[])[6],
    unseen = m.unseen + ($9::bigint[])[7],
    deleted = m.deleted + ($9::bigint[])[8],
    bytes = m.bytes + ($9::bigint[])[9],
    deleted_bytes = m.deleted_bytes + ($9::bigint[])[10],
    keywords = coalesce($44::text[], m.keywords)
  from go
  where m.account_id = $1::bigint and m.id = ($2::bigint[])[2] and m.modseq <> ($6::bigint[])[2]),
f as (
  insert into flags (account_id, mailbox_id, chunk, slots, max_modseq)
  select $1::bigint, u.mailbox_id, u.chunk, u.slots, u.modseq
  from go, unnest($14::bigint[], $15::int[], $16::bytea[], $17::bigint[]) u(mailbox_id, chunk, slots, modseq)
  on conflict (account_id, mailbox_id, chunk)
    do update set slots = excluded.slots, max_modseq = excluded.max_modseq),
x as (
  insert into message (account_id, mailbox_id, uid, internal_date, save_date, size,
    email_id, thread_id, object, extent, summary)
  select $1::bigint, u.to_mailbox, u.new_uid, s.internal_date,
    date_trunc('second', now()) + (select sum(y.stamp % 1000000) from unnest($7::bigint[]) y(stamp)) % 1000000 * interval '1 microsecond', -- see lookForCopy
    s.size,
    s.email_id, s.thread_id, s.object, s.extent, s.summary
  from go, unnest($18::bigint[], $19::bigint[], $20::bigint[], $21::bigint[]) u(from_mailbox, uid, to_mailbox, new_uid),
    lateral (
      select g.internal_date, g.size, g.email_id, g.thread_id, g.object, g.extent, g.summary
      from message g
      where g.account_id = $1::bigint and g.mailbox_id = u.from_mailbox and g.uid = u.uid
      limit 1) s
  returning object),
b as (
  insert into blob_share as s (account_id, object, refs)
  select $1::bigint, x.object, 1 + count(*)
  from x
  where $22::boolean
  group by x.object
  order by x.object
  on conflict (account_id, object) do update set refs = s.refs + excluded.refs - 1
  returning 1),
e as (
  insert into expunged (account_id, mailbox_id, day, modseq)
  select $1::bigint, u.mailbox_id, (now() at time zone 'utc')::date, u.modseq
  from go, unnest($23::bigint[], $24::bigint[]) u(mailbox_id, modseq)
  on conflict (account_id, mailbox_id, day) do update set modseq = excluded.modseq),
d as (
  insert into delivery (account_id, digest, mailbox_id, uid)
  select $1::bigint, u.digest, u.mailbox_id, u.uid
  from go, unnest($13::bytea[], $25::bigint[], $26::bigint[]) u(digest, mailbox_id, uid)
  on conflict (account_id, digest) do nothing
  returning 1),
t as materialized (
  select distinct on (u.grp) u.grp, k.thread_id
  from go, unnest($27::int[], $28::bigint[]) with ordinality u(grp, hash, n),
    lateral (
      select r.thread_id, r.at
      from thread_ref r
      where r.account_id = $1::bigint and r.msgid_hash = u.hash
      limit 1) k
  order by u.grp, k.at, u.n),
i as (
  insert into message (account_id, mailbox_id, uid, internal_date, save_date, size,
    email_id, thread_id, object, extent, summary)
  select $1::bigint, u.mailbox_id, u.uid, u.internal_date, now(), u.size,
    u.email_id, coalesce(t.thread_id, u.thread_id), u.object, u.extent, u.summary
  from go
  cross join unnest($29::bigint[], $30::bigint[], $31::timestamptz[], $32::bigint[], $33::bigint[], $34::bigint[],
    $35::uuid[], $36::bytea[], $37::bytea[], $38::int[])
    u(mailbox_id, uid, internal_date, size, email_id, thread_id, object, extent, summary, grp)
  left join t on t.grp = u.grp),
r as (
  insert into thread_ref (account_id, msgid_hash, thread_id)
  select $1::bigint, u.hash, coalesce(t.thread_id, u.thread_id)
  from go
  cross join (select count(*) from b) shared
  cross join unnest($39::bigint[], $40::int[], $41::bigint[], $42::bigint[]) u(hash, grp, thread_id, derived)
  left join t on t.grp = u.grp
  where coalesce(t.thread_id, u.thread_id) <> u.derived
  order by u.hash
  on conflict (account_id, msgid_hash) do nothing)
select
  case
    when exists (select 1 from go) then
      case
        when ($11::bigint > 0 or $12::bigint > 0) and not exists (select 1 from q)
          and exists (select 1 from quota where account_id = $1::bigint)
          then refuse('quota')
        when (select count(*) from x) < cardinality($18::bigint[]) then refuse('source')
        when (select count(*) from d) < cardinality($13::bytea[]) then refuse('delivered')
        else ''
      end
    when not exists (
      select 1
      from mailbox w
      where w.account_id = $1::bigint and w.id = ($2::bigint[])[1] and w.dropped is not true)
      or not exists (
      select 1
      from mailbox w
      where w.account_id = $1::bigint and w.id = ($2::bigint[])[2] and w.dropped is not true) then 'mailbox'
    when not exists (
      select 1
      from mailbox w
      where w.account_id = $1::bigint and w.id = ($2::bigint[])[1]
        and w.modseq = ($3::bigint[])[1] and w.stamp = ($4::bigint[])[1] and w.epoch = $5::bigint
        and w.epoch = epoch())
      or not exists (
      select 1
      from mailbox w
      where w.account_id = $1::bigint and w.id = ($2::bigint[])[2]
        and w.modseq = ($3::bigint[])[2] and w.stamp = ($4::bigint[])[2] and w.epoch = $5::bigint
        and w.epoch = epoch()) then 'conflict'
    when exists (
      select 1
      from unnest($13::bytea[]) u(digest),
        lateral (select 1 from delivery d where d.account_id = $1::bigint and d.digest = u.digest limit 1) d)
      then 'delivered'
    when clock_timestamp() >= $10::timestamptz then 'late'
    when exists (
      select 1
      from quota q
      where q.account_id = $1::bigint
        and ($11::bigint > 0 and q.max_bytes > 0 and q.bytes + $11::bigint > q.max_bytes
          or $12::bigint > 0 and q.max_messages > 0 and q.messages + $12::bigint > q.max_messages))
      then 'quota'
    else 'conflict'
  end,
  now()`
	p.args = append(p.arguments(), p.changes[0].Keywords, p.changes[1].Keywords,
		[]string{p.changes[0].Name, p.changes[1].Name})
}
