package mailstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"starling/blobstore/codec"
	"starling/frontend/message"
	"starling/metadata"
)

// rebuildTries bounds how often a mailbox is made that is deleted again at once.
const rebuildTries = 3

// errClaimed says that somebody else works on the account.
var errClaimed = errors.New("the collector or another rebuild is at work on the account")

// lock has the account for this rebuild alone: it waits until the collector has done with it,
// keeps it away for as long as unlock is not called or the process lives, and beyond that by
// a hold. What it returns is done when that is lost.
func (r *rebuilder) lock(ctx context.Context) (locked context.Context, unlock func(), err error) {
	ref, owner := metadata.BoxRef{Account: r.account.ID}, randomID()
	for began := time.Now(); ; {
		mine, err := r.db.Claim(ctx, ref, owner, collectLease)
		if err != nil {
			return nil, nil, err
		}
		if mine {
			break
		}
		if time.Since(began) > collectLease {
			return nil, nil, errClaimed
		}
		var p pace
		p.next = time.Now().Add(time.Second)
		if err := p.wait(ctx, 0); err != nil {
			return nil, nil, err
		}
	}
	locked, lost := context.WithCancelCause(ctx)
	renewed := make(chan struct{})
	go func() {
		defer close(renewed)
		last := time.Now()
		every(locked, func() time.Duration { return collectLease / 10 }, func() {
			mine, err := r.db.Claim(locked, ref, owner, collectLease)
			switch {
			case mine:
				last = time.Now()
			case err == nil || time.Since(last) > collectLease/2:
				lost(cmp.Or(err, errClaimed))
			}
		})
	}()
	unlock = func() {
		lost(nil)
		<-renewed
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), listTimeout)
		defer cancel()
		if err := r.db.Release(end, ref, owner); err != nil {
			r.store.log.Warn("claim not released: it ends by itself: " + err.Error())
		}
	}
	if err := r.hold(locked); err != nil {
		unlock()
		return nil, nil, err
	}
	return locked, unlock, nil
}

// hold puts the account on hold, if it is not. The reason says whose hold it is: one that
// an operator set stays, one that a rebuild left is lifted by the next.
func (r *rebuilder) hold(ctx context.Context) error {
	h, err := r.db.Hold(ctx, r.account.ID)
	if err != nil {
		return err
	}
	r.report.Held = !h.Held || h.Reason == rebuildHold
	if h.Held {
		return nil
	}
	return r.db.SetHold(ctx, r.account.Name, rebuildHold)
}

// finish counts the quota anew, also after an error. If nothing is left it writes the list of
// mailboxes, which until then says what they were called, and lifts the hold.
func (r *rebuilder) finish(ctx context.Context, err error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), listTimeout)
	defer cancel()
	if _, qerr := r.db.RepairQuota(ctx, r.account.ID); qerr != nil {
		err = errors.Join(err, qerr)
	}
	if err != nil || r.report.Young+r.report.Damaged > 0 {
		return err
	}
	if err := r.store.writeList(ctx, r.db, r.account.ID); err != nil || !r.report.Held {
		return err
	}
	if _, err := r.db.LiftHold(ctx, r.account.ID, rebuildHold); err != nil {
		return err
	}
	r.report.Held = false // by the rebuild: an operator may have set another hold meanwhile, which stays
	return nil
}

// adopted is a message that comes back.
type adopted struct {
	row   metadata.Message
	flags FlagSet
}

