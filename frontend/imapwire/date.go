package imapwire

import "time"

var months = map[string]time.Month{
	"JAN": time.January, "FEB": time.February, "MAR": time.March, "APR": time.April,
	"MAY": time.May, "JUN": time.June, "JUL": time.July, "AUG": time.August,
	"SEP": time.September, "OCT": time.October, "NOV": time.November, "DEC": time.December,
}

// Date reads a date without a time, quoted or not, as midnight UTC (date, RFC 9051 §9).
func (d *Decoder) Date() time.Time {
	quoted := d.TryByte('"')
	day := d.digits(1, 2, "a day")
	year, month := d.monthYear()
	if quoted {
		d.Byte('"')
	}
	return d.date(day, month, year, 0, 0, 0, time.UTC)
}

// DateTime reads a quoted date with a time and a zone (date-time, RFC 9051 §9).
func (d *Decoder) DateTime() time.Time {
	d.Byte('"')
	d.TrySP()
	day := d.digits(1, 2, "a day")
	year, month := d.monthYear()
	d.SP()
	hour := d.digits(2, 2, "an hour")
	d.Byte(':')
	minute := d.digits(2, 2, "a minute")
	d.Byte(':')
	second := d.digits(2, 2, "a second")
	d.SP()
	zone := d.zone()
	d.Byte('"')
	return d.date(day, month, year, hour, minute, second, zone)
}

// monthYear reads "-" date-month "-" date-year.
func (d *Decoder) monthYear() (year int, month time.Month) {
	d.Byte('-')
	var name [3]byte
	for i := range name {
		c, ok := d.peek()
		if !ok {
			return 0, 0
		}
		name[i] = upper(c)
		if name[i] < 'A' || name[i] > 'Z' {
			d.expected("a month")
			return 0, 0
		}
		d.skip()
	}
	month, ok := months[string(name[:])]
	if !ok {
		d.Fail("expected a month")
		return 0, 0
	}
	d.Byte('-')
	return d.digits(4, 4, "a year"), month
}

func (d *Decoder) zone() *time.Location {
	sign := 1
	switch {
	case d.TryByte('-'):
		sign = -1
	case !d.TryByte('+'):
		d.expected("a zone")
		return time.UTC
	}
	n := d.digits(4, 4, "a zone")
	if n%100 > 59 || n/100 > 23 {
		d.Fail("zone out of range")
		return time.UTC
	}
	offset := sign * (n/100*3600 + n%100*60)
	if offset == 0 {
		return time.UTC
	}
	return time.FixedZone("", offset)
}

// digits reads a number of at least least and at most most digits.
func (d *Decoder) digits(least, most int, what string) int {
	n := 0
	for i := range most {
		c, ok := d.peek()
		if !ok {
			return 0
		}
		if c < '0' || c > '9' {
			if i < least {
				d.expected(what)
			}
			return n
		}
		d.skip()
		n = n*10 + int(c-'0')
	}
	return n
}

// date refuses what time.Date would move to another day.
func (d *Decoder) date(day int, month time.Month, year, hour, minute, second int, zone *time.Location) time.Time {
	if d.err != nil {
		return time.Time{}
	}
	t := time.Date(year, month, day, hour, minute, min(second, 59), 0, zone)
	// A leap second is taken for the second before it (RFC 5322 §3.3 allows 60).
	// Dates are told in UTC, with four digits for the year.
	inUTC := t.UTC().Year()
	if t.Day() != day || t.Month() != month || hour > 23 || minute > 59 || second > 60 || inUTC < 0 || inUTC > 9999 {
		d.Fail("date out of range")
		return time.Time{}
	}
	return t
}
