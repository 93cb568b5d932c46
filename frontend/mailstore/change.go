package mailstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"starling/metadata"
)

func equalKeyword(a, b string) bool { return strings.EqualFold(a, b) }

// FlagSet names flags as a client does: system flags by bit, keywords by name.
type FlagSet struct {
	System   metadata.Flags // of metadata.SystemFlags
	Keywords []string
}

// FlagMode says what STORE does with the flags it names.
type FlagMode int

// The three forms of STORE (RFC 9051 §6.4.6).
const (
	SetFlags FlagMode = iota
	AddFlags
	RemoveFlags
)

// StoreFlags is a STORE command.
type StoreFlags struct {
	View  *Snapshot           // what the session's client knows
	UIDs  []metadata.UIDRange // rising; messages that the view does not hold are left alone
	Mode  FlagMode
	Flags FlagSet
	// UnchangedSince, if not nil, lets only messages pass whose modseq is not above it (RFC 7162 §3.1.3).
	UnchangedSince *int64
}

// Stored is what a STORE did.
type Stored struct {
	After    *Snapshot // the mailbox with the change in it
	Changed  []uint32  // UIDs with another slot than before, rising
	Modified []uint32  // UIDs that UNCHANGEDSINCE held back, rising
	Gone     []uint32  // UIDs that the view holds and that are expunged, rising
}

// Store changes flags. ErrKeywordLimit says that nothing was stored because
// the mailbox has no room for a keyword.
func (m *Mailbox) Store(ctx context.Context, args StoreFlags) (Stored, error) {
	op := &storeOp{StoreFlags: args}
	op.UIDs = clip(op.UIDs, args.View)
	done, err := m.account.reserveChange(ctx, args.View.count(op.UIDs), changeBytes)
	if err != nil {
		return Stored{}, err
	}
	defer done()
	m.box.do(ctx, op)
	return op.result, op.err
}

// clip leaves out of ranges what view cannot hold.
func clip(ranges []metadata.UIDRange, view *Snapshot) []metadata.UIDRange {
	last := uint32(view.row.UIDNext - 1) //nolint:gosec // UIDNEXT fits 32 bits
	kept := make([]metadata.UIDRange, 0, len(ranges))
	for _, r := range ranges {
		if r.First <= last {
			kept = append(kept, metadata.UIDRange{First: r.First, Last: min(r.Last, last)})
		}
	}
	return kept
}

type storeOp struct {
	StoreFlags
	same   bool     // a message has these flags already
	tried  []uint32 // UIDs that a try changed which may have happened, rising
	result Stored
	err    error
}

func (op *storeOp) kind() kind { return kindStore }

func (op *storeOp) asserts() bool { return op.same }

// doubt: what was changed by the last try, or by others in the same way, is not unchanged for the next.
func (op *storeOp) doubt() { op.tried = op.result.Changed }

func (op *storeOp) settle(after *Snapshot, err error) {
	op.result.After, op.err = after, err
	if err != nil {
		op.result = Stored{} // of a try that came to nothing
	}
}

func (op *storeOp) apply(b *build) error {
	op.result, op.same = Stored{}, false
	if op.Mode != RemoveFlags {
		if err := b.canAdd(op.Flags.Keywords); err != nil {
			return err
		}
	}
	var doubtful bool
	var targets []uint32
	var resized []uint32 // those whose \Deleted changes: their sizes are counted
	named := op.named(b)
	b.live(op.UIDs, func(uid uint32, slot metadata.Slot) bool {
		switch {
		case !op.View.Slot(uid).Live():
		case !op.passes(b, uid, slot, named):
			op.result.Modified = append(op.result.Modified, uid)
			if _, tried := slices.BinarySearch(op.tried, uid); tried {
				doubtful = true
			}
		default:
			targets = append(targets, uid)
			if (op.flags(slot.Flags, named)^slot.Flags)&metadata.Deleted != 0 {
				resized = append(resized, uid)
			}
		}
		return true
	})
	if doubtful {
		return fmt.Errorf("store what must be unchanged: %w: %w", metadata.ErrInDoubt, metadata.ErrUnavailable)
	}
	if err := b.need(resized); err != nil {
		return err
	}
	op.result.Gone = gone(b, op.View, op.UIDs)
	if len(targets) > 0 && op.Mode != RemoveFlags {
		bits, err := b.keywordBits(op.Flags.Keywords)
		if err != nil {
			return err
		}
		named = op.Flags.System | bits
	}
	for _, uid := range targets {
		old := b.slot(uid).Flags
		if flags := op.flags(old, named); flags != old {
			b.set(uid, flags)
			op.result.Changed = append(op.result.Changed, uid)
		} else {
			op.same = true
		}
	}
	return nil
}

