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
	if asked := strings.TrimSuffix(c.name, string(mailstore.Delimiter)); asked != name && s.has(rev2) {
		s.enc.List(&imapwire.Listing{Delimiter: mailstore.Delimiter, Name: name, OldName: asked}) // RFC 9051 §6.3.9.6
	}
	return imapwire.CodeMailboxID(mailboxID(row.Account, row.ID)), nil // RFC 8474 §4.1
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
type deleteCmd struct{ name string }

func parseDelete(d *imapwire.Decoder) (command, error) {
	d.SP()
	c := deleteCmd{name: d.Mailbox()}
	return c, d.End()
}

func (c deleteCmd) run(ctx context.Context, s *session) (imapwire.Code, error) {
	row, err := s.account.Delete(ctx, mailstore.CleanName(c.name))
	if err != nil {
		return "", err
	}
	if s.view != nil && s.view.mailbox.ID() == row.ID {
		s.deselect()
		s.enc.Status("", imapwire.OK, imapwire.CodeClosed, "The selected mailbox is deleted") // RFC 9051 §7.1
	}
	return "", nil
}

// renameCmd is RENAME (RFC 9051 §6.3.6).
type renameCmd struct{ from, to string }

func parseRename(d *imapwire.Decoder) (command, error) {
	var c renameCmd
	d.SP()
	c.from = d.Mailbox()
	d.SP()
	c.to = d.Mailbox()
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
	return "", s.account.Rename(ctx, from, to)
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
