package mailstore

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"starling/metadata"
)

// Inbox is the name of the mailbox that every account has (RFC 9051 §5.1).
const Inbox = "INBOX"

// Delimiter separates the levels of a mailbox name.
const Delimiter = '/'

const (
	maxName   = metadata.MaxName // bytes
	maxLevels = metadata.MaxLevels
)

// ErrName says that something cannot be a mailbox's name (NO [CANNOT]).
var ErrName = errors.New("not a possible mailbox name")

// CleanName is name as it is stored: NFC, INBOX in capitals, also as the first
// of several levels.
func CleanName(name string) string {
	name = norm.NFC.String(name)
	if first, rest, nested := strings.Cut(name, "/"); strings.EqualFold(first, Inbox) {
		if !nested {
			return Inbox
		}
		return Inbox + "/" + rest
	}
	return name
}

// CheckName says whether a mailbox of the name may be made: ErrName, with the reason, if not.
func CheckName(name string) error {
	switch levels := strings.Split(name, "/"); {
	case name == "":
		return fmt.Errorf("%w: it is empty", ErrName)
	case len(name) > maxName:
		return fmt.Errorf("%w: longer than %d bytes", ErrName, maxName)
	case !utf8.ValidString(name):
		return fmt.Errorf("%w: not UTF-8", ErrName)
	case len(levels) > maxLevels:
		return fmt.Errorf("%w: more than %d levels", ErrName, maxLevels)
	default:
		for _, level := range levels {
			if level == "" {
				return fmt.Errorf("%w: a level of it is empty", ErrName)
			}
		}
	}
	// RFC 9051 §5.1: no control characters, no line or paragraph separators.
	if i := strings.IndexFunc(name, func(r rune) bool {
		return r < 0x20 || r >= 0x7f && r < 0xa0 || r == '\u2028' || r == '\u2029'
	}); i >= 0 {
		return fmt.Errorf("%w: control character at byte %d", ErrName, i)
	}
	return nil
}
