package metadata

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/prometheus/client_golang/prometheus"
)

// epochs is what a process knows of the epochs of the database. Who has seen one takes
// nothing from a server of an older one: it is a primary that was failed over, and is
// reached still, or again. What it says is of a past that the others have left, and what
// it is told will be lost.
type epochs struct {
	seen    atomic.Int64 // the highest; 0: none yet
	refused prometheus.Counter
}

// errPast says that a server is of an older epoch than one that was seen.
var errPast = errors.New("the server is of an older epoch than one that was seen: a primary that was failed over, or a restored database before which nodes were not stopped")

// check takes in an epoch of a server, and refuses an older one than has been seen. The error
// is ErrUnavailable.
func (e *epochs) check(epoch int64) error {
	seen := e.learn(epoch)
	if epoch == seen {
		return nil
	}
	e.refused.Inc()
	return fmt.Errorf("%w: %w: its timeline is %d and its generation %d, those that were seen are %d and %d", ErrUnavailable, errPast,
		epoch>>24, epoch&maxGeneration, seen>>24, seen&maxGeneration)
}

// learn takes in an epoch, and returns the highest that was seen.
func (e *epochs) learn(epoch int64) int64 {
	for {
		seen := e.seen.Load()
		if epoch <= seen || e.seen.CompareAndSwap(seen, epoch) {
			return max(epoch, seen)
		}
	}
}

// epochKey is where a connection notes the epoch of its server, which is never lower
// afterwards: a server that was promoted gives up all connections that it had as a standby.
const epochKey = "starling.epoch"

// ask notes the epoch of the server of a new connection, and refuses one of the past.
func (e *epochs) ask(ctx context.Context, pg *pgconn.PgConn) error {
	results, err := pg.Exec(ctx, "select epoch from current_epoch").ReadAll()
	var refused *pgconn.PgError
	if errors.As(err, &refused) && refused.Code == "42P01" {
		return nil // there is no schema yet, or one that is too old to work with
	}
	if err != nil {
		return fmt.Errorf("ask for the epoch of the server: %w", err)
	}
	if len(results[0].Rows) != 1 {
		return errors.New("ask for the epoch of the server: its table cluster does not have one row")
	}
	epoch, err := strconv.ParseInt(string(results[0].Rows[0][0]), 10, 64)
	if err != nil {
		return fmt.Errorf("ask for the epoch of the server: %w", err)
	}
	pg.CustomData()[epochKey] = epoch
	return e.check(epoch)
}

// past says whether a higher epoch was seen since the connection was made.
func (e *epochs) past(pg *pgconn.PgConn) bool {
	epoch, known := pg.CustomData()[epochKey].(int64)
	return known && epoch < e.seen.Load()
}

// present keeps connections to servers of the past from being taken out of a pool.
func (e *epochs) present(_ context.Context, conn *pgx.Conn) (bool, error) {
	if e.past(conn.PgConn()) {
		e.refused.Inc()
		return false, nil
	}
	return true, nil
}

// SeenEpoch is the highest epoch that was seen, by this process or by others of which it
// heard; 0: none yet.
func (db *DB) SeenEpoch() int64 { return db.epochs.seen.Load() }

// LearnEpoch takes in an epoch that another node has seen. From then on no server of an older one
// is believed, until the process ends.
func (db *DB) LearnEpoch(epoch int64) { db.epochs.learn(epoch) }

// maxGeneration is the highest generation of a timeline: the low 24 bits of an epoch.
const maxGeneration = 1<<24 - 1

// jump takes a mailbox of another epoch into this one. Numbers that the other
// gave out, and that this database does not know of, are passed over: the
// modseq goes to a multiple of 2^28, the UIDs by 131,072 to the border of a chunk.
// It does so once for each epoch since, as what was lost may have been a jump.
func (db *DB) jump(ctx context.Context, account AccountID, id MailboxID) error {
	var epoch int64
	err := db.writeRow(ctx, "take the mailbox into the new epoch", `
with n as materialized (
  select m.id, epoch() as epoch, greatest(1,
    (epoch() >> 24) - (m.epoch >> 24) + greatest(0, (epoch() & 16777215) - (m.epoch & 16777215))) as epochs
  from mailbox m
  where m.account_id = $1::bigint and m.id = $2::bigint and m.epoch <> epoch() and m.dropped is not true
  for update)
update mailbox m
set jumps = m.jumps || m.modseq || array(select ((m.modseq >> 28) + i) << 28 from generate_series(1, n.epochs - 1) i),
  modseq = ((m.modseq >> 28) + n.epochs) << 28,
  uidnext = least(((m.uidnext + 131072 * n.epochs + 127) >> 7) << 7, 4294967295),
  epoch = n.epoch,
  stamp = $3::bigint
from n
where m.account_id = $1::bigint and m.id = n.id
returning m.epoch`,
		[]any{account, id, random63()}, &epoch)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil // somebody else was faster
	}
	return err
}

// jumped has rows of mailboxes of another epoch say the numbers that they have as soon as
// anybody opens or changes them: clients may have been told of higher ones than they have now. Such
// a row is then of the database's epoch, and differs from what anybody holds.
func (db *DB) jumped(ctx context.Context, boxes []Mailbox) error {
	seen := db.SeenEpoch()
	if !slices.ContainsFunc(boxes, func(m Mailbox) bool { return m.Epoch != seen }) {
		return nil
	}
	// A row may be of a later epoch than any that was seen, and after a restore of one that the
	// database does not reach.
	now, err := db.Epoch(ctx)
	if err != nil {
		return err
	}
	for i := range boxes {
		if m := &boxes[i]; m.Epoch != now {
			n := max(1, now>>24-m.Epoch>>24+max(0, now&maxGeneration-m.Epoch&maxGeneration))
			m.ModSeq = (m.ModSeq>>28 + n) << 28
			m.UIDNext = min((m.UIDNext+131072*n+127)>>7<<7, 1<<32-1)
			m.Epoch = now
		}
	}
	return nil
}

// BumpEpoch begins a new epoch. It is for after a restore that did not raise
// the timeline, as that of a dump.
func (db *DB) BumpEpoch(ctx context.Context) (epoch int64, err error) {
	if err := db.writeRow(ctx, "bump the epoch", `
update cluster
set generation = generation + 1
where generation < 16777215
returning generation`, nil, &epoch); err != nil {
		return 0, err
	}
	return db.Epoch(ctx)
}

// Epoch is the epoch of the database.
func (db *DB) Epoch(ctx context.Context) (int64, error) {
	var epoch int64
	if err := db.row(ctx, "read the epoch", `select epoch()`, nil, &epoch); err != nil {
		return 0, err
	}
	return epoch, db.epochs.check(epoch)
}
