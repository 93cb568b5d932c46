package metadata

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestChunkEdit(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(1, 2))
	var want [ChunkSlots]Slot
	c := NewEdit(7).Chunk()
	for range 200 {
		e := c.Edit()
		for range 1 + rnd.IntN(3) {
			i := rnd.IntN(ChunkSlots)
			want[i] = Slot{Flags: Flags(rnd.Uint64() >> 8), ModSeq: 1 + rnd.Int64N(1<<48-1)}
			e.Set(i, want[i])
			if got := e.Slot(i); got != want[i] {
				t.Fatalf("slot %d of the edit is %+v, want %+v", i, got, want[i])
			}
		}
		before, kept := slices.Clone(c.Stored()), c
		c = e.Chunk()
		if !bytes.Equal(kept.Stored(), before) {
			t.Fatal("an edit changed the chunk that it came from")
		}
		again, err := ParseChunk(7, slices.Clone(c.Stored()))
		if err != nil {
			t.Fatal(err)
		}
		var live, unseen int
		var last int64
		for i, s := range want {
			if got := again.Slot(i); got != s {
				t.Fatalf("slot %d is %+v, want %+v", i, got, s)
			}
			last = max(last, s.ModSeq)
			if s.Live() {
				live++
				if s.Flags&Seen == 0 {
					unseen++
				}
			}
		}
		if again.Live() != live || again.Unseen() != unseen || again.MaxModSeq() != last || again.No() != 7 || again.First() != 7*ChunkSlots {
			t.Fatalf("chunk says %d live, %d unseen, up to %d; want %d, %d, %d", again.Live(), again.Unseen(), again.MaxModSeq(), live, unseen, last)
		}
		if c.Live() != live || c.MaxModSeq() != last {
			t.Fatalf("the edit counts %d live, up to %d", c.Live(), c.MaxModSeq())
		}
	}
}

func TestParseChunkRefuses(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		no     int32
		stored []byte
	}{
		"nothing":           {0, nil},
		"another format":    {0, []byte{chunkFormat + 1}},
		"half a slot":       {0, append([]byte{chunkFormat}, make([]byte, slotSize/2)...)},
		"too many slots":    {0, append([]byte{chunkFormat}, make([]byte, (ChunkSlots+1)*slotSize)...)},
		"a negative number": {-1, []byte{chunkFormat}},
	} {
		if c, err := ParseChunk(test.no, test.stored); err == nil {
			t.Errorf("%s was parsed: %+v", name, c)
		}
	}
}

func TestKeywords(t *testing.T) {
	t.Parallel()
	f := Seen | Keyword(0) | Keyword(17) | Keyword(MaxKeywords-1) | Expunged | Moved
	if got := slices.Collect(f.Keywords); !slices.Equal(got, []int{0, 17, MaxKeywords - 1}) {
		t.Errorf("keywords are %d", got)
	}
	if Keyword(MaxKeywords-1)&AllKeywords == 0 || SystemFlags&AllKeywords != 0 || (Expunged|Moved)&(SystemFlags|AllKeywords) != 0 {
		t.Error("the flags overlap")
	}
	if AllKeywords>>56 != 0 {
		t.Error("the keywords do not fit a slot")
	}
}

func FuzzParseChunk(f *testing.F) {
	e := NewEdit(3)
	e.Set(0, Slot{Flags: Seen, ModSeq: 1})
	e.Set(100, Slot{Flags: Deleted | Keyword(3), ModSeq: 1 << 40})
	f.Add(e.Chunk().Stored())
	f.Add([]byte{})
	f.Add([]byte{chunkFormat})
	f.Fuzz(func(t *testing.T, stored []byte) {
		c, err := ParseChunk(3, stored)
		if err != nil {
			return
		}
		again := NewEdit(3)
		for i := range c.Len() {
			again.Set(i, c.Slot(i))
		}
		got := again.Chunk()
		if got.Live() != c.Live() || got.Unseen() != c.Unseen() || got.MaxModSeq() != c.MaxModSeq() {
			t.Errorf("rewritten: %d live, %d unseen, up to %d; was %d, %d, %d",
				got.Live(), got.Unseen(), got.MaxModSeq(), c.Live(), c.Unseen(), c.MaxModSeq())
		}
		for i := range ChunkSlots {
			if got.Slot(i) != c.Slot(i) {
				t.Errorf("slot %d is %+v, was %+v", i, got.Slot(i), c.Slot(i))
			}
		}
	})
}
