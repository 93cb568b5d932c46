package imap

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"

	"starling/frontend/imapwire"
	"starling/frontend/mailstore"
	"starling/metadata"
)

// tellNews brings the client up to date with what the node knows of the
// selected mailbox, as far as is allowed now. Every command ends with it.
func (s *session) tellNews(which news) {
	if s.view == nil || which == newsNone || s.over {
		return
	}
	if s.view.mailbox.Gone() {
		// Its number cannot be taken from a client that has it selected (RFC 2180 §3.3).
		s.bye(endMailbox, imapwire.CodeNonExistent, "The selected mailbox was deleted")
		return
	}
	if !s.update(s.view.mailbox.Snapshot(), which == newsWhole, nil) {
		s.bye(endRestored, errRestored.Code, errRestored.Text)
	}
}

var errRestored = nof(imapwire.CodeUnavailable, "The selected mailbox is as it was before; select it again")

// refresh asks PostgreSQL for the state of the selected mailbox; what is new is
// told by the update that follows.
func (s *session) refresh(ctx context.Context) error {
	if s.view == nil {
		return nil
	}
	if _, err := s.view.mailbox.Refresh(ctx); err != nil && !errors.Is(err, metadata.ErrNoMailbox) {
		return err
	}
	return nil // that it was deleted is told by tellNews
}

// update moves the view to the snapshot to, and tells the client the difference:
// wholly, or without renumbering any message; then what is gone becomes a ghost.
// said, if not nil, leaves out changes of flags that the client knows already.
//
// It is false, and nothing is told, where a failover or a restore has undone what the client
// knows: a message cannot come back among the numbers, nor a modseq go down. Then the
// connection ends with the command.
func (s *session) update(to *mailstore.Snapshot, whole bool, said func(mailstore.Change) bool) bool {
	v := s.view
	d := mailstore.Diff(v.snap, to)
	if d.Undone {
		return false
	}
	before := v.exists()
	if whole {
		s.tellGone(&d)
		before = v.exists() - uint32(d.Gone) //nolint:gosec // part of exists
	} else {
		v.addGhosts(&d)
	}
	v.snap = to
	s.tellKeywords()
	if v.exists() != before {
		s.arrived(&d)
	}
	for c := range d.EachChanged {
		if said != nil && said(c) {
			continue
		}
		if c.Old.Flags == c.New.Flags && !s.has(condStore) {
			continue // its modseq alone moved
		}
		s.tellFlags(c.UID, c.New)
	}
	return true
}

// tellGone tells of the ghosts and of what d says is gone, and ends the ghosts.
// The view still has its old snapshot.
func (s *session) tellGone(d *mailstore.Difference) {
	v := s.view
	if len(v.ghosts) == 0 && d.Gone == 0 {
		return
	}
	var gone imapwire.NumSet
	for _, g := range v.ghosts {
		gone.Add(g.uid)
	}
	for g := range d.EachGone {
		gone.Add(g.UID)
	}
	if s.has(qResync) {
		s.enc.Vanished(gone, false)
	} else {
		told := uint32(0)
		for uid := range gone.All() {
			s.enc.Expunge(v.seq(uid) - told)
			told++
		}
	}
	v.saved = without(v.saved, gone)
	v.ghosts = nil
}

// addGhosts keeps what d says is gone as ghosts.
func (v *view) addGhosts(d *mailstore.Difference) {
	if d.Gone == 0 {
		return
	}
	merged := make([]ghost, 0, len(v.ghosts)+d.Gone)
	i := 0
	for g := range d.EachGone {
		for i < len(v.ghosts) && v.ghosts[i].uid < g.UID {
			merged = append(merged, v.ghosts[i])
			i++
		}
		merged = append(merged, ghost{uid: g.UID, slot: g.Last})
	}
	v.ghosts = append(merged, v.ghosts[i:]...)
}

// without is set less what is gone.
func without(set, gone imapwire.NumSet) imapwire.NumSet {
	if set.Empty() {
		return set
	}
	var left imapwire.NumSet
	for uid := range set.All() {
		if !gone.Contains(uid) {
			left.Add(uid)
		}
	}
	return left
}

// arrived tells how many messages there are, and which session may call the new ones recent.
func (s *session) arrived(d *mailstore.Difference) {
	v := s.view
	s.enc.Exists(v.exists())
	if s.has(rev2) || d.Arrived == 0 {
		return
	}
	v.recent.add(d.First, d.Last)
	s.enc.Recent(v.recent.count(v))
	if !v.readOnly {
		s.server.claimLater(s)
	}
}

// tellKeywords says which flags the mailbox has, if there are new ones. It comes
// before the first FETCH that shows them.
func (s *session) tellKeywords() {
	if !slices.Equal(s.view.keywords, s.view.snap.Mailbox().Keywords) {
		s.tellMailboxFlags()
	}
}

