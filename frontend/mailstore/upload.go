package mailstore

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"go.uber.org/zap"

	"starling/blobstore"
	"starling/blobstore/codec"
	"starling/frontend/message"
	"starling/metadata"
)

// ErrTooBig says that a message is larger than Config.MaxMessage (NO [TOOBIG]).
var ErrTooBig = errors.New("message is too big")

// Incoming says where a message that comes in belongs, and how.
type Incoming struct {
	Mailbox string // its name
	Flags   FlagSet
	Date    time.Time // the internal date; the zero time stands for now
	// Fit drops keywords for which the mailbox has no room, as a delivery does,
	// instead of refusing the message.
	Fit bool
}

// Upload is a message on its way in. Its bytes are written to it as they
// arrive; they are compressed and parsed on the way, and never held in memory
// whole. What is large is sent to the store on the way too. It belongs to one
// goroutine, and must be discarded.
type Upload struct {
	store   *Store
	account *Account
	box     *box
	in      Incoming
	emailID int64
	spool   *codec.Spool
	object  blobstore.Object
	sending blobstore.Upload // of the object while it comes in; nil: it is small so far
	sendCtx context.Context  //nolint:containedctx // of what is sent meanwhile, which Discard ends
	parser  *message.Parser
	size    int64
	cost    int64         // of the store's inflight
	err     error         // of the first Write that failed: the message is not whole
	before  *Upload       // whose message comes in before this one; nil: none has to
	queued  chan struct{} // closed once the message has its place among those that come in, or gets none
}

// Appended is where a message came to stand.
type Appended struct {
	UIDValidity uint32
	UID         uint32
	// Again says that this delivery had been made before. The UIDs are 0.
	Again bool
}

// Upload begins to take in a message. metadata.ErrNoMailbox says that there is
// no such mailbox, metadata.ErrOverQuota that the account has no room for size
// octets (0: not known), metadata.ErrUnavailable that too many others are on their
// way; no byte was read then.
func (a *Account) Upload(ctx context.Context, in Incoming, size int64) (*Upload, error) {
	if size > a.store.cfg.MaxMessage {
		return nil, ErrTooBig
	}
	b, err := a.hold(ctx, in.Mailbox)
	if err != nil {
		return nil, err
	}
	if err := a.HasRoom(ctx, size); err != nil {
		b.release()
		return nil, err
	}
	cost := uploadCost(size)
	if err := a.store.inflight.take(ctx, a.row.ID, cost); err != nil {
		b.release()
		return nil, err
	}
	if in.Date.IsZero() {
		in.Date = time.Now().Truncate(time.Second)
	}
	u := &Upload{
		store: a.store, account: a, box: b, in: in,
		emailID: randomID(), object: blobstore.NewObject(),
		parser: message.NewParser(), cost: cost, sendCtx: context.WithoutCancel(ctx), queued: make(chan struct{}),
	}
	u.spool = a.store.codec.Spool(codec.Header{
		Tenant:       int64(a.row.Tenant),
		Account:      int64(a.row.ID),
		Mailbox:      int64(b.ref.Mailbox),
		MailboxName:  in.Mailbox,
		InternalDate: in.Date,
		Flags:        in.Flags.names(),
		EmailID:      u.emailID,
	})
	return u, nil
}

// HasRoom asks about the quota before anything is read, so that what cannot be
// kept is not sent at all: metadata.ErrOverQuota. The commit is what decides.
func (a *Account) HasRoom(ctx context.Context, size int64) error {
	if a.row.Limits == (metadata.Quota{}) {
		return nil
	}
	fits, err := a.store.db.Fits(ctx, a.row.ID, metadata.Quota{Bytes: size, Messages: 1})
	if err == nil && !fits {
		err = metadata.ErrOverQuota
		a.store.metrics.overQuota.Inc()
	}
	return err
}

