package metadata

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5"
)

// What is counted while it changes is counted here anew, from what it counts, while
// clients work: nothing is locked, and what is found is of one moment all the same. A
// difference that only a change under way makes is never reported. Repairs are
// commits like all others.
//
// To check an account: CheckMailbox for each of its mailboxes, RepairMailbox where something
// is wrong, then CheckQuota, then CheckShares.

// Pace is called after each page that a check has read, with how many rows it had. It
// may wait, so that the check does not take more of the database than it should, and
// ends it with an error. nil waits for nothing.
type Pace func(ctx context.Context, rows int) error

const (
	// checkPage is how many rows are read at a time.
	checkPage = 5000
	// checkTries bounds how often changes of others are followed.
	checkTries = 100
	// checkListed bounds how many UIDs a MailboxCheck lists.
	checkListed = 1000
)

// MailboxCheck is what was found in a mailbox.
type MailboxCheck struct {
	Mailbox Mailbox  // as it was checked
	Counted Counters // what its slots and rows give
	// Lost are messages without a row, of which flags are all that is left; Stray are rows
	// without a slot, which no client sees. Both by UID, rising, the first 1,000.
	Lost, Stray []uint32
	// LostCount and StrayCount are how many there are.
	LostCount, StrayCount int
	// Ahead says that a slot or a row has a UID or a modseq that was not given out.
	Ahead bool

	lastUID    uint32 // the greatest in use, but for what is absurdly far ahead
	lastModSeq int64  // likewise
}

// Sound says that nothing is wrong.
func (c *MailboxCheck) Sound() bool {
	return c.Mailbox.Counters == c.Counted && c.LostCount == 0 && c.StrayCount == 0 && !c.Ahead
}

// same says that the same is wrong, maybe at another version.
func (c *MailboxCheck) same(other *MailboxCheck) bool {
	return c.LostCount == other.LostCount && c.StrayCount == other.StrayCount && slices.Equal(c.Lost, other.Lost) && slices.Equal(c.Stray, other.Stray) &&
		c.Ahead == other.Ahead && c.Mailbox.Counters.sub(c.Counted) == other.Mailbox.Counters.sub(other.Counted)
}

// CheckMailbox compares a mailbox's counters with its slots, and those with the rows of
// its messages. It reads all of them, in pages. The error is ErrNoMailbox if the mailbox
// was deleted, ErrConflict if it changes too fast to say what is wrong with it, ErrChunk if
// a chunk cannot be read.
func (db *DB) CheckMailbox(ctx context.Context, ref BoxRef, pace Pace) (MailboxCheck, error) {
	r := recount{db: db, ref: ref, pace: pace}
	found, err := r.check(ctx, false)
	if err != nil {
		return MailboxCheck{}, fmt.Errorf("check mailbox %d: %w", ref.Mailbox, err)
	}
	return found, nil
}

// RepairMailbox mends what CheckMailbox finds, and returns what it found before:
//
//   - The counters become what was counted. The size of a lost message is not known, and counts 0.
//   - UIDNEXT and the modseq are raised above what is in use, so that nothing is given out twice;
//     what is absurdly far ahead of them stays.
//   - Stray rows come back as new messages, without flags, because the old UIDs were passed long
//     ago; the objects go over to them, as with Undelete.
//   - Chunks that cannot be read, and that no release wrote, become empty ones, and so the rows of
//     their messages stray ones: those that were expunged, and are not collected yet, come back too.
//   - Lost messages are expunged, if lost says so. Nothing is left of them by which an object in
//     the bucket could be theirs: see Named first.
//
// Each is a commit like all others, at the version that was looked at. The quota is not charged:
// see RepairQuota.
func (db *DB) RepairMailbox(ctx context.Context, ref BoxRef, lost bool, pace Pace) (MailboxCheck, error) {
	r := recount{db: db, ref: ref, pace: pace, lost: lost}
	found, err := r.check(ctx, true)
	if errors.Is(err, ErrChunk) {
		if err = db.replaceChunks(ctx, ref); err == nil {
			r = recount{db: db, ref: ref, pace: pace, lost: lost}
			found, err = r.check(ctx, true)
		}
	}
	if err != nil {
		return MailboxCheck{}, fmt.Errorf("repair mailbox %d: %w", ref.Mailbox, err)
	}
	return found, nil
}

// recount is a check of a mailbox under way: chunk by chunk, so that those that others
// change meanwhile can be done again.
type recount struct {
	db     *DB
	ref    BoxRef
	pace   Pace
	lost   bool // a repair expunges lost messages
	box    Mailbox
	chunks map[int32]*Chunk
	counts map[int32]*chunkCount
}

// chunkCount is what a chunk and the rows of its UIDs give.
type chunkCount struct {
	Counters
	rows [ChunkSlots / 64]uint64 // a bit for each row that is there
}

