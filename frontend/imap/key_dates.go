package imap

import (
	"time"

	"starling/frontend/imapwire"
)

// day numbers days, so that they can be compared without time and zone.
type day int64

// dayOf is the day that t is told to be, in its own zone.
func dayOf(t time.Time) day {
	y, m, d := t.Date()
	return day(time.Date(y, m, d, 0, 0, 0, 0, time.UTC).Unix() / (24 * 60 * 60))
}

// dayReader is a day of a message; v is yes if it was read, no if there is none.
type dayReader func(*candidate) (d day, v verdict)

// internalDay is the day of INTERNALDATE as FETCH tells it, in UTC (RFC 9051 §6.4.4).
func internalDay(c *candidate) (day, verdict) {
	if c.row == nil {
		return 0, unknown
	}
	return dayOf(c.row.InternalDate.UTC()), yes
}

// savedDay is the day of SAVEDATE (RFC 8514 §4.3).
func savedDay(c *candidate) (day, verdict) {
	if c.row == nil {
		return 0, unknown
	}
	return dayOf(c.row.SaveDate.UTC()), yes
}

// sentDay is the day that stands in the field Date, whatever its zone.
func sentDay(c *candidate) (day, verdict) {
	if c.digest != nil {
		d, ok := c.digest.Sent()
		return day(d), yesIf(ok)
	}
	if c.summary == nil {
		return 0, unknown
	}
	sent, ok := c.summary.SentDate()
	if !ok {
		return 0, no
	}
	return dayOf(sent), yes
}

// bySentDay is byDay of sentDay, which is in the digest.
func bySentDay(compare func(message, key day) bool) func(*searchPlan, *imapwire.SearchKey) (matcher, error) {
	match := byDay(sentDay, compare)
	return func(p *searchPlan, k *imapwire.SearchKey) (matcher, error) {
		p.digest, p.summaries = true, true
		return match(p, k)
	}
}

func before(message, key day) bool { return message < key }
func on(message, key day) bool     { return message == key }
func since(message, key day) bool  { return message >= key }

func byDay(read dayReader, compare func(message, key day) bool) func(*searchPlan, *imapwire.SearchKey) (matcher, error) {
	return func(_ *searchPlan, k *imapwire.SearchKey) (matcher, error) {
		key := dayOf(k.Date)
		return func(c *candidate) verdict {
			d, v := read(c)
			if v != yes {
				return v
			}
			return yesIf(compare(d, key))
		}, nil
	}
}
