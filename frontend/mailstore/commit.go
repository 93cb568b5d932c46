package mailstore

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"

	"go.opentelemetry.io/otel/trace"

	"starling/events"
	"starling/metadata"
)

// operation is one change of one mailbox, asked for by one session. It may be
// applied more than once, each time to a build that stands on a later
// snapshot; only what the last time left in it counts.
type operation interface {
	// apply makes the change on b. An error is the operation's answer and must
	// leave b as it was; a *sizesError asks for another try.
	apply(b *build) error
	kind() kind
	// settle is told of the outcome before the session that asked goes on.
	settle(after *Snapshot, err error)
}

// errUnproved says that a group has nothing to change on what the node holds, or
// no room for a keyword, and that PostgreSQL has not yet been asked whether that is so.
var errUnproved = errors.New("nothing to change, if the snapshot is current")

// pending is an operation in a mailbox's queue.
type pending struct {
	operation
	span     trace.SpanContext // of the session's command
	done     chan struct{}
	answered bool
}

const (
	// contestLength is how many commits in a row must meet no foreign change
	// until a mailbox is written without taking its lock first.
	contestLength = 8
	// maxAttempts bounds the tries of one commit; each but the first is made
	// under the row lock, so that only an epoch or a lock that is not had in
	// time can make it fail.
	maxAttempts = 8
)

// do queues op and waits until it is committed or refused. What has queued
// while a commit was under way goes into the next one together. It is not cut
// short by the caller's context: an operation that began has an answer.
func (b *box) do(ctx context.Context, op operation) {
	p, start := b.enqueue(ctx, op)
	b.await(p, start)
}

// enqueue queues op; await has to follow.
func (b *box) enqueue(ctx context.Context, op operation) (p *pending, start bool) {
	p = &pending{operation: op, span: b.store.spanOf(ctx), done: make(chan struct{})}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.queue = append(b.queue, p)
	start = !b.draining
	b.draining = true
	return p, start
}

// await waits until p is answered. start says that nobody else commits what is queued.
func (b *box) await(p *pending, start bool) {
	if start && b.drain() {
		b.store.work.Go(func() {
			for b.drain() { // until nothing is queued
			}
		})
	}
	<-p.done
}

// drain commits what is queued. It says whether more has queued meanwhile, which its caller
// has to see to. Who is the first to queue commits itself, and so wakes nobody.
func (b *box) drain() (more bool) {
	b.turn <- struct{}{}
	defer func() { <-b.turn }()
	b.mu.Lock()
	group := b.queue
	b.queue = nil
	b.mu.Unlock()
	b.commit(group)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.draining = len(b.queue) > 0
	return b.draining
}

// commit makes the group's changes in one commit. An operation that fails is
// answered and taken out, and the others go without it.
func (b *box) commit(group []*pending) {
	after, err := b.guarded(&group)
	alone := len(group) > 1 && refusesOne(err)
	for _, p := range group {
		switch {
		case p.answered: // before another one panicked
		case alone:
			b.commit([]*pending{p})
		default:
			b.store.metrics.refuse(err)
			p.finish(after, err)
		}
	}
}

func (p *pending) finish(after *Snapshot, err error) {
	p.settle(after, err)
	p.answered = true
	close(p.done)
}

// errPanic says that a bug of ours met an operation.
var errPanic = errors.New("panic in the mail store")

// recovered, deferred, makes an error of a panic, so that it is no end of all the
// other sessions of the node.
func recovered(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("%w: %v\n%s", errPanic, p, debug.Stack())
	}
}

// guarded is attempt; a panic is the answer of the operations that it met.
func (b *box) guarded(group *[]*pending) (after *Snapshot, err error) {
	ctx, span := b.store.commitSpan(len(*group), func(i int) trace.SpanContext { return (*group)[i].span })
	defer func() { end(span, err) }()
	defer recovered(&err)
	return b.attempt(ctx, group)
}

