package mailstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"

	"starling/events"
	"starling/metadata"
)

// box is what a node holds of one mailbox: the current snapshot, which all of
// its sessions share, those sessions, and the changes that wait for a commit.
type box struct {
	store *Store
	ref   metadata.BoxRef

	current atomic.Pointer[Snapshot] // nil until first loaded; replaced under mu, never older
	sizes   sizes
	awaited atomic.Bool  // a read in the background is about to begin
	claimed atomic.Int64 // the UIDNEXT below which a session of this node claims what is recent

	// turn is held by the one that commits to this mailbox. Of two mailboxes
	// the one with the lower id is taken first.
	turn chan struct{}

	mu       sync.Mutex
	holders  int       // sessions and operations that have it open
	idle     time.Time // since when holders is 0
	sessions map[*Mailbox]struct{}
	gone     bool     // the mailbox was deleted
	reading  *reading // the load under way, or about to be
	next     *reading // the load that those wait for who came while one was under way
	queue    []*pending
	draining bool // somebody takes from queue
	contest  int  // commits still to be made with the row lock first, because others write here
	hinted   hint // what other nodes told of and current does not have; zero: nothing

	dropped   bool  // the store let go of it: its memory does not count any more
	charged   int64 // bytes of the store's budget that it has
	expected  int64 // bytes that its first load may need, while that is under way
	sparse    bool  // it is likely to need far less
	sizeBytes int64 // of sizes
}

// reading is one load of a mailbox that any number of callers wait for.
type reading struct {
	box   *box
	why   reason            // of the first of them
	span  trace.SpanContext // likewise
	begun bool              // who comes now is too late for it; box.mu guards it
	base  *Snapshot         // what the node had when it began
	done  chan struct{}
	err   error
}

// hint is what was told of changes on other nodes.
type hint struct {
	modseq, epoch int64
	cause         Cause
}

// newBox is a box that is not loaded yet; row says how large it may be.
func newBox(s *Store, ref metadata.BoxRef, row *metadata.Mailbox) *box {
	b := &box{store: s, ref: ref, turn: make(chan struct{}, 1), sessions: make(map[*Mailbox]struct{})}
	b.sizes.box = b
	b.expected = snapshotBytes + (row.UIDNext/metadata.ChunkSlots+1)*fullChunkBytes
	b.sparse = b.expected > sparseLeast && row.Messages < row.UIDNext/sparseShare
	return b
}

// A mailbox of which UIDNEXT says that it may need much, and that has few messages for that, has its chunks counted
// before it is loaded: of years of mail that was expunged, or of UIDs that failovers passed over, nothing may be left.
const (
	sparseLeast = 1 << 20
	sparseShare = 4
)

// refresh brings the current snapshot up to what PostgreSQL has, by a read
// that begins after the call. Callers that come together share one read, which the
// first of them does itself: then ctx does not end it, but ReadTimeout.
func (b *box) refresh(ctx context.Context) error { return b.refreshFor(ctx, forCommand) }