// named are the bits of the flags that the command names, as far as they exist.
func (op *storeOp) named(b *build) metadata.Flags {
	bits := op.Flags.System
	for _, name := range op.Flags.Keywords {
		bits |= keywordBit(b.row.Keywords, name)
	}
	return bits
}

func (op *storeOp) flags(old, named metadata.Flags) metadata.Flags {
	switch op.Mode {
	case AddFlags:
		return old | named
	case RemoveFlags:
		return old &^ named
	default:
		return named
	}
}

// passes says whether UNCHANGEDSINCE lets the message through. Where flags are
// only added or removed, a change of others does not matter (RFC 7162 §3.1.3).
// What a lost commit changed nobody knows: nothing passes that is measured by one.
func (op *storeOp) passes(b *build, uid uint32, now metadata.Slot, named metadata.Flags) bool {
	if op.UnchangedSince == nil {
		return true
	}
	if b.base.lost(*op.UnchangedSince) {
		return false
	}
	if now.ModSeq <= *op.UnchangedSince {
		return true
	}
	if op.Mode == SetFlags || *op.UnchangedSince == 0 {
		return false
	}
	seen := op.View.Slot(uid)
	return seen.ModSeq <= *op.UnchangedSince && (seen.Flags^now.Flags)&named == 0
}

// gone are the UIDs of ranges that are live in view and not in b.
func gone(b *build, view *Snapshot, ranges []metadata.UIDRange) []uint32 {
	if view == b.base && len(b.edits) == 0 {
		return nil
	}
	var uids []uint32
	for _, r := range ranges {
		for uid := range view.Live(r.First, r.Last) {
			if !b.slot(uid).Live() {
				uids = append(uids, uid)
			}
		}
	}
	return uids
}

// Expunge removes the messages of uids, nil for all, that have \Deleted now
// and that view holds. It returns the mailbox without them; which they were,
// the difference says. That mailbox is proved with PostgreSQL, by the commit or,
// if nothing was there to be expunged, by asking.
func (m *Mailbox) Expunge(ctx context.Context, view *Snapshot, uids []metadata.UIDRange) (*Snapshot, error) {
	if uids == nil {
		uids = []metadata.UIDRange{{First: 1, Last: lastUID}}
	}
	op := &expungeOp{view: view, uids: clip(uids, view)}
	done, err := m.account.reserveChange(ctx, min(view.count(op.uids), int(view.row.Deleted)), changeBytes)
	if err != nil {
		return nil, err
	}
	defer done()
	m.box.do(ctx, op)
	return op.after, op.err
}

type expungeOp struct {
	view  *Snapshot
	uids  []metadata.UIDRange
	gone  bool // somebody else removed what the view has as to be removed
	after *Snapshot
	err   error
}

func (op *expungeOp) kind() kind { return kindExpunge }

func (op *expungeOp) asserts() bool { return op.gone }

func (op *expungeOp) settle(after *Snapshot, err error) { op.after, op.err = after, err }

func (op *expungeOp) apply(b *build) error {
	var targets []uint32
	b.live(op.uids, func(uid uint32, slot metadata.Slot) bool {
		if slot.Flags&metadata.Deleted != 0 {
			targets = append(targets, uid)
		}
		return true
	})
	if err := b.need(targets); err != nil {
		return err
	}
	for _, uid := range targets {
		b.set(uid, b.slot(uid).Flags|metadata.Expunged)
	}
	op.gone = len(targets) == 0 && slices.ContainsFunc(gone(b, op.view, op.uids), func(uid uint32) bool {
		return op.view.Slot(uid).Flags&metadata.Deleted != 0
	})
	return nil
}

// ErrExpunged says that a message to be copied or moved is expunged (NO [EXPUNGEISSUED]).
var ErrExpunged = errors.New("some of the messages are expunged")
