package metadata

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
)

// maxResends bounds how often a commit that is known not to have happened is
// sent again.
const maxResends = 8

// verdict is what is found out about a commit in doubt.
type verdict int

const (
	unknown   verdict = iota
	happened          // it is there
	untouched         // the mailboxes are as they were seen: it did not happen, and still can
	overtaken         // it did not happen, and another commit did
	repeated          // it did not happen, and another made the same delivery
	alike             // what it would have changed is as it would have made it, by itself or by another
)

// settle ends a commit. If its answer leaves a doubt, it finds out under the
// rows' locks whether it happened, and sends it again if it did not and still
// can. Every sending carries the same stamps, so a sending that arrives late
// is recognised too.
func (db *DB) settle(ctx context.Context, p *plan, a answer) (Committed, error) {
	if a.outcome == outcomeQuota && a.raised && !a.doubt {
		a = db.send(ctx, p) // others took the room, or the limit was lifted: only a statement that begins now sees that
	}
	if !a.doubt {
		return p.result(a)
	}
	done, outcome, err := db.settleDoubt(ctx, p, a)
	db.metrics.doubts[outcome].Inc()
	return done, err
}

func (db *DB) settleDoubt(ctx context.Context, p *plan, a answer) (done Committed, outcome string, err error) {
	ctx, cancel := context.WithTimeout(ctx, db.config.ResolveTimeout)
	defer cancel()
	defer context.AfterFunc(db.abort.done, cancel)()
	db = db.patient() // what was sent must be found out, however many others there are
	resent := false
	for range maxResends {
		v, at, err := db.resolve(ctx, p)
		if v == untouched && resent && !a.doubt && a.outcome == outcomeConflict {
			v = overtaken // not there, but renamed, or the source of a copy has changed
		}
		switch v {
		case happened:
			return p.committed(at), doubtHappened, nil
		case overtaken:
			return Committed{}, doubtLost, fmt.Errorf("commit: %w", ErrConflict)
		case alike:
			return Committed{}, doubtHappened, fmt.Errorf("commit: %w: %w: %w", ErrConflict, ErrInDoubt, errOthersToo)
		case repeated:
			return Committed{}, doubtDuplicate, fmt.Errorf("commit: %w", ErrDelivered)
		case untouched:
			db.metrics.retries.Inc()
			a, resent = db.send(ctx, p), true
			if !a.doubt && !a.unsent && a.outcome != outcomeConflict {
				done, err := p.result(a)
				return done, doubtResent, err
			}
		default:
			return Committed{}, doubtUnknown, fmt.Errorf("commit: %w: %w", ErrInDoubt, errors.Join(ErrUnavailable, err))
		}
	}
	return Committed{}, doubtUnknown, fmt.Errorf("commit: %w: %w", ErrInDoubt, errors.Join(ErrUnavailable, a.err))
}

// errOthersToo says that a commit that was made or not has been followed by others, which the node does not know.
var errOthersToo = errors.New("others changed the mailbox too")

// errUnconfirmed says that what was seen may be on the primary alone.
var errUnconfirmed = errors.New("the standby did not confirm")

// Confirm returns the version that a mailbox has now, the zero one if there is none, when everything that could be
// read of the account before is as safe as a commit: another's commit whose wait for the standby was
// cancelled can be read, and be lost with the primary. It takes the time of a commit.
func (db *DB) Confirm(ctx context.Context, ref BoxRef) (Version, error) {
	var v Version
	err := db.writeRow(ctx, "confirm the version of a mailbox", `
select modseq, stamp, (select epoch())
from mailbox
where account_id = $1::bigint and id = $2::bigint
for no key update`,
		[]any{ref.Account, ref.Mailbox}, &v.ModSeq, &v.Stamp, &v.Epoch)
	if errors.Is(err, pgx.ErrNoRows) {
		return Version{}, nil
	}
	if err == nil {
		err = db.epochs.check(v.Epoch)
	}
	if errors.Is(err, ErrInDoubt) { // which changes nothing
		err = fmt.Errorf("%w: %w", ErrUnavailable, errUnconfirmed)
	}
	return v, err
}

