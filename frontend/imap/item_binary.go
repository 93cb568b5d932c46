package imap

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	mail "starling/frontend/message"
)

// locateBinary finds what BINARY[…] and BINARY.SIZE[…] decode: the body of a part
// (RFC 3516 §4.2). The message as a whole and a multipart have no encoding of their own.
func locateBinary(a *asked, m *fetched) piece {
	if a.whole() {
		return a.rangeOf(0, m.row.Size)
	}
	i := m.summary.PartAt(a.section.Path)
	if i < 0 {
		return piece{}
	}
	p := &m.summary.Parts[i]
	encoding := strings.ToLower(strings.TrimSpace(string(p.Encoding)))
	switch encoding {
	case "base64", "quoted-printable":
		if !p.IsMultipart() {
			return piece{kind: pieceDecode, off: p.BodyStart, n: p.Size(), encoding: encoding}
		}
	case "", "7bit", "8bit", "binary":
	default:
		if !p.IsMultipart() {
			return piece{kind: pieceUnknown}
		}
	}
	return a.rangeOf(p.BodyStart, p.Size())
}

// maxHeld is how many octets of a part are held to find out how they have to be
// written. A longer part is decoded twice.
const maxHeld = 1 << 20

// answerBinary writes BINARY[…]. What has a NUL is a literal8; what has none is not,
// as RFC 3516 §4.2 would have it, unless it is long and its size is known.
func answerBinary(ctx context.Context, f *fetch, i int) error {
	a, p := &f.items[i], &f.m.pieces[i]
	switch {
	case p.kind == pieceAbsent:
		f.upTo(ctx, i)
		a.writeName(f.s.enc).NIL()
		return nil
	case p.kind == pieceRange && p.n > maxHeld:
		return f.stream(ctx, i, p.n, true, func(w *literalWriter) error {
			return copyRange(ctx, f.m.body, w, p.off, p.n)
		})
	}
	look := lookWriter{held: f.part[:0], most: p.n}
	if p.kind == pieceDecode && a.HasPartial {
		look.skip, look.most = a.Partial.Offset, min(p.n, a.Partial.Count)
	}
	err := f.decode(ctx, p, &look)
	if cap(look.held) <= aheadPart { // more counts for this message only
		f.part = look.held
	}
	switch {
	case err != nil:
		return err
	case look.n <= maxHeld:
		f.writeHeld(ctx, i, look.held, look.nul)
		return nil
	}
	return f.stream(ctx, i, look.n, look.nul, func(w *literalWriter) error {
		w.skip = a.Partial.Offset
		return f.decode(ctx, p, w)
	})
}

// answerBinarySize writes BINARY.SIZE[…] (RFC 3516 §4.3); 0 for a part that is not there.
func answerBinarySize(ctx context.Context, f *fetch, i int) error {
	a, p := &f.items[i], &f.m.pieces[i]
	size := p.n
	if p.kind == pieceDecode || p.kind == pieceUnknown {
		look := lookWriter{most: p.n, count: true}
		if err := f.decode(ctx, p, &look); err != nil {
			return err
		}
		size = look.n
	}
	f.upTo(ctx, i)
	a.writeName(f.s.enc).Number(uint64(size)) //nolint:gosec // not negative
	return nil
}

// decode copies a piece to w, decoded. That w has enough ends it without an error.
func (f *fetch) decode(ctx context.Context, p *piece, w io.Writer) error {
	switch {
	case p.kind == pieceUnknown:
		return mail.ErrUnknownEncoding
	case p.n == 0:
		return nil
	case p.kind == pieceRange:
		return f.m.body.ReadRange(ctx, w, p.off, p.n)
	}
	raw, feed := io.Pipe()
	decoded, err := mail.Decode(raw, p.encoding)
	if err != nil {
		return err
	}
	fed := make(chan struct{})
	go func() {
		defer close(fed)
		err := f.s.guard("read part", func() error { return f.m.body.ReadRange(ctx, feed, p.off, p.n) })
		_ = feed.CloseWithError(err) // always nil
	}()
	_, err = io.Copy(w, decoded)
	_ = raw.Close() // always nil; it ends the reading of what nobody wants
	<-fed
	if err != nil && !errors.Is(err, errEnough) {
		return fmt.Errorf("decode part: %w", err)
	}
	return nil
}

// lookWriter holds what is decoded as long as it is short, and finds out its length
// and whether a NUL is in it.
type lookWriter struct {
	skip  int64 // octets to be passed over first
	most  int64 // octets wanted after those
	count bool  // only n is wanted

	n    int64
	nul  bool
	held []byte // all of it while n is at most maxHeld
}

func (w *lookWriter) Write(p []byte) (int, error) {
	if w.n == w.most {
		return 0, errEnough
	}
	size := len(p)
	skip := min(w.skip, int64(len(p)))
	w.skip -= skip
	p = p[skip:]
	p = p[:min(int64(len(p)), w.most-w.n)]
	w.n += int64(len(p))
	if !w.count {
		w.nul = w.nul || bytes.IndexByte(p, 0) >= 0
		if w.n <= maxHeld {
			w.held = append(w.held, p...)
		}
	}
	return size, nil
}
