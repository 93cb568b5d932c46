package metadata

import (
	"context"
	"slices"

	"github.com/jackc/pgx/v5"
)

// threadPage is how many message ids are forgotten with one statement.
const threadPage = 1000

// ForgetThreads forgets the message ids of an account's threads that have no message any more,
// expunged ones included; it returns how many. It reads the whole account, in one statement. A message
// that comes into such a thread meanwhile stays in it; a later one may only find it by that message.
func (db *DB) ForgetThreads(ctx context.Context, account AccountID) (forgotten int64, err error) {
	var gone []int64
	// Grouped, because the planner does not know how many there are, and a join could be nested loops.
	err = db.scan(ctx, "list threads without a message", `
select unnest(array_agg(u.msgid_hash))
from (
  select r.thread_id, r.msgid_hash, false as used
  from thread_ref r
  where r.account_id = $1::bigint
  union all
  select g.thread_id, null, true
  from message g
  where g.account_id = $1::bigint and exists (select 1 from thread_ref r where r.account_id = $1::bigint)) u
group by u.thread_id
having not bool_or(u.used)`, []any{account}, func(rows pgx.Rows) error {
		var hash int64
		err := rows.Scan(&hash)
		gone = append(gone, hash)
		return err
	})
	if err != nil {
		return 0, err
	}
	slices.Sort(gone) // the order of locking
	for page := range slices.Chunk(gone, threadPage) {
		var n int64
		if err := db.writeRow(ctx, "forget threads", `
with d as (
  delete from thread_ref
  where account_id = $1::bigint and msgid_hash = any($2::bigint[])
  returning 1)
select count(*)
from d`, []any{account, page}, &n); err != nil {
			return forgotten, err
		}
		forgotten += n
	}
	return forgotten, nil
}
