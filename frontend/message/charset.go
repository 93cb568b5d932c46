package message

import (
	"bytes"
	"io"
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/htmlindex"
	"golang.org/x/text/encoding/ianaindex"
	"golang.org/x/text/transform"
)

// lookupCharset returns the encoding of a charset's name; nil means that bytes are
// taken as they are: UTF-8, ASCII, and charsets that nobody knows.
func lookupCharset(name []byte) encoding.Encoding {
	name = bytes.Trim(bytes.ToLower(name), " \t\"'")
	if i := bytes.IndexByte(name, '*'); i >= 0 {
		name = name[:i] // a language, RFC 2231 §5
	}
	switch string(name) {
	case "", "utf-8", "utf8", "us-ascii", "ascii", "ansi_x3.4-1968", "unknown-8bit", "x-unknown":
		return nil
	}
	if len(name) > 64 {
		return nil
	}
	if e, err := htmlindex.Get(string(name)); err == nil && e != encoding.Replacement {
		return e
	}
	if e, err := ianaindex.MIME.Encoding(string(name)); err == nil {
		return e
	}
	return nil
}

// decodeCharset returns a reader of UTF-8 for text in a charset. Of an unknown charset it is r.
func decodeCharset(r io.Reader, name []byte) io.Reader {
	if e := lookupCharset(name); e != nil {
		return transform.NewReader(r, e.NewDecoder())
	}
	return r
}

// toUTF8 returns text in a charset as valid UTF-8. What is not valid is read as
// windows-1252, as most mail of that kind is.
func toUTF8(b, charset []byte) []byte {
	if e := lookupCharset(charset); e != nil {
		if out, err := e.NewDecoder().Bytes(b); err == nil {
			b = out
		}
	}
	if utf8.Valid(b) {
		return b
	}
	out, err := charmap.Windows1252.NewDecoder().Bytes(b)
	if err != nil {
		return bytes.ToValidUTF8(b, []byte("\uFFFD"))
	}
	return out
}
