package metadata

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// ErrName says that something cannot be called so.
var ErrName = errors.New("not a possible name")

// maxName is how many octets a name may have.
const maxName = 320

// checkName finds what no tenant can be called. Statements that list things take an empty name for all of
// them, and lists have a line for each.
func checkName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("%w: it is empty", ErrName)
	case len(name) > maxName:
		return fmt.Errorf("%w: it is longer than %d octets", ErrName, maxName)
	case !utf8.ValidString(name):
		return fmt.Errorf("%q: %w: it is not UTF-8", name, ErrName)
	case strings.ContainsFunc(name, unicode.IsControl):
		return fmt.Errorf("%q: %w: it holds a control character", name, ErrName)
	case strings.TrimSpace(name) != name:
		return fmt.Errorf("%q: %w: it begins or ends with a space", name, ErrName)
	}
	return nil
}

// checkDomain finds what no domain can be called.
func checkDomain(name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	if strings.ContainsFunc(name, func(r rune) bool { return r == '@' || unicode.IsSpace(r) }) {
		return fmt.Errorf("%q: %w: it holds a space or an @", name, ErrName)
	}
	if strings.Contains("."+name+".", "..") {
		return fmt.Errorf("%q: %w: a part of it is empty", name, ErrName)
	}
	return nil
}

// checkAddress finds what is no address of an account.
func checkAddress(address string) error {
	if err := checkName(address); err != nil {
		return err
	}
	if strings.LastIndexByte(address, '@') < 1 {
		return fmt.Errorf("%q: %w: an address is local-part@domain", address, ErrName)
	}
	return nil
}