// resolve looks until it has seen, or ctx ends.
func (db *DB) resolve(ctx context.Context, p *plan) (v verdict, at time.Time, err error) {
	for pause := db.config.MinBackoff; ; pause = min(2*pause, db.config.MaxBackoff) {
		v, at, err = db.tryResolve(ctx, p)
		if err == nil {
			return v, at, nil
		}
		timer := time.NewTimer(pause/2 + rand.N(pause)) //nolint:gosec // jitter
		select {
		case <-ctx.Done():
			timer.Stop()
			return unknown, at, fmt.Errorf("find out what became of it: %w", errors.Join(ctx.Err(), err))
		case <-timer.C:
		}
	}
}

// tryResolve looks under the rows' locks: a commit that is still under way
// holds them, and would be missed without. The transaction commits, so that
// what was seen has reached the standby that commits wait for.
func (db *DB) tryResolve(ctx context.Context, p *plan) (v verdict, at time.Time, err error) {
	conn, release, err := db.acquire(ctx)
	if err != nil {
		return unknown, at, err
	}
	defer release()
	defer func() {
		if err = broken(conn, err); errors.Is(err, errBroken) {
			db.pool.Reset()
		}
	}()
	run := db.metrics.begin(ctx, "resolve a commit in doubt")
	defer func() { run.end(err) }()
	pg := conn.Conn().PgConn()
	doubtless(pg)
	tx, err := conn.Begin(ctx)
	if err != nil {
		return unknown, at, err
	}
	db.trips.Add(1)
	if v, at, err = db.look(ctx, tx, p); err != nil {
		return unknown, at, errors.Join(err, rollback(ctx, tx))
	}
	db.trips.Add(1)
	if err := tx.Commit(ctx); err != nil {
		return unknown, at, err
	}
	if db.doubtful(pg) {
		return unknown, at, errUnconfirmed
	}
	return v, at, nil
}

func (db *DB) look(ctx context.Context, tx pgx.Tx, p *plan) (verdict, time.Time, error) {
	var now time.Time
	rows := make(map[MailboxID]lockedRow, len(p.changes))
	for _, ch := range p.changes { // by id
		var r lockedRow
		db.trips.Add(1)
		err := tx.QueryRow(ctx, `
select modseq, stamp, epoch, uidnext, epoch <> epoch(), dropped, now()
from mailbox
where account_id = $1::bigint and id = $2::bigint
for update`,
			p.Account, ch.Mailbox).Scan(&r.ModSeq, &r.Stamp, &r.Epoch, &r.uidnext, &r.stale, &r.dropped, &now)
		if errors.Is(err, pgx.ErrNoRows) {
			continue // collected meanwhile; the other evidence may be left
		}
		if err != nil {
			return unknown, now, err
		}
		rows[ch.Mailbox] = r
	}
	changed, asSeen := 0, 0
	for i, ch := range p.changes {
		if ch.unchanged() {
			continue // it says nothing: it is as it was, with the commit and without
		}
		changed++
		r := rows[ch.Mailbox]
		if r.Stamp == p.stamps[i] {
			return happened, now, nil
		}
		if r.Version == ch.Seen && !r.dropped {
			if r.stale {
				return overtaken, now, nil // by a failover: it can never happen now
			}
			asSeen++
		}
	}
	switch asSeen {
	case 0:
		return db.evidence(ctx, tx, p, rows, now)
	case changed:
		return untouched, now, nil
	}
	return overtaken, now, nil
}

// lockedRow is a mailbox row under its lock.
type lockedRow struct {
	Version
	uidnext int64
	stale   bool // of another epoch than the database
	dropped bool
}

// evidence judges by what the commit would have left, now that another commit
// came after it or instead of it.
func (db *DB) evidence(ctx context.Context, tx pgx.Tx, p *plan, rows map[MailboxID]lockedRow, now time.Time) (verdict, time.Time, error) {
	if p.collecting != nil || p.repairing {
		return unknown, now, nil // who collects or repairs looks again at what is left to do
	}
	db.trips.Add(1)
	for _, d := range p.Deliveries {
		var mine bool
		err := tx.QueryRow(ctx, `
select mailbox_id = $3::bigint and uid = $4::bigint
from delivery
where account_id = $1::bigint and digest = $2::bytea`,
			p.Account, d.Digest[:], d.Mailbox, int64(d.UID)).Scan(&mine)
		switch {
		case errors.Is(err, pgx.ErrNoRows):
			return overtaken, now, nil
		case err != nil:
			return unknown, now, err
		case !mine:
			return repeated, now, nil
		}
	}
	for _, ch := range p.changes {
		if len(ch.Insert) > 0 {
			return lookForInsert(ctx, tx, p, ch, rows[ch.Mailbox], now)
		}
	}
	if len(p.Copies) > 0 {
		return lookForCopy(ctx, tx, p, rows[p.Copies[0].To], now)
	}
	for _, ch := range p.changes {
		if v, err := lookAtSlots(ctx, tx, p.Account, ch); v != alike || err != nil {
			return v, now, err
		}
	}
	return alike, now, nil
}

