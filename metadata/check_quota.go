package metadata

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// QuotaCheck is what was found of an account's quota.
type QuotaCheck struct {
	Limited bool  // accounts without a limit have nothing to be wrong
	Used    Quota // as it stands there
	Counted Quota // what the counters of its mailboxes give
}

// Sound says that nothing is wrong.
func (c QuotaCheck) Sound() bool { return !c.Limited || c.Used == c.Counted }

// CheckQuota compares what an account is said to use with the sum over its mailboxes, as
// of one moment. It is right if their counters are: see CheckMailbox.
func (db *DB) CheckQuota(ctx context.Context, account AccountID) (QuotaCheck, error) {
	c := QuotaCheck{Limited: true}
	err := db.row(ctx, "count the quota of an account", `
select q.bytes, q.messages, s.bytes, s.messages
from quota q
cross join (
  select coalesce(sum(m.bytes), 0)::bigint as bytes, coalesce(sum(m.messages), 0)::bigint as messages
  from mailbox m
  where m.account_id = $1::bigint and not m.dropped) s
where q.account_id = $1::bigint`,
		[]any{account}, &c.Used.Bytes, &c.Used.Messages, &c.Counted.Bytes, &c.Counted.Messages)
	if errors.Is(err, pgx.ErrNoRows) {
		return QuotaCheck{}, nil
	}
	return c, err
}

// RepairQuota makes what a limited account is said to use the sum over its mailboxes,
// under the locks of all of them. It returns what was found there.
func (db *DB) RepairQuota(ctx context.Context, account AccountID) (QuotaCheck, error) {
	c := QuotaCheck{Limited: true}
	err := db.underLock(ctx, "repair the quota of an account", account, func(ctx context.Context, tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `
select id
from mailbox
where account_id = $1::bigint and not dropped
order by id
for update`, account); err != nil {
			return err
		}
		return tx.QueryRow(ctx, `
with o as materialized (
  select bytes, messages
  from quota
  where account_id = $1::bigint
  for update),
s as materialized (
  select coalesce(sum(bytes), 0)::bigint as bytes, coalesce(sum(messages), 0)::bigint as messages
  from mailbox
  where account_id = $1::bigint and not dropped)
update quota q
set bytes = s.bytes, messages = s.messages
from o, s
where q.account_id = $1::bigint
returning o.bytes, o.messages, q.bytes, q.messages`,
			account).Scan(&c.Used.Bytes, &c.Used.Messages, &c.Counted.Bytes, &c.Counted.Messages)
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return QuotaCheck{}, nil
	}
	if err != nil {
		return QuotaCheck{}, fmt.Errorf("repair the quota of an account: %w", err)
	}
	return c, nil
}
