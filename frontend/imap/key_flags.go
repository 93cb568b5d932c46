package imap

import (
	"starling/frontend/imapwire"
	"starling/metadata"
)

func hasFlag(flag metadata.Flags) func(*searchPlan, *imapwire.SearchKey) (matcher, error) {
	return func(*searchPlan, *imapwire.SearchKey) (matcher, error) {
		return func(c *candidate) verdict { return yesIf(c.slot.Flags&flag != 0) }, nil
	}
}

func lacksFlag(flag metadata.Flags) func(*searchPlan, *imapwire.SearchKey) (matcher, error) {
	return func(*searchPlan, *imapwire.SearchKey) (matcher, error) {
		return func(c *candidate) verdict { return yesIf(c.slot.Flags&flag == 0) }, nil
	}
}

// A keyword that the mailbox does not have is on no message.
func hasKeyword(p *searchPlan, k *imapwire.SearchKey) (matcher, error) {
	return hasFlag(p.view.snap.KeywordBit(k.Text))(p, k)
}

func lacksKeyword(p *searchPlan, k *imapwire.SearchKey) (matcher, error) {
	return lacksFlag(p.view.snap.KeywordBit(k.Text))(p, k)
}

func isRecent(p *searchPlan, _ *imapwire.SearchKey) (matcher, error) {
	return func(c *candidate) verdict { return yesIf(p.view.recent.contains(c.uid)) }, nil
}

func isOld(p *searchPlan, _ *imapwire.SearchKey) (matcher, error) {
	return func(c *candidate) verdict { return yesIf(!p.view.recent.contains(c.uid)) }, nil
}

func isNew(p *searchPlan, _ *imapwire.SearchKey) (matcher, error) {
	return func(c *candidate) verdict {
		return yesIf(c.slot.Flags&metadata.Seen == 0 && p.view.recent.contains(c.uid))
	}, nil
}

// sinceModSeq does not look at the entry that the client may name: all flags of a message
// share its modseq (RFC 7162 §3.1.5).
func sinceModSeq(p *searchPlan, k *imapwire.SearchKey) (matcher, error) {
	p.modSeq = true
	return func(c *candidate) verdict { return yesIf(c.slot.ModSeq >= k.Number) }, nil
}
