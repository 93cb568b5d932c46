package lmtp

import (
	"bytes"

	"starling/frontend/message"
)

// maxHead and maxMessageID bound what of a message is looked at and logged.
const (
	maxHead      = 32 << 10
	maxMessageID = 200
)

// head keeps the header of the message that is written to it.
type head struct {
	bytes bytes.Buffer
	done  bool
}

// Write implements io.Writer; it takes everything.
func (h *head) Write(p []byte) (int, error) {
	n := len(p)
	if h.done {
		return n, nil
	}
	from := max(h.bytes.Len()-3, 0)
	h.bytes.Write(p[:min(n, maxHead-h.bytes.Len())])
	if end := bytes.Index(h.bytes.Bytes()[from:], []byte("\r\n\r\n")); end >= 0 {
		h.bytes.Truncate(from + end + 4)
		h.done = true
	}
	h.done = h.done || h.bytes.Len() == maxHead
	return n, nil
}

// messageID is the Message-ID, "" if there is none; of a very long one the
// beginning.
func (h *head) messageID() string {
	p := message.NewParser()
	_, _ = p.Write(h.bytes.Bytes()) // never fails
	id := p.Close().MessageID()
	return string(id[:min(len(id), maxMessageID)])
}
