package mailstore

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"starling/metadata"
)

// ErrKeywordLimit says that the mailbox has no room for another keyword (NO [LIMIT]).
var ErrKeywordLimit = errors.New("mailbox cannot hold more keywords")

// ErrUIDLimit says that the mailbox has given out all UIDs (NO [LIMIT]).
var ErrUIDLimit = errors.New("mailbox has no UIDs left")

// lastUID is the greatest UID that is given out: UIDNEXT must still fit 32 bits.
const lastUID = 4_294_967_294

// sizesError says that a change has to know the sizes of messages that the node
// does not hold yet. Whoever applies the change reads them and applies it again.
type sizesError struct {
	uids []uint32 // one of each chunk
}

func (n *sizesError) Error() string {
	return fmt.Sprintf("sizes of %d chunks are not known", len(n.uids))
}

// build is a mailbox change in the making: operations are applied to it one
// after the other, each on the result of the one before.
type build struct {
	box   *box
	base  *Snapshot
	row   metadata.Mailbox // as it will be
	edits map[int32]*metadata.Edit

	insert     []metadata.Message
	sizes      map[uint32]int64 // of what is added; nobody else's until it is committed
	deliveries []metadata.Delivery
	uncharged  metadata.Quota // of what is added, that does not count now
	expunged   int64
	keywords   bool // row.Keywords is a copy of our own
	named      bool // the mailbox was meant by its name, which the commit checks
	limited    bool // the account has a limit, as far as is known
	deadline   time.Time

	modseq int64 // of the operation being applied
}

func newBuild(b *box, base *Snapshot) *build {
	return &build{box: b, base: base, row: base.row, edits: make(map[int32]*metadata.Edit), modseq: base.row.ModSeq}
}

// begin starts the next operation.
func (b *build) begin() { b.modseq = b.row.ModSeq + 1 }

// changed says whether any operation so far changed anything.
func (b *build) changed() bool { return b.row.ModSeq != b.base.row.ModSeq }

// slot is the slot of uid as the operations so far leave it.
func (b *build) slot(uid uint32) metadata.Slot {
	if e := b.edits[metadata.ChunkOf(uid)]; e != nil {
		return e.Slot(int(uid % metadata.ChunkSlots))
	}
	return b.base.Slot(uid)
}

// live yields the messages of ranges that are live now, rising by UID.
func (b *build) live(ranges []metadata.UIDRange, yield func(uint32, metadata.Slot) bool) {
	for _, r := range ranges {
		last := min(r.Last, uint32(b.row.UIDNext-1)) //nolint:gosec // UIDNEXT fits 32 bits
		for uid := range b.base.slots(r.First, last, func(s metadata.Slot) bool { return s.ModSeq != 0 }) {
			if slot := b.slot(uid); slot.Live() && !yield(uid, slot) {
				return
			}
		}
	}
}

// set gives a message of the base other flags under the operation's modseq,
// and keeps the counters. Its size must be known: see need.
func (b *build) set(uid uint32, flags metadata.Flags) {
	old := b.slot(uid)
	now := metadata.Slot{Flags: flags, ModSeq: b.modseq}
	if old.Live() && now.Live() && (old.Flags^flags)&metadata.Deleted == 0 {
		b.row.Unseen += unseen(flags) - unseen(old.Flags) // the sizes, which take a look, cancel out
	} else {
		b.count(uid, old, -1)
		b.count(uid, now, +1)
	}
	b.edit(metadata.ChunkOf(uid)).Set(int(uid%metadata.ChunkSlots), now)
	b.row.ModSeq = b.modseq
	if old.Live() && !now.Live() {
		b.expunged = b.modseq
	}
}

func (b *build) edit(no int32) *metadata.Edit {
	e := b.edits[no]
	if e == nil {
		if c := b.base.chunk(no); c != nil {
			e = c.Edit()
		} else {
			e = metadata.NewEdit(no)
		}
		b.edits[no] = e
	}
	return e
}

// unseen is 1 for a message without \Seen, else 0.
func unseen(flags metadata.Flags) int64 {
	if flags&metadata.Seen == 0 {
		return 1
	}
	return 0
}

func (b *build) count(uid uint32, s metadata.Slot, by int64) {
	if !s.Live() {
		return
	}
	c := metadata.Counters{Messages: by, Unseen: by * unseen(s.Flags)}
	size, _ := b.size(uid)
	c.Bytes = by * size
	if s.Flags&metadata.Deleted != 0 {
		c.Deleted, c.DeletedBytes = by, by*size
	}
	b.row.Counters = b.row.Counters.Add(c)
}