// tellMailboxFlags writes FLAGS and PERMANENTFLAGS (RFC 9051 §7.3.5, §7.1).
func (s *session) tellMailboxFlags() {
	v := s.view
	keywords := v.snap.Mailbox().Keywords
	v.keywords = keywords
	flags := append(make([]string, 0, len(keywords)+8), systemFlagNames[:]...)
	for _, k := range keywords {
		if k != "" {
			flags = append(flags, k)
		}
	}
	s.enc.MailboxFlags(flags)
	permanent := flags
	switch {
	case v.readOnly:
		permanent = nil
	case len(flags)-len(systemFlagNames) < metadata.MaxKeywords:
		permanent = append(permanent, imapwire.FlagWildcard)
	}
	s.enc.Status("", imapwire.OK, imapwire.CodePermanentFlags(permanent), "Flags that can be stored")
}

// tellFlags writes an unsolicited FETCH of a message's flags (RFC 9051 §7.5.2),
// which has its UID, and its MODSEQ for those who know of it (RFC 7162 §3.2.4).
func (s *session) tellFlags(uid uint32, slot metadata.Slot) {
	s.enc.FetchBegin(s.view.seq(uid)).FetchUID(uid)
	s.writeFlags(uid, slot)
	s.writeModSeq(slot)
	s.enc.FetchEnd()
}

// writeModSeq appends MODSEQ to a FETCH if the client knows of it.
func (s *session) writeModSeq(slot metadata.Slot) {
	if s.has(condStore) {
		s.enc.FetchModSeq(uint64(slot.ModSeq)) //nolint:gosec // not negative
		s.told = true
	}
}

// systemFlagNames are the names of the bits of metadata.SystemFlags, in their order.
var systemFlagNames = [...]string{
	imapwire.FlagSeen, imapwire.FlagAnswered, imapwire.FlagFlagged, imapwire.FlagDeleted, imapwire.FlagDraft,
}

// flagsItems are the beginnings of the item FLAGS for each set of system flags.
var flagsItems = func() (items [metadata.SystemFlags + 1]string) {
	for flags := range items {
		var names []string
		for i, name := range systemFlagNames {
			if flags&(1<<i) != 0 {
				names = append(names, name)
			}
		}
		items[flags] = "FLAGS (" + strings.Join(names, " ")
	}
	return items
}()

// writeFlags appends the item FLAGS to a FETCH.
func (s *session) writeFlags(uid uint32, slot metadata.Slot) {
	system := slot.Flags & metadata.SystemFlags
	e := s.enc.Item(flagsItems[system])
	empty := system == 0
	if slot.Flags&metadata.AllKeywords != 0 {
		keywords := s.view.snap.Mailbox().Keywords
		for i := range slot.Flags.Keywords {
			if i < len(keywords) && keywords[i] != "" {
				if !empty {
					e.SP()
				}
				e.Raw(keywords[i])
				empty = false
			}
		}
	}
	if len(s.view.recent.ranges) > 0 && s.view.recent.contains(uid) {
		if !empty {
			e.SP()
		}
		e.Raw(imapwire.FlagRecent)
	}
	e.Close()
}

// takeHighest is the code for the modseq up to which a client with QRESYNC knows
// everything, when the command told it of modseqs while expunges are held back: the
// least of those, less one (RFC 7162 §3.2). It is empty if there is no need for one.
func (s *session) takeHighest() imapwire.Code {
	told := s.told
	s.told = false
	if !told || s.view == nil || !s.has(qResync) || len(s.view.ghosts) == 0 {
		return ""
	}
	return s.view.highestTold()
}

// tellHighest adds what takeHighest says to a tagged OK; where that has a code
// already, it goes into an untagged OK.
func (s *session) tellHighest(code imapwire.Code) imapwire.Code {
	highest := s.takeHighest()
	if highest == "" || code == "" {
		return cmp.Or(code, highest)
	}
	s.enc.Status("", imapwire.OK, highest, "Changes up to here were told")
	return code
}

// highestTold is HIGHESTMODSEQ of the changes that the client was told of.
func (v *view) highestTold() imapwire.Code {
	lowest := v.snap.Mailbox().ModSeq
	for _, g := range v.ghosts {
		if slot := v.snap.Slot(g.uid); slot.ModSeq > 0 {
			lowest = min(lowest, slot.ModSeq-1)
		} else {
			lowest = min(lowest, g.slot.ModSeq) // the collector took the rest: it went later than that
		}
	}
	return imapwire.CodeHighestModSeq(uint64(max(lowest, 1))) //nolint:gosec // positive
}
