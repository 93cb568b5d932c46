package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash"
	"io"
	"net/mail"
	"net/textproto"
	"strings"
	"time"

	"starling/frontend/mailstore"
	"starling/metadata"
)

// copyMail copies a message. If its first line ends in a bare LF, all lines are
// made to end in CRLF; otherwise they stay. quoted takes one > off lines that
// begin with some and From, as mbox files have them.
func copyMail(w io.Writer, r *bufio.Reader, quoted bool) error {
	var last byte
	lineStart, first, asIs := true, true, false
	for {
		chunk, err := r.ReadSlice('\n')
		if len(chunk) > 0 {
			body, end := chunk, []byte(nil)
			if chunk[len(chunk)-1] == '\n' {
				cr := last == '\r' && len(chunk) == 1 || len(chunk) > 1 && chunk[len(chunk)-2] == '\r'
				if first {
					first, asIs = false, cr
				}
				if !asIs && !cr {
					body, end = chunk[:len(chunk)-1], []byte("\r\n")
				}
			}
			if quoted && lineStart && isQuotedFrom(chunk) {
				body = body[1:]
			}
			last = chunk[len(chunk)-1]
			lineStart = last == '\n'
			if _, werr := w.Write(body); werr != nil {
				return werr
			}
			if _, werr := w.Write(end); werr != nil {
				return werr
			}
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}

func isQuotedFrom(line []byte) bool {
	rest := bytes.TrimLeft(line, ">")
	return len(rest) < len(line) && bytes.HasPrefix(rest, []byte("From "))
}

// importHeader is how much of a message is looked at for its header.
const importHeader = 64 << 10

// importRead is what a message was found to be when it was read.
type importRead struct {
	sum    [sha256.Size]byte // of the bytes that are kept
	size   int64
	header textproto.MIMEHeader // as far as it could be read
}

// importSink takes in a message, and passes it on.
type importSink struct {
	w    io.Writer
	err  error // of w
	hash hash.Hash
	head []byte
	size int64
}

func newImportSink(w io.Writer) *importSink {
	if w == nil {
		w = io.Discard
	}
	return &importSink{w: w, hash: sha256.New()}
}

// Write implements io.Writer.
func (s *importSink) Write(p []byte) (int, error) {
	s.size += int64(len(p))
	_, _ = s.hash.Write(p) // a hash takes everything
	s.head = append(s.head, p[:min(len(p), importHeader-len(s.head))]...)
	n, err := s.w.Write(p)
	if err != nil {
		s.err = err
	}
	return n, err
}

func (s *importSink) done() importRead {
	// A header that is broken is used as far as it goes.
	header, _ := textproto.NewReader(bufio.NewReader(bytes.NewReader(s.head))).ReadMIMEHeader()
	return importRead{sum: [sha256.Size]byte(s.hash.Sum(nil)), size: s.size, header: header}
}

// digest is by what a message is known to have gone into a mailbox of an account.
func (item *importItem) digest(account int64, sum [sha256.Size]byte) [sha256.Size]byte {
	text := append([]byte("starling import\x00"), sum[:]...)
	text = binary.BigEndian.AppendUint64(text, uint64(account)) //nolint:gosec // only to be the same again
	return sha256.Sum256(append(text, item.mailbox...))
}

// dateOf is the internal date: of the format, of the message, or of the file.
func (item *importItem) dateOf(read importRead) time.Time {
	if !item.date.IsZero() {
		return item.date
	}
	date, err := mail.ParseDate(read.header.Get("Date"))
	if err != nil || date.Year() < 1970 || date.After(time.Now().Add(24*time.Hour)) {
		return item.mtime
	}
	return date
}

// mboxFlags are what the letters of Status and X-Status mean.
var mboxFlags = map[string]metadata.Flags{
	"Status:R": metadata.Seen, "X-Status:A": metadata.Answered, "X-Status:F": metadata.Flagged,
	"X-Status:D": metadata.Deleted, "X-Status:T": metadata.Draft,
}

// flagsOf are the flags: of the format, and in an mbox of the message's own fields.
func (item *importItem) flagsOf(read importRead) mailstore.FlagSet {
	flags := item.flags
	if item.mbox == nil {
		return flags
	}
	for letter, flag := range mboxFlags {
		field, l, _ := strings.Cut(letter, ":")
		if strings.Contains(read.header.Get(field), l) {
			flags.System |= flag
		}
	}
	return flags
}
