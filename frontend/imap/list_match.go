package imap

import (
	"strings"

	"starling/frontend/imapwire"
	"starling/frontend/mailstore"
)

// maxPatterns is how many bytes the patterns of one command may have together, the
// reference before each included: every name of the account is held against them.
const maxPatterns = 2048

// checkPatterns says NO [LIMIT] (RFC 9051 §7.1) to patterns that are too long.
func checkPatterns(reference string, patterns ...string) error {
	size := len(reference) * len(patterns)
	for _, p := range patterns {
		size += len(p)
	}
	if size > maxPatterns {
		return nof(imapwire.CodeLimit, "Patterns have at most %d bytes together", maxPatterns)
	}
	return nil
}

// listPattern is a pattern of LIST with its reference before it (RFC 9051
// §6.3.9): "*" stands for any characters, "%" for any but the delimiter.
type listPattern struct {
	text  string
	least int  // bytes that a name needs at least
	steps *int // that were taken to match it, and others of the command
}

// maxSteps is how many steps one command may need to match its patterns against all names: less than a second.
const maxSteps = 50_000_000

var errSteps = nof(imapwire.CodeLimit, "It takes too long to compare the names with such patterns")

func newListPattern(reference, pattern string) *listPattern {
	p := &listPattern{text: reference + pattern, steps: new(int)}
	for i := range len(p.text) {
		if c := p.text[i]; c != '*' && c != '%' {
			p.least++
		}
	}
	return p
}

// parents says whether the pattern asks for names of levels too, at which there is no
// mailbox but below which there are some: not where "*" shows those below anyway.
func (p *listPattern) parents() bool {
	return strings.HasSuffix(p.text, "%") || !strings.Contains(p.text, "*")
}

// matches says whether the pattern fits all of name. It takes at most the product of
// both lengths: of the wildcards tried again only the last "%" and the last "*" count,
// since what an earlier one could reach they reach too.
func (p *listPattern) matches(name string) bool {
	*p.steps++
	if len(name) < p.least || *p.steps > maxSteps {
		return false
	}
	type retry struct{ pattern, name int } // pattern: behind the wildcard; 0: none yet
	var level, across retry
	i, j := 0, 0
	folded := foldedPrefix(name)
	for {
		*p.steps++
		switch {
		case i < len(p.text) && p.text[i] == '*':
			i++
			across, level = retry{i, j}, retry{}
			continue
		case i < len(p.text) && p.text[i] == '%':
			i++
			level = retry{i, j}
			continue
		case i == len(p.text) && j == len(name):
			return true
		case i < len(p.text) && j < len(name) && same(p.text[i], name[j], j < folded):
			i++
			j++
			continue
		}
		switch {
		case level.pattern > 0 && level.name < len(name) && name[level.name] != mailstore.Delimiter:
			level.name++
			i, j = level.pattern, level.name
		case across.pattern > 0 && across.name < len(name):
			across.name++
			i, j, level = across.pattern, across.name, retry{}
		default:
			return false
		}
	}
}

// foldedPrefix is how many bytes of name are compared without case: INBOX, also
// where it is the first level (RFC 9051 §5.1).
func foldedPrefix(name string) int {
	const inbox = mailstore.Inbox
	if strings.HasPrefix(name, inbox) && (len(name) == len(inbox) || name[len(inbox)] == mailstore.Delimiter) {
		return len(inbox)
	}
	return 0
}

func same(pattern, name byte, fold bool) bool {
	if fold && 'a' <= pattern && pattern <= 'z' {
		pattern -= 'a' - 'A'
	}
	return pattern == name
}
