package codec

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"time"

	"starling/blobstore"
)

// Header is what an object says of its message, so that mail can be brought back from the bucket alone. It tells how
// things were at delivery: later flags and moves are not in it.
type Header struct {
	Tenant       int64
	Account      int64
	Mailbox      int64     // the mailbox's id
	MailboxName  string    // as it was then; cut after 1,024 bytes
	InternalDate time.Time // whole seconds and the zone's offset in minutes are kept
	Flags        []string  // system flags and keywords by name
	EmailID      int64
	ThreadID     int64
	KeyID        uint32 // what the object is encrypted with; 0: it is not
	// Truncated says that not all flags, or not the whole name, fitted into MaxHeader. It is set by reading.
	Truncated bool
}

// MaxHeader is the largest size of a header in bytes, with its frame.
const MaxHeader = 4 << 10

const (
	skippable     = 0x184d2a53 // a magic number that zstd skips: RFC 8878 §3.1.2
	frameHead     = 8          // magic number, size
	headerVersion = 1
	maxNameLen    = 1 << 10
)

// The fields of a header: number, length, value. A reader skips numbers that it does not know.
const (
	fieldTenant = 1 + iota
	fieldAccount
	fieldMailbox
	fieldMailboxName
	fieldInternalDate
	fieldFlag // one for each
	fieldEmailID
	fieldThreadID
	fieldKeyID
	fieldTruncated
)

// append appends the header's frame to b.
func (h *Header) append(b []byte) []byte {
	start := len(b)
	b = binary.LittleEndian.AppendUint32(b, skippable)
	b = append(b, 0, 0, 0, 0, headerVersion)
	b = appendInt(b, fieldTenant, h.Tenant)
	b = appendInt(b, fieldAccount, h.Account)
	b = appendInt(b, fieldMailbox, h.Mailbox)
	b = appendInt(b, fieldEmailID, h.EmailID)
	b = appendInt(b, fieldThreadID, h.ThreadID)
	b = appendInt(b, fieldKeyID, int64(h.KeyID))
	if !h.InternalDate.IsZero() {
		_, zone := h.InternalDate.Zone()
		var v [2 * binary.MaxVarintLen64]byte
		n := binary.PutVarint(v[:], h.InternalDate.Unix())
		n += binary.PutVarint(v[n:], int64(zone/60))
		b = appendField(b, fieldInternalDate, v[:n])
	}
	name := h.MailboxName[:min(len(h.MailboxName), maxNameLen)]
	b = appendField(b, fieldMailboxName, name)
	truncated := len(name) < len(h.MailboxName)
	for _, flag := range h.Flags {
		const tail = 2*binary.MaxVarintLen32 + 2 + crc32.Size // field and length of the flag; fieldTruncated; the sum
		if len(b)-start+len(flag)+tail > MaxHeader {
			truncated = true
			continue
		}
		b = appendField(b, fieldFlag, flag)
	}
	if truncated {
		b = appendField(b, fieldTruncated, "")
	}
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b[start+frameHead:], castagnoli))
	binary.LittleEndian.PutUint32(b[start+4:], uint32(len(b)-start-frameHead))
	return b
}

func appendField[T []byte | string](b []byte, field byte, value T) []byte {
	b = append(b, field)
	b = binary.AppendUvarint(b, uint64(len(value)))
	return append(b, value...)
}

func appendInt(b []byte, field byte, v int64) []byte {
	if v == 0 {
		return b
	}
	var buf [binary.MaxVarintLen64]byte
	return appendField(b, field, buf[:binary.PutUvarint(buf[:], uint64(v))])
}

