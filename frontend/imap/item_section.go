package imap

import (
	"bytes"
	"context"
	"fmt"

	"starling/blobstore"
	"starling/frontend/imapwire"
	mail "starling/frontend/message"
)

// pieceKind says where an answer comes from.
type pieceKind uint8

const (
	pieceAbsent  pieceKind = iota // there is no such part: NIL
	pieceKept                     // fields of the message's header that its summary has
	pieceRange                    // n octets of the message from off
	pieceFields                   // those are a header, of which fields are chosen
	pieceDecode                   // those are encoded
	pieceUnknown                  // those are encoded in a way that is not known
)

// piece is what of a message an item names.
type piece struct {
	kind     pieceKind
	off, n   int64
	encoding string // of pieceDecode
}

// reads says that the answer has to be read from the message.
func (p *piece) reads() bool {
	return p.n > 0 && (p.kind == pieceRange || p.kind == pieceFields || p.kind == pieceDecode)
}

// holds is the memory that answering with a piece takes beside that of the body.
func (a *asked) holds(p *piece) int64 {
	switch {
	case p.kind == pieceFields && p.n <= maxHeader:
		return 2 * p.n // the header, and what is chosen of it
	case a.Name == imapwire.ItemBinary && (p.kind == pieceDecode || p.n <= maxHeld):
		return 2 * min(p.n, maxHeld) // as a slice grows
	}
	return 0
}

// slice is the range that a partial fetch leaves of n octets: none behind their
// end (RFC 9051 §6.4.5, partial).
func (a *asked) slice(n int64) (off, count int64) {
	if !a.HasPartial {
		return 0, n
	}
	off = min(a.Partial.Offset, n)
	return off, min(n-off, a.Partial.Count)
}

// rangeOf is what a partial fetch leaves of n octets of the message from off.
func (a *asked) rangeOf(off, n int64) piece {
	skip, count := a.slice(n)
	return piece{kind: pieceRange, off: off + skip, n: count}
}

// sliceOf is what a partial fetch leaves of data.
func (a *asked) sliceOf(data []byte) []byte {
	off, n := a.slice(int64(len(data)))
	return data[off : off+n]
}

// locateSection finds BODY[…] (RFC 9051 §6.4.5.1), and the items of RFC 3501 §6.4.5
// that are names for some of it.
func locateSection(a *asked, m *fetched) piece {
	if a.whole() {
		return a.rangeOf(0, m.row.Size)
	}
	if a.section.Specifier == mail.HeaderFields && len(a.section.Path) == 0 && m.summary.CompleteFor(a.fields) {
		return piece{kind: pieceKept}
	}
	start, end, ok := m.summary.Find(a.section)
	switch {
	case !ok:
		return piece{}
	case !a.fields.Empty():
		return piece{kind: pieceFields, off: start, n: end - start}
	}
	return a.rangeOf(start, end-start)
}

func answerSection(ctx context.Context, f *fetch, i int) error {
	a, p := &f.items[i], &f.m.pieces[i]
	switch p.kind {
	case pieceKept:
		f.text = mail.FilterHeader(f.text[:0], f.m.summary.Header, a.fields, false)
		f.writeHeld(ctx, i, a.sliceOf(f.text), false)
	case pieceFields:
		header, err := sectionHeader(ctx, f.m, p)
		if err != nil {
			return err
		}
		not := a.section.Specifier == mail.HeaderFieldsNot
		f.writeHeld(ctx, i, a.sliceOf(mail.FilterHeader(nil, header, a.fields, not)), false)
	case pieceRange:
		return f.stream(ctx, i, p.n, false, func(w *literalWriter) error {
			return copyRange(ctx, f.m.body, w, p.off, p.n)
		})
	default:
		f.upTo(ctx, i)
		a.writeName(f.s.enc).NIL()
	}
	return nil
}

// maxHeader is the longest header in octets of which fields are chosen, because it
// has to be held for that.
const maxHeader = 8 << 20

func sectionHeader(ctx context.Context, m *fetched, p *piece) ([]byte, error) {
	if p.n > maxHeader {
		return nil, nof(imapwire.CodeLimit, "A header is too long for its fields to be chosen")
	}
	var header bytes.Buffer
	header.Grow(int(p.n))
	if p.n == 0 {
		return nil, nil
	}
	if err := m.body.ReadRange(ctx, &header, p.off, p.n); err != nil {
		return nil, fmt.Errorf("read header: %w", err)
	}
	return header.Bytes(), nil
}

// writeHeld writes an item whose answer is held, as a literal8 where that has to be. What is empty is a literal too: many
// clients look for a message's text in literals alone, and take a quoted string for a message that is not there.
func (f *fetch) writeHeld(ctx context.Context, i int, data []byte, literal8 bool) {
	f.upTo(ctx, i)
	e := f.items[i].writeName(f.s.enc)
	if literal8 && len(data) > 0 {
		e.Literal8Header(int64(len(data)))
	} else {
		e.LiteralHeader(int64(len(data)))
	}
	_, _ = e.Write(data) // an error sticks
}

// stream writes an item as a literal of n octets, which read copies to a writer.
// When read fails before the first of them nothing was written; when it fails
// later the literal cannot be completed, and the connection ends.
func (f *fetch) stream(ctx context.Context, i int, n int64, literal8 bool, read func(*literalWriter) error) error {
	if n == 0 {
		f.writeHeld(ctx, i, nil, false)
		return nil
	}
	e := f.s.enc
	w := &literalWriter{e: e, n: n, begin: func() {
		f.upTo(ctx, i)
		name := f.items[i].writeName(e)
		if literal8 {
			name.Literal8Header(n)
		} else {
			name.LiteralHeader(n)
		}
	}}
	err := read(w)
	if w.written == n {
		return nil
	}
	if err == nil {
		err = fmt.Errorf("%d octets of %d: %w", w.written, n, blobstore.ErrCorrupt)
	}
	if w.written > 0 {
		_ = e.CopyN(failing{err}, n-w.written) // sticks, and so ends the connection
	}
	return fmt.Errorf("send body: %w", err)
}

// literalWriter is the bytes of a literal that begins with the first of them.
type literalWriter struct {
	e       *imapwire.Encoder
	begin   func()
	skip    int64 // octets to be passed over first
	n       int64 // octets of the literal
	written int64
}

// pieceSize is how much is given to the encoder at once, whose buffer stays small so.
const pieceSize = 16 << 10

func (w *literalWriter) Write(p []byte) (int, error) {
	size := len(p)
	if w.skip > 0 {
		n := min(w.skip, int64(len(p)))
		w.skip -= n
		p = p[n:]
	}
	if len(p) > 0 && w.written == w.n {
		return 0, errEnough
	}
	p = p[:min(int64(len(p)), w.n-w.written)]
	if len(p) > 0 && w.written == 0 {
		w.begin()
	}
	for len(p) > 0 {
		n := min(len(p), pieceSize)
		if _, err := w.e.Write(p[:n]); err != nil {
			return 0, err
		}
		w.written += int64(n)
		p = p[n:]
	}
	return size, nil
}

// failing is a reader that has failed.
type failing struct{ err error }

func (r failing) Read([]byte) (int, error) { return 0, r.err }
