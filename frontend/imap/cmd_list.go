package imap

import (
	"cmp"
	"context"
	"fmt"

	"starling/frontend/imapwire"
	"starling/frontend/mailstore"
)

// listCmd is LIST (RFC 9051 §6.3.9).
type listCmd struct{ args imapwire.ListArgs }

func parseList(d *imapwire.Decoder) (command, error) {
	c := listCmd{args: d.ListArgs()}
	return c, d.End()
}

// asksForRoot says whether the command only asks for the delimiter.
func (c *listCmd) asksForRoot() bool {
	return len(c.args.Patterns) == 1 && c.args.Patterns[0] == "" && c.args.Select == imapwire.ListSelect{}
}

func (c listCmd) run(ctx context.Context, s *session) (imapwire.Code, error) {
	if c.asksForRoot() {
		s.enc.List(&imapwire.Listing{Attrs: []string{`\Noselect`}, Delimiter: mailstore.Delimiter})
		return "", nil
	}
	if err := checkPatterns(c.args.Reference, c.args.Patterns...); err != nil {
		return "", err
	}
	if c.args.Return.Status != nil {
		s.mindStatus(c.args.Return.Status)
		if err := s.proveView(ctx); err != nil {
			return "", err
		}
	}
	list, err := s.account.List(ctx)
	if err != nil {
		return "", fmt.Errorf("list mailboxes: %w", err)
	}
	q := newListQuery(&c.args)
	var failed error
	limit := q.run(newListTree(&list), func(e *listEntry, l *imapwire.Listing) {
		s.enc.List(l)
		if e.row != nil && c.args.Return.Status != nil && failed == nil { // RFC 5819 §2
			failed = s.tellStatus(ctx, e.name, e.row, c.args.Return.Status)
		}
	})
	return "", cmp.Or(failed, limit)
}

// lsubCmd is LSUB (RFC 3501 §6.3.9).
type lsubCmd struct{ reference, pattern string }

func parseLSub(d *imapwire.Decoder) (command, error) {
	var c lsubCmd
	c.reference, c.pattern = d.LSubArgs()
	return c, d.End()
}

func (c lsubCmd) run(ctx context.Context, s *session) (imapwire.Code, error) {
	if err := checkPatterns(c.reference, c.pattern); err != nil {
		return "", err
	}
	list, err := s.account.List(ctx)
	if err != nil {
		return "", fmt.Errorf("list subscriptions: %w", err)
	}
	return "", newListTree(&list).lsub(newListPattern(c.reference, c.pattern), s.enc.LSub)
}

// namespaceCmd is NAMESPACE (RFC 9051 §6.3.10).
type namespaceCmd struct{}

func (namespaceCmd) run(_ context.Context, s *session) (imapwire.Code, error) {
	s.enc.Namespaces([]imapwire.Namespace{{Delimiter: mailstore.Delimiter}}, nil, nil)
	return "", nil
}