func (b *box) refreshFor(ctx context.Context, why reason) error {
	if err := ctx.Err(); err != nil { // who has left has nothing read
		return err
	}
	span := b.store.spanOf(ctx)
	b.mu.Lock()
	r := b.reading
	start, likely := r == nil, b.likely()
	switch {
	case start:
		r = b.newReading(why, span)
		b.reading = r
	case !r.begun:
	case b.next == nil:
		b.next = b.newReading(why, span)
		r = b.next
	default:
		r = b.next
	}
	b.mu.Unlock()
	switch {
	case start && why == forCommand && likely:
		b.store.proofs.do(r)
	case start:
		r.read()
	}
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (b *box) newReading(why reason, span trace.SpanContext) *reading {
	return &reading{box: b, why: why, span: span, done: make(chan struct{})}
}

// start has r done: with what others ask at the same time if a look at the version may
// be enough.
func (r *reading) start() {
	s := r.box.store
	if r.why == forCommand {
		s.proofs.add(r)
	} else {
		s.work.Go(r.read)
	}
}

// beginProof begins r, and says whether the mailbox is likely to be as the node has it.
// If not it is read right away, on its own.
func (r *reading) beginProof() bool {
	b := r.box
	b.mu.Lock()
	r.begun, r.base = true, b.current.Load()
	likely := b.likely()
	b.mu.Unlock()
	if !likely {
		b.store.work.Go(r.read)
	}
	return likely
}

// likely says whether the mailbox may well be as the node has it; mu is held.
func (b *box) likely() bool {
	return b.current.Load() != nil && b.hinted.modseq == 0 && b.contest == 0
}

// read loads for r.
func (r *reading) read() {
	b := r.box
	b.mu.Lock()
	r.begun = true
	b.mu.Unlock()
	r.finish(b.load(r))
}

// finish tells those who wait for r, and starts what others wait for who came meanwhile.
func (r *reading) finish(err error) {
	b := r.box
	r.err = err
	b.mu.Lock()
	close(r.done)
	next := b.next
	b.reading, b.next = next, nil
	b.mu.Unlock()
	if next != nil {
		next.start()
	}
}

func (b *box) load(r *reading) (err error) {
	defer recovered(&err) // those who wait for it are answered, and the node lives on
	ctx, span := b.store.catchUpSpan(b.hintedBy(), r.span)
	defer func() { end(span, err) }()
	ctx, cancel := context.WithTimeout(ctx, b.store.cfg.ReadTimeout)
	defer cancel()
	base := b.current.Load()
	var have metadata.Version
	if base != nil {
		have = base.row.Version
		b.store.metrics.held.Inc()
		b.store.metrics.catchUps[r.why].Inc()
	} else {
		b.store.metrics.cold.Inc()
		if err := b.reserve(ctx); err != nil {
			return fmt.Errorf("load mailbox %d: %w", b.ref.Mailbox, err)
		}
		defer b.reserved()
	}
	loaded, err := b.store.db.Load(ctx, b.ref.Account, b.ref.Mailbox, have)
	if errors.Is(err, metadata.ErrNoMailbox) {
		b.setGone()
		return err
	}
	if err != nil {
		return fmt.Errorf("load mailbox %d: %w", b.ref.Mailbox, err)
	}
	if base != nil && loaded.Mailbox.UIDValidity != base.row.UIDValidity {
		b.setGone() // it was deleted, and brought back: see Account.RestoreMailbox
		return fmt.Errorf("load mailbox %d: %w", b.ref.Mailbox, metadata.ErrNoMailbox)
	}
	after := base.after(loaded)
	b.install(after)
	if (r.why == forSweep || r.why == forSuspicion) && after != base && b.untold() {
		b.store.metrics.sweepFound.Inc()
	}
	return nil
}

// untold says that nobody told of what was read just now: no hint came meanwhile, and it
// is no commit of this node of which the answer is on its way.
func (b *box) untold() bool { return b.current.Load().cause.At.IsZero() && len(b.turn) == 0 }

// after is the snapshot that a load brings about when it was made with the
// version of s, which may be nil.
func (s *Snapshot) after(l metadata.Load) *Snapshot {
	if s == nil || l.Whole {
		return newSnapshot(l.Mailbox, l.Chunks)
	}
	if len(l.Chunks) == 0 && s.row.Version == l.Mailbox.Version && s.row.ListSeq == l.Mailbox.ListSeq && s.row.Recent == l.Mailbox.Recent {
		return s
	}
	return s.with(l.Mailbox, l.Chunks)
}

// install makes s current unless a later one is already, and tells the sessions.
func (b *box) install(s *Snapshot) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if old := b.current.Load(); old != nil {
		if s.row.UIDValidity != old.row.UIDValidity && !b.gone {
			b.gone = true // as in load
			b.tell()
		}
		if b.gone || !s.replaces(old) {
			if b.hinted.in(old) { // as it was when the hint came, or a moment later
				b.hinted = hint{}
			}
			return
		}
		s = s.keeping(&old.row)
	}
	b.causedBy(s)
	b.current.Store(s)
	b.charge()
	b.tell()
}

