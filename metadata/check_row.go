package metadata

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// RepairRow gives the row of a message another extent, or another summary (nil: the one that it has), if
// it still has the object and the extent of was. Nothing else ever changes a row: those who remember it
// find out when they cannot read the message by what they remember. The mailbox's modseq rises, as with
// every commit, so that no copy is made meanwhile of what was wrong; other nodes have to be told.
//
// The error is ErrConflict if the message is gone, or is not what it was.
func (db *DB) RepairRow(ctx context.Context, account AccountID, was MessageObject, extent, summary []byte) (Version, error) {
	what := "repair a row"
	if err := db.jump(ctx, account, was.Mailbox); err != nil {
		return Version{}, fmt.Errorf("%s: %w", what, err)
	}
	v := Version{Stamp: random63()}
	err := db.writeRow(ctx, what, `
with l as materialized (
  select m.id
  from mailbox m
  where m.account_id = $1::bigint and m.id = $2::bigint
    and (m.dropped or m.epoch = (select e.epoch from current_epoch e))
  for update),
g as (
  update message g
  set extent = $6::bytea, summary = coalesce($7::bytea, g.summary)
  from l
  where g.account_id = $1::bigint and g.mailbox_id = l.id and g.uid = $3::bigint
    and g.object = $4::uuid and g.extent = $5::bytea
  returning g.mailbox_id)
update mailbox m
set modseq = m.modseq + 1, stamp = $8::bigint
from g
where m.account_id = $1::bigint and m.id = g.mailbox_id
returning m.modseq, m.epoch`,
		[]any{
			account, was.Mailbox, int64(was.UID), pgtype.UUID{Bytes: was.Object, Valid: true}, was.Extent, extent, summary, v.Stamp,
		}, &v.ModSeq, &v.Epoch)
	if errors.Is(err, pgx.ErrNoRows) {
		return Version{}, ErrConflict
	}
	return v, err
}