// lookForInsert: a commit is all there or not at all, so one message says it.
func lookForInsert(ctx context.Context, tx pgx.Tx, p *plan, ch *Change, r lockedRow, now time.Time) (verdict, time.Time, error) {
	m := &ch.Insert[0]
	var email int64
	at := now
	err := tx.QueryRow(ctx, `
select email_id, save_date
from message
where account_id = $1::bigint and mailbox_id = $2::bigint and uid = $3::bigint`,
		p.Account, ch.Mailbox, int64(m.UID)).Scan(&email, &at)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return missing(r, m.UID), now, nil
	case err != nil:
		return unknown, now, err
	case email != m.EmailID && len(p.Deliveries) > 0:
		return repeated, now, nil // the same delivery by another node, which took the same UID
	case email != m.EmailID:
		return overtaken, now, nil
	}
	return happened, at, nil
}

// missing judges a row that is not there: its UID was not given out yet, or
// the collector took it since.
func missing(r lockedRow, uid uint32) verdict {
	if r.uidnext != 0 && r.uidnext <= int64(uid) {
		return overtaken
	}
	return unknown
}

// lookForCopy: a copy is the same whoever made it, and another commit that wanted the same may have got the same UID. So
// the fraction of a second of its save date, which nobody is told, is the committer's: a part of its stamps.
func lookForCopy(ctx context.Context, tx pgx.Tx, p *plan, r lockedRow, now time.Time) (verdict, time.Time, error) {
	c := &p.Copies[0]
	var same *bool
	at := now
	sum := int64(0)
	for _, stamp := range p.stamps {
		sum = (sum + stamp%1_000_000) % 1_000_000
	}
	err := tx.QueryRow(ctx, `
select d.email_id = s.email_id and extract(microseconds from d.save_date)::bigint % 1000000 = $6::bigint, d.save_date
from message d
left join message s on s.account_id = $1::bigint and s.mailbox_id = $2::bigint and s.uid = $3::bigint
where d.account_id = $1::bigint and d.mailbox_id = $4::bigint and d.uid = $5::bigint`,
		p.Account, c.From, int64(c.UID), c.To, int64(c.NewUID), sum).Scan(&same, &at)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return missing(r, c.NewUID), now, nil
	case err != nil || same == nil:
		return unknown, now, err
	case !*same:
		return overtaken, now, nil
	}
	return happened, at, nil
}

// lookAtSlots: a slot that is still older than the commit says that it did not
// happen. If all are as it would have made them, it did, or another did that saw the same
// mailbox, wanted the same and took the same modseq; that one may have changed more, so the
// version of this one is nobody's. Otherwise others changed them again, and nothing can be said.
func lookAtSlots(ctx context.Context, tx pgx.Tx, account AccountID, ch *Change) (verdict, error) {
	same := true
	for _, mine := range ch.Chunks {
		var stored []byte
		err := tx.QueryRow(ctx, `
select slots
from flags
where account_id = $1::bigint and mailbox_id = $2::bigint and chunk = $3::int`,
			account, ch.Mailbox, mine.No()).Scan(&stored)
		if errors.Is(err, pgx.ErrNoRows) {
			return unknown, nil
		}
		if err != nil {
			return unknown, err
		}
		now, err := ParseChunk(mine.No(), stored)
		if err != nil {
			return unknown, err
		}
		for i := range mine.Len() {
			want, is := mine.Slot(i), now.Slot(i)
			if want.ModSeq <= ch.Seen.ModSeq {
				continue
			}
			if is.ModSeq <= ch.Seen.ModSeq {
				return overtaken, nil
			}
			same = same && is == want
		}
	}
	if !same {
		return unknown, nil
	}
	return alike, nil
}
