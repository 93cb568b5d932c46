package imap

import (
	"starling/frontend/imapwire"
	"starling/metadata"
)

func largerThan(_ *searchPlan, k *imapwire.SearchKey) (matcher, error) {
	return ofRow(func(row *metadata.Message) bool { return row.Size > k.Number }), nil
}

func smallerThan(_ *searchPlan, k *imapwire.SearchKey) (matcher, error) {
	return ofRow(func(row *metadata.Message) bool { return row.Size < k.Number }), nil
}

func hasEmailID(_ *searchPlan, k *imapwire.SearchKey) (matcher, error) {
	id, ok := parseObjectID(k.Text, emailID)
	return ofRow(func(row *metadata.Message) bool { return ok && row.EmailID == id }), nil
}

func hasThreadID(_ *searchPlan, k *imapwire.SearchKey) (matcher, error) {
	id, ok := parseObjectID(k.Text, threadID)
	return ofRow(func(row *metadata.Message) bool { return ok && row.ThreadID == id }), nil
}

// ofRow matches by what stands in a message's row.
func ofRow(fits func(*metadata.Message) bool) matcher {
	return func(c *candidate) verdict {
		if c.row == nil {
			return unknown
		}
		return yesIf(fits(c.row))
	}
}
