package message

import (
	"fmt"
	"strings"
)

// dump writes BODYSTRUCTURE of part i as in RFC 9051 §7.5.2, with every text as a quoted string.
func dump(s *Summary, i int, w *strings.Builder) {
	p := &s.Parts[i]
	w.WriteByte('(')
	if p.IsMultipart() {
		for c := s.FirstChild(i); c >= 0; c = s.Parts[c].Next {
			dump(s, c, w)
		}
		fmt.Fprintf(w, " %q ", p.Subtype)
		dumpParams(p.Params, w)
	} else {
		fmt.Fprintf(w, "%q %q ", p.Type, p.Subtype)
		dumpParams(p.Params, w)
		fmt.Fprintf(w, " %s %s %q %d", str(p.ID), str(p.Description), p.Encoding, p.Size())
		switch {
		case p.IsMessage():
			c := s.FirstChild(i)
			w.WriteByte(' ')
			dumpEnvelope(&s.Envelopes[s.Parts[c].Envelope], w)
			w.WriteByte(' ')
			dump(s, c, w)
			fmt.Fprintf(w, " %d", p.Lines)
		case p.IsText():
			fmt.Fprintf(w, " %d", p.Lines)
		}
		fmt.Fprintf(w, " %s", str(p.MD5))
	}
	w.WriteByte(' ')
	if p.Disposition == nil {
		w.WriteString("NIL")
	} else {
		fmt.Fprintf(w, "(%q ", p.Disposition)
		dumpParams(p.DispositionParams, w)
		w.WriteByte(')')
	}
	if p.Language == nil {
		w.WriteString(" NIL")
	} else {
		fmt.Fprintf(w, " (%s)", strings.Trim(fmt.Sprintf("%q", p.Language), "[]"))
	}
	fmt.Fprintf(w, " %s)", str(p.Location))
}

func dumpParams(params []Param, w *strings.Builder) {
	if params == nil {
		w.WriteString("NIL")
		return
	}
	w.WriteByte('(')
	for i, p := range params {
		if i > 0 {
			w.WriteByte(' ')
		}
		fmt.Fprintf(w, "%q %q", p.Name, p.Value)
	}
	w.WriteByte(')')
}

func dumpEnvelope(e *Envelope, w *strings.Builder) {
	fmt.Fprintf(w, "(%s %s", str(e.Date), str(e.Subject))
	for _, list := range [][]Address{e.From, e.Sender, e.ReplyTo, e.To, e.Cc, e.Bcc} {
		w.WriteByte(' ')
		w.WriteString(dumpAddresses(list))
	}
	fmt.Fprintf(w, " %s %s)", str(e.InReplyTo), str(e.MessageID))
}

func dumpAddresses(list []Address) string {
	if list == nil {
		return "NIL"
	}
	var w strings.Builder
	w.WriteByte('(')
	for _, a := range list {
		fmt.Fprintf(&w, "(%s %s %s %s)", str(a.Name), str(a.Route), str(a.Mailbox), str(a.Host))
	}
	w.WriteByte(')')
	return w.String()
}

func str(b []byte) string {
	if b == nil {
		return "NIL"
	}
	return fmt.Sprintf("%q", b)
}

func dumpAll(s *Summary) string {
	var w strings.Builder
	dumpEnvelope(s.Envelope(), &w)
	w.WriteByte('\n')
	dump(s, 0, &w)
	fmt.Fprintf(&w, "\n%q\n%x %q\n", s.Preview, s.cut, s.Header)
	for i := range s.Parts {
		p := &s.Parts[i]
		fmt.Fprintf(&w, "%d-%d-%d lines %d children %d parent %d next %d envelope %d\n",
			p.HeaderStart, p.BodyStart, p.End, p.Lines, p.Children, p.Parent, p.Next, p.Envelope)
	}
	return w.String()
}