// ReadHeader reads the header of the object under key, with one GET. What has no header is blobstore.ErrCorrupt.
func ReadHeader(ctx context.Context, store blobstore.Store, key blobstore.Key) (Header, error) {
	r, err := store.Get(ctx, key, 0, MaxHeader)
	if errors.Is(err, blobstore.ErrRange) {
		return Header{}, fmt.Errorf("header of %s: %w: the object is empty", key, blobstore.ErrCorrupt)
	}
	if err != nil {
		return Header{}, fmt.Errorf("header of %s: %w", key, err)
	}
	buf := make([]byte, MaxHeader)
	n, err := io.ReadFull(r, buf)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil // a small object, or a broken one, which parsing finds out
	}
	if err = errors.Join(err, r.Close()); err != nil {
		return Header{}, fmt.Errorf("header of %s: %w", key, err)
	}
	h, _, err := ParseHeader(buf[:n])
	if err != nil {
		return Header{}, fmt.Errorf("header of %s: %w", key, err)
	}
	return h, nil
}

// ParseHeader parses the header frame at the beginning of object, and returns its length too. Its error is
// blobstore.ErrCorrupt.
func ParseHeader(object []byte) (h Header, length int, err error) {
	if len(object) < frameHead || binary.LittleEndian.Uint32(object) != skippable {
		return h, 0, fmt.Errorf("%w: no header frame", blobstore.ErrCorrupt)
	}
	size := binary.LittleEndian.Uint32(object[4:])
	if size < 1+crc32.Size || size > MaxHeader-frameHead || int(size) > len(object)-frameHead {
		return h, 0, fmt.Errorf("%w: header of %d bytes", blobstore.ErrCorrupt, size)
	}
	payload := object[frameHead : frameHead+size]
	fields, sum := payload[:size-crc32.Size], binary.LittleEndian.Uint32(payload[size-crc32.Size:])
	if crc32.Checksum(fields, castagnoli) != sum {
		return h, 0, fmt.Errorf("%w: header checksum", blobstore.ErrCorrupt)
	}
	if fields[0] != headerVersion {
		return h, 0, fmt.Errorf("%w: header version %d", blobstore.ErrCorrupt, fields[0])
	}
	for fields = fields[1:]; len(fields) > 0; {
		field := fields[0]
		n, used := binary.Uvarint(fields[1:])
		if used <= 0 || n > uint64(len(fields)-1-used) {
			return h, 0, fmt.Errorf("%w: header field %d", blobstore.ErrCorrupt, field)
		}
		value := fields[1+used : 1+used+int(n)]
		fields = fields[1+used+int(n):]
		if !h.set(field, value) {
			return h, 0, fmt.Errorf("%w: header field %d", blobstore.ErrCorrupt, field)
		}
	}
	return h, frameHead + int(size), nil
}

// set sets a field from its value; false if that is malformed.
func (h *Header) set(field byte, value []byte) (ok bool) {
	switch field {
	case fieldTenant:
		h.Tenant, ok = parseInt(value)
	case fieldAccount:
		h.Account, ok = parseInt(value)
	case fieldMailbox:
		h.Mailbox, ok = parseInt(value)
	case fieldEmailID:
		h.EmailID, ok = parseInt(value)
	case fieldThreadID:
		h.ThreadID, ok = parseInt(value)
	case fieldKeyID:
		var id int64
		id, ok = parseInt(value)
		h.KeyID = uint32(id)
		ok = ok && int64(h.KeyID) == id
	case fieldMailboxName:
		h.MailboxName, ok = string(value), true
	case fieldFlag:
		h.Flags, ok = append(h.Flags, string(value)), true
	case fieldInternalDate:
		seconds, n := binary.Varint(value)
		if n <= 0 {
			return false
		}
		minutes, m := binary.Varint(value[n:])
		ok = m > 0 && n+m == len(value) && minutes > -24*60 && minutes < 24*60
		if ok {
			h.InternalDate = time.Unix(seconds, 0).In(time.FixedZone("", int(minutes)*60))
		}
	case fieldTruncated:
		h.Truncated, ok = true, true
	default:
		ok = true
	}
	return ok
}

func parseInt(value []byte) (int64, bool) {
	v, n := binary.Uvarint(value)
	return int64(v), n == len(value) && n > 0
}
