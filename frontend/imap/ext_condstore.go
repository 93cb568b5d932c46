package imap

import (
	"cmp"
	"slices"

	"starling/frontend/imapwire"
	"starling/metadata"
)

func writeModSeqItem(f *fetch, m *fetched) { f.s.writeModSeq(m.slot) }

// changedSince narrows ranges, which rise, to the messages whose modseq is above
// since, those that the client believes in included (RFC 7162 §3.1.4.1). Chunks
// in which nothing changed cost nothing.
func (v *view) changedSince(ranges []metadata.UIDRange, since int64) []metadata.UIDRange {
	var out []metadata.UIDRange
	i := 0
	for uid := range v.snap.ChangedSince(since) {
		for i < len(ranges) && ranges[i].Last < uid {
			i++
		}
		if i == len(ranges) {
			break
		}
		if uid < ranges[i].First {
			continue
		}
		if n := len(out); n > 0 && out[n-1].Last+1 == uid {
			out[n-1].Last = uid
			continue
		}
		out = append(out, metadata.UIDRange{First: uid, Last: uid})
	}
	live := len(out)
	for _, g := range v.ghosts {
		if g.slot.ModSeq > since && named(ranges, g.uid) {
			out = append(out, metadata.UIDRange{First: g.uid, Last: g.uid})
		}
	}
	if len(out) > live {
		slices.SortFunc(out, func(a, b metadata.UIDRange) int { return cmp.Compare(a.First, b.First) })
	}
	return out
}

// checkVanished refuses the modifier VANISHED where it does not belong (RFC 7162 §3.2.6).
func (c fetchCmd) checkVanished(s *session) error {
	switch {
	case !c.args.Vanished:
		return nil
	case c.by != byUID:
		return badf("VANISHED goes with UID FETCH only")
	case !c.args.HasChangedSince:
		return badf("VANISHED needs CHANGEDSINCE")
	case !s.has(qResync):
		return badf("QRESYNC was not enabled")
	}
	return nil
}

// tellVanished says which of the UIDs that the client names are gone since the
// modseq since (RFC 7162 §3.2.6, §3.2.10). Those above the last message count
// too; what the client has not been told of yet does not.
func (c fetchCmd) tellVanished(s *session, since int64) {
	v := s.view
	last := uint32(v.snap.Mailbox().UIDNext - 1) //nolint:gosec // UIDNEXT fits 32 bits
	var gone imapwire.NumSet
	add := func(first, last uint32) {
		for r := range v.snap.VanishedSince(since, first, last) {
			v.addVanished(&gone, r)
		}
	}
	for _, r := range c.nums.Resolve(last).Ranges() {
		add(r.Lo, r.Hi)
	}
	if c.nums.Saved {
		for _, r := range v.savedRanges() {
			add(r.First, r.Last)
		}
	}
	if !gone.Empty() {
		s.enc.Vanished(gone, true)
	}
}

// addVanished puts r into set, less the ghosts in it.
func (v *view) addVanished(set *imapwire.NumSet, r metadata.UIDRange) {
	first := r.First
	i, _ := v.ghostsBelow(first)
	for ; i < len(v.ghosts) && v.ghosts[i].uid <= r.Last; i++ {
		if uid := v.ghosts[i].uid; uid > first {
			set.AddRange(first, uid-1)
		}
		first = v.ghosts[i].uid + 1
	}
	if first <= r.Last {
		set.AddRange(first, r.Last)
	}
}
