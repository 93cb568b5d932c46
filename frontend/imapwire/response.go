package imapwire

import "unicode/utf8"

// A Status is the word of a status response (RFC 9051 §7.1).
type Status string

// Status responses.
const (
	OK      Status = "OK"
	NO      Status = "NO"
	BAD     Status = "BAD"
	BYE     Status = "BYE"     // untagged only
	PREAUTH Status = "PREAUTH" // untagged only
)

// Status writes a status response; an untagged one when tag is empty. The text must not be empty; what a line cannot hold
// of it becomes "?".
func (e *Encoder) Status(tag string, status Status, code Code, text string) {
	if tag == "" {
		tag = "*"
	}
	e.Raw(tag).SP().Raw(string(status)).SP()
	if code != "" {
		e.Byte('[').Raw(string(code)).Byte(']').SP()
	}
	e.text(text)
	e.CRLF()
}

// Continue writes a continuation request with text, or with base64 of a challenge (RFC 9051 §7.6).
func (e *Encoder) Continue(text string) {
	e.Raw("+ ").text(text)
	e.CRLF()
}

// text appends s as resp-text, which has at least one character.
func (e *Encoder) text(s string) *Encoder {
	if s == "" {
		return e
	}
	plain := !e.UTF8 || utf8.ValidString(s)
	for i := range len(s) {
		c := s[i]
		if c == 0 || c == '\r' || c == '\n' || c >= 0x80 && !(e.UTF8 && plain) {
			c = '?'
		}
		e.Byte(c)
	}
	return e
}

// Capability writes CAPABILITY (RFC 9051 §7.2.2).
func (e *Encoder) Capability(names []string) { e.words("* CAPABILITY", names) }

// Enabled writes ENABLED (RFC 9051 §7.2.1).
func (e *Encoder) Enabled(names []string) { e.words("* ENABLED", names) }

func (e *Encoder) words(begin string, words []string) {
	e.Raw(begin)
	for _, word := range words {
		e.SP().Raw(word)
	}
	e.CRLF()
}

// Exists writes EXISTS: how many messages there are (RFC 9051 §7.4.1).
func (e *Encoder) Exists(n uint32) { e.numbered(n, " EXISTS") }

// Recent writes RECENT (RFC 3501 §7.3.2).
func (e *Encoder) Recent(n uint32) { e.numbered(n, " RECENT") }

// Expunge writes EXPUNGE (RFC 9051 §7.5.1).
func (e *Encoder) Expunge(seq uint32) { e.numbered(seq, " EXPUNGE") }

func (e *Encoder) numbered(n uint32, what string) {
	e.Raw("* ").Number(uint64(n)).Raw(what)
	e.CRLF()
}

// Vanished writes VANISHED, of those that went before the client asked with (EARLIER) (RFC 7162 §3.2.10). The set must
// not be empty.
func (e *Encoder) Vanished(uids NumSet, earlier bool) {
	e.Raw("* VANISHED ")
	if earlier {
		e.Raw("(EARLIER) ")
	}
	e.NumSet(uids).CRLF()
}

// MailboxFlags writes FLAGS (RFC 9051 §7.3.5).
func (e *Encoder) MailboxFlags(flags []string) { e.Raw("* FLAGS ").Flags(flags).CRLF() }

// FetchBegin begins FETCH of the message with this sequence number. Item and its like follow, and FetchEnd.
func (e *Encoder) FetchBegin(seq uint32) *Encoder {
	e.Raw("* ").Number(uint64(seq)).Raw(" FETCH (")
	e.first = true
	return e
}

// FetchEnd ends FETCH.
func (e *Encoder) FetchEnd() { e.Close().CRLF() }

// FetchUID appends the item UID.
func (e *Encoder) FetchUID(uid uint32) *Encoder { return e.sep().Raw("UID ").Number(uint64(uid)) }

// FetchFlags appends the item FLAGS.
func (e *Encoder) FetchFlags(flags []string) *Encoder { return e.sep().Raw("FLAGS ").Flags(flags) }

// FetchModSeq appends the item MODSEQ (RFC 7162 §3.1.4.2).
func (e *Encoder) FetchModSeq(modSeq uint64) *Encoder {
	return e.sep().Raw("MODSEQ (").Number(modSeq).Byte(')')
}

// FetchSection appends the name with which the answer to item begins: "BODY[1.MIME]<0>", "BINARY[2]", "BINARY.SIZE[2]"
// (RFC 9051 §7.5.2). A space and the value follow.
func (e *Encoder) FetchSection(item *FetchItem) *Encoder {
	// The names of these items end in "[]".
	e.sep().Raw(item.Name[:len(item.Name)-1])
	for i, n := range item.Section.Part {
		if i > 0 {
			e.Byte('.')
		}
		e.Number(uint64(n))
	}
	if text := item.Section.Text; text != "" {
		if len(item.Section.Part) > 0 {
			e.Byte('.')
		}
		e.Raw(text)
	}
	if len(item.Section.Fields) > 0 {
		e.Raw(" (")
		for i, field := range item.Section.Fields {
			if i > 0 {
				e.SP()
			}
			e.AString(field)
		}
		e.Byte(')')
	}
	e.Byte(']')
	if item.HasPartial {
		e.Byte('<').Number(uint64(item.Partial.Offset)).Byte('>')
	}
	return e
}

// A Listing is a LIST or LSUB response (RFC 9051 §7.3.1).
type Listing struct {
	Attrs     []string // `\HasChildren`, …
	Delimiter byte     // 0 is NIL
	Name      string
	ChildInfo []string // CHILDINFO: selection options that children match, "SUBSCRIBED" (RFC 5258 §3.5)
	OldName   string   // OLDNAME: what it was called, or the client called it (RFC 9051 §6.3.9.6)
}

