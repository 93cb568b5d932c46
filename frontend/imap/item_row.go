package imap

import "starling/frontend/imapwire"

// The items that a column of the message's row answers.

// writeInternalDate writes the date in UTC: its instant is what is kept.
func writeInternalDate(f *fetch, m *fetched) {
	f.s.enc.Item(imapwire.ItemInternalDate).SP().DateTime(m.row.InternalDate.UTC())
}

func writeSize(f *fetch, m *fetched) {
	f.s.enc.Item(imapwire.ItemRFC822Size).SP().Number(uint64(m.row.Size)) //nolint:gosec // not negative
}
