package imap

import "starling/frontend/imapwire"

// inSet matches the messages of a set of numbers or UIDs, in which "$" may be (RFC 5182 §2.1).
func inSet(by numbering) func(*searchPlan, *imapwire.SearchKey) (matcher, error) {
	return func(p *searchPlan, k *imapwire.SearchKey) (matcher, error) {
		if p.view.exists() == 0 {
			// Clients search for 1:* without asking whether there is any.
			return func(*candidate) verdict { return no }, nil
		}
		ranges, err := p.view.ranges(k.Set, by)
		if err != nil {
			return nil, err
		}
		return func(c *candidate) verdict { return yesIf(named(ranges, c.uid)) }, nil
	}
}