// causedBy gives s the cause that a hint told of, if s has that change; mu is held.
func (b *box) causedBy(s *Snapshot) {
	h := b.hinted
	if !h.in(s) {
		return
	}
	b.hinted = hint{}
	if s.cause.At.IsZero() {
		s.cause = h.cause
	}
}

// in says whether s has what was told of.
func (h hint) in(s *Snapshot) bool {
	return s.row.Epoch > h.epoch || s.row.Epoch == h.epoch && s.row.ModSeq >= h.modseq
}

// told notes a hint whose change is to be read. Of several that wait for the same
// reading the first counts: that is who waits longest.
func (b *box) told(e events.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	h, cause := &b.hinted, causeOf(e)
	if e.Epoch > h.epoch || e.Epoch == h.epoch && e.ModSeq > h.modseq {
		h.epoch, h.modseq = e.Epoch, e.ModSeq
	}
	if h.cause.At.IsZero() || !cause.At.IsZero() && cause.At.Before(h.cause.At) {
		h.cause.At = cause.At
	}
	if !h.cause.Trace.IsValid() {
		h.cause.Trace = cause.Trace
	}
}

// hintedBy is the span of what others told of, if any.
func (b *box) hintedBy() trace.SpanContext {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.hinted.cause.Trace
}

// reserve takes the memory that the first load may need; what it needed counts
// from reserved on.
func (b *box) reserve(ctx context.Context) error {
	if b.sparse {
		n, err := b.store.db.CountChunks(ctx, b.ref)
		if err != nil {
			return err
		}
		b.expected = snapshotBytes + (n+1)*fullChunkBytes
	}
	if err := b.store.snapshots.take(ctx, b.ref.Account, b.expected); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.charged += b.expected
	return nil
}

func (b *box) reserved() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.charge()
}

// charge has the budget know what the box holds; mu is held.
func (b *box) charge() {
	now := int64(0)
	if s := b.current.Load(); s != nil && !b.dropped {
		now = s.bytes + b.sizeBytes
	}
	if now != b.charged {
		b.store.snapshots.adjust(b.ref.Account, now-b.charged)
		b.charged = now
	}
}

// unused says whether nobody needs the box, and since when.
func (b *box) unused() (since time.Time, unused bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.idle, b.holders == 0 && !b.draining && b.reading == nil
}

// replaces says whether s is to take the place of old. A database that lost
// commits raises epoch and modseq; an equal modseq with another stamp means
// that it lost some without being asked.
func (s *Snapshot) replaces(old *Snapshot) bool {
	a, b := s.row.Version, old.row.Version
	switch {
	case s == old:
		return false
	case a.Epoch != b.Epoch:
		return a.Epoch > b.Epoch
	case a.ModSeq != b.ModSeq:
		return a.ModSeq > b.ModSeq
	default:
		// The name and the mark of \Recent change without a commit.
		return a.Stamp != b.Stamp || s.row.ListSeq > old.row.ListSeq || s.row.Recent > old.row.Recent
	}
}

// keeping is s with what changes without a commit, where old knows better: a
// commit was built on a snapshot that may have missed it.
func (s *Snapshot) keeping(old *metadata.Mailbox) *Snapshot {
	if s.row.Epoch != old.Epoch || s.row.ListSeq >= old.ListSeq && s.row.Recent >= old.Recent {
		return s
	}
	kept := *s
	if kept.row.ListSeq < old.ListSeq {
		kept.row.ListSeq, kept.row.Name, kept.row.SpecialUse = old.ListSeq, old.Name, old.SpecialUse
	}
	kept.row.Recent = max(kept.row.Recent, old.Recent)
	return &kept
}

func (b *box) setGone() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.gone {
		b.gone = true
		b.tell()
	}
}

