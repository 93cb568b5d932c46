package imap

// The items that the view itself answers.

func writeUID(f *fetch, m *fetched) { f.s.enc.FetchUID(m.uid) }

func writeFlagsItem(f *fetch, m *fetched) { f.s.writeFlags(m.uid, m.slot) }
