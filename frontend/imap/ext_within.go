package imap

import (
	"time"

	"starling/frontend/imapwire"
	"starling/metadata"
)

// OLDER and YOUNGER (RFC 5032 §3) compare the internal date with a moment as many
// seconds before the command as the key says. What is exactly as old is both.

func olderThan(p *searchPlan, k *imapwire.SearchKey) (matcher, error) {
	limit := p.secondsAgo(k.Number)
	return ofRow(func(row *metadata.Message) bool { return !row.InternalDate.After(limit) }), nil
}

func youngerThan(p *searchPlan, k *imapwire.SearchKey) (matcher, error) {
	limit := p.secondsAgo(k.Number)
	return ofRow(func(row *metadata.Message) bool { return !row.InternalDate.Before(limit) }), nil
}

func (p *searchPlan) secondsAgo(n int64) time.Time {
	return p.now.Add(-time.Duration(n) * time.Second) // n has 32 bits
}
