package metadata

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Change is what a commit does to one mailbox. Numbers and images are computed
// on the state that Seen names, and hold if that is still the current one.
//
// A change that leaves ModSeq as it was seen changes nothing: it says that
// the mailbox, the source of a COPY, must still be as it was seen.
type Change struct {
	Mailbox  MailboxID
	Name     string // that the mailbox must still have; "": whatever it is called
	Seen     Version
	ModSeq   int64    // after the commit: Seen.ModSeq and one for each operation
	UIDNext  int64    // after the commit; 0: unchanged
	Delta    Counters // what is added to the counters
	Keywords []string // after the commit; nil: unchanged
	Chunks   []*Chunk // new images, each number once
	Expunged int64    // the highest modseq at which it expunges or moves slots away; 0: none
	Insert   []Message
}

// Copy is a message to be copied inside the database: all that never changes
// of it stays, but for UID and SaveDate.
type Copy struct {
	From   MailboxID
	UID    uint32
	To     MailboxID
	NewUID uint32
}

// Delivery says that the message with this UID is what a mail server handed
// over; the digest is of recipient, sender and bytes as received.
type Delivery struct {
	Digest  [32]byte
	Mailbox MailboxID
	UID     uint32
}

// Commit is one change of an account's mail: all of it happens, or nothing.
type Commit struct {
	Account AccountID
	Changes []Change // one, or two of different mailboxes
	Copies  []Copy
	// Share says that the copies share their objects with the sources (COPY).
	// Without it the objects go over to them (MOVE).
	Share bool
	// Charge is what is added to the account's use, if it has a limit. What is
	// positive must fit the limit; what is not never fails.
	Charge Quota
	// Limited says that the account has a limit, as far as is known. The statement finds out; one
	// that expects what is so costs less.
	Limited bool
	// Deadline is until when the objects of the inserted messages are safe from the
	// collector, by the clock of PostgreSQL. The zero time: they are not new.
	Deadline   time.Time
	Deliveries []Delivery

	collecting *collection // the collector's: see collect_mailbox.go
	repairing  bool        // counters alone: see check.go
}

// Committed is what a commit made.
type Committed struct {
	Stamps []int64 // of the new version, for each change
	Epoch  int64
	At     time.Time // SaveDate of what was inserted and copied
}

// Version is the version of the mailbox of the i-th change after the commit.
func (c *Committed) Version(commit *Commit, i int) Version {
	return Version{ModSeq: commit.Changes[i].ModSeq, Stamp: c.Stamps[i], Epoch: c.Epoch}
}

// plan is a commit made ready to be sent, perhaps more than once: by its stamps
// it is recognised.
type plan struct {
	*Commit
	changes []*Change // by mailbox id, the order of locking
	stamps  []int64   // of changes
	what    string    // the statement, as it is measured
	sql     string
	args    []any

	// short, if not "", does the same where nothing stands in the way. Otherwise it does nothing, and sql
	// does it or says why not.
	short     string
	shortArgs []any
}

