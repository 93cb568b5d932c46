package imap

import (
	"context"
	"slices"
	"strings"

	"starling/frontend/imapwire"
	"starling/frontend/mailstore"
	"starling/metadata"
)

// storeCmd is STORE and UID STORE (RFC 9051 §6.4.6).
type storeCmd struct {
	by   numbering
	nums imapwire.NumSet
	args imapwire.StoreArgs
}

func parseStore(by numbering) func(*imapwire.Decoder) (command, error) {
	return func(d *imapwire.Decoder) (command, error) {
		c := storeCmd{by: by}
		d.SP()
		c.nums = d.NumSet()
		d.SP()
		c.args = d.StoreArgs()
		return c, d.End()
	}
}

func (c storeCmd) run(ctx context.Context, s *session) (imapwire.Code, error) {
	v := s.view
	if v.readOnly {
		return "", errReadOnly
	}
	flags, err := flagSet(c.args.Flags)
	if err != nil {
		return "", err
	}
	uids, err := v.ranges(c.nums, c.by)
	if err != nil {
		return "", err
	}
	args := mailstore.StoreFlags{View: v.snap, UIDs: uids, Mode: mailstore.FlagMode(c.args.Op), Flags: flags}
	if c.args.HasUnchangedSince {
		s.enable(condStore)                               // RFC 7162 §3.1
		since := int64(min(c.args.UnchangedSince, 1<<62)) //nolint:gosec // bounded
		args.UnchangedSince = &since
	}
	haunted := v.hasGhost(uids)
	done, err := v.mailbox.Store(ctx, args)
	if err != nil {
		return "", err
	}
	c.respond(s, uids, &done, flags)
	code := imapwire.Code("")
	if len(done.Modified) > 0 {
		code = imapwire.CodeModified(c.numbers(v, done.Modified))
	}
	if (haunted || len(done.Gone) > 0) && c.by == bySeq && !c.args.Silent {
		if code == "" {
			code = imapwire.CodeExpungeIssued
		}
		return "", &StatusError{Status: imapwire.NO, Code: code, Text: "Some of the messages are expunged, the others are stored"}
	}
	return code, nil
}

var errReadOnly = nof(imapwire.CodeNoPerm, "The mailbox was opened read-only")

// respond tells of the flags as they are now: of all messages that were named,
// or with .SILENT only the new modseq of those that changed, and what others
// changed meanwhile. It moves the view to where the change is in it.
func (c storeCmd) respond(s *session, uids []metadata.UIDRange, done *mailstore.Stored, flags mailstore.FlagSet) {
	v := s.view
	old := v.snap
	bits := flags.System
	for _, k := range flags.Keywords {
		bits |= done.After.KeywordBit(k)
	}
	mine := func(uid uint32) bool {
		_, found := slices.BinarySearch(done.Changed, uid)
		return found
	}
	said := func(change mailstore.Change) bool {
		if !named(uids, change.UID) {
			return false
		}
		if !c.args.Silent {
			return true // told below, with the others that were named
		}
		if !mine(change.UID) || change.New.Flags != c.expected(change.Old, bits) {
			return false
		}
		if s.has(condStore) {
			s.enc.FetchBegin(v.seq(change.UID)).FetchUID(change.UID)
			s.writeModSeq(change.New)
			s.enc.FetchEnd()
		}
		return true
	}
	if !s.update(done.After, false, said) {
		return
	}
	if c.args.Silent {
		if c.args.HasUnchangedSince {
			tellPassed(s, uids, old, done)
		}
		return
	}
	for m := range v.messages(uids) {
		if m.ghost || old.Slot(m.uid).ModSeq == 0 {
			continue
		}
		s.enc.FetchBegin(m.seq)
		if c.by == byUID || s.has(condStore) {
			s.enc.FetchUID(m.uid)
		}
		s.writeFlags(m.uid, m.slot)
		s.writeModSeq(m.slot)
		s.enc.FetchEnd()
	}
}

// tellPassed tells the modseqs of messages that UNCHANGEDSINCE let pass and that had
// the flags already, which is told with .SILENT too (RFC 7162 §3.1.3).
func tellPassed(s *session, uids []metadata.UIDRange, old *mailstore.Snapshot, done *mailstore.Stored) {
	for m := range s.view.messages(uids) {
		_, changed := slices.BinarySearch(done.Changed, m.uid)
		_, modified := slices.BinarySearch(done.Modified, m.uid)
		if changed || modified || m.ghost || old.Slot(m.uid).ModSeq == 0 {
			continue
		}
		s.enc.FetchBegin(m.seq).FetchUID(m.uid)
		s.writeModSeq(m.slot)
		s.enc.FetchEnd()
	}
}

// expected is what the command, which names the flags named, makes of old by itself.
func (c storeCmd) expected(old metadata.Slot, named metadata.Flags) metadata.Flags {
	switch c.args.Op {
	case imapwire.StoreAdd:
		return old.Flags | named
	case imapwire.StoreRemove:
		return old.Flags &^ named
	default:
		return named
	}
}

// numbers says UIDs in the numbers that the command used.
func (c storeCmd) numbers(v *view, uids []uint32) imapwire.NumSet {
	var set imapwire.NumSet
	for _, uid := range uids {
		if c.by == bySeq {
			uid = v.seq(uid)
		}
		set.Add(uid)
	}
	return set
}

// named says whether uid is in ranges, which rise.
func named(ranges []metadata.UIDRange, uid uint32) bool {
	i, found := slices.BinarySearchFunc(ranges, uid, func(r metadata.UIDRange, uid uint32) int {
		switch {
		case r.Last < uid:
			return -1
		case r.First > uid:
			return 1
		default:
			return 0
		}
	})
	return found && i < len(ranges)
}

// flagSet sorts the flags of a command into system flags and keywords, each once, however many
// thousand times it is there. \Recent cannot be set, and is passed over as RFC 3501 §6.4.6 has it; any
// other name with a backslash is unknown.
func flagSet(names []string) (mailstore.FlagSet, error) {
	var set mailstore.FlagSet
	var seen map[string]bool
	if len(names) > 1 {
		seen = make(map[string]bool)
	}
	for _, name := range names {
		if !strings.HasPrefix(name, `\`) {
			if len(name) > maxKeyword {
				return set, nof(imapwire.CodeLimit, "A keyword has at most %d bytes", maxKeyword)
			}
			if key := strings.ToLower(name); !seen[key] {
				if seen != nil {
					seen[key] = true
				}
				set.Keywords = append(set.Keywords, name)
			}
			continue
		}
		if name == imapwire.FlagRecent {
			continue
		}
		i := slices.Index(systemFlagNames[:], name)
		if i < 0 {
			return set, badf("There is no flag %s", name)
		}
		set.System |= 1 << i
	}
	return set, nil
}

// maxKeyword is the longest keyword in bytes.
const maxKeyword = 100
