package imap

import (
	"starling/frontend/imapwire"
	mail "starling/frontend/message"
)

func writeBodyItem(f *fetch, m *fetched) {
	f.s.enc.Item(imapwire.ItemBody).SP()
	writeStructure(f.s.enc, &m.summary, 0, false)
}

func writeBodyStructureItem(f *fetch, m *fetched) {
	f.s.enc.Item(imapwire.ItemBodyStructure).SP()
	writeStructure(f.s.enc, &m.summary, 0, true)
}

// writeStructure appends the structure of part i and all below it (RFC 9051
// §7.5.2, body), with or without the extension data that BODY does not have.
func writeStructure(e *imapwire.Encoder, s *mail.Summary, i int, extended bool) {
	p := &s.Parts[i]
	e.Byte('(')
	if p.IsMultipart() {
		for c := s.FirstChild(i); c >= 0; c = s.Parts[c].Next {
			writeStructure(e, s, c, extended)
		}
		e.SP().Bytes(p.Subtype)
		if extended {
			e.SP()
			writeParams(e, p.Params)
		}
	} else {
		writeLeaf(e, s, i, extended)
	}
	if extended {
		writeExtension(e, p)
	}
	e.Byte(')')
}

// writeLeaf appends a part that is no multipart (body-type-1part).
func writeLeaf(e *imapwire.Encoder, s *mail.Summary, i int, extended bool) {
	p := &s.Parts[i]
	e.Bytes(p.Type)
	e.SP().Bytes(p.Subtype)
	e.SP()
	writeParams(e, p.Params)
	e.SP().NBytes(p.ID)
	e.SP().NBytes(p.Description)
	e.SP().Bytes(p.Encoding)
	e.SP().Number(uint64(p.Size())) //nolint:gosec // not negative
	switch {
	case p.IsMessage():
		inside := s.FirstChild(i)
		e.SP()
		writeEnvelope(e, &s.Envelopes[s.Parts[inside].Envelope])
		e.SP()
		writeStructure(e, s, inside, extended)
		e.SP().Number(uint64(p.Lines)) //nolint:gosec // not negative
	case p.IsText():
		e.SP().Number(uint64(p.Lines)) //nolint:gosec // not negative
	}
	if extended {
		e.SP().NBytes(p.MD5)
	}
}

// writeExtension appends what multiparts and others have alike of extension data:
// disposition, language and location.
func writeExtension(e *imapwire.Encoder, p *mail.Part) {
	e.SP()
	if p.Disposition == nil {
		e.NIL()
	} else {
		e.Byte('(').Bytes(p.Disposition).SP()
		writeParams(e, p.DispositionParams)
		e.Byte(')')
	}
	e.SP()
	if len(p.Language) == 0 {
		e.NIL()
	} else {
		for i, language := range p.Language {
			if i == 0 {
				e.Byte('(')
			} else {
				e.SP()
			}
			e.Bytes(language)
		}
		e.Byte(')')
	}
	e.SP().NBytes(p.Location)
}

// writeParams appends parameters (body-fld-param).
func writeParams(e *imapwire.Encoder, params []mail.Param) {
	if len(params) == 0 {
		e.NIL()
		return
	}
	for i := range params {
		if i == 0 {
			e.Byte('(')
		} else {
			e.SP()
		}
		e.Bytes(params[i].Name).SP().Bytes(params[i].Value)
	}
	e.Byte(')')
}