// batch brings back the messages of some objects, by a commit for each mailbox.
func (r *rebuilder) batch(ctx context.Context, batch []stray) error {
	read, errs := make([]adopted, len(batch)), make([]error, len(batch))
	headers := make([]codec.Header, len(batch))
	var group errgroup.Group
	group.SetLimit(rebuildReaders)
	for i := range batch {
		group.Go(func() error {
			read[i], headers[i], errs[i] = r.read(ctx, &batch[i])
			return nil
		})
	}
	_ = group.Wait() // each has its own error
	byMailbox := make(map[int32][]adopted)
	for i := range batch {
		ok, err := r.readable(&batch[i], &headers[i], errs[i])
		if err != nil {
			return err
		}
		r.step(rebuildWeight)
		if !ok {
			continue
		}
		id := read[i].row.EmailID
		if _, there := r.emails[id]; there {
			r.report.Again++
			continue
		}
		r.emails[id] = struct{}{}
		byMailbox[batch[i].mailbox] = append(byMailbox[batch[i].mailbox], read[i])
	}
	for i, name := range r.names {
		messages := byMailbox[int32(i)] //nolint:gosec // mailboxes
		if len(messages) == 0 {
			continue
		}
		if !r.opts.DryRun {
			if err := r.commit(ctx, name, messages); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		r.report.Mailboxes[name] += int64(len(messages))
		r.report.Messages += int64(len(messages))
		for j := range messages {
			r.report.Octets += messages[j].row.Size
		}
	}
	return nil
}

// read makes a row from an object.
func (r *rebuilder) read(ctx context.Context, s *stray) (adopted, codec.Header, error) {
	parser := message.NewParser()
	h, extent, err := r.store.codec.Recover(ctx, r.store.blobs, r.key(s), parser)
	if err != nil {
		return adopted{}, h, err
	}
	summary := parser.Close()
	packed, err := summary.AppendBinary(nil)
	if err != nil {
		return adopted{}, h, fmt.Errorf("pack summary: %w", err)
	}
	row := metadata.Message{
		InternalDate: dateOf(&h, s),
		Size:         extent.Plain,
		EmailID:      cmp.Or(h.EmailID, randomID()),
		Object:       s.object,
		Extent:       extent.Append(nil),
		Summary:      packed,
	}
	tie(&row, summary)
	return adopted{row: row, flags: flagsNamed(h.Flags)}, h, nil
}

// flagsNamed are the flags of an object's header; see FlagSet.names.
func flagsNamed(names []string) FlagSet {
	var f FlagSet
	system := FlagSet{System: metadata.SystemFlags}.names()
	for _, name := range names {
		if i := slices.Index(system, name); i >= 0 {
			f.System |= 1 << i
		} else {
			f.Keywords = append(f.Keywords, name)
		}
	}
	return f
}

// commit adds messages to the mailbox of that name, which is made if need be.
func (r *rebuilder) commit(ctx context.Context, name string, messages []adopted) error {
	op := &adoptOp{messages: messages}
	for range rebuildTries {
		b, err := r.session.hold(ctx, name)
		if errors.Is(err, metadata.ErrNoMailbox) {
			if err = r.create(ctx, name); err == nil {
				continue
			}
		}
		if err != nil {
			return err
		}
		b.do(ctx, op)
		b.release()
		if !errors.Is(op.err, metadata.ErrNoMailbox) {
			return op.err
		}
	}
	return fmt.Errorf("make the mailbox: %w", cmp.Or(op.err, metadata.ErrUnavailable))
}

// create makes a mailbox, with the special uses that it had and no other has, and subscribes it,
// so that its owner sees it.
func (r *rebuilder) create(ctx context.Context, name string) error {
	var uses []string
	for _, m := range r.stored.Mailboxes {
		if m.Name == name {
			uses = slices.DeleteFunc(slices.Clone(m.SpecialUse), func(use string) bool {
				for _, box := range r.boxes {
					if slices.Contains(box.SpecialUse, use) {
						return true
					}
				}
				return false
			})
		}
	}
	m, err := r.session.Create(ctx, name, uses)
	if errors.Is(err, metadata.ErrExists) {
		return nil
	}
	if err != nil {
		return err
	}
	r.boxes[m.ID] = m
	r.report.Created = append(r.report.Created, name)
	return r.session.Subscribe(ctx, name)
}

// adoptOp adds messages whose objects are there, and not charged to the quota: it is
// counted when all are there. They are not new, so there is no time until when they must be
// committed; who calls keeps the collector away.
type adoptOp struct {
	messages []adopted
	err      error
}

func (op *adoptOp) kind() kind { return kindAppend }

func (op *adoptOp) settle(_ *Snapshot, err error) { op.err = err }

func (op *adoptOp) apply(b *build) error {
	if err := b.room(len(op.messages)); err != nil {
		return err
	}
	for i := range op.messages {
		m := &op.messages[i]
		bits, _ := b.keywordBits(m.flags.Keywords) // those that fit
		row := m.row
		row.UID = b.add(m.flags.System|bits, row.Size)
		b.insert = append(b.insert, row)
		b.uncharged.Bytes += row.Size
		b.uncharged.Messages++
	}
	return nil
}
