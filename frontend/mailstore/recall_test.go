package mailstore

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"starling/frontend/message"
	"starling/metadata"
)

// recallBox fills a mailbox with several chunks of messages, some of which are expunged.
func recallBox(c *cluster, n *node) *client {
	c.t.Helper()
	for _, subject := range []string{"one", "two", "three"} {
		c.append(n, Inbox, mail(subject))
	}
	mine := c.enter(n, Inbox)
	for range 7 {
		if _, err := mine.Copy(c.t.Context(), CopyArgs{View: mine.Snapshot(), UIDs: all(mine.Snapshot()), Dest: Inbox}); err != nil {
			c.t.Fatal(err)
		}
	}
	mine.store([]metadata.UIDRange{{First: 100, Last: 110}, {First: 200, Last: 200}}, AddFlags, "deleted")
	if _, err := mine.Expunge(c.t.Context(), mine.Snapshot(), nil); err != nil {
		c.t.Fatal(err)
	}
	return mine
}

// recalledOf is what Recall gives of uids, each with what rows say of it.
func (cl *client) recalledOf(t testing.TB, uids []uint32, columns metadata.Columns) []uint32 {
	t.Helper()
	var got []uint32
	var want metadata.Message
	var digester message.Digester
	read := make(map[uint32]metadata.Message)
	err := cl.Messages(t.Context(), []metadata.UIDRange{{First: 1, Last: 1 << 20}}, recallColumns|metadata.ColSummary, func(row *metadata.Message) error {
		kept := *row
		kept.Summary = slices.Clone(row.Summary)
		read[row.UID] = kept
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	err = cl.Recall(t.Context(), uids, columns, func(m *Recalled) error {
		got = append(got, m.Row.UID)
		want = read[m.Row.UID]
		if columns&recallColumns != 0 && (!m.Row.InternalDate.Equal(want.InternalDate) || !m.Row.SaveDate.Equal(want.SaveDate) ||
			m.Row.Size != want.Size || m.Row.EmailID != want.EmailID || m.Row.ThreadID != want.ThreadID) {
			t.Errorf("message %d: %+v, want %+v", m.Row.UID, m.Row, want)
		}
		digest, err := digester.Append(nil, want.Summary)
		if columns&metadata.ColSummary == 0 {
			digest = nil
		}
		if err != nil || !bytes.Equal(m.Digest, digest) {
			t.Errorf("message %d: digest %q, want %q, %v", m.Row.UID, m.Digest, digest, err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return got
}

// askAtRandom has three clients ask for some of the messages at the same time, and compares which came.
func askAtRandom(t *testing.T, live []uint32, ask func(random *rand.Rand, uids []uint32) []uint32) {
	t.Helper()
	var clients sync.WaitGroup
	for seed := range uint64(3) {
		clients.Go(func() {
			random := rand.New(rand.NewPCG(1, seed)) //nolint:gosec // which messages
			for range 20 {
				from, share := random.IntN(len(live)), random.IntN(100)
				uids := slices.DeleteFunc(slices.Clone(live[from:from+random.IntN(len(live)-from)]), func(uint32) bool { return random.IntN(100) < share })
				if got := ask(random, uids); !slices.Equal(got, uids) {
					t.Errorf("of %v came %v", uids, got)
				}
			}
		})
	}
	clients.Wait()
}

// Whatever was asked for before, by whomever, and whether it is still remembered or not,
// what Recall gives is what the rows say.
func TestRecall(t *testing.T) {
	t.Parallel()
	for name, memory := range map[string]int64{"ample": 0, "a few chunks": 20_000, "next to none": 1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, metadata.Quota{})
			mine := recallBox(c, c.node(func(cfg *Config) { cfg.SearchMemory = memory }))
			askAtRandom(t, liveUIDs(mine.Snapshot()), func(random *rand.Rand, uids []uint32) []uint32 {
				columns := []metadata.Columns{metadata.ColSize, metadata.ColSummary, recallColumns | metadata.ColSummary}[random.IntN(3)]
				return mine.recalledOf(t, uids, columns)
			})
		})
	}
}

// What was asked for once is not read again, and what is new is.
func TestRecallBudget(t *testing.T) {
	t.Parallel()
	c := newCluster(t, metadata.Quota{})
	x := c.still()
	mine := recallBox(c, x)
	recall := func(columns metadata.Columns, want int) func() {
		return func() {
			n := 0
			err := mine.Recall(t.Context(), liveUIDs(mine.Snapshot()), columns, func(*Recalled) error { n++; return nil })
			if err != nil || n != want {
				t.Errorf("%d messages, want %d: %v", n, want, err)
			}
		}
	}
	messages := mine.Snapshot().Len()
	for _, step := range []struct {
		what    string
		columns metadata.Columns
		trips   int64
	}{
		{"sizes", metadata.ColSize, 1},
		{"sizes again", metadata.ColSize, 0},
		{"dates", metadata.ColDates, 0},
		{"digests", metadata.ColSummary, 1},
		{"all", recallColumns | metadata.ColSummary, 0},
	} {
		if trips := x.trips(recall(step.columns, messages)); trips != step.trips {
			t.Errorf("%s: %d round trips, want %d", step.what, trips, step.trips)
		}
	}
	if x.recall.bytes() == 0 {
		t.Error("what is remembered takes no memory")
	}
	c.append(x, Inbox, mail("new"))
	if trips := x.trips(recall(recallColumns|metadata.ColSummary, messages+1)); trips != 2 {
		t.Errorf("with a new message: %d round trips", trips)
	}
	if trips := x.trips(recall(recallColumns|metadata.ColSummary, messages+1)); trips != 0 {
		t.Errorf("again: %d round trips", trips)
	}
	if got := mine.recalledOf(t, []uint32{105}, metadata.ColSize); len(got) != 1 {
		t.Error("a message that is expunged, and not collected, did not come")
	}
	none := uint32(mine.Snapshot().Mailbox().UIDNext) + 5 //nolint:gosec // a UID
	if err := mine.Recall(t.Context(), []uint32{none}, metadata.ColSize, func(*Recalled) error { t.Error("a message that is not there"); return nil }); err != nil {
		t.Error(err)
	}
}
