package metadata

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// CommitLocked makes a change of one or two mailboxes that cannot lose: it
// takes their locks, then loads what changed since the versions that the
// caller has (the zero Version: all), and gives that to fn in the order of
// boxes. The commit that fn computes is sent, and the locks are released. If fn
// returns nil nothing is changed, the result is zero, and what fn was given is as
// safe as a commit (see Confirm).
//
// It takes two round trips. While fn runs nobody else can change the mailboxes,
// so it must only compute; a node that hangs in it loses the locks after
// Config.IdleInTransaction. The errors are those of Commit, and fn's own.
func (db *DB) CommitLocked(ctx context.Context, account AccountID, boxes []MailboxID, have []Version,
	fn func(loads []Load) (*Commit, error),
) (Committed, error) {
	if len(boxes) < 1 || len(boxes) > 2 || len(have) != len(boxes) || len(boxes) == 2 && boxes[0] == boxes[1] {
		return Committed{}, fmt.Errorf("locked commit of %d mailboxes with %d versions", len(boxes), len(have))
	}
	if err := ctx.Err(); err != nil {
		return Committed{}, fmt.Errorf("locked commit: %w", err)
	}
	ctx = context.WithoutCancel(ctx)
	for try := 0; ; try++ {
		l := locked{db: db, account: account, boxes: boxes, have: have}
		p, a, err := l.run(ctx, fn)
		switch {
		case err != nil && try < 2 && l.retry:
			if l.stale != 0 {
				// Only now, when no connection is held: after a failover all commits
				// meet this, and must not wait for each other's.
				if err := db.jump(ctx, account, l.stale); err != nil {
					return Committed{}, fmt.Errorf("locked commit: %w", err)
				}
			}
			db.metrics.retries.Inc()
			continue
		case err != nil:
			return Committed{}, fmt.Errorf("locked commit: %w", db.metrics.failed(err))
		case p == nil:
			return Committed{}, nil
		}
		done, err := db.settle(ctx, p, a)
		return done, db.metrics.failed(err)
	}
}

// locked is one try of a locked commit.
type locked struct {
	db      *DB
	account AccountID
	boxes   []MailboxID
	have    []Version
	retry   bool      // nothing was done that matters, and another try may do it
	stale   MailboxID // a mailbox that has to be taken into this epoch before
}

// run returns the commit that was sent and its answer, or neither if fn wanted nothing.
func (l *locked) run(ctx context.Context, fn func([]Load) (*Commit, error)) (*plan, answer, error) {
	db := l.db
	ctx, cancel := context.WithTimeout(ctx, db.config.StatementTimeout+patience)
	defer cancel()
	conn, release, err := db.acquire(ctx)
	if err != nil {
		return nil, answer{}, err
	}
	defer release()
	loads, stale, err := l.lock(ctx, conn)
	if err != nil {
		err = broken(conn, err)
		if l.retry = errors.Is(err, errBroken); l.retry {
			db.pool.Reset()
		}
		return nil, answer{}, errors.Join(classify(ctx, err), l.unlock(ctx, conn))
	}
	if stale != 0 {
		l.retry, l.stale = true, stale
		return nil, answer{}, errors.Join(ErrUnavailable, l.unlock(ctx, conn))
	}
	commit, err := fn(loads)
	if err != nil {
		return nil, answer{}, errors.Join(err, l.unlock(ctx, conn))
	}
	if commit == nil {
		return nil, answer{}, l.leave(ctx, conn)
	}
	p, err := commit.plan()
	if err != nil {
		return nil, answer{}, errors.Join(err, l.unlock(ctx, conn))
	}
	a := l.send(ctx, conn, p)
	if err := l.unlock(ctx, conn); err != nil && a.err == nil && a.outcome == outcomeDone {
		a.doubt = true
	}
	return p, a, nil
}

