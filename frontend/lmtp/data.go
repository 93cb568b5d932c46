package lmtp

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/emersion/go-smtp"
	"go.uber.org/zap"

	"starling/blobstore"
)

// inMemory is how much of a message for several recipients is kept in memory;
// more goes into a file.
const inMemory = 256 << 10

// data is a message as it was received. For one recipient it is read from the
// connection while it is stored; for several it is kept meanwhile.
type data struct {
	stream io.Reader // not nil for one recipient
	kept   bytes.Buffer
	file   *os.File
	size   int64 // known once it has come
	head   head
}

// errCut says that the message did not come to its end.
var errCut = errors.New("message was cut off")

// source is the message as go-smtp gives it; what goes wrong on the connection is errCut.
type source struct {
	io.Reader
	conn *conn
}

func (s source) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	s.conn.beside.Add(-int64(n))
	if err != nil && err != io.EOF && !errors.Is(err, smtp.ErrDataTooLarge) { //nolint:errorlint // as it is
		err = fmt.Errorf("%w: %w", errCut, err)
	}
	return n, err
}

// receive begins to take in the message, or takes it in if it is read several times.
func receive(r io.Reader, several bool, dir string) (*data, error) {
	d := &data{}
	r = io.TeeReader(r, &d.head)
	if !several {
		d.stream = r
		return d, nil
	}
	n, err := io.CopyN(&d.kept, r, inMemory)
	d.size = n
	if err == io.EOF { //nolint:errorlint // CopyN returns it as it is
		return d, nil
	}
	if err != nil {
		return nil, fmt.Errorf("receive message: %w", err)
	}
	f, err := os.CreateTemp(dir, "lmtp-")
	if err != nil {
		return nil, fmt.Errorf("keep message: %w: %w", blobstore.ErrUnavailable, err)
	}
	d.file = f
	if err = os.Remove(f.Name()); err == nil { // it lives as long as it is open
		n, err = io.Copy(f, io.MultiReader(&d.kept, r))
	}
	if err != nil {
		_ = f.Close() // the first error is the one to tell
		return nil, fmt.Errorf("keep message: %w", err)
	}
	d.size = n
	return d, nil
}

// copyTo writes the message to w, and returns the SHA-256 of its bytes.
func (d *data) copyTo(w io.Writer) ([sha256.Size]byte, error) {
	r := d.stream
	switch {
	case r != nil:
	case d.file != nil:
		r = io.NewSectionReader(d.file, 0, d.size)
	default:
		r = bytes.NewReader(d.kept.Bytes())
	}
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(h, w), r)
	if err != nil {
		return [sha256.Size]byte{}, fmt.Errorf("receive message: %w", err)
	}
	d.size = n
	return [sha256.Size]byte(h.Sum(nil)), nil
}

func (d *data) discard(log *zap.Logger) {
	if d.file == nil {
		return
	}
	if err := d.file.Close(); err != nil {
		log.Warn("kept message not closed", zap.Error(err))
	}
}