func (c *Commit) plan() (*plan, error) {
	if len(c.Changes) < 1 || len(c.Changes) > 2 {
		return nil, fmt.Errorf("commit of %d mailboxes", len(c.Changes))
	}
	p := &plan{Commit: c}
	for i := range c.Changes {
		ch := &c.Changes[i]
		if ch.ModSeq < ch.Seen.ModSeq || ch.ModSeq == ch.Seen.ModSeq && !ch.unchanged() || ch.Seen.ModSeq < 1 {
			return nil, fmt.Errorf("commit of modseq %d on %d", ch.ModSeq, ch.Seen.ModSeq)
		}
		p.changes = append(p.changes, ch)
	}
	slices.SortStableFunc(p.changes, func(a, b *Change) int { return cmp.Compare(a.Mailbox, b.Mailbox) })
	if p.changes[0].unchanged() && p.changes[len(p.changes)-1].unchanged() {
		return nil, errors.New("commit that changes nothing")
	}
	for _, ch := range p.changes {
		stamp := ch.Seen.Stamp
		if !ch.unchanged() {
			stamp = random63()
		}
		p.stamps = append(p.stamps, stamp)
	}
	if len(p.changes) == 2 && p.changes[0].Mailbox == p.changes[1].Mailbox {
		return nil, errors.New("commit of two changes of one mailbox")
	}
	switch {
	case p.collecting != nil:
		p.what = "commit collected messages"
		p.collect()
	case len(p.changes) == 2:
		p.what = "commit two mailboxes"
		p.double()
	case p.plain():
		p.what = "commit flags"
		p.store()
	case len(c.Copies) == 0 && p.changes[0].Expunged == 0 && p.appendsOne():
		p.what = "commit a new message"
		p.appendOne()
	case len(c.Copies) == 0 && p.changes[0].Expunged == 0:
		p.what = "commit new messages"
		p.insert()
	default:
		p.what = "commit one mailbox"
		p.single()
	}
	return p, nil
}

// unchanged says that the mailbox is only to be as it was seen.
func (c *Change) unchanged() bool {
	return c.ModSeq == c.Seen.ModSeq && len(c.Chunks) == 0 && len(c.Insert) == 0 && c.Delta == Counters{} && c.Keywords == nil
}

// plain says that nothing changes but flags.
func (p *plan) plain() bool {
	ch := p.changes[0]
	return ch.Name == "" && len(ch.Insert) == 0 && ch.Expunged == 0 && len(p.Copies) == 0 && len(p.Deliveries) == 0 && p.Charge == Quota{}
}

// committed is the result, in the order of the caller's changes.
func (p *plan) committed(at time.Time) Committed {
	stamps := make([]int64, len(p.stamps))
	for i := range p.Changes {
		stamps[i] = p.stamps[slices.Index(p.changes, &p.Changes[i])]
	}
	return Committed{Stamps: stamps, Epoch: p.changes[0].Seen.Epoch, At: at}
}

// The outcomes that the statements report.
const (
	outcomeDone      = ""
	outcomeConflict  = "conflict"
	outcomeMailbox   = "mailbox"
	outcomeQuota     = "quota"
	outcomeLate      = "late"
	outcomeDelivered = "delivered"
	outcomeSource    = "source"
	outcomeHeld      = "held"
	outcomeRefs      = "refs"
)

var outcomes = map[string]error{
	outcomeConflict:  ErrConflict,
	outcomeMailbox:   ErrNoMailbox,
	outcomeQuota:     ErrOverQuota,
	outcomeLate:      ErrLate,
	outcomeDelivered: ErrDelivered,
	outcomeSource:    ErrSourceGone,
	outcomeHeld:      ErrHeld,
	outcomeRefs:      errRefs,
}

// refusalCode is the SQLSTATE of refuse().
const refusalCode = "ST001"

// answer is what became of a statement that was sent.
type answer struct {
	outcome string
	at      time.Time
	err     error
	doubt   bool // it may have happened all the same, or not have happened for good
	unsent  bool // it never left
	raised  bool // the outcome ended the statement, which had found nothing against it at first
}

// Commit makes a change, in one statement and one round trip.
//
// The error is ErrConflict if a mailbox is no longer as it was seen,
// ErrNoMailbox if it was deleted, ErrOverQuota, ErrLate, ErrDelivered or
// ErrSourceGone (a message to be copied has no row any more); in all these
// cases nothing happened, nor with ErrUnavailable. With ErrInDoubt it may have
// happened or not; if it is an ErrConflict as well, what it was to change was as it would have
// made it, by itself or by others, who changed the mailbox too: it can be computed anew on what there is.
//
// Once begun it does not end with ctx. It ends all the same, by the timeouts
// of the configuration.
func (db *DB) Commit(ctx context.Context, c *Commit) (Committed, error) {
	p, err := c.plan()
	if err != nil {
		return Committed{}, err
	}
	if err := ctx.Err(); err != nil {
		return Committed{}, fmt.Errorf("commit: %w", err)
	}
	ctx = context.WithoutCancel(ctx)
	if p.changes[0].Seen.Epoch < db.SeenEpoch() {
		// Behind a pooler nobody knows to which server a statement goes, but one of the past
		// takes none that was computed on what is of the present.
		return Committed{}, fmt.Errorf("commit: %w", ErrConflict)
	}
	done, err := db.settle(ctx, p, db.send(ctx, p))
	return done, db.metrics.failed(err)
}

