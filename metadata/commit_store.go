package metadata

// images are the chunks of a change as arrays.
func (c *Change) images() (numbers []int32, slots [][]byte) {
	numbers, slots = make([]int32, len(c.Chunks)), make([][]byte, len(c.Chunks))
	for i, chunk := range c.Chunks {
		numbers[i], slots[i] = chunk.No(), chunk.Stored()
	}
	return numbers, slots
}

// store is the statement for changes of flags, the most frequent one.
func (p *plan) store() {
	ch := p.changes[0]
	numbers, slots := ch.images()
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
  returning id),
f as (
  insert into flags (account_id, mailbox_id, chunk, slots, max_modseq)
  select $1::bigint, m.id, u.chunk, u.slots, $6::bigint
  from m, unnest($15::int[], $16::bytea[]) u(chunk, slots)
  on conflict (account_id, mailbox_id, chunk)
    do update set slots = excluded.slots, max_modseq = excluded.max_modseq)
select
  case
    when exists (select 1 from m) then ''
    when w.dropped then 'mailbox'
    else 'conflict'
  end,
  now()
from mailbox w
where w.account_id = $1::bigint and w.id = $2::bigint`
	p.args = []any{
		p.Account, ch.Mailbox, ch.Seen.ModSeq, ch.Seen.Stamp, ch.Seen.Epoch,
		ch.ModSeq, p.stamps[0], ch.UIDNext,
		ch.Delta.Messages, ch.Delta.Unseen, ch.Delta.Deleted, ch.Delta.Bytes, ch.Delta.DeletedBytes, ch.Keywords,
		numbers, slots,
	}
}
