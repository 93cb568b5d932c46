package metadata

import (
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgtype"
)

// appendsOne says that nothing happens but that one message comes in, perhaps as a delivery.
// That is how most mail comes, unless a mailbox gets much at once.
func (p *plan) appendsOne() bool {
	ch := p.changes[0]
	return len(ch.Insert) == 1 && len(ch.Chunks) == 1 &&
		(len(p.Deliveries) == 0 || len(p.Deliveries) == 1 && p.Deliveries[0].UID == ch.Insert[0].UID)
}

// appendOne is the statement for one message. It is that of insert, with values in place of
// arrays, and without what this message does not need: parts of a plan that have
// nothing to do cost a third of it.
func (p *plan) appendOne() {
	ch := p.changes[0]
	m, chunk := &ch.Insert[0], ch.Chunks[0]
	_, proposed, look, remember := threads(p.Account, []*Message{m})
	var own int64
	if len(look.hash) > 0 {
		own = look.hash[len(look.hash)-1]
	}
	var digest []byte
	if len(p.Deliveries) > 0 {
		digest = p.Deliveries[0].Digest[:]
	}
	form := appendForm(len(p.Deliveries) > 0, len(look.hash) > 1)
	whole := []any{
		p.Account, ch.Mailbox, ch.Seen.ModSeq, ch.Seen.Stamp, ch.Seen.Epoch,
		ch.ModSeq, p.stamps[0], ch.UIDNext,
		ch.Delta.Messages, ch.Delta.Unseen, ch.Delta.Deleted, ch.Delta.Bytes, ch.Delta.DeletedBytes, ch.Keywords,
		ch.Name, p.deadline(), p.Charge.Bytes, p.Charge.Messages, chunk.No(), chunk.Stored(),
		int64(m.UID), m.InternalDate, m.Size, m.EmailID, proposed[0],
		pgtype.UUID{Bytes: m.Object, Valid: true},
		notNull(m.Extent), notNull(m.Summary),
		own, digest, look.hash, remember.hash, remember.derived,
	}
	s := &appendStatements[form]
	p.sql, p.args = s.sql, s.pick(whole)
	if chunk.fresh {
		return
	}
	if p.Limited {
		form |= 4
	}
	s = &shortAppendStatements[form]
	p.short, p.shortArgs = s.sql, s.pick(whole)
}

// appendForm is which of the statements is for a delivery or not, and for a message that
// refers to others or not.
func appendForm(delivered, refers bool) int {
	form := 0
	if delivered {
		form |= 1
	}
	if refers {
		form |= 2
	}
	return form
}

// appendStatements are the forms of appendSQL.
var appendStatements = [...]statementForm{
	formOf(appendSQL, "append", "alone"),
	formOf(appendSQL, "delivery", "alone"),
	formOf(appendSQL, "append", "reference"),
	formOf(appendSQL, "delivery", "reference"),
}

// shortAppendStatements are the forms of shortAppendSQL, of an account without limits and with.
var shortAppendStatements = [...]statementForm{
	formOf(shortAppendSQL, "append", "alone", "unlimited"),
	formOf(shortAppendSQL, "delivery", "alone", "unlimited"),
	formOf(shortAppendSQL, "append", "reference", "unlimited"),
	formOf(shortAppendSQL, "delivery", "reference", "unlimited"),
	formOf(shortAppendSQL, "append", "alone", "limited"),
	formOf(shortAppendSQL, "delivery", "alone", "limited"),
	formOf(shortAppendSQL, "append", "reference", "limited"),
	formOf(shortAppendSQL, "delivery", "reference", "limited"),
}

// statementForm is a statement in one of its forms.
type statementForm struct {
	sql  string
	used []int // of the parameters of the whole, those that it has
}

// formOf leaves out the lines that end in a comment which is none of kinds, and numbers
// the parameters anew.
func formOf(whole string, kinds ...string) statementForm {
	var f statementForm
	var b strings.Builder
	for line := range strings.Lines(whole) {
		line, kind, marked := strings.Cut(strings.TrimSuffix(line, "\n"), " -- ")
		if marked && !slices.Contains(kinds, kind) {
			continue
		}
		for i, piece := range strings.Split(line, "$") {
			if i > 0 {
				digits := len(piece) - len(strings.TrimLeft(piece, "0123456789"))
				n, _ := strconv.Atoi(piece[:digits]) // digits
				if !slices.Contains(f.used, n) {
					f.used = append(f.used, n)
				}
				piece = "$" + strconv.Itoa(slices.Index(f.used, n)+1) + piece[digits:]
			}
			b.WriteString(piece)
		}
		b.WriteByte('\n')
	}
	f.sql = b.String()
	return f
}

