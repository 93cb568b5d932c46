package imap

import (
	"slices"
	"time"

	"starling/frontend/imapwire"
	mail "starling/frontend/message"
	"starling/metadata"
)

// verdict says whether a message is searched for, as far as is known. Not is minus, and is the least, or the greatest.
type verdict int8

const (
	no      verdict = -1
	unknown verdict = 0
	yes     verdict = 1
)

func yesIf(fits bool) verdict {
	if fits {
		return yes
	}
	return no
}

// candidate is a message with what was read of it so far.
type candidate struct {
	message
	row     *metadata.Message
	digest  mail.Digest // nil: it was not asked for, or there is none
	summary *mail.Summary
	header  []byte // of the message, if it was read
	read    bool   // the plan's texts were looked for: which were found follows
	inBody  []bool
	inText  []bool
	asked   uint32 // the UID of which it is known whether it is in what SEARCH saved
	saved   bool
}

// searchPlan is a tree of search keys made ready to be asked about messages of a view.
type searchPlan struct {
	view   *view
	now    time.Time
	decode textDecoder

	root   searchNode
	scope  []metadata.UIDRange // no message outside of it matches
	modSeq bool                // MODSEQ is one of the keys
	digest bool                // a digest may answer for one of the keys
	fields int                 // keys that may need the message's header
	// summaries says that a summary may answer for one of the keys, or its envelope for one of a date.
	summaries bool
	body      [][]byte // what BODY looks for
	text      [][]byte // what TEXT looks for
}

// What one search may ask of each message: each text is looked for in all of it, each
// field in all of its header.
const (
	maxSearchTexts  = 50
	maxSearchFields = 500
)

// within says NO [LIMIT] (RFC 9051 §7.1) to a search that asks for too much.
func (p *searchPlan) within() error {
	if len(p.body)+len(p.text) > maxSearchTexts {
		return nof(imapwire.CodeLimit, "A search has at most %d keys BODY and TEXT", maxSearchTexts)
	}
	if p.fields > maxSearchFields {
		return nof(imapwire.CodeLimit, "A search has at most %d keys for header fields", maxSearchFields)
	}
	return nil
}

// searchNode is a key: a leaf, if match is not nil, else what its kind makes of kids.
type searchNode struct {
	kind  nodeKind
	match matcher
	kids  []searchNode
	needs metadata.Columns
}

type nodeKind uint8

const (
	allOf nodeKind = iota
	anyOf
	noneOf
)

func (n *searchNode) eval(c *candidate) verdict {
	if n.match != nil {
		return n.match(c)
	}
	v, last := no, yes
	if n.kind == allOf {
		v, last = yes, no
	}
	for i := range n.kids {
		got := n.kids[i].eval(c)
		if n.kind == allOf {
			v = min(v, got)
		} else {
			v = max(v, got)
		}
		if v == last {
			break
		}
	}
	if n.kind == noneOf {
		return -v
	}
	return v
}

// everything is all UIDs.
var everything = []metadata.UIDRange{{First: 1, Last: 1<<32 - 1}}

func newSearchPlan(v *view, args *imapwire.SearchArgs, now time.Time) (*searchPlan, error) {
	decode, err := newTextDecoder(args.Charset)
	if err != nil {
		return nil, err
	}
	p := &searchPlan{view: v, now: now, decode: decode, scope: everything}
	if p.root, err = p.node(&args.Key); err != nil {
		return nil, err
	}
	if err = p.within(); err != nil {
		return nil, err
	}
	return p, p.narrow(&args.Key)
}

// node makes k ready.
func (p *searchPlan) node(k *imapwire.SearchKey) (searchNode, error) {
	var n searchNode
	switch k.Name {
	case imapwire.KeyAnd:
		n.kind = allOf
	case "OR":
		n.kind = anyOf
	case "NOT":
		n.kind = noneOf
	default:
		row, ok := searchKeys[k.Name]
		if !ok {
			return n, badf("There is no search key %s", k.Name)
		}
		var err error
		n.match, err = row.match(p, k)
		n.needs = row.needs
		return n, err
	}
	for i := range k.Keys {
		kid, err := p.node(&k.Keys[i])
		if err != nil {
			return n, err
		}
		n.kids = append(n.kids, kid)
		n.needs |= kid.needs
	}
	// What costs least may spare the rest.
	slices.SortStableFunc(n.kids, func(a, b searchNode) int { return int(a.needs) - int(b.needs) })
	return n, nil
}

// narrow sets the scope by a set that all messages have to be in, if there is one.
func (p *searchPlan) narrow(k *imapwire.SearchKey) error {
	for i := range k.Keys {
		by := bySeq
		switch k.Keys[i].Name {
		case imapwire.KeySet:
		case "UID":
			by = byUID
		default:
			continue
		}
		if p.view.exists() == 0 {
			p.scope = nil
			return nil
		}
		var err error
		p.scope, err = p.view.ranges(k.Keys[i].Set, by)
		return err
	}
	return nil
}
