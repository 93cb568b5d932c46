package imap

import (
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
	known := knownRanges(q, v)
	vanished := imapwire.NumSet{}
	for _, r := range known {
		for gone := range v.snap.VanishedSince(since, r.First, r.Last) {
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
// Where expunges are no longer known one by one, what its sequence match data
// prove to be there still need not be told (RFC 7162 §3.2.5.2).
func knownRanges(q *imapwire.QResync, v *view) []metadata.UIDRange {
	first := uint32(1)
	if q.SeqMatch && !v.snap.Remembers(int64(min(q.ModSeq, 1<<62))) { //nolint:gosec // bounded
		first = matched(q, v) + 1
	}
	last := uint32(v.snap.Mailbox().UIDNext - 1) //nolint:gosec // UIDNEXT fits 32 bits
	if q.KnownUIDs.Empty() {
		if first > last {
			return nil
		}
		return []metadata.UIDRange{{First: first, Last: last}}
	}
	var ranges []metadata.UIDRange
	for _, r := range q.KnownUIDs.Ranges() {
		if lo, hi := max(r.Lo, first), min(r.Hi, last); lo <= hi {
			ranges = append(ranges, metadata.UIDRange{First: lo, Last: hi})
		}
	}
	return ranges
}

// matched is the greatest UID of which the sequence match data show that the
// client's numbering up to it is still right; 0 if none.
func matched(q *imapwire.QResync, v *view) uint32 {
	var seqs []uint32
	for n := range q.SeqNums.All() {
		seqs = append(seqs, n)
	}
	proved := uint32(0)
	i := 0
	for uid := range q.SeqUIDs.All() {
		if slot, _, ok := v.slot(uid); !ok || !slot.Live() || v.seq(uid) != seqs[i] {
			return proved
		}
		proved = uid
		i++
	}
	return proved
}
