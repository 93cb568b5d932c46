package metadata

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
)

// replaceChunks puts empty chunks in the place of those that cannot be read, so that the mailbox
// can be opened again: the rows of their messages are stray ones then. A chunk of a format that
// another release may write is left. The horizon rises to the new modseq, because nothing is
// known any more of what was expunged there.
func (db *DB) replaceChunks(ctx context.Context, ref BoxRef) error {
	if err := db.jump(ctx, ref.Account, ref.Mailbox); err != nil {
		return err
	}
	seen, bad, err := db.badChunks(ctx, ref)
	if err != nil || len(bad) == 0 {
		return err
	}
	var modseq int64
	err = db.writeRow(ctx, "replace chunks that cannot be read", `
with m as (
  update mailbox
  set modseq = modseq + 1, horizon = modseq + 1, stamp = $6::bigint
  where account_id = $1::bigint and id = $2::bigint
    and modseq = $3::bigint and stamp = $4::bigint and epoch = $5::bigint and epoch = (select e.epoch from current_epoch e)
    and dropped is not true
  returning modseq),
c as (
  update flags f
  set slots = $8::bytea, max_modseq = m.modseq
  from m
  where f.account_id = $1::bigint and f.mailbox_id = $2::bigint and f.chunk = any($7::int[]))
select modseq
from m`,
		[]any{ref.Account, ref.Mailbox, seen.ModSeq, seen.Stamp, seen.Epoch, random63(), bad, []byte{chunkFormat}}, &modseq)
	if errors.Is(err, pgx.ErrNoRows) {
		return ErrConflict
	}
	return err
}

// badChunks are the numbers of the chunks that cannot be read, at a version of the mailbox.
func (db *DB) badChunks(ctx context.Context, ref BoxRef) (seen Version, bad []int32, err error) {
	err = db.rows(ctx, "read chunks as they are stored", `
select m.modseq, m.stamp, m.epoch, f.chunk, f.slots, c.write_format
from cluster c, mailbox m
join flags f on f.account_id = m.account_id and f.mailbox_id = m.id
where m.account_id = $1::bigint and m.id = $2::bigint
order by f.chunk`,
		[]any{ref.Account, ref.Mailbox}, func(rows pgx.Rows) error {
			var no int32
			var slots []byte
			var format int
			if err := rows.Scan(&seen.ModSeq, &seen.Stamp, &seen.Epoch, &no, &slots, &format); err != nil {
				return err
			}
			ours := len(slots) == 0 || slots[0] == chunkFormat || int(slots[0]) > format
			if _, err := ParseChunk(no, slots); err != nil && ours {
				bad = append(bad, no)
			}
			return nil
		})
	return seen, bad, err
}
