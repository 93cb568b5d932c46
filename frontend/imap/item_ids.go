package imap

import "starling/frontend/imapwire"

// writeEmailID writes EMAILID (RFC 8474 §5.1).
func writeEmailID(f *fetch, m *fetched) {
	f.writeObjectID(imapwire.ItemEmailID, emailID(m.row.EmailID))
}

// writeThreadID writes THREADID, NIL for a message without (RFC 8474 §5.2).
func writeThreadID(f *fetch, m *fetched) {
	if m.row.ThreadID == 0 {
		f.s.enc.Item(imapwire.ItemThreadID).SP().NIL()
		return
	}
	f.writeObjectID(imapwire.ItemThreadID, threadID(m.row.ThreadID))
}

func (f *fetch) writeObjectID(item, id string) {
	f.s.enc.Item(item).Raw(" (").Raw(id).Byte(')')
}
