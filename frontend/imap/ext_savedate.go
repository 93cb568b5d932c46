package imap

import "starling/frontend/imapwire"

// writeSaveDate writes SAVEDATE: when the message came to this mailbox (RFC 8514
// §4.2), in UTC.
func writeSaveDate(f *fetch, m *fetched) {
	e := f.s.enc.Item(imapwire.ItemSaveDate).SP()
	if m.row.SaveDate.IsZero() {
		e.NIL()
		return
	}
	e.DateTime(m.row.SaveDate.UTC())
}
