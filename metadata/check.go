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
// To check an account: CheckMailbox for each of its mailboxes, RepairCounters where the
// counters differ, then CheckQuota, then CheckShares.

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
}

// Sound says that nothing is wrong.
func (c *MailboxCheck) Sound() bool {
	return c.Mailbox.Counters == c.Counted && c.LostCount == 0 && c.StrayCount == 0 && !c.Ahead
}

// CheckMailbox compares a mailbox's counters with its slots, and those with the rows of
// its messages. It reads all of them, in pages. The error is ErrNoMailbox if the mailbox
// was deleted, ErrConflict if it changes too fast to say what is wrong with it. A chunk
// that cannot be read is an error.
func (db *DB) CheckMailbox(ctx context.Context, ref BoxRef, pace Pace) (MailboxCheck, error) {
	r := recount{db: db, ref: ref, pace: pace}
	found, err := r.check(ctx, false)
	if err != nil {
		return MailboxCheck{}, fmt.Errorf("check mailbox %d: %w", ref.Mailbox, err)
	}
	return found, nil
}

// RepairCounters makes a mailbox's counters what CheckMailbox counts, if they are not. The
// mailbox's modseq rises, as with every commit. It returns what was found before. The
// size of a lost message is not known, and counts 0.
func (db *DB) RepairCounters(ctx context.Context, ref BoxRef, pace Pace) (MailboxCheck, error) {
	r := recount{db: db, ref: ref, pace: pace}
	found, err := r.check(ctx, true)
	if err != nil {
		return MailboxCheck{}, fmt.Errorf("repair the counters of mailbox %d: %w", ref.Mailbox, err)
	}
	return found, nil
}

// recount is a check of a mailbox under way: chunk by chunk, so that those that others
// change meanwhile can be done again.
type recount struct {
	db     *DB
	ref    BoxRef
	pace   Pace
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
// sound. With repair it ends with a commit of the right counters, which says that too.
func (r *recount) check(ctx context.Context, repair bool) (MailboxCheck, error) {
	for range checkTries {
		before := r.box.Version
		if err := r.follow(ctx); err != nil {
			return MailboxCheck{}, err
		}
		found := r.found()
		if repair && found.Mailbox.Counters != found.Counted {
			err := r.repair(ctx, &found)
			if errors.Is(err, ErrConflict) {
				continue
			}
			return found, err
		}
		if found.Sound() || r.box.Version == before {
			return found, nil
		}
		// What is wrong may be a row that was written after its slot was read.
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
		f.Ahead = f.Ahead || chunk.MaxModSeq() > r.box.ModSeq
		for i := range ChunkSlots {
			s, row := chunk.Slot(i), count.rows[i/64]>>(i%64)&1 != 0
			uid := chunk.First() + uint32(i) //nolint:gosec // below 128
			f.Ahead = f.Ahead || (row || s.ModSeq != 0) && int64(uid) >= r.box.UIDNext
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

func listed(uids []uint32, uid uint32) []uint32 {
	if len(uids) == checkListed {
		return uids
	}
	return append(uids, uid)
}

// repair commits what the counters lack, if the mailbox is still as it was counted.
func (r *recount) repair(ctx context.Context, found *MailboxCheck) error {
	_, err := r.db.Commit(ctx, &Commit{
		Account:   r.ref.Account,
		repairing: true,
		Changes: []Change{{
			Mailbox: r.ref.Mailbox, Seen: r.box.Version, ModSeq: r.box.ModSeq + 1, UIDNext: r.box.UIDNext,
			Delta: found.Counted.sub(found.Mailbox.Counters),
		}},
	})
	return err
}

func (c Counters) sub(d Counters) Counters {
	return c.Add(Counters{
		Messages: -d.Messages, Unseen: -d.Unseen, Deleted: -d.Deleted, Bytes: -d.Bytes, DeletedBytes: -d.DeletedBytes,
	})
}
