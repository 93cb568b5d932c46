package message

import (
	"bytes"
	"time"
)

// SentDate returns the time of the Date field, in the zone that the field names:
// its own day is what SENTSINCE and its like compare (RFC 9051 §6.4.4), its instant what SORT does. ok is
// false if there is no date in it.
func (s *Summary) SentDate() (t time.Time, ok bool) { return ParseDate(s.Envelope().Date) }

// ParseDate reads a date (RFC 5322 §3.3, §4.3) and what commonly stands in its place: asctime's form, dashes, no
// seconds, two digits of a year, ISO 8601. Without a zone, or with one that is not known, it is UTC.
func ParseDate(b []byte) (t time.Time, ok bool) {
	d := dateParser{day: -1, month: -1, year: -1}
	for i := 0; i < len(b); {
		switch c := b[i]; {
		case c == '(':
			i = commentEnd(b, i)
		case c == ' ', c == '\t', c == ',', c == '\r', c == '\n':
			i++
		default:
			start := i
			for i < len(b) && bytes.IndexByte([]byte(" \t,(\r\n"), b[i]) < 0 {
				i++
			}
			d.token(b[start:i])
		}
	}
	if d.day < 1 || d.month < 1 || d.year < 0 || d.day > 31 || d.hour > 23 || d.minute > 59 || d.second > 60 {
		return time.Time{}, false
	}
	loc := time.UTC
	if d.zone != 0 {
		loc = time.FixedZone("", d.zone)
	}
	t = time.Date(d.year, time.Month(d.month), d.day, d.hour, d.minute, min(d.second, 59), 0, loc)
	return t, t.Day() == d.day
}

type dateParser struct {
	day, month, year     int
	hour, minute, second int
	zone                 int // seconds east of UTC
	timed                bool
}

// token takes a word of a date.
func (d *dateParser) token(b []byte) {
	switch {
	case d.timed && (b[0] == '+' || b[0] == '-'):
		d.offset(b)
	case bytes.IndexByte(b, ':') > 0:
		if i := bytes.IndexByte(b, 'T'); i > 0 {
			d.token(b[:i])
			b = b[i+1:]
		}
		d.clock(b)
	case bytes.IndexByte(b, '-') > 0:
		d.dashed(b)
	case isDigit(b[0]):
		d.number(b)
	default:
		d.name(b)
	}
}

// clock reads 15:04:05, and a zone right behind it.
func (d *dateParser) clock(b []byte) {
	for _, part := range []*int{&d.hour, &d.minute, &d.second} {
		n, rest := leadingNumber(b)
		if len(rest) == len(b) {
			break
		}
		*part, b = n, rest
		if len(b) == 0 || b[0] != ':' {
			break
		}
		b = b[1:]
	}
	d.timed = true
	if len(b) > 0 && b[0] == '.' {
		_, b = leadingNumber(b[1:])
	}
	switch {
	case len(b) == 0:
	case b[0] == '+', b[0] == '-':
		d.offset(b)
	default:
		d.name(b)
	}
}

// dashed reads 22-Aug-2002 and 2002-08-22.
func (d *dateParser) dashed(b []byte) {
	parts := bytes.SplitN(b, []byte{'-'}, 4)
	if len(parts) != 3 || len(parts[0]) == 0 || len(parts[1]) == 0 || len(parts[2]) == 0 {
		return
	}
	if isDigit(parts[1][0]) {
		month, _ := leadingNumber(parts[1])
		if month < 1 || month > 12 {
			return
		}
		d.month = month
		if len(parts[0]) < 4 {
			parts[0], parts[2] = parts[2], parts[0]
		}
		d.day, _ = leadingNumber(parts[2])
		d.year, _ = leadingNumber(parts[0])
		return
	}
	d.number(parts[0])
	d.name(parts[1])
	d.number(parts[2])
}

// number takes the first small number for the day, and the next for the year.
func (d *dateParser) number(b []byte) {
	n, rest := leadingNumber(b)
	if len(rest) > 0 && isDigit(rest[0]) {
		return
	}
	switch digits := len(b) - len(rest); {
	case d.day < 0 && digits <= 2:
		d.day = n
	case d.year < 0 && digits == 2 && n < 50:
		d.year = 2000 + n
	case d.year < 0 && digits <= 3:
		d.year = 1900 + n
	case d.year < 0:
		d.year = n
	}
}

func (d *dateParser) offset(b []byte) {
	digits := bytes.ReplaceAll(b[1:], []byte{':'}, nil)
	n, rest := leadingNumber(digits)
	if len(digits)-len(rest) < 3 {
		n *= 100
	}
	d.zone = (n/100*60 + n%100) * 60
	if b[0] == '-' {
		d.zone = -d.zone
	}
	if d.zone < -24*3600 || d.zone > 24*3600 {
		d.zone = 0
	}
}

// name reads a month or a zone; days of the week say nothing new.
func (d *dateParser) name(b []byte) {
	if d.month < 0 && len(b) >= 3 {
		for i, m := range [...]string{"jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"} {
			if equalFold(b[:3], m) {
				d.month = i + 1
				return
			}
		}
	}
	for _, z := range zones {
		if equalFold(b, z.name) {
			d.zone = z.hours * 3600
			return
		}
	}
}

// zones are the names of RFC 5322 §4.3 that are not UTC, and a few of Europe.
var zones = [...]struct {
	name  string
	hours int
}{
	{"est", -5},
	{"edt", -4},
	{"cst", -6},
	{"cdt", -5},
	{"mst", -7},
	{"mdt", -6},
	{"pst", -8},
	{"pdt", -7},
	{"bst", 1},
	{"cet", 1},
	{"cest", 2},
	{"met", 1},
	{"eet", 2},
	{"eest", 3},
	{"jst", 9},
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// leadingNumber reads up to 6 digits.
func leadingNumber(b []byte) (n int, rest []byte) {
	i := 0
	for i < len(b) && i < 6 && isDigit(b[i]) {
		n = n*10 + int(b[i]-'0')
		i++
	}
	return n, b[i:]
}

// civilDay numbers the day that t is told to be in its own zone, from 1 January 1970.
func civilDay(t time.Time) int64 {
	const seconds = 24 * 60 * 60
	_, offset := t.Zone()
	local := t.Unix() + int64(offset)
	day := local / seconds
	if local%seconds < 0 {
		day--
	}
	return day
}
