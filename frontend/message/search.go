package message

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
)

// SearchText looks for needles (UTF-8, see [Matcher]) in the text of the message that s is the summary of, and says for each
// whether it is there. The text is that of SEARCH BODY (RFC 9051 §6.4.4): the decoded
// bodies of all text parts and reports (message/delivery-status, say), and the headers of all parts and of messages inside, with encoded words decoded. With
// withHeader it has the message's own header too, as for SEARCH TEXT. Other parts, attached files for
// example, are not looked into. A part whose transfer encoding or charset is not known is
// matched as it is. Errors are those of ra.
func SearchText(ra io.ReaderAt, s *Summary, needles [][]byte, withHeader bool) ([]bool, error) {
	m := NewMatcher(needles)
	for i := range s.Parts {
		if m.Done() {
			break
		}
		p := &s.Parts[i]
		if i > 0 || withHeader {
			if err := searchHeader(io.NewSectionReader(ra, p.HeaderStart, p.BodyStart-p.HeaderStart), bufferSize(p.BodyStart-p.HeaderStart), m); err != nil {
				return nil, fmt.Errorf("search header of part %d: %w", i, err)
			}
		}
		if !p.isSearched() {
			continue
		}
		if err := copyUntilDone(m, p.TextReader(ra), bufferSize(p.Size())); err != nil {
			return nil, fmt.Errorf("search part %d: %w", i, err)
		}
		m.Break()
	}
	return m.Found(), nil
}

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

const searchChunk = 32 << 10

// bufferSize returns the size of a buffer for n octets: small for what is small, and large enough to see its end.
func bufferSize(n int64) int { return int(min(searchChunk, n+1)) }

func copyUntilDone(m *Matcher, r io.Reader, size int) error {
	buf := make([]byte, size)
	for !m.Done() {
		n, err := r.Read(buf)
		m.Feed(buf[:n])
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// searchHeader gives the fields of a header to m, unfolded and decoded. A field longer than the buffer is given in pieces.
func searchHeader(r io.Reader, size int, m *Matcher) error {
	buf := make([]byte, 0, size)
	var text []byte
	for !m.Done() {
		n, err := io.ReadFull(r, buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		last := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !last {
			return err
		}
		rest := buf
		for len(rest) > 0 && !m.Done() {
			n := fieldEnd(rest)
			if n == len(rest) && !last && len(rest) < cap(buf) {
				break // its continuation may follow
			}
			text = AppendDecoded(text[:0], appendUnfolded(nil, bytes.TrimRight(rest[:n], "\r\n")))
			m.Feed(text)
			m.Break()
			rest = rest[n:]
		}
		if last {
			return nil
		}
		buf = buf[:copy(buf[:cap(buf)], rest)]
	}
	return nil
}
