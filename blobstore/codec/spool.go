package codec

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"

	"starling/blobstore"
)

// Spool takes a message as it arrives and compresses it frame by frame. What has been compressed stays in memory up to
// Options.Memory and then goes to a file without a name; of what has not, there is never more than one frame. A Spool belongs
// to one goroutine, and must be discarded.
type Spool struct {
	c     *Codec
	plain *[]byte // the frame that is being filled, and the last one once finished
	n     int     // bytes in it
	out   []byte  // the object, or room for one frame of it if there is a file
	file  *os.File
	size  int64 // of the object so far

	ext      Extent
	err      error // of the file; it sticks
	finished bool
}

// errFinished is what writing to a Spool gets after Finish or Discard.
var errFinished = errors.New("spool: it is finished")

// Spool starts an object with its header.
func (c *Codec) Spool(h Header) *Spool {
	s := &Spool{c: c, plain: c.buffer(smallFrame)}
	s.out = h.append(c.out())
	s.ext.Header = len(s.out)
	s.size = int64(len(s.out))
	return s
}

// Write takes more of the message. Its error is blobstore.ErrUnavailable: no room for the file.
func (s *Spool) Write(p []byte) (int, error) {
	if s.finished {
		return 0, errFinished
	}
	written := 0
	for len(p) > 0 && s.err == nil {
		if s.n == s.c.opts.FrameSize {
			s.flush()
			continue
		}
		s.grow(s.n + len(p))
		n := copy((*s.plain)[s.n:min(len(*s.plain), s.c.opts.FrameSize)], p)
		s.n += n
		written += n
		p = p[n:]
	}
	return written, s.err
}

// grow changes a small buffer for one of a frame when n bytes do not fit.
func (s *Spool) grow(n int) {
	if len(*s.plain) >= min(n, s.c.opts.FrameSize) {
		return
	}
	larger := s.c.buffer(s.c.opts.FrameSize)
	copy(*larger, (*s.plain)[:s.n])
	s.c.release(s.plain)
	s.plain = larger
}

// flush compresses the frame that has been filled.
func (s *Spool) flush() {
	plain := (*s.plain)[:s.n]
	s.ext.CRC = crc32.Update(s.ext.CRC, castagnoli, plain)
	s.ext.Plain += int64(s.n)
	if s.file != nil {
		s.out = s.out[:0]
	}
	before := len(s.out)
	s.out = s.c.enc.EncodeAll(plain, s.out)
	s.ext.Frames = append(s.ext.Frames, uint32(len(s.out)-before))
	s.size += int64(len(s.out) - before)
	if s.file == nil && len(s.out) > s.c.opts.Memory {
		before, s.err = 0, s.createFile()
	}
	if s.file != nil && s.err == nil {
		_, s.err = s.file.Write(s.out[before:])
	}
	if s.err != nil {
		s.err = fmt.Errorf("spool: %w: %w", blobstore.ErrUnavailable, s.err)
	}
	s.n = 0
}

func (s *Spool) createFile() error {
	f, err := os.CreateTemp(s.c.opts.Dir, "spool-")
	if err != nil {
		return err
	}
	s.file = f
	return os.Remove(f.Name()) // it lives as long as it is open, and no longer than the process
}

// Finish ends the message. The object and its size are what a Store's Put wants; it can be read until Discard.
func (s *Spool) Finish() (object io.ReadSeeker, size int64, ext Extent, err error) {
	if s.finished {
		return nil, 0, Extent{}, errFinished
	}
	last := s.n
	if s.n > 0 && s.err == nil {
		s.flush()
	}
	if s.err != nil {
		return nil, 0, Extent{}, s.err
	}
	s.finished, s.n = true, last
	s.ext.Length = s.size
	if len(s.ext.Frames) > 1 {
		s.ext.FrameSize = s.c.opts.FrameSize
	} else {
		s.ext.Frames = nil
	}
	return io.NewSectionReader(s.object(), 0, s.size), s.size, s.ext, nil
}

// object is what the finished Spool holds.
func (s *Spool) object() io.ReaderAt {
	if s.file != nil {
		return s.file
	}
	return bytes.NewReader(s.out)
}

// Spilled returns the file in which the object comes to be, and how much of it is there and does not change any more. It is
// nil while all is in memory. The file can be read until Discard, by others too while more is written.
func (s *Spool) Spilled() (object io.ReaderAt, size int64) {
	if s.file == nil || s.err != nil {
		return nil, 0
	}
	return s.file, s.size
}

// Size returns how many bytes of the message were written.
func (s *Spool) Size() int64 {
	if s.finished {
		return s.ext.Plain
	}
	return s.ext.Plain + int64(s.n)
}

// Body reads the message back from the finished Spool, before it is in any store. It is valid until Discard. A message of
// one frame is read from the buffer that it was written to.
func (s *Spool) Body() *Body {
	if !s.finished {
		panic("codec: Body of a Spool that is not finished")
	}
	b := s.c.open(sourceAt{s.object()}, "spooled message", s.ext)
	if s.ext.frames() == 1 {
		b.slots[0] = slot{index: 0, plain: (*s.plain)[:s.n]}
	}
	return b
}

// Discard frees memory and file, finished or not. It may be called again.
func (s *Spool) Discard() error {
	s.finished = true
	s.c.release(s.plain)
	s.plain = nil
	if s.out != nil {
		s.c.releaseOut(s.out)
		s.out = nil
	}
	if s.file == nil {
		return nil
	}
	err := s.file.Close()
	s.file = nil
	return err
}
