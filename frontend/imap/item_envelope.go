package imap

import (
	"starling/frontend/imapwire"
	mail "starling/frontend/message"
)

func writeEnvelopeItem(f *fetch, m *fetched) {
	f.s.enc.Item(imapwire.ItemEnvelope).SP()
	writeEnvelope(f.s.enc, m.summary.Envelope())
}

// writeEnvelope appends an envelope (RFC 9051 §7.5.2, envelope).
func writeEnvelope(e *imapwire.Encoder, env *mail.Envelope) {
	e.Byte('(').NBytes(env.Date)
	e.SP().NBytes(env.Subject)
	for _, list := range [...][]mail.Address{env.From, env.Sender, env.ReplyTo, env.To, env.Cc, env.Bcc} {
		e.SP()
		writeAddresses(e, list)
	}
	e.SP().NBytes(env.InReplyTo)
	e.SP().NBytes(env.MessageID)
	e.Byte(')')
}

// writeAddresses appends a list of addresses; an empty one is NIL. Groups are in it as the grammar has them.
func writeAddresses(e *imapwire.Encoder, list []mail.Address) {
	if len(list) == 0 {
		e.NIL()
		return
	}
	e.Byte('(')
	for i := range list {
		a := &list[i]
		e.Byte('(').NBytes(a.Name)
		e.SP().NBytes(a.Route)
		e.SP().NBytes(a.Mailbox)
		e.SP().NBytes(a.Host)
		e.Byte(')')
	}
	e.Byte(')')
}
