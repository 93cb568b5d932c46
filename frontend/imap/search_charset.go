package imap

import (
	"strings"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/htmlindex"
	"golang.org/x/text/encoding/ianaindex"

	"starling/frontend/imapwire"
)

// errCharset names the charsets that every client can use (RFC 9051 §7.1).
var errCharset = nof(imapwire.CodeBadCharset("US-ASCII", "UTF-8"), "This charset is not known here")

// textDecoder makes UTF-8 of the strings of a SEARCH.
type textDecoder func(string) ([]byte, error)

// newTextDecoder returns the decoder for a charset. Without one, strings are UTF-8, and
// what is not is matched as bytes.
func newTextDecoder(charset string) (textDecoder, error) {
	switch strings.ToUpper(charset) {
	case "", "UTF-8", "US-ASCII":
		return func(s string) ([]byte, error) { return []byte(s), nil }, nil
	}
	e := lookupEncoding(charset)
	if e == nil {
		return nil, errCharset
	}
	return func(s string) ([]byte, error) {
		text, err := e.NewDecoder().Bytes([]byte(s))
		if err != nil {
			return nil, badf("A string is not %s", strings.ToUpper(charset))
		}
		return text, nil
	}, nil
}

func lookupEncoding(charset string) encoding.Encoding {
	if e, err := htmlindex.Get(charset); err == nil && e != encoding.Replacement {
		return e
	}
	if e, err := ianaindex.MIME.Encoding(charset); err == nil {
		return e // nil for one that is registered and not implemented
	}
	return nil
}
