package message

const maxAddressFields = 256 // read of one header

// derive fills s.Envelopes from the kept headers, but for the message's own.
func (s *Summary) derive() {
	s.Envelopes, s.addrs, s.own = s.Envelopes[:0], s.addrs[:0], false
	for i := range s.Parts {
		p := &s.Parts[i]
		p.Envelope = -1
		if i > 0 && p.header == nil {
			continue
		}
		p.Envelope = len(s.Envelopes)
		s.Envelopes = append(s.Envelopes, Envelope{})
		if i > 0 {
			s.envelope(&s.Envelopes[p.Envelope], p.header, maxAddresses)
		}
	}
}

// ReadEnvelope reads the message's own envelope, if that was not done.
func (s *Summary) ReadEnvelope() {
	if !s.own {
		s.own = true
		s.envelope(&s.Envelopes[0], s.Header, len(s.addrs)+maxAddresses)
	}
}

// envelope reads an envelope from a header's fields. Of several texts of one name the
// first counts; addresses of several fields of one name are joined (RFC 5322 §4.5.3). s.addrs gets
// no longer than most.
func (s *Summary) envelope(e *Envelope, header []byte, most int) {
	type field struct {
		row   int
		value []byte
	}
	var some [24]field
	list := some[:0]
	for it := (fieldIter{rest: header}); it.next(); {
		row := lookupField(it.name())
		if row < 0 || fields[row].roles&inEnvelope == 0 {
			continue
		}
		var text *[]byte
		switch row {
		case fDate:
			text = &e.Date
		case fSubject:
			text = &e.Subject
		case fInReplyTo:
			text = &e.InReplyTo
		case fMessageID:
			text = &e.MessageID
		default:
			if len(list) < maxAddressFields {
				list = append(list, field{row, it.value()})
			}
			continue
		}
		if *text == nil {
			*text = s.mem.unfold(it.value())
		}
	}
	for row := fFrom; row <= fBcc; row++ {
		n := len(s.addrs)
		for _, f := range list {
			if f.row == row {
				s.addrs = parseAddresses(s.addrs, f.value, &s.mem, most-len(s.addrs))
			}
		}
		if got := s.addrs[n:len(s.addrs):len(s.addrs)]; len(got) > 0 {
			*e.list(row) = got
		}
	}
	if e.Sender == nil {
		e.Sender = e.From
	}
	if e.ReplyTo == nil {
		e.ReplyTo = e.From
	}
}

// list returns the addresses of a field.
func (e *Envelope) list(row int) *[]Address {
	switch row {
	case fFrom:
		return &e.From
	case fSender:
		return &e.Sender
	case fReplyTo:
		return &e.ReplyTo
	case fTo:
		return &e.To
	case fCc:
		return &e.Cc
	default:
		return &e.Bcc
	}
}