// pick takes the parameters of the form from those of the whole.
func (f *statementForm) pick(all []any) []any {
	args := make([]any, len(f.used))
	for i, n := range f.used {
		args[i] = all[n-1]
	}
	return args
}

// appendMailboxSQL is how both statements begin: the mailbox as it is afterwards.
const appendMailboxSQL = `
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
    and ($15::text = '' or name = $15::text)
    and ($16::timestamptz is null or clock_timestamp() < $16::timestamptz)
    and not exists (select 1 from delivery d where d.account_id = $1::bigint and d.digest = $30::bytea) -- delivery`

// shortAppendSQL is appendSQL for when nothing stands in the way: the row of the chunk is there, and
// the account has limits, or has none, as was expected. It has no row, or refuses, when something does, and
// says nothing of what that is. Quota goes before delivery, as everywhere.
const shortAppendSQL = appendMailboxSQL + `
    and not exists (select 1 from quota q where q.account_id = $1::bigint) -- unlimited
    and not exists ( -- limited
      select 1 -- limited
      from quota q -- limited
      where q.account_id = $1::bigint -- limited
        and ($17::bigint > 0 and q.max_bytes > 0 and q.bytes + $17::bigint > q.max_bytes -- limited
          or $18::bigint > 0 and q.max_messages > 0 and q.messages + $18::bigint > q.max_messages)) -- limited
  returning id),
q as ( -- limited
  update quota q -- limited
  set bytes = q.bytes + $17::bigint, messages = q.messages + $18::bigint -- limited
  from m -- limited
  where q.account_id = $1::bigint -- limited
    and ($17::bigint <= 0 or q.max_bytes = 0 or q.bytes + $17::bigint <= q.max_bytes) -- limited
    and ($18::bigint <= 0 or q.max_messages = 0 or q.messages + $18::bigint <= q.max_messages) -- limited
  returning 1), -- limited
d as ( -- delivery
  insert into delivery (account_id, digest, mailbox_id, uid) -- delivery
  select $1::bigint, $30::bytea, m.id, $21::bigint -- delivery
  from m -- delivery
  on conflict (account_id, digest) do nothing -- delivery
  returning 1), -- delivery
t as materialized ( -- reference
  select k.thread_id -- reference
  from m, unnest($31::bigint[]) with ordinality u(hash, n), -- reference
    lateral ( -- reference
      select r.thread_id, r.at -- reference
      from thread_ref r -- reference
      where r.account_id = $1::bigint and r.msgid_hash = u.hash -- reference
      limit 1) k -- reference
  order by k.at, u.n -- reference
  limit 1), -- reference
r as ( -- reference
  insert into thread_ref (account_id, msgid_hash, thread_id) -- reference
  select $1::bigint, u.hash, coalesce((select t.thread_id from t), $25::bigint) -- reference
  from m, unnest($32::bigint[], $33::bigint[]) u(hash, derived) -- reference
  where coalesce((select t.thread_id from t), $25::bigint) <> u.derived -- reference
  order by u.hash -- reference
  on conflict (account_id, msgid_hash) do nothing), -- reference
f as (
  update flags f
  set slots = $20::bytea, max_modseq = $6::bigint
  from m
  where f.account_id = $1::bigint and f.mailbox_id = m.id and f.chunk = $19::int
  returning 1)
insert into message (account_id, mailbox_id, uid, internal_date, save_date, size,
  email_id, thread_id, object, extent, summary)
select $1::bigint, m.id,
  case
    when not exists (select 1 from q) then refuse('quota')::bigint -- limited
    when not exists (select 1 from d) then refuse('delivered')::bigint -- delivery
    when not exists (select 1 from f) then refuse('chunk')::bigint
    else $21::bigint
  end,
  $22::timestamptz, now(), $23::bigint, $24::bigint,
  coalesce((select r.thread_id from thread_ref r where r.account_id = $1::bigint and r.msgid_hash = $29::bigint), $25::bigint), -- alone
  coalesce((select t.thread_id from t), $25::bigint), -- reference
  $26::uuid, $27::bytea, $28::bytea
from m
returning '', save_date`