// send sends the statement once, on a connection that works if there is one.
func (db *DB) send(ctx context.Context, p *plan) answer {
	ctx, cancel := context.WithTimeout(ctx, db.config.StatementTimeout+patience)
	defer cancel()
	for try := 0; ; try++ {
		a := db.trySend(ctx, p)
		if a.unsent && try < 2 && errors.Is(a.err, errBroken) {
			db.pool.Reset()
			db.metrics.retries.Inc()
			continue
		}
		return a
	}
}

func (db *DB) trySend(ctx context.Context, p *plan) answer {
	conn, release, err := db.acquire(ctx)
	if err != nil {
		return answer{err: err, unsent: true}
	}
	defer release()
	pg := conn.Conn().PgConn()
	doubtless(pg)
	var a answer
	run := db.metrics.begin(ctx, p.what)
	if p.short != "" {
		db.trips.Add(1)
		a.err = broken(conn, conn.QueryRow(ctx, p.short, p.shortArgs...).Scan(&a.outcome, &a.at))
	}
	if p.short == "" || a.err != nil && refusedOrLost(a.err) == nil {
		db.trips.Add(1)
		a.err = broken(conn, conn.QueryRow(ctx, p.sql, p.args...).Scan(&a.outcome, &a.at))
	}
	run.end(refusedOrLost(a.err))
	if errors.Is(a.err, errBroken) && pgconn.SafeToRetry(a.err) {
		return answer{err: classify(ctx, a.err), unsent: true}
	}
	return judge(ctx, a, db.doubtful(pg))
}

// refusedOrLost leaves out the errors that are answers.
func refusedOrLost(err error) error {
	if err == nil {
		return nil // before anything is allocated
	}
	var refused *pgconn.PgError
	if errors.Is(err, pgx.ErrNoRows) || errors.As(err, &refused) && refused.Code == refusalCode {
		return nil
	}
	return err
}

// judge tells refusals from doubts.
func judge(ctx context.Context, a answer, warned bool) answer {
	a.doubt = warned
	if a.err == nil {
		return a
	}
	var refused *pgconn.PgError
	switch {
	case errors.Is(a.err, pgx.ErrNoRows):
		a.err, a.outcome = nil, outcomeMailbox
	case errors.As(a.err, &refused) && refused.Code == refusalCode:
		a.err, a.outcome, a.raised = nil, refused.Message, true
	case errors.As(a.err, &refused):
		a.doubt = a.doubt || again(refused.Code)
	case errors.Is(a.err, errBroken):
		a.doubt = true
	}
	if a.err != nil {
		a.err = classify(ctx, a.err)
	}
	return a
}

// again says that a statement may be sent again, by the rule for doubts:
// serialization, deadlock, no lock in time; and shutdowns and broken
// connections, which say nothing of what was committed.
func again(code string) bool {
	switch code {
	case "40001", "40P01", "55P03":
		return true
	}
	return code[:4] == "57P0" || code[:2] == "08"
}

// result is the end of a commit that is not in doubt.
func (p *plan) result(a answer) (Committed, error) {
	if a.err != nil {
		return Committed{}, fmt.Errorf("commit: %w", a.err)
	}
	if a.outcome == outcomeDone {
		return p.committed(a.at), nil
	}
	if err := outcomes[a.outcome]; err != nil {
		return Committed{}, fmt.Errorf("commit: %w", err)
	}
	return Committed{}, fmt.Errorf("commit: unknown outcome %q", a.outcome)
}
