package imapwire

// SelectParams are the parameters of SELECT and EXAMINE (RFC 4466 §2.1).
type SelectParams struct {
	CondStore bool     // RFC 7162 §3.1.8
	QResync   *QResync // nil without it
}

// A QResync is what the client remembers of the mailbox (RFC 7162 §3.2.5).
type QResync struct {
	UIDValidity uint32
	ModSeq      uint64
	KnownUIDs   NumSet // empty when the client names none
	// SeqMatch says that SeqNums and their UIDs, in the same order and number, were sent as message sequence match data
	// (RFC 7162 §3.2.5.2).
	SeqMatch bool
	SeqNums  NumSet
	SeqUIDs  NumSet
}

// selectParams has a row for each parameter.
var selectParams = map[string]func(*Decoder, *SelectParams){
	"CONDSTORE": func(_ *Decoder, p *SelectParams) { p.CondStore = true },
	"QRESYNC":   selectQResync,
}

// SelectParams reads the parameters of SELECT and EXAMINE, from after the mailbox: nothing, or SP and a list.
func (d *Decoder) SelectParams() SelectParams {
	var p SelectParams
	if !d.TrySP() {
		return p
	}
	d.NonEmptyList(func() {
		if read, ok := selectParams[d.Keyword()]; ok {
			read(d, &p)
		} else {
			d.Fail("unknown parameter")
		}
	})
	return p
}

// selectQResync reads SP "(" uidvalidity SP mod-sequence-value [SP known-uids] [SP seq-match-data] ")" (RFC 7162 §7).
func selectQResync(d *Decoder, p *SelectParams) {
	q := &QResync{}
	d.SP()
	d.Byte('(')
	q.UIDValidity = d.NZNumber()
	d.SP()
	q.ModSeq = d.ModSeq()
	more := d.TrySP()
	if more && d.Peek() != '(' {
		q.KnownUIDs = d.PlainNumSet()
		more = d.TrySP()
	}
	if more {
		d.Byte('(')
		q.SeqMatch = true
		q.SeqNums = d.PlainNumSet()
		d.SP()
		q.SeqUIDs = d.PlainNumSet()
		d.Byte(')')
		if q.SeqNums.Len() != q.SeqUIDs.Len() {
			d.Fail("expected as many UIDs as sequence numbers")
		}
	}
	d.Byte(')')
	p.QResync = q
}

// CreateParams are the parameters of CREATE.
type CreateParams struct {
	Use []string // attributes as sent, "\Sent" (RFC 6154 §3)
}

// createParams has a row for each parameter.
var createParams = map[string]func(*Decoder, *CreateParams){
	"USE": func(d *Decoder, p *CreateParams) {
		d.SP()
		d.List(func() {
			d.Byte('\\')
			p.Use = append(p.Use, `\`+d.Atom())
		})
	},
}

// CreateParams reads the parameters of CREATE, from after the mailbox: nothing, or SP and a list.
func (d *Decoder) CreateParams() CreateParams {
	var p CreateParams
	if !d.TrySP() {
		return p
	}
	d.NonEmptyList(func() {
		if read, ok := createParams[d.Keyword()]; ok {
			read(d, &p)
		} else {
			d.Fail("unknown parameter")
		}
	})
	return p
}
