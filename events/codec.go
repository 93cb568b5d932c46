package events

import (
	"encoding/binary"
	"errors"
	"math"
)

// What nodes say to each other. A frame begins with two bytes, the version of the format and the type, and eight, the incarnation of
// the node that says it. Numbers are unsigned varints.
//
//	hints:  version type incarnation number account { kind flags mailbox modseq epoch [at] [trace] }…
//	beat:   version type incarnation flags patience epoch { shard number }…
//
// A hint's flags say whether its time (8 bytes) and its trace (24 bytes) follow.
// A hint's number counts the frames that its node published in the account's shard, from 1. A beat has the last numbers of all shards
// that have any, by rising shard; patience is the time, in milliseconds, after which a node that does not beat is silent; epoch is the highest
// of PostgreSQL's that it has seen, or 0.
const (
	formatVersion = 1

	typeHints = 1
	typeBeat  = 2

	flagGoodbye = 1 // of a beat

	flagAt    = 1 // of a hint
	flagTrace = 2

	frameHeader = 10
	// hintsPerFrame keeps frames, of at most 19 KB, far below what a NATS server takes in one message.
	hintsPerFrame = 256
)

var (
	errVersion   = errors.New("frame of another version or type")
	errMalformed = errors.New("malformed frame")
)

type hints struct {
	incarnation uint64
	number      uint64
	account     int64
	events      []Event
}

type beat struct {
	incarnation uint64
	goodbye     bool
	patience    uint64 // milliseconds
	epoch       int64
	last        []lastNumber
}

type lastNumber struct {
	shard  Shard
	number uint64
}

func appendHeader(b []byte, typ byte, incarnation uint64) []byte {
	return binary.BigEndian.AppendUint64(append(b, formatVersion, typ), incarnation)
}

// appendHints appends the frame of events that have the same account.
func appendHints(b []byte, incarnation, number uint64, events []Event) []byte {
	b = appendHeader(b, typeHints, incarnation)
	b = binary.AppendUvarint(b, number)
	b = binary.AppendUvarint(b, uint64(events[0].Account))
	for _, e := range events {
		b = append(b, byte(e.Kind), e.flags())
		b = binary.AppendUvarint(b, uint64(e.Mailbox))
		b = binary.AppendUvarint(b, uint64(e.ModSeq))
		b = binary.AppendUvarint(b, uint64(e.Epoch))
		if e.At != 0 {
			b = binary.BigEndian.AppendUint64(b, uint64(e.At))
		}
		if e.Trace != (Trace{}) {
			b = append(b, e.Trace[:]...)
		}
	}
	return b
}

func (e Event) flags() (flags byte) {
	if e.At != 0 {
		flags |= flagAt
	}
	if e.Trace != (Trace{}) {
		flags |= flagTrace
	}
	return flags
}

func appendBeat(b []byte, v beat) []byte {
	b = appendHeader(b, typeBeat, v.incarnation)
	var flags byte
	if v.goodbye {
		flags |= flagGoodbye
	}
	b = append(b, flags)
	b = binary.AppendUvarint(b, v.patience)
	b = binary.AppendUvarint(b, uint64(v.epoch))
	for _, l := range v.last {
		b = append(b, byte(l.shard))
		b = binary.AppendUvarint(b, l.number)
	}
	return b
}

// header returns the type and the incarnation of a frame of this version.
func header(frame []byte) (typ byte, incarnation uint64, err error) {
	if len(frame) == 0 {
		return 0, 0, errMalformed
	}
	if frame[0] != formatVersion {
		return 0, 0, errVersion
	}
	if len(frame) < frameHeader {
		return 0, 0, errMalformed
	}
	if frame[1] != typeHints && frame[1] != typeBeat {
		return 0, 0, errVersion
	}
	return frame[1], binary.BigEndian.Uint64(frame[2:frameHeader]), nil
}

// decodeHints reads a frame of hints behind its header into h, whose slice it uses again.
func decodeHints(frame []byte, h *hints) error {
	d := decoder{rest: frame[frameHeader:]}
	h.incarnation = binary.BigEndian.Uint64(frame[2:frameHeader])
	h.number = d.uvarint()
	h.account = d.int63()
	h.events = h.events[:0]
	for !d.bad && len(d.rest) > 0 && len(h.events) < hintsPerFrame {
		h.events = append(h.events, d.event(h.account))
	}
	if d.bad || len(d.rest) > 0 || h.number == 0 || len(h.events) == 0 {
		return errMalformed
	}
	return nil
}

func (d *decoder) event(account int64) Event {
	e := Event{Account: account, Kind: Kind(d.byte())}
	flags := d.byte()
	e.Mailbox, e.ModSeq, e.Epoch = d.int63(), d.int63(), d.int63()
	if flags&flagAt != 0 {
		if at := d.bytes(8); at != nil {
			e.At = int64(binary.BigEndian.Uint64(at))
		}
		d.bad = d.bad || e.At <= 0
	}
	if flags&flagTrace != 0 {
		copy(e.Trace[:], d.bytes(len(e.Trace)))
		d.bad = d.bad || e.Trace == Trace{}
	}
	d.bad = d.bad || e.Kind == 0 || flags > flagAt|flagTrace
	return e
}

// decodeBeat reads a beat behind its header.
func decodeBeat(frame []byte) (beat, error) {
	d := decoder{rest: frame[frameHeader:]}
	v := beat{incarnation: binary.BigEndian.Uint64(frame[2:frameHeader])}
	v.goodbye = d.byte()&flagGoodbye != 0
	v.patience = d.uvarint()
	v.epoch = d.int63()
	for !d.bad && len(d.rest) > 0 {
		l := lastNumber{shard: Shard(d.byte()), number: d.uvarint()}
		if n := len(v.last); l.number == 0 || n > 0 && v.last[n-1].shard >= l.shard {
			return beat{}, errMalformed
		}
		v.last = append(v.last, l)
	}
	if d.bad {
		return beat{}, errMalformed
	}
	return v, nil
}

// decoder reads numbers; the first error sticks.
type decoder struct {
	rest []byte
	bad  bool
}

func (d *decoder) byte() byte {
	if d.bad || len(d.rest) == 0 {
		d.bad = true
		return 0
	}
	v := d.rest[0]
	d.rest = d.rest[1:]
	return v
}

// bytes returns the next n bytes, nil if there are not so many.
func (d *decoder) bytes(n int) []byte {
	if d.bad || len(d.rest) < n {
		d.bad = true
		return nil
	}
	v := d.rest[:n]
	d.rest = d.rest[n:]
	return v
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.rest)
	if d.bad || n <= 0 {
		d.bad = true
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

func (d *decoder) int63() int64 {
	v := d.uvarint()
	if v > math.MaxInt64 {
		d.bad = true
		return 0
	}
	return int64(v)
}
