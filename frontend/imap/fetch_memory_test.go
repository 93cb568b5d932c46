package imap

import (
	"math/rand/v2"
	"strings"
	"testing"

	"starling/frontend/mailstore"
	"starling/metadata"
)

// While a message is read in slices, memory is reserved for what is held of it: for what comes next once slices come in
// order, and if there is any. Without it all is served too.
func TestFetchInSlicesWithinMemory(t *testing.T) {
	t.Parallel()
	for _, memory := range []int64{0, 1 << 20} {
		n := newTestNode(t, func(c *mailstore.Config, _ *Config) { c.ReadMemory = 3 * memory / 2 })
		c := n.connect(t)
		text := make([]byte, 4<<20)
		random := rand.NewChaCha8([32]byte{1})
		for i := range text {
			text[i] = 'a' + byte(random.Uint64()%16)
		}
		c.put("INBOX", "", string(text))
		c.ok("SELECT INBOX")
		used := make([]int64, 3)
		for i := range used {
			c.ok("FETCH 1 BODY.PEEK[]<%d.50000>", 50_000*i)
			used[i] = n.store.Status().Reads.Used
		}
		if used[0] == 0 || (memory == 0) != (used[1] > used[0]+1<<20) || used[2] < used[1] {
			t.Errorf("with %d octets: %d are reserved after a slice, %d after two, %d after three", memory, used[0], used[1], used[2])
		}
		for off := 150_000; off < len(text); off += 50_000 {
			want := string(text[off:min(len(text), off+50_000)])
			if got := c.ok("FETCH 1 BODY.PEEK[]<%d.50000>", off); len(got) != 2 || got[1] != want+")" {
				t.Fatalf("with %d octets: slice from %d is wrong", memory, off)
			}
		}
		c.ok("UNSELECT")
		if left := n.store.Status().Reads.Used; left != 0 {
			t.Errorf("with %d octets: %d are reserved after all", memory, left)
		}
	}
}

// What is held of a message between its slices is given back when somebody waits for memory: the same client, for
// another message, or another client.
func TestSlicesGiveWay(t *testing.T) {
	t.Parallel()
	n := newTestNode(t, func(c *mailstore.Config, _ *Config) { c.ReadMemory = 36 << 20 })
	c, other := n.connect(t), n.connect(t)
	random := rand.NewChaCha8([32]byte{1})
	for _, size := range []int{4 << 20, 1 << 20} {
		text := make([]byte, size)
		for i := range text {
			text[i] = 'a' + byte(random.Uint64()%16)
		}
		c.put("INBOX", "", string(text))
	}
	c.ok("SELECT INBOX")
	other.ok("SELECT INBOX")
	for _, who := range []*talk{c, other} {
		for i := range 3 {
			c.ok("FETCH 1 BODY.PEEK[]<%d.50000>", 50_000*i)
		}
		if used := n.store.Status().Reads.Used; used < 2<<20 {
			t.Errorf("%d octets are reserved between slices", used)
		}
		who.ok("FETCH 2 BODY.PEEK[]")
		if used := n.store.Status().Reads.Used; used != 0 {
			t.Errorf("%d octets are reserved after another message", used)
		}
	}
}

// While somebody waits for memory nothing is held between slices.
func TestSlicesOfNobodyWhileOthersWait(t *testing.T) {
	t.Parallel()
	n := newTestNode(t, func(c *mailstore.Config, _ *Config) { c.ReadMemory = 36 << 20 })
	c := n.connect(t)
	c.put("INBOX", "", strings.Repeat("0123456789abcdef", 1<<17))
	c.ok("SELECT INBOX")
	account := c.session.account
	if err := account.ReserveRead(t.Context(), 2<<20); err != nil { // of a share of 3 MiB
		t.Fatal(err)
	}
	waited := make(chan error, 1)
	looks := make(chan struct{}, 16)
	n.store.OnShortage(func(metadata.AccountID) { looks <- struct{}{} })
	go func() { waited <- account.ReserveRead(t.Context(), 5<<19) }()
	<-looks // it waits
	if !account.ReadIsWaitedFor() {
		t.Error("nobody waits")
	}
	f := &fetch{s: c.session, partial: true, rowBatch: rowBatch{rows: make([]fetchRow, 1)}}
	body := &closing{}
	f.keep(&fetched{fetchRow: &f.rows[0], body: body, account: account, cost: 2 << 20})
	if !body.closed {
		t.Error("the body is kept")
	}
	if err := <-waited; err != nil {
		t.Error(err)
	}
	account.AdjustRead(-5 << 19)
	if used := n.store.Status().Reads.Used; used != 0 || account.ReadIsWaitedFor() {
		t.Errorf("%d octets are reserved in the end", used)
	}
}

// closing is a body that notes that it was closed.
type closing struct {
	body

	closed bool
}

func (c *closing) Close() { c.closed = true }

// What is made of a message to answer with counts too: a header of which fields are chosen, and a decoded part.
func TestFetchHoldsWhatItMakes(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		asked string
		piece piece
		want  int64
	}{
		{"BODY.PEEK[]", piece{kind: pieceRange, n: 1 << 30}, 0},
		{"BODY.PEEK[HEADER.FIELDS (X)]", piece{kind: pieceFields, n: 5000}, 10_000},
		{"BODY.PEEK[HEADER.FIELDS (X)]", piece{kind: pieceFields, n: maxHeader + 1}, 0}, // it is refused
		{"BINARY.PEEK[1]", piece{kind: pieceDecode, n: 5000}, 10_000},
		{"BINARY.PEEK[1]", piece{kind: pieceDecode, n: 1 << 30}, 2 * maxHeld},
		{"BINARY.PEEK[1]", piece{kind: pieceRange, n: maxHeld + 1}, 0},
		{"BINARY.SIZE[1]", piece{kind: pieceDecode, n: 5000}, 0},
	} {
		f := newFetch(&session{view: &view{}}, fetchArgs(t, bySeq, "1 "+test.asked))
		if got := f.items[0].holds(&test.piece); got != test.want {
			t.Errorf("%s of %d octets: %d, want %d", test.asked, test.piece.n, got, test.want)
		}
	}
}