// List writes LIST.
func (e *Encoder) List(l *Listing) { e.listing("* LIST ", l) }

// LSub writes LSUB (RFC 3501 §7.2.3).
func (e *Encoder) LSub(l *Listing) { e.listing("* LSUB ", l) }

func (e *Encoder) listing(begin string, l *Listing) {
	e.Raw(begin).Flags(l.Attrs).SP()
	e.delimiter(l.Delimiter)
	e.SP().Mailbox(l.Name)
	if l.ChildInfo == nil && l.OldName == "" {
		e.CRLF()
		return
	}
	e.Open()
	if l.ChildInfo != nil {
		e.Item(`"CHILDINFO" (`)
		for i, option := range l.ChildInfo {
			if i > 0 {
				e.SP()
			}
			e.String(option)
		}
		e.Byte(')')
	}
	if l.OldName != "" {
		e.Item(`"OLDNAME" (`).Mailbox(l.OldName).Byte(')')
	}
	e.Close().CRLF()
}

func (e *Encoder) delimiter(c byte) {
	switch c {
	case 0:
		e.NIL()
	case '"', '\\':
		e.Raw(`"\`).Byte(c).Byte('"')
	default:
		e.Byte('"').Byte(c).Byte('"')
	}
}

// StatusBegin begins STATUS of a mailbox (RFC 9051 §7.3.3). StatusNumber and StatusID follow, and StatusEnd.
func (e *Encoder) StatusBegin(mailbox string) *Encoder {
	e.Raw("* STATUS ").Mailbox(mailbox).Raw(" (")
	e.first = true
	return e
}

// StatusNumber appends an item that is a number.
func (e *Encoder) StatusNumber(item string, n uint64) *Encoder { return e.Item(item).SP().Number(n) }

// StatusID appends an item that is an identifier: MAILBOXID (RFC 8474 §4.3).
func (e *Encoder) StatusID(item, id string) *Encoder {
	return e.Item(item).Raw(" (").Raw(id).Byte(')')
}

// StatusNIL appends an item that has no value: APPENDLIMIT without a limit (RFC 7889).
func (e *Encoder) StatusNIL(item string) *Encoder { return e.Item(item).SP().NIL() }

// StatusEnd ends STATUS.
func (e *Encoder) StatusEnd() { e.Close().CRLF() }

// Search writes SEARCH with the numbers of a resolved set, and the highest mod-sequence of them if it is not 0 (RFC 3501
// §7.2.5, RFC 7162 §3.1.6).
func (e *Encoder) Search(nums NumSet, modSeq uint64) {
	e.Raw("* SEARCH")
	for _, r := range nums.Ranges() {
		for n := uint64(r.Lo); n <= uint64(r.Hi); n++ {
			e.SP().Number(n)
			if len(e.buf) >= flushSize {
				_ = e.Flush() // sticks in e.err
			}
		}
	}
	if modSeq != 0 {
		e.Raw(" (MODSEQ ").Number(modSeq).Byte(')')
	}
	e.CRLF()
}

// An ESearch is an ESEARCH response (RFC 9051 §7.3.4, RFC 4731 §3.1). What is not to be said is zero.
type ESearch struct {
	Tag      string // of the command, empty for none
	UID      bool
	Min, Max uint32
	All      NumSet
	HasCount bool
	Count    int
	ModSeq   uint64 // RFC 7162 §3.1.10
}

// ESearch writes ESEARCH.
func (e *Encoder) ESearch(r *ESearch) {
	e.Raw("* ESEARCH")
	if r.Tag != "" {
		e.Raw(" (TAG ").String(r.Tag).Byte(')')
	}
	if r.UID {
		e.Raw(" UID")
	}
	if r.Min != 0 {
		e.Raw(" MIN ").Number(uint64(r.Min))
	}
	if r.Max != 0 {
		e.Raw(" MAX ").Number(uint64(r.Max))
	}
	if !r.All.Empty() {
		e.Raw(" ALL ").NumSet(r.All)
	}
	if r.HasCount {
		e.Raw(" COUNT ").Number(uint64(r.Count))
	}
	if r.ModSeq != 0 {
		e.Raw(" MODSEQ ").Number(r.ModSeq)
	}
	e.CRLF()
}

// A Namespace is a prefix of mailbox names and its delimiter, 0 for NIL (RFC 2342 §5).
type Namespace struct {
	Prefix    string
	Delimiter byte
}

// Namespaces writes NAMESPACE (RFC 9051 §7.3.2). Empty classes are NIL.
func (e *Encoder) Namespaces(personal, otherUsers, shared []Namespace) {
	e.Raw("* NAMESPACE")
	for _, class := range [][]Namespace{personal, otherUsers, shared} {
		e.SP()
		if len(class) == 0 {
			e.NIL()
			continue
		}
		e.Byte('(')
		for _, ns := range class {
			e.Byte('(')
			e.mailboxString(ns.Prefix)
			e.SP().delimiter(ns.Delimiter)
			e.Byte(')')
		}
		e.Byte(')')
	}
	e.CRLF()
}

// mailboxString appends a name, possibly empty, which the grammar wants as a string.
func (e *Encoder) mailboxString(name string) {
	if e.UTF8 {
		e.String(name)
		return
	}
	e.Bytes(AppendUTF7(nil, name))
}

// ID writes ID; NIL without fields (RFC 2971 §3.2). A field without a value is NIL.
func (e *Encoder) ID(fields []IDField) {
	e.Raw("* ID ")
	if len(fields) == 0 {
		e.NIL().CRLF()
		return
	}
	for i, f := range fields {
		if i == 0 {
			e.Byte('(')
		} else {
			e.SP()
		}
		e.String(f.Name).SP().NString(f.Value)
	}
	e.Byte(')').CRLF()
}
