package metadata

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// CollectDropped deletes what is left of a mailbox that was deleted: its
// messages, in commits of at most 1,000, then its flags and its row. It is for
// mailboxes of DueDropped. The errors are those of Collect; that it is gone
// already is none.
func (db *DB) CollectDropped(ctx context.Context, ref BoxRef) (Collected, error) {
	l := loading{account: ref.Account}
	if err := db.rows(ctx, "load deleted mailbox", loadSQL, []any{ref.Account, ref.Mailbox, int64(0), int64(0), int64(0)}, l.row); err != nil {
		return Collected{}, err
	}
	if !l.found {
		return Collected{}, nil
	}
	if !l.Mailbox.Dropped {
		return Collected{}, fmt.Errorf("collect mailbox %d: it is not deleted", ref.Mailbox)
	}
	l.Mailbox.Account = ref.Account
	c := &collector{db: db, left: []UIDRange{{First: 1, Last: 1<<32 - 1}}}
	c.bring(l.Load)
	for more := true; more; {
		var batch []row
		var err error
		if batch, more, err = c.next(ctx); err == nil && len(batch) > 0 {
			err = c.commitDropped(ctx, batch)
		}
		if err != nil {
			return c.done, fmt.Errorf("collect deleted mailbox %d: %w", ref.Mailbox, err)
		}
	}
	c.done.Chunks = len(c.chunks)
	return c.done, db.forgetMailbox(ctx, &c.box)
}

func (c *collector) commitDropped(ctx context.Context, batch []row) error {
	what := &collection{dropped: true, rows: batch}
	for _, r := range batch {
		if c.slot(r.uid).Flags&Moved == 0 {
			what.owned = append(what.owned, r)
		}
	}
	commit := c.change(what)
	done, err := c.db.Commit(ctx, commit)
	if err != nil {
		return err
	}
	c.committed(commit, done)
	return nil
}

// forgetMailbox removes the row of a deleted mailbox that has no messages any
// more, and what hangs on it.
func (db *DB) forgetMailbox(ctx context.Context, m *Mailbox) error {
	err := db.writeRow(ctx, "forget a deleted mailbox", `
with m as (
  delete from mailbox m
  where m.account_id = $1::bigint and m.id = $2::bigint and m.dropped
    and m.modseq = $3::bigint and m.stamp = $4::bigint
    and not exists (select 1 from message g where g.account_id = $1::bigint and g.mailbox_id = $2::bigint)
    and not exists (select 1 from account a where a.account_id = $1::bigint and a.hold)
  returning m.id),
f as (
  delete from flags f
  using m
  where f.account_id = $1::bigint and f.mailbox_id = $2::bigint),
e as (
  delete from expunged e
  using m
  where e.account_id = $1::bigint and e.mailbox_id = $2::bigint)
select id
from m`,
		[]any{m.Account, m.ID, m.ModSeq, m.Stamp}, &m.ID)
	if errors.Is(err, pgx.ErrNoRows) {
		return fmt.Errorf("forget deleted mailbox %d: %w", m.ID, ErrConflict)
	}
	return err
}