// appendSQL is all forms in one: a line that ends in a comment is only in the forms of
// that name.
const appendSQL = appendMailboxSQL + `
    and not exists (
      select 1
      from quota q
      where q.account_id = $1::bigint
        and ($17::bigint > 0 and q.max_bytes > 0 and q.bytes + $17::bigint > q.max_bytes
          or $18::bigint > 0 and q.max_messages > 0 and q.messages + $18::bigint > q.max_messages))
  returning id),
q as (
  update quota q
  set bytes = q.bytes + $17::bigint, messages = q.messages + $18::bigint
  from m
  where q.account_id = $1::bigint
    and ($17::bigint <= 0 or q.max_bytes = 0 or q.bytes + $17::bigint <= q.max_bytes)
    and ($18::bigint <= 0 or q.max_messages = 0 or q.messages + $18::bigint <= q.max_messages)
  returning 1),
go as materialized (
  select m.id
  from m, (select count(*) from q) charged),
f as (
  insert into flags (account_id, mailbox_id, chunk, slots, max_modseq)
  select $1::bigint, go.id, $19::int, $20::bytea, $6::bigint
  from go
  on conflict (account_id, mailbox_id, chunk)
    do update set slots = excluded.slots, max_modseq = excluded.max_modseq),
d as ( -- delivery
  insert into delivery (account_id, digest, mailbox_id, uid) -- delivery
  select $1::bigint, $30::bytea, go.id, $21::bigint -- delivery
  from go -- delivery
  on conflict (account_id, digest) do nothing -- delivery
  returning 1), -- delivery
t as materialized (
  select r.thread_id -- alone
  from go, thread_ref r -- alone
  where r.account_id = $1::bigint and r.msgid_hash = $29::bigint), -- alone
  select k.thread_id -- reference
  from go, unnest($31::bigint[]) with ordinality u(hash, n), -- reference
    lateral ( -- reference
      select r.thread_id, r.at -- reference
      from thread_ref r -- reference
      where r.account_id = $1::bigint and r.msgid_hash = u.hash -- reference
      limit 1) k -- reference
  order by k.at, u.n -- reference
  limit 1), -- reference
r as ( -- reference
  insert into thread_ref (account_id, msgid_hash, thread_id) -- reference
  select $1::bigint, u.hash, coalesce((select t.thread_id from t), $25::bigint) -- reference
  from go, unnest($32::bigint[], $33::bigint[]) u(hash, derived) -- reference
  where coalesce((select t.thread_id from t), $25::bigint) <> u.derived -- reference
  order by u.hash -- reference
  on conflict (account_id, msgid_hash) do nothing), -- reference
i as (
  insert into message (account_id, mailbox_id, uid, internal_date, save_date, size,
    email_id, thread_id, object, extent, summary)
  select $1::bigint, go.id, $21::bigint, $22::timestamptz, now(), $23::bigint,
    $24::bigint, coalesce((select t.thread_id from t), $25::bigint), $26::uuid, $27::bytea, $28::bytea
  from go)
select
  case
    when exists (select 1 from m) then
      case
        when not exists (select 1 from q) and exists (select 1 from quota where account_id = $1::bigint)
          then refuse('quota')
        when not exists (select 1 from d) then refuse('delivered') -- delivery
        else ''
      end
    when w.dropped then 'mailbox'
    when w.modseq <> $3::bigint or w.stamp <> $4::bigint or w.epoch <> $5::bigint or w.epoch <> epoch() then 'conflict'
    when exists (select 1 from delivery d where d.account_id = $1::bigint and d.digest = $30::bytea) then 'delivered' -- delivery
    when clock_timestamp() >= $16::timestamptz then 'late'
    when exists (
      select 1
      from quota q
      where q.account_id = $1::bigint
        and ($17::bigint > 0 and q.max_bytes > 0 and q.bytes + $17::bigint > q.max_bytes
          or $18::bigint > 0 and q.max_messages > 0 and q.messages + $18::bigint > q.max_messages))
      then 'quota'
    else 'conflict'
  end,
  now()
from mailbox w
where w.account_id = $1::bigint and w.id = $2::bigint`
