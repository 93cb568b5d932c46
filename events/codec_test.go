package events

import (
	"bytes"
	"errors"
	"math"
	"reflect"
	"slices"
	"testing"
)

var someHints = []Event{
	{Account: 0x0123456789abcd11, Mailbox: 7, Kind: Changed, ModSeq: 300, Epoch: 1},
	{Account: 0x0123456789abcd11, Kind: List, ModSeq: math.MaxInt64, Epoch: math.MaxInt64, At: math.MaxInt64, Trace: Trace{0: 1, 23: 2}},
}

// The format is what nodes of different releases say to each other: these bytes stay.
func TestFormat(t *testing.T) {
	t.Parallel()
	frame := appendHints(nil, 0x1122334455667788, 5, []Event{{Account: 0x211, Mailbox: 7, Kind: Changed, ModSeq: 300, Epoch: 1}})
	want := []byte{1, 1, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 5, 0x91, 0x04, 1, 0, 7, 0xac, 0x02, 1}
	if !bytes.Equal(frame, want) {
		t.Errorf("hints are % x\nwant      % x", frame, want)
	}
	frame = appendHints(frame[:0], 0x1122334455667788, 5, []Event{{Account: 0x211, Kind: List, At: 0x0102030405060708, Trace: Trace{0: 0xaa, 23: 0xbb}}})
	want = append(want[:13:13], 2, 3, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0xaa)
	want = append(want, make([]byte, 22)...)
	if want = append(want, 0xbb); !bytes.Equal(frame, want) {
		t.Errorf("hints are % x\nwant      % x", frame, want)
	}
	frame = appendBeat(nil, beat{incarnation: 0x1122334455667788, goodbye: true, patience: 7000, epoch: 1 << 24, last: []lastNumber{{0x11, 5}, {0xff, 300}}})
	want = []byte{1, 2, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 1, 0xd8, 0x36, 0x80, 0x80, 0x80, 8, 0x11, 5, 0xff, 0xac, 0x02}
	if !bytes.Equal(frame, want) {
		t.Errorf("beat is % x\nwant    % x", frame, want)
	}
}

func TestRefusedFrames(t *testing.T) {
	t.Parallel()
	good := appendHints(nil, 1, 1, someHints)
	goodBeat := appendBeat(nil, beat{incarnation: 1, patience: 1, last: []lastNumber{{1, 1}, {2, 1}}})
	change := func(frame []byte, at int, to byte) []byte {
		frame = slices.Clone(frame)
		frame[at] = to
		return frame
	}
	tests := []struct {
		name  string
		frame []byte
		want  error
	}{
		{"hints", good, nil},
		{"beat", goodBeat, nil},
		{"empty", nil, errMalformed},
		{"another version", change(good, 0, 2), errVersion},
		{"another version, short", []byte{2}, errVersion},
		{"another type", change(good, 1, 3), errVersion},
		{"header cut off", good[:frameHeader-1], errMalformed},
		{"no number", good[:frameHeader], errMalformed},
		{"number 0", change(good, frameHeader, 0), errMalformed},
		{"hint cut off", good[:len(good)-1], errMalformed},
		{"no hint", appendHints(nil, 1, 1, someHints[:1])[:frameHeader+10], errMalformed},
		{"mailbox over 63 bits", append(slices.Clone(good), 1, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 1, 1), errMalformed},
		{"kind 0", appendHints(nil, 1, 1, []Event{{Account: 1, ModSeq: 1}}), errMalformed},
		{"too many hints", append(appendHints(nil, 1, 1, slices.Repeat(someHints[:1], hintsPerFrame)), 1, 0, 1, 1, 1), errMalformed},
		{"flags of a later release", append(slices.Clone(good), 1, 4, 1, 1, 1), errMalformed},
		{"time cut off", append(slices.Clone(good), 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 1), errMalformed},
		{"time over 63 bits", append(slices.Clone(good), 1, 1, 1, 1, 1, 0x80, 0, 0, 0, 0, 0, 0, 0), errMalformed},
		{"time 0", append(slices.Clone(good), 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0), errMalformed},
		{"trace 0", append(append(slices.Clone(good), 1, 2, 1, 1, 1), make([]byte, 24)...), errMalformed},
		{"beat without flags", goodBeat[:frameHeader], errMalformed},
		{"epoch over 63 bits", append(slices.Clone(goodBeat[:frameHeader+2]), 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1), errMalformed},
		{"beat cut off", goodBeat[:len(goodBeat)-1], errMalformed},
		{"shards out of order", appendBeat(nil, beat{last: []lastNumber{{2, 1}, {1, 1}}}), errMalformed},
		{"a shard twice", appendBeat(nil, beat{last: []lastNumber{{2, 1}, {2, 1}}}), errMalformed},
		{"a shard without number", appendBeat(nil, beat{last: []lastNumber{{2, 0}}}), errMalformed},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if _, err := decode(test.frame); !errors.Is(err, test.want) {
				t.Errorf("error %v, want %v", err, test.want)
			}
		})
	}
}

// decode reads a frame and returns it written again.
func decode(frame []byte) ([]byte, error) {
	typ, incarnation, err := header(frame)
	if err != nil {
		return nil, err
	}
	if typ == typeHints {
		var h hints
		if err := decodeHints(frame, &h); err != nil {
			return nil, err
		}
		return appendHints(nil, incarnation, h.number, h.events), nil
	}
	b, err := decodeBeat(frame)
	if err != nil {
		return nil, err
	}
	return appendBeat(nil, b), nil
}

func FuzzDecode(f *testing.F) {
	f.Add(appendHints(nil, 1, 1, someHints))
	f.Add(appendBeat(nil, beat{incarnation: 1, goodbye: true, patience: 1, last: []lastNumber{{1, 1}, {2, 1 << 40}}}))
	f.Add([]byte{2, 1, 2, 3})
	f.Fuzz(func(t *testing.T, frame []byte) {
		again, err := decode(frame)
		if err != nil {
			return
		}
		// Varints and flags may be written in longer or other ways, but what was read is read again.
		third, err := decode(again)
		if err != nil || !reflect.DeepEqual(again, third) {
			t.Fatalf("%x was read as %x, and that as %x, %v", frame, again, third, err)
		}
	})
}

func BenchmarkDecodeHints(b *testing.B) {
	frame := appendHints(nil, 1, 1, someHints[:1])
	var h hints
	b.ReportAllocs()
	for b.Loop() {
		if err := decodeHints(frame, &h); err != nil {
			b.Fatal(err)
		}
	}
}
