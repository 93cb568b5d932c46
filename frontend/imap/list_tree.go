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

// listTree is the names of an account, those of missing levels included.
type listTree struct {
	entries map[string]*listEntry
}

func newListTree(list *metadata.List) *listTree {
	t := &listTree{entries: make(map[string]*listEntry, len(list.Mailboxes)+len(list.Subscriptions))}
	for i := range list.Mailboxes {
		row := &list.Mailboxes[i]
		t.entry(row.Name).row = row
		t.above(row.Name, func(e *listEntry) { e.children = true })
	}
	for _, name := range list.Subscriptions {
		t.entry(name).subscribed = true
	}
	return t
}

func (t *listTree) entry(name string) *listEntry {
	e := t.entries[name]
	if e == nil {
		e = &listEntry{name: name}
		t.entries[name] = e
	}
	return e
}

// above calls do for the levels above name, which come to be entries by it.
func (t *listTree) above(name string, do func(*listEntry)) {
	for {
		i := strings.LastIndexByte(name, mailstore.Delimiter)
		if i < 0 {
			return
		}
		name = name[:i]
		do(t.entry(name))
	}
}

// mark notes at all levels above what is selected that there is something below.
func (t *listTree) mark(selected func(*listEntry) bool) {
	var names []string
	for name, e := range t.entries {
		if selected(e) {
			names = append(names, name)
		}
	}
	for _, name := range names {
		t.above(name, func(e *listEntry) { e.below = true })
	}
}

// sorted is the entries, each level right before those below it.
func (t *listTree) sorted() []*listEntry {
	entries := make([]*listEntry, 0, len(t.entries))
	for _, e := range t.entries {
		entries = append(entries, e)
	}
	slices.SortFunc(entries, func(a, b *listEntry) int { return compareLevels(a.name, b.name) })
	return entries
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
	patterns []listPattern
	sel      imapwire.ListSelect
	ret      imapwire.ListReturn
	extended bool
}

func newListQuery(args *imapwire.ListArgs) listQuery {
	q := listQuery{sel: args.Select, ret: args.Return, extended: args.Extended}
	for _, pattern := range args.Patterns {
		q.patterns = append(q.patterns, newListPattern(args.Reference, pattern))
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

// run yields what the client is told, each name once.
func (q *listQuery) run(t *listTree, yield func(*listEntry, *imapwire.Listing)) {
	if q.sel.RecursiveMatch { // of what is told of itself nothing need be told above it (RFC 5258 §3.5)
		t.mark(func(e *listEntry) bool { return q.selects(e) && !q.matches(e.name) })
	}
	for _, e := range t.sorted() {
		if q.shows(e) {
			yield(e, q.listing(e))
		}
	}
}

func (q *listQuery) matches(name string) bool {
	return slices.ContainsFunc(q.patterns, func(p listPattern) bool { return p.matches(name) })
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
func (t *listTree) lsub(p listPattern, yield func(*imapwire.Listing)) {
	t.mark(func(e *listEntry) bool { return e.subscribed })
	for _, e := range t.sorted() {
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
}
