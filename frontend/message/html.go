package message

import (
	"bytes"
	"html"
)

// hidden are the elements whose content is not text.
var hidden = [...]string{"style", "script", "title", "noscript", "template"}

// htmlText returns the text of an HTML document or of its beginning: without tags, comments, styles and
// scripts, each tag that ends a block as a line end.
func htmlText(b []byte) []byte {
	out := make([]byte, 0, len(b)/4)
	for len(b) > 0 {
		i := bytes.IndexByte(b, '<')
		if i < 0 {
			out = append(out, b...)
			break
		}
		out = append(out, b[:i]...)
		b = b[i:]
		name := tagName(b)
		switch {
		case bytes.HasPrefix(b, []byte("<!--")):
			b = after(b, []byte("-->"))
		case len(name) == 0 && len(b) > 1 && b[1] != '/' && b[1] != '!' && b[1] != '?':
			out = append(out, '<')
			b = b[1:]
		case isHidden(name):
			b = afterElement(b, name)
		default:
			if !isInline(name) {
				out = append(out, '\n')
			}
			b = after(b, []byte{'>'})
		}
	}
	if bytes.IndexByte(out, '&') < 0 {
		return out
	}
	return []byte(html.UnescapeString(string(out)))
}

// tagName returns the name of the tag that b begins with, closing tags included.
func tagName(b []byte) []byte {
	b = bytes.TrimPrefix(b[1:], []byte{'/'})
	n := 0
	for n < len(b) && n < 16 && ('a' <= lowerASCII(b[n]) && lowerASCII(b[n]) <= 'z' || n > 0 && '0' <= b[n] && b[n] <= '9') {
		n++
	}
	return b[:n]
}

func isHidden(name []byte) bool {
	for _, h := range hidden {
		if equalFold(name, h) {
			return true
		}
	}
	return false
}

func isInline(name []byte) bool {
	for _, s := range [...]string{"a", "b", "i", "u", "em", "strong", "span", "font", "small", "big", "sub", "sup", "tt", "code", "wbr", "abbr"} {
		if equalFold(name, s) {
			return true
		}
	}
	return false
}

// after returns what follows the first sep.
func after(b, sep []byte) []byte {
	if i := bytes.Index(b, sep); i >= 0 {
		return b[i+len(sep):]
	}
	return nil
}

// afterElement returns what follows the element that b begins with, or its closing tag.
func afterElement(b, name []byte) []byte {
	if b[1] == '/' {
		return after(b, []byte{'>'})
	}
	for rest := b[1:]; ; {
		i := bytes.Index(rest, []byte("</"))
		if i < 0 {
			return nil
		}
		rest = rest[i:]
		if bytes.EqualFold(tagName(rest), name) {
			return after(rest, []byte{'>'})
		}
		rest = rest[2:]
	}
}