// check reads the mailbox, then what changed meanwhile, until it is known whether it is
// sound. With repair it commits what is right until there is nothing more to mend, and returns
// what it found first.
func (r *recount) check(ctx context.Context, repair bool) (MailboxCheck, error) {
	var first *MailboxCheck
	var last MailboxCheck
	for tries := 0; tries < checkTries; tries++ {
		before := r.box.Version
		if err := r.follow(ctx); err != nil {
			return MailboxCheck{}, err
		}
		found := r.found()
		if repair {
			commit, err := r.repair(ctx, &found)
			if err == nil && commit != nil {
				_, err = r.db.Commit(ctx, commit)
			}
			switch {
			// What is in doubt is looked at again, as is what others changed.
			case errors.Is(err, ErrConflict), errors.Is(err, ErrSourceGone), errors.Is(err, ErrInDoubt):
				continue
			case err != nil:
				return MailboxCheck{}, err
			case commit != nil: // there may be more
				if first == nil {
					first = &found
				}
				tries = 0
				continue
			case first != nil:
				return *first, nil
			}
		}
		// What is wrong may be a row that was written, or collected, after its slot was read; then the next
		// look finds something else. What others change all the time can be told of all the same.
		if found.Sound() || r.box.Version == before || tries > 0 && found.same(&last) {
			return found, nil
		}
		last = found
	}
	return MailboxCheck{}, ErrConflict
}

// follow loads what changed and counts it. With nothing changed, nothing was.
func (r *recount) follow(ctx context.Context) error {
	l, err := r.db.Load(ctx, r.ref.Account, r.ref.Mailbox, r.box.Version)
	if err != nil {
		return err
	}
	r.box = l.Mailbox
	if l.Whole || r.chunks == nil {
		r.chunks, r.counts = make(map[int32]*Chunk, len(l.Chunks)), make(map[int32]*chunkCount, len(l.Chunks))
	}
	for _, c := range l.Chunks {
		r.chunks[c.No()], r.counts[c.No()] = c, new(chunkCount)
	}
	if l.Whole {
		return r.read(ctx, 0, 1<<32-1)
	}
	for _, c := range l.Chunks {
		if err := r.read(ctx, int64(c.First()), int64(c.First())+ChunkSlots-1); err != nil {
			return err
		}
	}
	return nil
}

// read counts the rows of the UIDs from first to last.
func (r *recount) read(ctx context.Context, first, last int64) error {
	for n := checkPage; n == checkPage; {
		n = 0
		err := r.db.rows(ctx, "read sizes of messages", `
select uid, size
from message
where account_id = $1::bigint and mailbox_id = $2::bigint and uid between $3::bigint and $4::bigint
order by account_id, mailbox_id, uid
limit $5::bigint`,
			[]any{r.ref.Account, r.ref.Mailbox, first, last, int64(checkPage)}, func(rows pgx.Rows) error {
				var uid uint32
				var size int64
				if err := rows.Scan(&uid, &size); err != nil {
					return err
				}
				n++
				first = int64(uid) + 1
				r.row(uid, size)
				return nil
			})
		if err != nil {
			return err
		}
		if r.pace == nil {
			continue
		}
		if err := r.pace(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

func (r *recount) row(uid uint32, size int64) {
	no := ChunkOf(uid)
	count := r.counts[no]
	if count == nil {
		count = new(chunkCount)
		r.counts[no] = count
	}
	i := int(uid % ChunkSlots)
	count.rows[i/64] |= 1 << (i % 64)
	var s Slot
	if c := r.chunks[no]; c != nil {
		s = c.Slot(i)
	}
	if s.Live() {
		count.Bytes += size
		if s.Flags&Deleted != 0 {
			count.DeletedBytes += size
		}
	}
}

// found puts together what was counted.
func (r *recount) found() MailboxCheck {
	f := MailboxCheck{Mailbox: r.box}
	for _, no := range slices.Sorted(maps.Keys(r.counts)) {
		count, chunk := r.counts[no], r.chunks[no]
		if chunk == nil {
			chunk = NewEdit(no).Chunk()
		}
		f.Counted = f.Counted.Add(count.Counters)
		f.used(0, chunk.MaxModSeq())
		for i := range ChunkSlots {
			s, row := chunk.Slot(i), count.rows[i/64]>>(i%64)&1 != 0
			uid := chunk.First() + uint32(i) //nolint:gosec // below 128
			if row || s.ModSeq != 0 {
				f.used(uid, 0)
			}
			switch {
			case s.Live() && !row:
				f.Lost, f.LostCount = listed(f.Lost, uid), f.LostCount+1
			case s.ModSeq == 0 && row:
				f.Stray, f.StrayCount = listed(f.Stray, uid), f.StrayCount+1
			}
			if !s.Live() {
				continue
			}
			f.Counted.Messages++
			if s.Flags&Seen == 0 {
				f.Counted.Unseen++
			}
			if s.Flags&Deleted != 0 {
				f.Counted.Deleted++
			}
		}
	}
	return f
}

// What was not given out and lies further ahead than this is no number that somebody took, but
// damage: to raise UIDNEXT or the modseq above it would use up what there is.
const (
	aheadUIDs    = 1 << 28
	aheadModSeqs = 1 << 40
)

// used notes that a UID and a modseq are in use.
func (c *MailboxCheck) used(uid uint32, modseq int64) {
	uids, modseqs := int64(uid)-c.Mailbox.UIDNext, modseq-c.Mailbox.ModSeq
	c.Ahead = c.Ahead || uids >= 0 || modseqs > 0
	if uids < aheadUIDs {
		c.lastUID = max(c.lastUID, uid)
	}
	if modseqs < aheadModSeqs {
		c.lastModSeq = max(c.lastModSeq, modseq)
	}
}

func listed(uids []uint32, uid uint32) []uint32 {
	if len(uids) == checkListed {
		return uids
	}
	return append(uids, uid)
}

func (c Counters) sub(d Counters) Counters {
	return c.Add(Counters{
		Messages: -d.Messages, Unseen: -d.Unseen, Deleted: -d.Deleted, Bytes: -d.Bytes, DeletedBytes: -d.DeletedBytes,
	})
}
