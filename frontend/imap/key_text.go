package imap

import (
	"bytes"

	"starling/frontend/imapwire"
	mail "starling/frontend/message"
)

// inField matches the text of a header field of the message (RFC 9051 §6.4.4, FROM and its like).
func inField(name string) func(*searchPlan, *imapwire.SearchKey) (matcher, error) {
	return func(p *searchPlan, k *imapwire.SearchKey) (matcher, error) {
		return p.fieldMatcher(name, k.Text)
	}
}

func inHeader(p *searchPlan, k *imapwire.SearchKey) (matcher, error) {
	return p.fieldMatcher(k.Field, k.Text)
}

// fieldMatcher matches messages that have a field of the name with text in it; any, if text is empty.
// The digest answers for a few fields, the summary for those that it has wholly; for others the header is read.
func (p *searchPlan) fieldMatcher(name, text string) (matcher, error) {
	needle, err := p.decode(text)
	if err != nil {
		return nil, err
	}
	p.fields++
	p.summaries = true
	field, folded := []byte(name), mail.AppendFoldedField(nil, needle)
	inDigest, ok := mail.LookupDigestField(field)
	p.digest = p.digest || ok
	return func(c *candidate) verdict {
		if ok && c.digest != nil {
			if found, known := c.digest.Contains(inDigest, folded); known {
				return yesIf(found)
			}
		}
		switch {
		case c.summary == nil:
			return unknown
		case c.summary.Complete(field):
			return yesIf(fieldContains(c.summary.Header, field, needle))
		case c.header == nil:
			return unknown
		default:
			return yesIf(fieldContains(c.header, field, needle))
		}
	}, nil
}

// fieldContains says whether a header has a field of the name with needle in its decoded text.
func fieldContains(header, name, needle []byte) bool {
	for field, value := range mail.Fields(header) {
		if bytes.EqualFold(field, name) &&
			(len(needle) == 0 || mail.FieldContains(mail.AppendDecoded(nil, value), needle)) {
			return true
		}
	}
	return false
}

func inBody(p *searchPlan, k *imapwire.SearchKey) (matcher, error) {
	return p.textMatcher(&p.body, k.Text, func(c *candidate) []bool { return c.inBody })
}

func inText(p *searchPlan, k *imapwire.SearchKey) (matcher, error) {
	return p.textMatcher(&p.text, k.Text, func(c *candidate) []bool { return c.inText })
}

// textMatcher adds text to the needles that are looked for together, and matches messages in which it was found.
func (p *searchPlan) textMatcher(needles *[][]byte, text string, found func(*candidate) []bool) (matcher, error) {
	needle, err := p.decode(text)
	if err != nil {
		return nil, err
	}
	if len(needle) == 0 {
		return func(*candidate) verdict { return yes }, nil
	}
	i := len(*needles)
	*needles = append(*needles, needle)
	return func(c *candidate) verdict {
		if !c.read {
			return unknown
		}
		return yesIf(found(c)[i])
	}, nil
}
