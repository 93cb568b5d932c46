package imap

import (
	"iter"

	"starling/frontend/imapwire"
	"starling/metadata"
)

// resync tells a client that comes back what happened since: what vanished, and
// whose flags changed (RFC 7162 §3.2.5.1).
func (s *session) resync(q *imapwire.QResync) {
	v := s.view
	row := v.snap.Mailbox()
	if q.UIDValidity != row.UIDValidity {
		return // it knows another mailbox of this name
	}
	since := int64(min(q.ModSeq, 1<<62)) //nolint:gosec // bounded
	if since > row.ModSeq {
		since = 0 // given out by a database in whose place another was restored: it proves nothing
	}
	known, proved := knownRanges(q, v), uint32(0)
	if q.SeqMatch && !v.snap.Remembers(since) {
		// Expunges are no longer known one by one, but none is to be told of where
		// the client's numbers show that it knows (RFC 7162 §3.2.5.2).
		proved = matched(q, v)
	}
	vanished := imapwire.NumSet{}
	for _, r := range known {
		for gone := range v.snap.VanishedSince(since, max(r.First, proved+1), r.Last) {
			vanished.AddRange(gone.First, gone.Last)
		}
	}
	if !vanished.Empty() {
		s.enc.Vanished(vanished, true)
	}
	i := 0
	for uid, slot := range v.snap.ChangedSince(since) {
		for i < len(known) && known[i].Last < uid {
			i++
		}
		if i < len(known) && known[i].First <= uid {
			s.tellFlags(uid, slot)
		}
	}
	s.told = false // HIGHESTMODSEQ was told with the rest of SELECT
}

// knownRanges are the UIDs that the client asks about: those it names, else all.
func knownRanges(q *imapwire.QResync, v *view) []metadata.UIDRange {
	last := uint32(v.snap.Mailbox().UIDNext - 1) //nolint:gosec // UIDNEXT fits 32 bits
	if q.KnownUIDs.Empty() {
		return []metadata.UIDRange{{First: 1, Last: last}}
	}
	var ranges []metadata.UIDRange
	for _, r := range q.KnownUIDs.Ranges() {
		if r.Lo <= last {
			ranges = append(ranges, metadata.UIDRange{First: r.Lo, Last: min(r.Hi, last)})
		}
	}
	return ranges
}

// matched is the greatest UID of which the sequence match data show that the
// client's numbering up to it is still right; 0 if none.
func matched(q *imapwire.QResync, v *view) uint32 {
	// A few bytes can name four billion numbers: only so many are walked through as
	// the mailbox has messages.
	seqs, stop := iter.Pull(q.SeqNums.All())
	defer stop()
	proved := uint32(0)
	for uid := range q.SeqUIDs.All() {
		slot, _, ok := v.slot(uid)
		if seq, more := seqs(); !more || !ok || !slot.Live() || v.seq(uid) != seq {
			return proved
		}
		proved = uid
	}
	return proved
}
