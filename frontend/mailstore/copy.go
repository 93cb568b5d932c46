package mailstore

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"go.opentelemetry.io/otel/trace"

	"starling/events"
	"starling/metadata"
)

// CopyArgs is a COPY or MOVE command.
type CopyArgs struct {
	View *Snapshot           // what the session's client knows
	UIDs []metadata.UIDRange // rising
	Dest string              // name of the target
	// All demands that every message of the view is still there, or nothing is
	// done and the error is ErrExpunged. Otherwise what is expunged is passed over.
	All bool
}

// Copied is what a COPY or MOVE did: the messages Source, rising, became those
// from First on, in the same order.
type Copied struct {
	UIDValidity uint32 // of the target
	Source      []uint32
	First       uint32
	After       *Snapshot // the source mailbox afterwards
}

// Copy copies messages, flags and all, into the mailbox Dest of the same
// account, all or none (RFC 9051 §6.4.7). ErrTooMany says that they are more than a node can copy at once.
func (m *Mailbox) Copy(ctx context.Context, args CopyArgs) (Copied, error) {
	return m.transfer(ctx, args, false)
}

// Move moves messages into the mailbox Dest of the same account, all or none,
// in one commit (RFC 6851), with the errors of Copy. The mailbox as it is afterwards is proved with
// PostgreSQL, by the commit or, if nothing was there to be moved, by asking.
func (m *Mailbox) Move(ctx context.Context, args CopyArgs) (Copied, error) {
	return m.transfer(ctx, args, true)
}

func (m *Mailbox) transfer(ctx context.Context, args CopyArgs, move bool) (Copied, error) {
	args.UIDs = clip(args.UIDs, args.View)
	n := args.View.count(args.UIDs)
	if int64(n)*copyBytes > max(m.box.store.cfg.ChangeMemory*mostCopied, changeLeast*copyBytes) {
		return Copied{}, fmt.Errorf("copy %d messages: %w", n, ErrTooMany)
	}
	giveBack, err := m.account.reserveChange(ctx, n, copyBytes)
	if err != nil {
		return Copied{}, err
	}
	defer giveBack()
	dest, err := m.account.hold(ctx, args.Dest)
	if err != nil {
		return Copied{}, err
	}
	done, err := m.transferTo(ctx, dest, args, move)
	if !errors.Is(err, metadata.ErrNoMailbox) || m.Gone() {
		return done, err
	}
	// The mailbox that was known by the name has another by now.
	if dest, _, err = m.account.holdAnew(ctx, args.Dest); err != nil {
		return Copied{}, err
	}
	return m.transferTo(ctx, dest, args, move)
}

// transferTo copies or moves into dest, which it releases.
func (m *Mailbox) transferTo(ctx context.Context, dest *box, args CopyArgs, move bool) (Copied, error) {
	defer dest.release()
	t := &transfer{CopyArgs: args, move: move, from: m.box, to: dest}
	if err := t.run(ctx); err != nil {
		m.box.store.metrics.refuse(err)
		return Copied{}, err
	}
	return t.result, nil
}

// transfer is a COPY or MOVE under way. Unlike the operations on one mailbox
// it is a commit of its own, made while it has the turn of both mailboxes.
type transfer struct {
	CopyArgs
	move     bool
	from, to *box
	result   Copied
	copies   []metadata.Copy
}

// boxes are the mailboxes concerned, by id.
func (t *transfer) boxes() []*box {
	switch {
	case t.from == t.to:
		return []*box{t.from}
	case t.from.ref.Mailbox < t.to.ref.Mailbox:
		return []*box{t.from, t.to}
	default:
		return []*box{t.to, t.from}
	}
}

func (t *transfer) run(ctx context.Context) (err error) {
	boxes := t.boxes()
	for _, b := range boxes {
		b.turn <- struct{}{}
	}
	defer func() {
		for _, b := range boxes {
			<-b.turn
		}
	}()
	asked := t.from.store.spanOf(ctx)
	ctx, span := t.from.store.commitSpan(1, func(int) trace.SpanContext { return asked })
	defer func() { end(span, err) }()
	proved := false // the current snapshots were read after the command began
	for range maxAttempts {
		err := t.try(ctx, boxes, proved)
		var missing *sizesError
		switch {
		case errors.Is(err, metadata.ErrConflict):
			t.from.store.metrics.conflicts.Inc()
			for _, b := range boxes {
				b.contested()
			}
			err = nil
		case errors.Is(err, errUnproved):
			err, proved = refreshAll(ctx, boxes), true
		case errors.As(err, &missing):
			err = t.from.sizes.provide(ctx, missing.uids, &proved)
		case errors.Is(err, metadata.ErrNoMailbox):
			return errors.Join(err, refreshAll(ctx, boxes)) // finds out which
		default:
			return err
		}
		if err != nil {
			return err
		}
	}
	return fmt.Errorf("copy to mailbox %d: %w", t.to.ref.Mailbox, metadata.ErrUnavailable)
}

func refreshAll(ctx context.Context, boxes []*box) error {
	var errs []error
	for _, b := range boxes {
		errs = append(errs, b.refresh(ctx))
	}
	return errors.Join(errs...)
}

func (t *transfer) try(ctx context.Context, boxes []*box, proved bool) error {
	bases := make([]*Snapshot, len(boxes))
	for i, b := range boxes {
		bases[i] = b.current.Load()
	}
	if slices.ContainsFunc(boxes, (*box).isContested) {
		return t.tryLocked(ctx, boxes, bases)
	}
	builds, err := t.build(boxes, bases)
	if err != nil {
		return err
	}
	if len(t.copies) == 0 {
		if !proved {
			return errUnproved
		}
		t.result.After = t.from.current.Load()
		return nil
	}
	commit, chunks := t.commit(builds)
	done, err := t.from.store.db.Commit(ctx, commit)
	if err != nil {
		return err
	}
	t.committed(ctx, boxes, builds, chunks, done)
	return nil
}

