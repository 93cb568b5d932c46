package message

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
)

// SearchText looks for needles (UTF-8, see [Matcher]) in the text of the message that s is the summary of, and says for each
// whether it is there. The text is that of SEARCH BODY (RFC 9051 §6.4.4): the decoded
// bodies of all text parts and reports (message/delivery-status, say), and the headers of all parts and of messages inside, with encoded words decoded. With
// withHeader it has the message's own header too, as for SEARCH TEXT. Other parts, attached files for
// example, are not looked into. A part whose transfer encoding or charset is not known is
// matched as it is. Errors are those of ra.
func SearchText(ra io.ReaderAt, s *Summary, needles [][]byte, withHeader bool) ([]bool, error) {
	t := textSearches.Get().(*textSearch)
	defer textSearches.Put(t)
	t.m.reset(needles)
	for i := range s.Parts {
		if t.m.Done() {
			break
		}
		p := &s.Parts[i]
		if i > 0 || withHeader {
			if err := t.header(ra, p); err != nil {
				return nil, fmt.Errorf("search header of part %d: %w", i, err)
			}
		}
		if !p.isSearched() {
			continue
		}
		if err := t.body(ra, p); err != nil {
			return nil, fmt.Errorf("search part %d: %w", i, err)
		}
		t.m.Break()
	}
	return slices.Clone(t.m.Found()), nil
}

// textSearch is a search for texts in one message, and the memory that it takes.
type textSearch struct {
	m       Matcher
	in      [searchChunk]byte
	decoded []byte
	field   []byte
	text    []byte
}

var textSearches = sync.Pool{New: func() any { return new(textSearch) }}

const searchChunk = 32 << 10

// isSearched reports whether the part's body is text: what a report says of a delivery, and to whom, is often nowhere else.
func (p *Part) isSearched() bool {
	return p.Children == 0 && (p.IsText() || equalFold(p.Type, "message"))
}

// TextReader returns a reader of the part's body in UTF-8: decoded from its transfer encoding and its charset. What is not
// known of them, or not valid, stays as it is.
func (p *Part) TextReader(ra io.ReaderAt) io.Reader {
	raw := bufio.NewReaderSize(io.NewSectionReader(ra, p.BodyStart, p.Size()), bufferSize(p.Size()))
	r, err := Decode(raw, string(p.Encoding))
	if err != nil {
		return raw
	}
	return decodeCharset(r, p.Param("charset"))
}

// bufferSize returns the size of a buffer for n octets: small for what is small, and large enough to see its end.
func bufferSize(n int64) int { return int(min(searchChunk, n+1)) }

// body gives the text of a part's body to the matcher.
func (t *textSearch) body(ra io.ReaderAt, p *Part) error {
	if lookupCharset(p.Param("charset")) != nil {
		return t.copy(p.TextReader(ra))
	}
	decoder, err := newTransferDecoder(p.Encoding)
	if err != nil {
		decoder = nil // it is matched as it is
	}
	for at := p.BodyStart; at < p.End && !t.m.Done(); {
		chunk, err := t.read(ra, at, p.End)
		if err != nil {
			return err
		}
		at += int64(len(chunk))
		last := len(chunk) == 0 || at == p.End
		if decoder != nil {
			t.decoded = decoder.decode(t.decoded[:0], chunk, last)
			chunk = t.decoded
		}
		t.m.Feed(chunk)
		if last {
			break
		}
	}
	return nil
}

// read reads what fits of the message from at to end; less than asked for is its end.
func (t *textSearch) read(ra io.ReaderAt, at, end int64) ([]byte, error) {
	chunk := t.in[:min(searchChunk, end-at)]
	n, err := ra.ReadAt(chunk, at)
	if n == len(chunk) || errors.Is(err, io.EOF) {
		err = nil
	}
	return chunk[:n], err
}

func (t *textSearch) copy(r io.Reader) error {
	for !t.m.Done() {
		n, err := r.Read(t.in[:])
		t.m.Feed(t.in[:n])
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// header gives the fields of a part's header to the matcher, unfolded and decoded. A field longer than the buffer is given
// in pieces.
func (t *textSearch) header(ra io.ReaderAt, p *Part) error {
	r := io.NewSectionReader(ra, p.HeaderStart, p.BodyStart-p.HeaderStart)
	buf := t.in[:0]
	for !t.m.Done() {
		n, err := io.ReadFull(r, t.in[len(buf):])
		buf = t.in[:len(buf)+n]
		last := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !last {
			return err
		}
		rest := buf
		for len(rest) > 0 && !t.m.Done() {
			n := fieldEnd(rest)
			if n == len(rest) && !last && len(rest) < len(t.in) {
				break // its continuation may follow
			}
			t.field = appendUnfolded(t.field[:0], bytes.TrimRight(rest[:n], "\r\n"))
			t.text = AppendDecoded(t.text[:0], t.field)
			t.m.Feed(t.text)
			t.m.Break()
			if bytes.IndexByte(t.text, '\t') >= 0 || bytes.Contains(t.text, []byte("  ")) {
				t.m.Feed(joinSpaces(t.text)) // as it is read where it was folded
				t.m.Break()
			}
			rest = rest[n:]
		}
		if last {
			return nil
		}
		buf = t.in[:copy(t.in[:], rest)]
	}
	return nil
}