// refusesOne says that err may be due to one operation of several: a quota, a
// delivery made before, or something that PostgreSQL does not take.
func refusesOne(err error) bool {
	return err != nil && !errors.Is(err, metadata.ErrUnavailable) && !errors.Is(err, metadata.ErrInDoubt) &&
		!errors.Is(err, metadata.ErrNoMailbox)
}

// attempt tries until the group is committed. What fails on its own leaves group.
func (b *box) attempt(ctx context.Context, group *[]*pending) (*Snapshot, error) {
	proved := false // the current snapshot was read after the operations were asked for
	for range maxAttempts {
		after, err := b.tryOnce(ctx, group, proved)
		var missing *sizesError
		switch {
		case errors.Is(err, metadata.ErrConflict):
			b.store.metrics.conflicts.Inc()
			b.contested()
			if errors.Is(err, metadata.ErrInDoubt) {
				doubted(*group)
			}
			err = nil
		case errors.Is(err, errUnproved):
			proved, err = b.prove(ctx, *group)
		case errors.As(err, &missing):
			err = b.sizes.provide(ctx, missing.uids, &proved)
		case errors.Is(err, metadata.ErrNoMailbox):
			b.setGone()
			return nil, err
		default:
			return after, err
		}
		if err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("commit to mailbox %d: %w", b.ref.Mailbox, metadata.ErrUnavailable)
}

// doubter is an operation that has to know that it may have been done by the last try, when it is tried anew.
type doubter interface{ doubt() }

func doubted(group []*pending) {
	for _, p := range group {
		if d, ok := p.operation.(doubter); ok {
			d.doubt()
		}
	}
}

// asserter is an operation whose OK may say that something is so which others did. They
// may not have been told so yet: then it has to be as safe as if the operation had done it.
type asserter interface{ asserts() bool }

// prove asks PostgreSQL whether group has nothing to change. If it has not found that the
// snapshot is current, what it found is to be looked at anew.
func (b *box) prove(ctx context.Context, group []*pending) (proved bool, err error) {
	asserts := func(p *pending) bool {
		a, ok := p.operation.(asserter)
		return ok && a.asserts()
	}
	if !slices.ContainsFunc(group, asserts) {
		return true, b.refresh(ctx)
	}
	now, err := b.store.db.Confirm(ctx, b.ref)
	if err != nil || now == b.current.Load().row.Version {
		return true, err
	}
	return false, b.refresh(ctx)
}

// tryOnce commits group once, against the current snapshot or, where others
// write too, against what is found under the row lock. proved says that the
// current snapshot was read after the group's operations were asked for.
func (b *box) tryOnce(ctx context.Context, group *[]*pending, proved bool) (*Snapshot, error) {
	if b.isContested() {
		return b.tryLocked(ctx, group)
	}
	base := b.current.Load()
	built, err := b.build(base, group, proved)
	if err != nil {
		return nil, err
	}
	if !built.changed() {
		if proved || len(*group) == 0 {
			return base, nil
		}
		return nil, errUnproved
	}
	commit, chunks := built.commit()
	done, err := b.store.db.Commit(ctx, commit)
	if err != nil {
		return nil, err
	}
	return b.committedGroup(ctx, *group, built, chunks, done), nil
}

// committedGroup is committed for the changes of a group.
func (b *box) committedGroup(ctx context.Context, group []*pending, built *build, chunks []*metadata.Chunk, done metadata.Committed) *Snapshot {
	k := group[0].kind()
	for _, p := range group[1:] {
		if p.kind() != k {
			k = kindMixed
		}
	}
	b.store.metrics.commit(k, len(group))
	after, hint := b.committed(b.store.cause(ctx), built, chunks, done, 0)
	b.store.publish(hint)
	return after
}

func (b *box) tryLocked(ctx context.Context, group *[]*pending) (*Snapshot, error) {
	base := b.current.Load()
	var built *build
	var chunks []*metadata.Chunk
	done, err := b.store.db.CommitLocked(ctx, b.ref.Account, []metadata.MailboxID{b.ref.Mailbox},
		[]metadata.Version{base.row.Version}, func(loads []metadata.Load) (*metadata.Commit, error) {
			locked := base.after(loads[0])
			b.quieter(locked.row.Version == base.row.Version)
			base = locked
			b.install(base)
			var err error
			if built, err = b.build(base, group, true); err != nil || !built.changed() {
				return nil, err
			}
			var commit *metadata.Commit
			commit, chunks = built.commit()
			return commit, nil
		})
	switch {
	case err != nil:
		return nil, err
	case !built.changed():
		return base, nil
	}
	return b.committedGroup(ctx, *group, built, chunks, done), nil
}

// build applies group to base. Operations that fail are answered and leave the
// group. A *sizesError says what has to be known first; it asks nobody itself,
// because it may run while the mailbox is locked. Unless base is proved, nothing fails
// for want of a keyword: another node's collector may have freed one. (UIDs are never freed.)
func (b *box) build(base *Snapshot, group *[]*pending, proved bool) (*build, error) {
	built := newBuild(b, base)
	unproved := false
	var unknown []uint32
	left := make([]*pending, 0, len(*group))
	for _, p := range *group {
		built.begin()
		err := p.apply(built)
		var missing *sizesError
		switch {
		case errors.As(err, &missing):
			unknown = append(unknown, missing.uids...)
		case errors.Is(err, ErrKeywordLimit) && !proved:
			unproved = true
		case err != nil:
			b.store.metrics.refuse(err)
			p.finish(nil, err)
			continue
		}
		left = append(left, p)
	}
	*group = left
	if unproved {
		return nil, errUnproved
	}
	if unknown != nil {
		return nil, &sizesError{uids: unknown}
	}
	return built, nil
}

// commit is the build as a commit of its own.
func (b *build) commit() (*metadata.Commit, []*metadata.Chunk) {
	chunks := b.chunks()
	return &metadata.Commit{
		Account:    b.box.ref.Account,
		Changes:    []metadata.Change{b.change(chunks)},
		Charge:     b.quota(),
		Limited:    b.limited,
		Deadline:   b.deadline,
		Deliveries: b.deliveries,
	}, chunks
}

// quota is by how much the account's usage changes.
func (b *build) quota() metadata.Quota {
	return metadata.Quota{
		Bytes:    b.row.Bytes - b.base.row.Bytes - b.uncharged.Bytes,
		Messages: b.row.Messages - b.base.row.Messages - b.uncharged.Messages,
	}
}

// committed makes what was built the current snapshot, and returns it with the hint for
// the other nodes.
func (b *box) committed(cause Cause, built *build, chunks []*metadata.Chunk, done metadata.Committed, i int) (*Snapshot, events.Event) {
	more := 0
	for uid, size := range built.sizes {
		more += b.sizes.put(uid, size)
	}
	b.sizes.grew(more)
	after := built.snapshot(chunks, done.Stamps[i], done.Epoch)
	after.cause = cause
	b.install(after)
	if built.base.row.UIDNext == 1 && after.row.UIDNext > 1 {
		b.store.noteList(b.ref.Account) // of a new account there is none so far
	}
	return after, cause.stamp(events.Event{
		Account: int64(b.ref.Account),
		Mailbox: int64(b.ref.Mailbox),
		Kind:    events.Changed,
		ModSeq:  after.row.ModSeq,
		Epoch:   after.row.Epoch,
	})
}

func (b *box) contested() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.contest = contestLength
}

func (b *box) isContested() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.contest > 0
}

// quieter counts down to where no lock is taken first, if nobody else wrote.
func (b *box) quieter(alone bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if alone {
		b.contest = max(0, b.contest-1) // of two mailboxes the other may be the contested one
	} else {
		b.contest = contestLength
	}
}