func (b *box) isGone() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.gone
}

// tell has every session hear that there is news; mu is held.
func (b *box) tell() {
	for m := range b.sessions {
		m.changed()
	}
}

// release gives back what Store.hold took.
func (b *box) release() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.holders--
	if b.holders == 0 && !b.dropped {
		b.idle = time.Now()
		b.store.idle.Add(1)
		b.store.snapshots.mayHaveRoom()
	}
}

// provide reads the sizes of uids. One that has no row is expunged and collected
// in what the node does not know yet; proved says that this cannot be, and is set
// once the node knows.
func (z *sizes) provide(ctx context.Context, uids []uint32, proved *bool) error {
	if err := z.read(ctx, uids); err != nil {
		return err
	}
	for _, uid := range uids {
		if _, known := z.of(uid); known {
			continue
		}
		if *proved {
			return fmt.Errorf("message %d of mailbox %d of account %x has no row", uid, z.box.ref.Mailbox, int64(z.box.ref.Account))
		}
		*proved = true
		return z.box.refresh(ctx)
	}
	return nil
}

// sizes are the sizes of messages by chunk, read when a change first needs
// them: they never change, and counters of bytes hang on them.
type sizes struct {
	box *box

	mu     sync.Mutex
	chunks map[int32]*[metadata.ChunkSlots]uint32
}

// of is the size of uid, and whether it is known.
func (z *sizes) of(uid uint32) (int64, bool) {
	z.mu.Lock()
	defer z.mu.Unlock()
	c := z.chunks[metadata.ChunkOf(uid)]
	if c == nil || c[uid%metadata.ChunkSlots] == 0 {
		return 0, false
	}
	return int64(c[uid%metadata.ChunkSlots]) - 1, true
}

// sizeChunkBytes is what the sizes of a chunk cost in memory.
const sizeChunkBytes = metadata.ChunkSlots*4 + 32

// grew counts the memory of n more chunks of sizes.
func (z *sizes) grew(n int) {
	if n > 0 {
		z.box.mu.Lock()
		defer z.box.mu.Unlock()
		z.box.sizeBytes += int64(n) * sizeChunkBytes
		z.box.charge()
	}
}

// put notes a size; one more is kept, so that 0 is "not known". It returns how many
// chunks of sizes are new, for grew.
func (z *sizes) put(uid uint32, size int64) (chunks int) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.chunks == nil {
		z.chunks = make(map[int32]*[metadata.ChunkSlots]uint32)
	}
	c := z.chunks[metadata.ChunkOf(uid)]
	if c == nil {
		c = new([metadata.ChunkSlots]uint32)
		z.chunks[metadata.ChunkOf(uid)] = c
		chunks = 1
	}
	c[uid%metadata.ChunkSlots] = uint32(size + 1) //nolint:gosec // messages are below 4 GiB
	return chunks
}

// read fetches the sizes of the whole chunks that uids lie in, in one round trip.
func (z *sizes) read(ctx context.Context, uids []uint32) error {
	slices.Sort(uids)
	ranges := make([]metadata.UIDRange, 0, len(uids))
	for _, uid := range uids {
		first := uid &^ (metadata.ChunkSlots - 1)
		last := first + metadata.ChunkSlots - 1
		n := len(ranges)
		if n > 0 && ranges[n-1].Last == last {
			continue
		}
		if n > 0 && ranges[n-1].Last+1 == first {
			ranges[n-1].Last = last
			continue
		}
		ranges = append(ranges, metadata.UIDRange{First: max(first, 1), Last: last})
	}
	chunks := 0
	err := z.box.store.db.Messages(ctx, z.box.ref.Account, z.box.ref.Mailbox, ranges, metadata.ColSize,
		func(m *metadata.Message) error {
			chunks += z.put(m.UID, m.Size)
			return nil
		})
	z.grew(chunks)
	if err != nil {
		return fmt.Errorf("read sizes: %w", err)
	}
	return nil
}
