package blobstore

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// A Body is what a Store sends of the reader that Put was given: it knows where the bytes begin, goes back there for
// every new try, and reports what goes wrong as ErrBody. It is for those who write a Store.
type Body struct {
	r     io.ReadSeeker
	start int64
	size  int64
	read  int64
}

// NewBody checks that r can seek and has exactly size bytes from where it stands.
func NewBody(r io.ReadSeeker, size int64) (*Body, error) {
	start, err := r.Seek(0, io.SeekCurrent)
	if err != nil {
		return nil, fmt.Errorf("%w: find its start: %w", ErrBody, err)
	}
	end, err := r.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, fmt.Errorf("%w: find its end: %w", ErrBody, err)
	}
	if end-start != size {
		return nil, fmt.Errorf("%w: it has %d bytes, not %d", ErrBody, end-start, size)
	}
	b := &Body{r: r, start: start, size: size}
	return b, b.Rewind()
}

// Rewind goes back to the first byte.
func (b *Body) Rewind() error {
	b.read = 0
	at, err := b.r.Seek(b.start, io.SeekStart)
	switch {
	case err != nil:
		return fmt.Errorf("%w: rewind: %w", ErrBody, err)
	case at != b.start:
		return fmt.Errorf("%w: rewind to %d ended at %d", ErrBody, b.start, at)
	}
	return nil
}

// Read reads on. It gives no more than the bytes announced, and ErrBody if there are fewer.
func (b *Body) Read(p []byte) (int, error) {
	if b.read == b.size {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), b.size-b.read)]
	n, err := b.r.Read(p)
	b.read += int64(n)
	switch {
	case err == io.EOF && b.read < b.size:
		return n, fmt.Errorf("%w: it ended after %d of %d bytes", ErrBody, b.read, b.size)
	case err != nil && err != io.EOF:
		return n, fmt.Errorf("%w: read: %w", ErrBody, err)
	}
	return n, nil
}

// Size is the number of bytes announced.
func (b *Body) Size() int64 { return b.size }

// Done says whether all bytes were read since the last Rewind.
func (b *Body) Done() bool { return b.read == b.size }

// ContextError is what a Store returns when ctx has ended: ctx's error, and ErrUnavailable too if it was a deadline.
// It is nil while ctx lives.
func ContextError(ctx context.Context) error {
	err := ctx.Err()
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return err
}

// CheckRange returns ErrRange for what Get refuses before it looks at any object.
func CheckRange(offset, length int64) error {
	if offset < 0 || length == 0 {
		return fmt.Errorf("%w: offset %d, length %d", ErrRange, offset, length)
	}
	return nil
}

// CheckOffset returns ErrRange unless an object of size bytes can be read from offset for length bytes.
func CheckOffset(offset, length, size int64) error {
	if offset < size || (size == 0 && offset == 0 && length < 0) {
		return nil
	}
	return fmt.Errorf("%w: offset %d of %d bytes", ErrRange, offset, size)
}

// A RangeReader turns the end of r into what Get promises: io.EOF after Want bytes, io.ErrUnexpectedEOF before, and
// the context's error once it has ended. A negative Want means that the end of r is the end.
type RangeReader struct {
	Ctx  context.Context // the context of the Get, which the reader is bound to
	R    io.ReadCloser
	Want int64 // bytes still to come
}

// Read implements io.Reader.
func (r *RangeReader) Read(p []byte) (int, error) {
	if err := ContextError(r.Ctx); err != nil {
		return 0, err
	}
	if r.Want == 0 {
		return 0, io.EOF
	}
	if r.Want > 0 {
		p = p[:min(int64(len(p)), r.Want)]
	}
	n, err := r.R.Read(p)
	if r.Want < 0 {
		return n, err
	}
	r.Want -= int64(n)
	if err == io.EOF && r.Want > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// Close implements io.Closer.
func (r *RangeReader) Close() error { return r.R.Close() }
