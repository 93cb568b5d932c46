package imap

import "starling/frontend/imapwire"

// isSaved says whether the message is in what SEARCH saved.
func (c *candidate) isSaved(v *view) bool {
	if c.asked != c.uid {
		c.asked, c.saved = c.uid, v.saved.Contains(c.uid)
	}
	return c.saved
}

// inSet matches the messages of a set of numbers or UIDs, in which "$" may be (RFC 5182 §2.1).
func inSet(by numbering) func(*searchPlan, *imapwire.SearchKey) (matcher, error) {
	return func(p *searchPlan, k *imapwire.SearchKey) (matcher, error) {
		if p.view.exists() == 0 {
			// Clients search for 1:* without asking whether there is any.
			return func(*candidate) verdict { return no }, nil
		}
		set := k.Set
		set.Saved = false
		ranges, err := p.view.ranges(set, by)
		if err != nil {
			return nil, err
		}
		if !k.Set.Saved {
			return func(c *candidate) verdict { return yesIf(named(ranges, c.uid)) }, nil
		}
		// It may be as long as the mailbox, and be named by each of the keys: they share it.
		return func(c *candidate) verdict { return yesIf(c.isSaved(p.view) || named(ranges, c.uid)) }, nil
	}
}
