package mailstore

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"starling/frontend/message"
	"starling/metadata"
)

// Heading says which message one is, to people.
type Heading struct {
	From, Subject string // decoded, printable, of one line and not long; "" if there is none
}

// What of a Heading is given, in characters.
const (
	maxFrom    = 60
	maxSubject = 100
)

// Headings gives visit those of messages whose rows are there, rising by UID, as do uids.
func (m *Mailbox) Headings(ctx context.Context, uids []uint32, visit func(uid uint32, h Heading)) error {
	var summary message.Summary
	err := m.Rows(ctx, uids, metadata.ColSummary, false, func(row *metadata.Message) error {
		h := Heading{Subject: "(not known: the summary is damaged)"}
		if summary.Unmarshal(row.Summary) == nil {
			envelope := summary.Envelope()
			h = Heading{From: sender(envelope.From), Subject: printable(envelope.Subject, maxSubject)}
		}
		visit(row.UID, h)
		return nil
	})
	if err != nil {
		return fmt.Errorf("read what messages are: %w", err)
	}
	return nil
}

// sender is the first that a message is from.
func sender(from []message.Address) string {
	if len(from) == 0 {
		return ""
	}
	a := &from[0]
	address := a.Mailbox
	if a.Host != nil {
		address = slices.Concat(a.Mailbox, []byte("@"), a.Host)
	}
	if len(a.Name) == 0 {
		return printable(address, maxFrom)
	}
	return printable(slices.Concat(a.Name, []byte(" <"), address, []byte(">")), maxFrom)
}

// printable is the text of a header's value as a terminal may show it: what is no character of a line
// is a space, and after most characters it ends.
func printable(value []byte, most int) string {
	var b strings.Builder
	n := 0
	for _, r := range string(message.AppendDecoded(nil, value)) {
		if n++; n > most {
			b.WriteRune('…')
			break
		}
		if !unicode.IsPrint(r) {
			r = ' '
		}
		b.WriteRune(r)
	}
	return b.String()
}