// size is the size of a message of the base, or of one that was added, and
// whether it is known.
func (b *build) size(uid uint32) (int64, bool) {
	if size, added := b.sizes[uid]; added {
		return size, true
	}
	return b.box.sizes.of(uid)
}

// need returns a *sizesError if the size of any of uids, which rise, is not known.
func (b *build) need(uids []uint32) error {
	var missing []uint32
	for _, uid := range uids {
		if n := len(missing); n > 0 && metadata.ChunkOf(missing[n-1]) == metadata.ChunkOf(uid) {
			continue
		}
		if _, known := b.size(uid); !known {
			missing = append(missing, uid)
		}
	}
	if missing != nil {
		return &sizesError{uids: missing}
	}
	return nil
}

// room says whether n more UIDs can be given out.
func (b *build) room(n int) error {
	if b.row.UIDNext+int64(n)-1 > lastUID {
		return ErrUIDLimit
	}
	return nil
}

// add gives a new message the next UID. Its flags come with the operation's
// modseq. Room must be there.
func (b *build) add(flags metadata.Flags, size int64) uint32 {
	uid := uint32(b.row.UIDNext) //nolint:gosec // UIDNEXT fits 32 bits
	b.row.UIDNext++
	if b.sizes == nil {
		b.sizes = make(map[uint32]int64)
	}
	b.sizes[uid] = size
	slot := metadata.Slot{Flags: flags, ModSeq: b.modseq}
	b.edit(metadata.ChunkOf(uid)).Set(int(uid%metadata.ChunkSlots), slot)
	b.count(uid, slot, +1)
	b.row.ModSeq = b.modseq
	return uid
}

// keywordBits are the bits of the keywords names, which are given one where the
// mailbox has room. The bits of those that fit are returned with the error.
func (b *build) keywordBits(names []string) (metadata.Flags, error) {
	var bits metadata.Flags
	var failed error
	for _, name := range names {
		if bit := keywordBit(b.row.Keywords, name); bit != 0 {
			bits |= bit
			continue
		}
		i := slices.Index(b.row.Keywords, "")
		if i < 0 && len(b.row.Keywords) == metadata.MaxKeywords {
			failed = ErrKeywordLimit
			continue
		}
		if !b.keywords {
			b.row.Keywords, b.keywords = slices.Clone(b.row.Keywords), true
		}
		if i < 0 {
			i = len(b.row.Keywords)
			b.row.Keywords = append(b.row.Keywords, "")
		}
		b.row.Keywords[i] = name
		bits |= metadata.Keyword(i)
	}
	return bits, failed
}

// canAdd says whether names would fit, without adding any.
func (b *build) canAdd(names []string) error {
	free := metadata.MaxKeywords
	for _, k := range b.row.Keywords {
		if k != "" {
			free--
		}
	}
	for i, name := range names {
		if keywordBit(b.row.Keywords, name) == 0 &&
			!slices.ContainsFunc(names[:i], func(n string) bool { return equalKeyword(n, name) }) {
			if free--; free < 0 {
				return ErrKeywordLimit
			}
		}
	}
	return nil
}

// chunks are the changed chunks, rising by number.
func (b *build) chunks() []*metadata.Chunk {
	chunks := make([]*metadata.Chunk, 0, len(b.edits))
	for _, e := range b.edits {
		chunks = append(chunks, e.Chunk())
	}
	slices.SortFunc(chunks, func(x, y *metadata.Chunk) int { return cmp.Compare(x.No(), y.No()) })
	b.edits = nil
	return chunks
}

// change is what the operations together do to the mailbox.
func (b *build) change(chunks []*metadata.Chunk) metadata.Change {
	was, is := b.base.row.Counters, b.row.Counters
	c := metadata.Change{
		Mailbox: b.box.ref.Mailbox,
		Seen:    b.base.row.Version,
		ModSeq:  b.row.ModSeq,
		UIDNext: b.row.UIDNext,
		Delta: metadata.Counters{
			Messages:     is.Messages - was.Messages,
			Unseen:       is.Unseen - was.Unseen,
			Deleted:      is.Deleted - was.Deleted,
			Bytes:        is.Bytes - was.Bytes,
			DeletedBytes: is.DeletedBytes - was.DeletedBytes,
		},
		Chunks:   chunks,
		Expunged: b.expunged,
		Insert:   b.insert,
	}
	if b.keywords {
		c.Keywords = b.row.Keywords
	}
	if b.named {
		c.Name = b.row.Name
	}
	return c
}

// snapshot is the mailbox after the commit that wrote chunks with stamp.
func (b *build) snapshot(chunks []*metadata.Chunk, stamp, epoch int64) *Snapshot {
	row := b.row
	row.Stamp, row.Epoch = stamp, epoch
	return b.base.with(row, chunks)
}