// lock begins the transaction, takes the locks in the order of the ids, and
// loads by statements of their own, whose snapshots are taken after the wait.
func (l *locked) lock(ctx context.Context, conn *pgxpool.Conn) (loads []Load, stale MailboxID, err error) {
	db := l.db
	ids := make([]int64, len(l.boxes))
	for i, id := range l.boxes {
		ids[i] = int64(id)
	}
	slices.SortFunc(ids, cmp.Compare[int64])
	loading := make([]loading, len(l.boxes))
	var b pgx.Batch
	b.Queue("begin")
	b.Queue(`select set_config('lock_timeout', $1::text, true), set_config('idle_in_transaction_session_timeout', $2::text, true)`,
		milliseconds(db.config.LockTimeout), milliseconds(db.config.IdleInTransaction))
	b.Queue(`
select w.modseq
from unnest($2::bigint[]) c(id),
  lateral (
    select m.modseq
    from mailbox m
    where m.account_id = $1::bigint and m.id = c.id
    limit 1
    for update) w`, l.account, ids)
	for i, id := range l.boxes {
		loading[i].account = l.account
		b.Queue(loadSQL, l.account, id, l.have[i].ModSeq, l.have[i].Stamp, l.have[i].Epoch).Query(func(rows pgx.Rows) error {
			for rows.Next() {
				if err := loading[i].row(rows); err != nil {
					return err
				}
			}
			return rows.Err()
		})
	}
	db.trips.Add(1)
	run := db.metrics.begin(ctx, "lock mailboxes")
	err = conn.SendBatch(ctx, &b).Close()
	run.end(broken(conn, err))
	if err != nil {
		return nil, 0, fmt.Errorf("lock the mailboxes: %w", err)
	}
	for i := range loading {
		if loading[i].stale && !loading[i].Mailbox.Dropped {
			return nil, l.boxes[i], nil
		}
		if box := &loading[i].Mailbox; loading[i].found && !box.Dropped {
			if err := db.epochs.check(box.Epoch); err != nil {
				return nil, 0, fmt.Errorf("lock mailbox %d: %w", l.boxes[i], err)
			}
		}
		load, err := loading[i].end()
		if err != nil {
			return nil, 0, fmt.Errorf("lock mailbox %d: %w", l.boxes[i], err)
		}
		loads = append(loads, load)
	}
	return loads, 0, nil
}

func milliseconds(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

// send sends the statement and the end of the transaction in one round trip.
func (l *locked) send(ctx context.Context, conn *pgxpool.Conn, p *plan) answer {
	var a answer
	var b pgx.Batch
	b.Queue(p.sql, p.args...).QueryRow(func(row pgx.Row) error { return row.Scan(&a.outcome, &a.at) })
	b.Queue("commit")
	l.db.trips.Add(1)
	pg := conn.Conn().PgConn()
	doubtless(pg)
	run := l.db.metrics.begin(ctx, p.what)
	a.err = broken(conn, conn.SendBatch(ctx, &b).Close())
	run.end(refusedOrLost(a.err))
	return judge(ctx, a, l.db.doubtful(pg))
}

// leave ends a transaction that changed nothing. It commits, so that what it has seen has
// reached the standby that commits wait for.
func (l *locked) leave(ctx context.Context, conn *pgxpool.Conn) error {
	l.db.trips.Add(1)
	pg := conn.Conn().PgConn()
	doubtless(pg)
	_, err := conn.Exec(ctx, "commit")
	if err == nil && l.db.doubtful(pg) {
		err = errUnconfirmed
	}
	if err != nil {
		return fmt.Errorf("%w: confirm what was seen: %w", ErrUnavailable, broken(conn, err))
	}
	return nil
}

// unlock ends a transaction that is still open, whatever it was about. A
// connection that cannot do that is closed, which does it too.
func (l *locked) unlock(ctx context.Context, conn *pgxpool.Conn) error {
	c := conn.Conn()
	if c.IsClosed() || c.PgConn().TxStatus() == 'I' {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	l.db.trips.Add(1)
	if _, err := c.Exec(ctx, "rollback"); err != nil {
		return fmt.Errorf("roll back: %w", errors.Join(err, c.Close(ctx)))
	}
	return nil
}
