package imap

import (
	"cmp"
	"slices"
	"strings"

	"starling/frontend/imapwire"
	"starling/frontend/mailstore"
	"starling/metadata"
)

// listEntry is a name of an account's hierarchy: of a mailbox, of a subscription,
// or of a level above one.
type listEntry struct {
	name       string
	row        *metadata.Mailbox // nil where there is no mailbox
	subscribed bool
	children   bool // there are mailboxes below it
	below      bool // something that is selected is below it, and not told of itself
}

// listTree is the names of an account, those of missing levels included. These are not held: twenty of them may stand
// above each of ten thousand mailboxes.
type listTree struct {
	mailboxes []*metadata.Mailbox // by name, each level right before those below it, as all that follows
	names     []string            // of mailboxes and subscriptions, each once
	subs      []string            // of subscriptions
	marked    []string            // of what is selected, once that was asked
}

func newListTree(list *metadata.List) *listTree {
	t := &listTree{subs: slices.Clone(list.Subscriptions)}
	for i := range list.Mailboxes {
		t.mailboxes = append(t.mailboxes, &list.Mailboxes[i])
		t.names = append(t.names, list.Mailboxes[i].Name)
	}
	slices.SortFunc(t.mailboxes, func(a, b *metadata.Mailbox) int { return compareLevels(a.Name, b.Name) })
	slices.SortFunc(t.subs, compareLevels)
	t.names = append(t.names, t.subs...)
	slices.SortFunc(t.names, compareLevels)
	t.names = slices.Compact(t.names)
	return t
}

// mark notes what is selected, so that it is known at all levels above that there is something below.
func (t *listTree) mark(selected func(*listEntry) bool) {
	for e := range t.entries {
		if selected(e) {
			t.marked = append(t.marked, e.name)
		}
	}
}

// entries yields all names, each level right before those below it. An entry is good until the next.
func (t *listTree) entries(yield func(*listEntry) bool) {
	var e listEntry
	before := ""
	for _, name := range t.names {
		for i := commonLevels(before, name); i < len(name); i++ {
			if name[i] != mailstore.Delimiter {
				continue
			}
			if t.describe(&e, name[:i]); !yield(&e) {
				return
			}
		}
		if t.describe(&e, name); !yield(&e) {
			return
		}
		before = name
	}
}

// describe makes e the entry of a name.
func (t *listTree) describe(e *listEntry, name string) {
	i, found := slices.BinarySearchFunc(t.mailboxes, name, func(m *metadata.Mailbox, name string) int { return compareLevels(m.Name, name) })
	*e = listEntry{name: name}
	if found {
		e.row = t.mailboxes[i]
		i++
	}
	e.children = i < len(t.mailboxes) && isBelow(t.mailboxes[i].Name, name)
	_, e.subscribed = slices.BinarySearchFunc(t.subs, name, compareLevels)
	i, found = slices.BinarySearchFunc(t.marked, name, compareLevels)
	if found {
		i++
	}
	e.below = i < len(t.marked) && isBelow(t.marked[i], name)
}

// commonLevels is the length of the levels that b has in common with a, with the delimiter behind them.
func commonLevels(a, b string) int {
	n := 0
	for i := 0; i < len(b); i++ {
		if b[i] == mailstore.Delimiter && (i == len(a) || i < len(a) && a[i] == mailstore.Delimiter) {
			n = i + 1
		}
		if i >= len(a) || a[i] != b[i] {
			break
		}
	}
	return n
}

// isBelow says whether name stands below the level above.
func isBelow(name, above string) bool {
	return len(name) > len(above) && name[len(above)] == mailstore.Delimiter && strings.HasPrefix(name, above)
}

// compareLevels compares as if the delimiter were the least of all characters.
func compareLevels(a, b string) int {
	for i := range min(len(a), len(b)) {
		if a[i] == b[i] {
			continue
		}
		switch byte(mailstore.Delimiter) {
		case a[i]:
			return -1
		case b[i]:
			return 1
		}
		return cmp.Compare(a[i], b[i])
	}
	return cmp.Compare(len(a), len(b))
}

// listQuery is what a LIST command asks of a tree.
type listQuery struct {
	patterns []*listPattern
	steps    *int // of all of them
	sel      imapwire.ListSelect
	ret      imapwire.ListReturn
	extended bool
}

