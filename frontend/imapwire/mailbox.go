package imapwire

import (
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// Mailbox reads the name of a mailbox: modified UTF-7, or UTF-8 when d.UTF8 is set, and also before that where the name
// is not ASCII: some clients send UTF-8 to a server that announces IMAP4rev2 without asking, and it can mean nothing else. It returns UTF-8 in Unicode's form
// NFC, with INBOX in capitals also where it is the first level of a name in the hierarchy of "/" (RFC 9051 §5.1).
// Which names may be used is the caller's to say.
func (d *Decoder) Mailbox() string {
	return FoldInbox(d.mailboxName(d.astring(classAString, "a mailbox name")))
}

// SentMailbox reads a mailbox name and decodes it, and leaves all else as the client wrote it.
func (d *Decoder) SentMailbox() string {
	return d.sentName(d.astring(classAString, "a mailbox name"))
}

// ListMailbox reads a pattern of LIST, in which "%" and "*" are wildcards, decoded like a name; INBOX is not folded
// (list-mailbox, RFC 9051 §9).
func (d *Decoder) ListMailbox() string {
	return d.mailboxName(d.astring(classList, "a mailbox pattern"))
}

func (d *Decoder) mailboxName(b []byte) string { return norm.NFC.String(d.sentName(b)) }

func (d *Decoder) sentName(b []byte) string {
	if d.err != nil {
		return ""
	}
	name := string(b)
	if d.UTF8 || !isASCII(name) {
		if !utf8.ValidString(name) {
			d.Fail("mailbox name is not valid UTF-8")
			return ""
		}
		return name
	}
	name, err := DecodeUTF7(name)
	if err != nil {
		d.Fail("mailbox name is not valid modified UTF-7")
		return ""
	}
	return name
}

// FoldInbox returns name with INBOX in capitals where it is the whole name, or its first level.
func FoldInbox(name string) string {
	const inbox = "INBOX"
	if len(name) < len(inbox) || !equalFold(name[:len(inbox)], inbox) {
		return name
	}
	if len(name) == len(inbox) || name[len(inbox)] == '/' {
		return inbox + name[len(inbox):]
	}
	return name
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