func (t *transfer) tryLocked(ctx context.Context, boxes []*box, bases []*Snapshot) error {
	ids := make([]metadata.MailboxID, len(boxes))
	have := make([]metadata.Version, len(boxes))
	for i, b := range boxes {
		ids[i], have[i] = b.ref.Mailbox, bases[i].row.Version
	}
	var builds []*build
	var chunks [][]*metadata.Chunk
	done, err := t.from.store.db.CommitLocked(ctx, t.from.ref.Account, ids, have,
		func(loads []metadata.Load) (*metadata.Commit, error) {
			for i, b := range boxes {
				after := bases[i].after(loads[i])
				b.quieter(after.row.Version == bases[i].row.Version)
				b.install(after)
				bases[i] = after
			}
			var err error
			builds, err = t.build(boxes, bases)
			if err != nil || len(t.copies) == 0 {
				return nil, err
			}
			var commit *metadata.Commit
			commit, chunks = t.commit(builds)
			return commit, nil
		})
	switch {
	case err != nil:
		return err
	case len(t.copies) == 0:
		t.result.After = t.from.current.Load()
		return nil
	}
	t.committed(ctx, boxes, builds, chunks, done)
	return nil
}

// build computes the change on bases: a build for each mailbox.
func (t *transfer) build(boxes []*box, bases []*Snapshot) ([]*build, error) {
	builds := make([]*build, len(boxes))
	for i, b := range boxes {
		builds[i] = newBuild(b, bases[i])
		builds[i].begin()
	}
	from, to := builds[0], builds[len(builds)-1]
	if boxes[0] != t.from {
		from, to = to, from
	}
	t.copies, t.result = nil, Copied{UIDValidity: to.row.UIDValidity}
	if gone := gone(from, t.View, t.UIDs); t.All && len(gone) > 0 {
		return nil, ErrExpunged
	}
	var slots []metadata.Slot
	from.live(t.UIDs, func(uid uint32, slot metadata.Slot) bool {
		t.result.Source = append(t.result.Source, uid)
		slots = append(slots, slot)
		return true
	})
	if err := from.need(t.result.Source); err != nil {
		return nil, err
	}
	if to.row.Name != t.Dest {
		return nil, metadata.ErrNoMailbox // renamed meanwhile
	}
	to.named = true
	if err := to.room(len(slots)); err != nil {
		return nil, err
	}
	t.result.First = uint32(to.row.UIDNext) //nolint:gosec // UIDNEXT fits 32 bits
	mapped := mapKeywords(from, to, slots)
	for i, uid := range t.result.Source {
		size, _ := from.size(uid)
		flags := slots[i].Flags&metadata.SystemFlags | mapped(slots[i].Flags)
		t.copies = append(t.copies, metadata.Copy{
			From: t.from.ref.Mailbox, UID: uid,
			To: t.to.ref.Mailbox, NewUID: to.add(flags, size),
		})
		if t.move {
			from.set(uid, slots[i].Flags|metadata.Expunged|metadata.Moved)
		}
	}
	return builds, nil
}

// mapKeywords gives the target the keywords that slots have, as far as they
// fit, and returns how bits of one are bits of the other: by name.
func mapKeywords(from, to *build, slots []metadata.Slot) func(metadata.Flags) metadata.Flags {
	var used metadata.Flags
	for _, s := range slots {
		used |= s.Flags & metadata.AllKeywords
	}
	var bits [metadata.MaxKeywords]metadata.Flags
	for i := range used.Keywords {
		if i >= len(from.row.Keywords) || from.row.Keywords[i] == "" {
			continue // a bit without a name means nothing to anybody
		}
		// What does not fit is dropped: the copy matters more than its labels.
		bits[i], _ = to.keywordBits([]string{from.row.Keywords[i]})
	}
	return func(f metadata.Flags) metadata.Flags {
		var mapped metadata.Flags
		for i := range f.Keywords {
			mapped |= bits[i]
		}
		return mapped
	}
}

func (t *transfer) commit(builds []*build) (*metadata.Commit, [][]*metadata.Chunk) {
	c := &metadata.Commit{Account: t.from.ref.Account, Copies: t.copies, Share: !t.move}
	chunks := make([][]*metadata.Chunk, len(builds))
	for i, b := range builds {
		chunks[i] = b.chunks()
		c.Changes = append(c.Changes, b.change(chunks[i]))
		q := b.quota()
		c.Charge.Bytes += q.Bytes
		c.Charge.Messages += q.Messages
	}
	return c, chunks
}

func (t *transfer) committed(ctx context.Context, boxes []*box, builds []*build, chunks [][]*metadata.Chunk, done metadata.Committed) {
	k := kindCopy
	if t.move {
		k = kindMove
	}
	t.from.store.metrics.commit(k, 1)
	cause := t.from.store.cause(ctx)
	t.result.After = t.from.current.Load()
	hints := make([]events.Event, 0, 2)
	for i, b := range boxes {
		if !builds[i].changed() {
			continue // the source of a COPY
		}
		after, hint := b.committed(cause, builds[i], chunks[i], done, i)
		if b == t.from {
			t.result.After = after
		}
		hints = append(hints, hint)
	}
	t.from.store.publish(hints...) // in one message
}
