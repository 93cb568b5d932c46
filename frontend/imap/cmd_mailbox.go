package imap

import (
	"context"
	"slices"
	"strings"

	"starling/frontend/imapwire"
	"starling/frontend/mailstore"
)

// createCmd is CREATE (RFC 9051 §6.3.4).
type createCmd struct {
	name string   // as it was sent
	use  []string // RFC 6154 §3
}

func parseCreate(d *imapwire.Decoder) (command, error) {
	var c createCmd
	d.SP()
	c.name = d.SentMailbox()
	c.use = d.CreateParams().Use
	return c, d.End()
}

func (c createCmd) run(ctx context.Context, s *session) (imapwire.Code, error) {
	name, err := newName(c.name)
	if err != nil {
		return "", err
	}
	use, err := specialUses(c.use)
	if err != nil {
		return "", err
	}
	row, err := s.account.Create(ctx, name, use)
	if err != nil {
		return "", err
	}
	s.tellName(nil, name, strings.TrimSuffix(c.name, string(mailstore.Delimiter)))
	return imapwire.CodeMailboxID(mailboxID(row.Account, row.ID)), nil // RFC 8474 §4.1
}

// tellName tells a client that knows OLDNAME of the name of a mailbox that it called otherwise
// (RFC 9051 §6.3.9.6).
func (s *session) tellName(attrs []string, name, asked string) {
	if old := otherName(name, asked); old != "" && s.has(rev2) {
		s.enc.List(&imapwire.Listing{Attrs: attrs, Delimiter: mailstore.Delimiter, Name: name, OldName: old})
	}
}

// otherName is what a client called a mailbox, if that is not its name. INBOX has one name, however
// it is written (RFC 9051 §5.1).
func otherName(name, asked string) string {
	if asked == name || mailstore.CleanName(asked) == mailstore.Inbox {
		return ""
	}
	return asked
}

// newName is a name that a client gives to a mailbox. The delimiter at its end
// says that names below it will follow (RFC 9051 §6.3.4), and means nothing here.
func newName(name string) (string, error) {
	name = mailstore.CleanName(strings.TrimSuffix(name, string(mailstore.Delimiter)))
	return name, mailstore.CheckName(name)
}

// storableUses are the special uses that a mailbox can be given (RFC 6154 §2,
// RFC 8457 §4). \All and \Flagged are of mailboxes that show what is in others.
var storableUses = []string{`\Archive`, `\Drafts`, `\Important`, `\Junk`, `\Sent`, `\Trash`}

// specialUses brings attributes into their usual spelling. One that no mailbox can
// have is refused with USEATTR (RFC 6154 §3).
func specialUses(names []string) ([]string, error) {
	var uses []string
	for _, name := range names {
		i := slices.IndexFunc(storableUses, func(use string) bool { return strings.EqualFold(use, name) })
		if i < 0 {
			return nil, nof(imapwire.CodeUseAttr, "A mailbox cannot be made for %s", name)
		}
		if !slices.Contains(uses, storableUses[i]) {
			uses = append(uses, storableUses[i])
		}
	}
	return uses, nil
}

// deleteCmd is DELETE (RFC 9051 §6.3.5).
type deleteCmd struct{ name string } // as it was sent

func parseDelete(d *imapwire.Decoder) (command, error) {
	d.SP()
	c := deleteCmd{name: d.SentMailbox()}
	return c, d.End()
}

func (c deleteCmd) run(ctx context.Context, s *session) (imapwire.Code, error) {
	name := mailstore.CleanName(c.name)
	row, err := s.account.Delete(ctx, name)
	if err != nil {
		return "", err
	}
	s.tellName([]string{`\NonExistent`}, name, c.name)
	if s.view != nil && s.view.mailbox.ID() == row.ID {
		s.deselect()
		s.enc.Status("", imapwire.OK, imapwire.CodeClosed, "The selected mailbox is deleted") // RFC 9051 §7.1
	}
	return "", nil
}

// renameCmd is RENAME (RFC 9051 §6.3.6).
type renameCmd struct{ from, to string } // as they were sent

func parseRename(d *imapwire.Decoder) (command, error) {
	var c renameCmd
	d.SP()
	c.from = d.SentMailbox()
	d.SP()
	c.to = d.SentMailbox()
	return c, d.End()
}

func (c renameCmd) run(ctx context.Context, s *session) (imapwire.Code, error) {
	to, err := newName(c.to)
	if err != nil {
		return "", err
	}
	from := mailstore.CleanName(c.from)
	if from != mailstore.Inbox && strings.HasPrefix(to, from+string(mailstore.Delimiter)) {
		return "", nof(imapwire.CodeCannot, "A mailbox cannot be put below itself")
	}
	if err := s.account.Rename(ctx, from, to); err != nil {
		return "", err
	}
	if from == mailstore.Inbox { // which is still there, and a new mailbox beside it
		s.tellName(nil, to, strings.TrimSuffix(c.to, string(mailstore.Delimiter)))
	} else {
		s.tellName(nil, to, c.from)
	}
	return "", nil
}

// subscribeCmd is SUBSCRIBE and UNSUBSCRIBE (RFC 9051 §6.3.7, §6.3.8).
type subscribeCmd struct {
	name string
	no   bool
}

func parseSubscribe(d *imapwire.Decoder) (command, error) {
	d.SP()
	c := subscribeCmd{name: d.Mailbox()}
	return c, d.End()
}

func parseUnsubscribe(d *imapwire.Decoder) (command, error) {
	d.SP()
	c := subscribeCmd{name: d.Mailbox(), no: true}
	return c, d.End()
}

func (c subscribeCmd) run(ctx context.Context, s *session) (imapwire.Code, error) {
	if c.no {
		return "", s.account.Unsubscribe(ctx, mailstore.CleanName(c.name))
	}
	name, err := newName(c.name)
	if err != nil {
		return "", err
	}
	return "", s.account.Subscribe(ctx, name)
}
