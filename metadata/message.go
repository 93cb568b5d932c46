package metadata

import (
	"context"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// Columns are the parts of a message's row that a caller wants.
type Columns uint8

// The columns. The UID always comes.
const (
	ColDates   Columns = 1 << iota // InternalDate, SaveDate
	ColSize                        // Size
	ColIDs                         // EmailID, ThreadID
	ColBlob                        // Object, Extent
	ColSummary                     // Summary
)

// maxRanges bounds the ranges of one statement.
const maxRanges = 16_384

// Messages reads the rows of messages with a UID in ranges, in the order of
// the ranges, which the caller has sorted and which do not overlap. Expunged
// messages come too, as long as the collector has not taken their rows. The
// message that fn gets, and its slices, are valid only until fn returns. An
// error of fn ends the reading and comes back. It is one round trip for up to
// 16,384 ranges, and one more for as many more.
//
// It holds a connection until the end, and Config.StatementTimeout bounds it:
// fn must not wait for clients or for other servers.
func (db *DB) Messages(ctx context.Context, account AccountID, id MailboxID, ranges []UIDRange, columns Columns, fn func(*Message) error) error {
	for piece := range slices.Chunk(ranges, maxRanges) {
		if err := db.messages(ctx, account, id, piece, columns, fn); err != nil {
			return err
		}
	}
	return nil
}

func (db *DB) messages(ctx context.Context, account AccountID, id MailboxID, ranges []UIDRange, columns Columns, fn func(*Message) error) error {
	first, last := make([]int64, len(ranges)), make([]int64, len(ranges))
	for i, r := range ranges {
		first[i], last[i] = int64(r.First), int64(r.Last)
	}
	var m Message
	var date, saved pgtype.Timestamptz
	var size, email, thread pgtype.Int8
	var object pgtype.UUID
	var extent, summary pgtype.DriverBytes
	into := []any{&m.UID, &date, &saved, &size, &email, &thread, &object, &extent, &summary}
	return db.rows(ctx, "read messages", `
select g.uid, g.internal_date, g.save_date, g.size, g.email_id, g.thread_id, g.object, g.extent, g.summary
from unnest($3::bigint[], $4::bigint[]) r(first, last),
  lateral (
    select g.uid,
      case when $5::boolean then g.internal_date end as internal_date,
      case when $5::boolean then g.save_date end as save_date,
      case when $6::boolean then g.size end as size,
      case when $7::boolean then g.email_id end as email_id,
      case when $7::boolean then g.thread_id end as thread_id,
      case when $8::boolean then g.object end as object,
      case when $8::boolean then g.extent end as extent,
      case when $9::boolean then g.summary end as summary
    from message g
    where g.account_id = $1::bigint and g.mailbox_id = $2::bigint and g.uid between r.first and r.last
    order by g.account_id, g.mailbox_id, g.uid) g`,
		[]any{
			account, id, first, last,
			columns&ColDates != 0, columns&ColSize != 0, columns&ColIDs != 0, columns&ColBlob != 0, columns&ColSummary != 0,
		},
		func(rows pgx.Rows) error {
			if err := rows.Scan(into...); err != nil {
				return err
			}
			m.InternalDate, m.SaveDate, m.Size = date.Time, saved.Time, size.Int64
			m.EmailID, m.ThreadID = email.Int64, thread.Int64
			m.Object, m.Extent, m.Summary = object.Bytes, extent, summary
			return fn(&m)
		})
}