// names are the flags as a client spells them.
func (f FlagSet) names() []string {
	var names []string
	for i, name := range [...]string{`\Seen`, `\Answered`, `\Flagged`, `\Deleted`, `\Draft`} {
		if f.System&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return append(names, f.Keywords...)
}

// randomID is a random number of 63 bits that is not 0.
func randomID() int64 {
	var b [8]byte
	for {
		_, _ = rand.Read(b[:])                                           // never fails: crypto/rand ends the process first
		if id := int64(binary.LittleEndian.Uint64(b[:]) >> 1); id != 0 { //nolint:gosec // 63 bits
			return id
		}
	}
}

// Write takes in bytes of the message. ErrTooBig says that there are too many.
// After an error the message cannot be appended any more.
func (u *Upload) Write(p []byte) (n int, err error) {
	if u.err != nil {
		return 0, u.err
	}
	u.size += int64(len(p))
	if u.size > u.store.cfg.MaxMessage {
		u.err = ErrTooBig
		return 0, u.err
	}
	_, _ = u.parser.Write(p) // never fails
	n, u.err = u.spool.Write(p)
	u.send()
	return n, u.err
}

// send lets the store have what there is of a large object.
func (u *Upload) send() {
	object, size := u.spool.Spilled()
	if object == nil {
		return
	}
	if u.sending == nil {
		u.sending = blobstore.NewUpload(u.sendCtx, u.store.blobs, u.key(), object)
	}
	u.sending.Grown(size)
}

func (u *Upload) key() blobstore.Key { return u.object.Key(int64(u.account.row.ID)) }

// Discard frees what the upload holds. Whether the message was appended stays as it is.
func (u *Upload) Discard() {
	u.box.release()
	defer u.store.inflight.give(u.account.row.ID, u.cost)
	if u.sending != nil {
		u.sending.Abort()
	}
	if err := u.spool.Discard(); err != nil {
		u.store.log.Warn("spool not discarded: " + err.Error())
	}
}

// After has the message come in after that of before, while both are appended at the same
// time. It is called before Append; before has to be appended, whatever becomes of it.
func (u *Upload) After(before *Upload) { u.before = before }

// putAttempts is how often a message is put again because the commit came too
// late for its object.
const putAttempts = 3

// Append puts the message's object, then commits its row: after a nil error the
// message is kept for good. It is called once. delivery, if not nil, is a digest
// by which a delivery that is tried again is known: a second one does nothing and
// succeeds.
func (u *Upload) Append(ctx context.Context, delivery *[32]byte) (Appended, error) {
	defer u.pass()
	if u.err != nil {
		return Appended{}, fmt.Errorf("append what was not taken in whole: %w", u.err)
	}
	summary := u.parser.Close()
	packed, err := summary.AppendBinary(nil)
	if err != nil {
		return Appended{}, fmt.Errorf("pack summary: %w", err)
	}
	object, size, extent, err := u.spool.Finish()
	if err != nil {
		return Appended{}, err
	}
	op := &appendOp{in: u.in, limited: u.account.row.Limits != metadata.Quota{}, delivery: delivery, row: metadata.Message{
		InternalDate: u.in.Date,
		Size:         u.size,
		EmailID:      u.emailID,
		Extent:       extent.Append(nil),
		Summary:      packed,
	}}
	tie(&op.row, summary)
	for range putAttempts {
		done, err := u.put(ctx, object, size)
		if err != nil {
			return Appended{}, fmt.Errorf("put message: %w", err)
		}
		op.row.Object = metadata.ObjectID(u.object)
		op.deadline = done.Date.Add(u.store.cfg.OrphanGrace / 2)
		u.commit(ctx, op)
		if !errors.Is(op.err, metadata.ErrLate) {
			break
		}
		if _, err := object.Seek(0, 0); err != nil {
			return Appended{}, fmt.Errorf("rewind spool: %w", err)
		}
		u.object = blobstore.NewObject()
	}
	u.refused(ctx, op.err)
	if !errors.Is(op.err, metadata.ErrDelivered) {
		return op.result, op.err
	}
	// The one who made it may have been told that it is in doubt, and it may be lost yet.
	if _, err := u.store.db.Confirm(ctx, u.box.ref); err != nil {
		return Appended{}, fmt.Errorf("confirm what was delivered before: %w", err)
	}
	return Appended{Again: true}, nil
}

// refusals are the errors of an append that say that it certainly did not happen, and would not now.
var refusals = [...]error{metadata.ErrDelivered, metadata.ErrOverQuota, metadata.ErrNoMailbox, ErrKeywordLimit, ErrUIDLimit}

// refused has the object of a message deleted that certainly was not taken, as the collector would in
// time: until then a rebuild would take it for mail that PostgreSQL has forgotten. Where a
// delivery was made by what was in doubt, a row names it, and the collector leaves it.
func (u *Upload) refused(ctx context.Context, why error) {
	if !slices.ContainsFunc(refusals[:], func(refusal error) bool { return errors.Is(why, refusal) }) {
		return
	}
	if _, err := u.store.db.Doom(ctx, u.account.row.ID, []metadata.ObjectID{metadata.ObjectID(u.object)}); err != nil {
		u.store.log.Debug("object of a message that was not taken stays until orphans are looked for", zap.Error(err))
	}
}

// put stores the object, the rest of it if some has been sent.
func (u *Upload) put(ctx context.Context, object io.ReadSeeker, size int64) (blobstore.PutResult, error) {
	ctx, cancel := context.WithTimeout(ctx, u.store.cfg.PutTimeout)
	defer cancel()
	if sending := u.sending; sending != nil {
		u.sending = nil
		return sending.Finish(ctx, size)
	}
	return u.store.blobs.Put(ctx, u.key(), object, size)
}

// commit appends to the mailbox that has the name now: the one that had it when
// the upload began may have been renamed or deleted meanwhile.
func (u *Upload) commit(ctx context.Context, op *appendOp) {
	u.follow()
	p, start := u.box.enqueue(ctx, op)
	u.pass()
	u.box.await(p, start)
	if !errors.Is(op.err, metadata.ErrNoMailbox) {
		return
	}
	b, _, err := u.account.holdAnew(ctx, u.in.Mailbox)
	if err != nil {
		op.err = err
		return
	}
	u.box.release()
	u.box = b
	b.do(ctx, op)
}

// follow waits until the message before this one has its place.
func (u *Upload) follow() {
	if u.before != nil {
		<-u.before.queued
		u.before = nil
	}
}

// pass lets the message after this one have its place.
func (u *Upload) pass() {
	u.follow() // if this one failed before its turn came
	select {
	case <-u.queued:
	default:
		close(u.queued)
	}
}

// appendOp adds a message whose object has been put.
type appendOp struct {
	in       Incoming
	limited  bool // the account was, when it logged in
	delivery *[32]byte
	row      metadata.Message
	deadline time.Time
	result   Appended
	err      error
}

func (op *appendOp) kind() kind { return kindAppend }

func (op *appendOp) settle(_ *Snapshot, err error) {
	if op.err = err; err != nil {
		op.result = Appended{}
	}
}

func (op *appendOp) apply(b *build) error {
	if b.row.Name != op.in.Mailbox {
		return metadata.ErrNoMailbox // renamed meanwhile
	}
	if err := b.room(1); err != nil {
		return err
	}
	if err := b.canAdd(op.in.Flags.Keywords); err != nil && !op.in.Fit {
		return err
	}
	bits, err := b.keywordBits(op.in.Flags.Keywords)
	if err != nil && !op.in.Fit {
		return err
	}
	row := op.row
	row.UID = b.add(op.in.Flags.System|bits, row.Size)
	b.insert = append(b.insert, row)
	b.named, b.limited = true, op.limited
	if b.deadline.IsZero() || op.deadline.Before(b.deadline) {
		b.deadline = op.deadline
	}
	if op.delivery != nil {
		b.deliveries = append(b.deliveries, metadata.Delivery{
			Digest: *op.delivery, Mailbox: b.box.ref.Mailbox, UID: row.UID,
		})
	}
	op.result = Appended{UIDValidity: b.row.UIDValidity, UID: row.UID}
	return nil
}

// body opens the bytes of a message of an account.
func (s *Store) body(account metadata.AccountID, row *metadata.Message) (*codec.Body, error) {
	extent, err := codec.ParseExtent(row.Extent)
	if err != nil {
		s.metrics.corrupt.Inc()
		return nil, fmt.Errorf("message %d: %w", row.UID, err)
	}
	key := blobstore.Object(row.Object).Key(int64(account))
	return s.codec.Open(s.blobs, key, extent), nil
}
