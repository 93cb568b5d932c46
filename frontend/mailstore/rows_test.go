package mailstore

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"starling/frontend/message"
	"starling/metadata"
)

// rowsOf is what Rows gives of uids, each compared with what PostgreSQL says of it.
func (cl *client) rowsOf(t testing.TB, uids []uint32, columns metadata.Columns, keep bool) []uint32 {
	t.Helper()
	read := make(map[uint32]metadata.Message)
	everything := smallColumns | metadata.ColSummary
	err := cl.Messages(t.Context(), []metadata.UIDRange{{First: 1, Last: lastUID}}, everything, func(row *metadata.Message) error {
		kept := *row
		kept.Extent, kept.Summary = slices.Clone(row.Extent), slices.Clone(row.Summary)
		read[row.UID] = kept
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	var got []uint32
	err = cl.Rows(t.Context(), uids, columns, keep, func(row *metadata.Message) error {
		got = append(got, row.UID)
		want := read[row.UID]
		if columns&metadata.ColDates != 0 && (!row.InternalDate.Equal(want.InternalDate) || !row.SaveDate.Equal(want.SaveDate)) ||
			columns&metadata.ColSize != 0 && row.Size != want.Size ||
			columns&metadata.ColIDs != 0 && (row.EmailID != want.EmailID || row.ThreadID != want.ThreadID) ||
			columns&metadata.ColBlob != 0 && (row.Object != want.Object || !bytes.Equal(row.Extent, want.Extent)) ||
			columns&metadata.ColSummary != 0 && string(row.Summary) != string(want.Summary) && string(row.Summary) != plain(t, want.Summary) {
			t.Errorf("message %d: %+v, want %+v", row.UID, row, want)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return got
}

func plain(t testing.TB, stored []byte) string {
	t.Helper()
	b, err := message.Decompress(stored)
	if err != nil {
		t.Error(err)
	}
	return string(b)
}

// Whatever was asked for before, by whomever, and whether it is still remembered or not,
// what Rows gives is what PostgreSQL says.
func TestRows(t *testing.T) {
	t.Parallel()
	for name, memory := range map[string]int64{"ample": 0, "a few chunks": 200_000, "next to none": 1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, metadata.Quota{})
			mine := recallBox(c, c.node(func(cfg *Config) { cfg.RowMemory = memory }))
			askAtRandom(t, liveUIDs(mine.Snapshot()), func(random *rand.Rand, uids []uint32) []uint32 {
				columns := []metadata.Columns{metadata.ColSize, metadata.ColSummary, metadata.ColBlob, recallColumns, smallColumns | metadata.ColSummary}[random.IntN(5)]
				return mine.rowsOf(t, uids, columns, random.IntN(3) > 0)
			})
		})
	}
}

// What was asked for once is not read again, and what is new is.
func TestRowsBudget(t *testing.T) {
	t.Parallel()
	c := newCluster(t, metadata.Quota{})
	x := c.still()
	mine := recallBox(c, x)
	rows := func(columns metadata.Columns, keep bool, want int) func() {
		return func() {
			n := 0
			err := mine.Rows(t.Context(), liveUIDs(mine.Snapshot()), columns, keep, func(*metadata.Message) error { n++; return nil })
			if err != nil || n != want {
				t.Errorf("%d messages, want %d: %v", n, want, err)
			}
		}
	}
	messages := mine.Snapshot().Len()
	for _, step := range []struct {
		what    string
		columns metadata.Columns
		keep    bool
		trips   int64
	}{
		{"sizes, once", metadata.ColSize, false, 1},
		{"sizes", metadata.ColSize, true, 1},
		{"sizes again", metadata.ColSize, true, 0},
		{"all but summaries", smallColumns, false, 0},
		{"summaries", metadata.ColSummary, true, 1},
		{"all", smallColumns | metadata.ColSummary, true, 0},
	} {
		if trips := x.trips(rows(step.columns, step.keep, messages)); trips != step.trips {
			t.Errorf("%s: %d round trips, want %d", step.what, trips, step.trips)
		}
	}
	if octets := x.kept.bytes(); octets < int64(messages)*keptRowCost {
		t.Errorf("what is remembered takes %d octets", octets)
	}
	if trips := x.trips(func() { mine.recalledOf(t, liveUIDs(mine.Snapshot()), recallColumns|metadata.ColSummary) }); trips != 1 {
		t.Errorf("a search reads again what is remembered: %d round trips, 1 of them to compare", trips)
	}
	c.append(x, Inbox, mail("new"))
	if trips := x.trips(rows(metadata.ColSummary, true, messages+1)); trips != 1 {
		t.Errorf("with a new message: %d round trips", trips)
	}
	stop := errors.New("enough")
	wantError(t, mine.Rows(t.Context(), liveUIDs(mine.Snapshot()), metadata.ColSummary, true, func(*metadata.Message) error { return stop }), stop)
	if got := mine.rowsOf(t, []uint32{105}, metadata.ColSize, true); len(got) != 1 {
		t.Error("a message that is expunged, and not collected, did not come")
	}
	none := uint32(mine.Snapshot().Mailbox().UIDNext) + 5 //nolint:gosec // a UID
	if got := mine.rowsOf(t, []uint32{none}, metadata.ColSize, true); len(got) != 0 {
		t.Error("a message that is not there came")
	}
}

// A row that ends the reading is remembered with those before it; what comes after it is not.
func TestRowsEndEarly(t *testing.T) {
	t.Parallel()
	c := newCluster(t, metadata.Quota{})
	x := c.still()
	mine := recallBox(c, x)
	live := liveUIDs(mine.Snapshot())
	stop, n := errors.New("enough"), 0
	wantError(t, mine.Rows(t.Context(), live, metadata.ColSummary, true, func(*metadata.Message) error {
		if n++; n == 10 {
			return stop
		}
		return nil
	}), stop)
	for _, test := range []struct {
		uids  []uint32
		trips int64
	}{{live[:10], 0}, {live[:11], 1}} {
		if trips := x.trips(func() {
			if err := mine.Rows(t.Context(), test.uids, metadata.ColSummary, true, func(*metadata.Message) error { return nil }); err != nil {
				t.Error(err)
			}
		}); trips != test.trips {
			t.Errorf("%d messages: %d round trips, want %d", len(test.uids), trips, test.trips)
		}
	}
}

// After a failover that lost commits, numbers may be given out again: what was read before it is
// read anew.
func TestRowsOfAnotherEpoch(t *testing.T) {
	t.Parallel()
	c := newCluster(t, metadata.Quota{})
	x := c.still()
	c.append(x, Inbox, mail("1"))
	mine := c.enter(x, Inbox)
	read := func() int64 {
		return x.trips(func() {
			if err := mine.Rows(t.Context(), []uint32{1}, smallColumns, true, func(*metadata.Message) error { return nil }); err != nil {
				t.Error(err)
			}
		})
	}
	if first, again := read(), read(); first != 1 || again != 0 {
		t.Errorf("%d and %d round trips", first, again)
	}
	if _, err := c.db.BumpEpoch(t.Context()); err != nil {
		t.Fatal(err)
	}
	mine.store(one(1), AddFlags, "seen")
	if first, again := read(), read(); first != 1 || again != 0 {
		t.Errorf("of another epoch: %d and %d round trips", first, again)
	}
}