func newListQuery(args *imapwire.ListArgs) listQuery {
	q := listQuery{sel: args.Select, ret: args.Return, extended: args.Extended, steps: new(int)}
	for _, pattern := range args.Patterns {
		p := newListPattern(args.Reference, pattern)
		p.steps = q.steps
		q.patterns = append(q.patterns, p)
	}
	return q
}

// selects says whether the selection options let e pass (RFC 5258 §3.1, RFC 6154
// §5.2). Without options that are mailboxes; a subscription need not be one.
func (q *listQuery) selects(e *listEntry) bool {
	switch {
	case q.sel.Subscribed && !e.subscribed:
		return false
	case q.sel.SpecialUse:
		return e.row != nil && len(e.row.SpecialUse) > 0
	default:
		return q.sel.Subscribed || e.row != nil
	}
}

// isSelective says whether there are options that leave mailboxes out.
func (q *listQuery) isSelective() bool { return q.sel.Subscribed || q.sel.SpecialUse }

// run yields what the client is told, each name once. It ends with NO [LIMIT] where holding the patterns against the
// names takes too long.
func (q *listQuery) run(t *listTree, yield func(*listEntry, *imapwire.Listing)) error {
	if q.sel.RecursiveMatch { // of what is told of itself nothing need be told above it (RFC 5258 §3.5)
		t.mark(func(e *listEntry) bool { return q.selects(e) && !q.matches(e.name) })
	}
	for e := range t.entries {
		shows := q.shows(e)
		if *q.steps > maxSteps {
			return errSteps
		}
		if shows {
			yield(e, q.listing(e))
		}
	}
	return nil
}

func (q *listQuery) matches(name string) bool {
	return *q.steps <= maxSteps && slices.ContainsFunc(q.patterns, func(p *listPattern) bool { return p.matches(name) })
}

func (q *listQuery) shows(e *listEntry) bool {
	selected := q.selects(e) || q.sel.RecursiveMatch && e.below
	missing := !q.isSelective() && e.children // RFC 9051 §6.3.9: levels that match "%"
	for _, p := range q.patterns {
		if (selected || missing && p.parents()) && p.matches(e.name) {
			return true
		}
	}
	return false
}

func (q *listQuery) listing(e *listEntry) *imapwire.Listing {
	l := &imapwire.Listing{Delimiter: mailstore.Delimiter, Name: e.name}
	if e.row == nil {
		l.Attrs = append(l.Attrs, `\NonExistent`)
		if !q.extended {
			l.Attrs = append(l.Attrs, `\Noselect`) // for those who do not know the other
		}
	}
	if e.subscribed && (q.sel.Subscribed || q.ret.Subscribed) {
		l.Attrs = append(l.Attrs, `\Subscribed`)
	}
	if q.ret.Children || !q.extended { // RFC 3348 §3
		if e.children {
			l.Attrs = append(l.Attrs, `\HasChildren`)
		} else {
			l.Attrs = append(l.Attrs, `\HasNoChildren`)
		}
	}
	if e.row != nil {
		l.Attrs = append(l.Attrs, e.row.SpecialUse...) // RFC 6154 §2
	}
	if q.sel.RecursiveMatch && e.below {
		l.ChildInfo = q.childInfo()
	}
	return l
}

// childInfo names the options that what is below fulfils (RFC 5258 §3.5).
func (q *listQuery) childInfo() []string {
	var info []string
	if q.sel.Subscribed {
		info = append(info, "SUBSCRIBED")
	}
	if q.sel.SpecialUse {
		info = append(info, "SPECIAL-USE")
	}
	return info
}

// lsub yields what LSUB is answered with: subscriptions that match, and where
// "%" keeps a subscription from matching, the level above it, which alone is
// \Noselect (RFC 3501 §6.3.9).
func (t *listTree) lsub(p *listPattern, yield func(*imapwire.Listing)) error {
	t.mark(func(e *listEntry) bool { return e.subscribed })
	for e := range t.entries {
		above := e.below && p.parents()
		if !e.subscribed && !above || !p.matches(e.name) {
			continue
		}
		l := &imapwire.Listing{Delimiter: mailstore.Delimiter, Name: e.name}
		if !e.subscribed {
			l.Attrs = []string{`\Noselect`}
		}
		yield(l)
	}
	if *p.steps > maxSteps {
		return errSteps
	}
	return nil
}
