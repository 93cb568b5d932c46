package chaos

import (
	"bytes"
	"context"
	"encoding/binary"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"starling/blobstore"
)

// planted is a bug that a server could have, made by changing what goes over the network.
type planted struct {
	name  string
	rules []Rule // one of them is found broken
	plant func(ctx context.Context, t *testing.T, c *Cluster)
}

// inStatements changes the text of SQL statements on their way to PostgreSQL; both texts have one length, as the message
// around them says how long it is.
func inStatements(t *testing.T, c *Cluster, changes ...string) {
	t.Helper()
	for i := 0; i < len(changes); i += 2 {
		if len(changes[i]) != len(changes[i+1]) {
			t.Fatalf("%q and %q differ in length", changes[i], changes[i+1])
		}
	}
	for _, n := range c.Nodes {
		n.Links.Postgres.Rewrite(Up, func(piece []byte) []byte {
			for i := 0; i < len(changes); i += 2 {
				piece = bytes.ReplaceAll(piece, []byte(changes[i]), []byte(changes[i+1]))
			}
			return piece
		})
	}
}

var plants = []planted{
	{"none", nil, func(context.Context, *testing.T, *Cluster) {}},
	{"a VANISHED that is not told", []Rule{Sequence, SameForAll, ReadsOK}, func(_ context.Context, _ *testing.T, c *Cluster) {
		vanish := regexp.MustCompile(`(?m)^\* VANISHED [0-9:,]+\r\n`)
		c.Nodes[1].Links.Clients.Rewrite(Down, func(piece []byte) []byte { return vanish.ReplaceAll(piece, nil) })
	}},
	{"an EXISTS that is not told", []Rule{Sequence, SameForAll, ReadsOK}, func(_ context.Context, _ *testing.T, c *Cluster) {
		exists := regexp.MustCompile(`(?m)^\* [0-9]+ EXISTS\r\n`)
		c.Nodes[1].Links.Clients.Rewrite(Down, func(piece []byte) []byte {
			if bytes.Contains(piece, []byte("UIDVALIDITY")) { // SELECT is answered as it should be
				return piece
			}
			return exists.ReplaceAll(piece, nil)
		})
	}},
	{"a commit that does not look whether others were faster", []Rule{NothingLost, NothingBack, UIDOnce, ModSeqOnce, ReadsOK, Counters}, func(_ context.Context, t *testing.T, c *Cluster) {
		inStatements(t, c,
			"m.modseq = ($3::bigint[])[1]", "($3::bigint[])[1] >= 0      ",
			"m.stamp = ($4::bigint[])[1]", "($4::bigint[])is not null  ",
			"and modseq = $3::bigint and stamp = $4::bigint", "and $3::bigint >= 0 and $4::bigint is not null")
	}},
	// A hint of before the commit makes others look too early, and nobody looks again: as if it told of nothing new.
	{"a hint that is published before the commit", []Rule{SameForAll}, func(_ context.Context, _ *testing.T, c *Cluster) {
		for _, n := range c.Nodes {
			n.Links.NATS.Rewrite(Up, outdate)
		}
	}},
	{"a quota that is not given back", []Rule{Counters}, func(_ context.Context, t *testing.T, c *Cluster) {
		inStatements(t, c, "set bytes = q.bytes + $11::bigint", "set bytes = q.bytes - $11::bigint")
	}},
	{"objects that are deleted early", []Rule{Objects, Bytes}, func(ctx context.Context, t *testing.T, c *Cluster) {
		before := keys(ctx, t, c)
		var deleting sync.WaitGroup
		t.Cleanup(deleting.Wait)
		deleting.Go(func() {
			for pause(ctx, 100*time.Millisecond); ctx.Err() == nil; pause(ctx, 100*time.Millisecond) {
				fresh := slices.DeleteFunc(keys(ctx, t, c), func(k blobstore.Key) bool { return slices.Contains(before, k) })
				if len(fresh) == 0 {
					continue
				}
				if err := c.Blobs.Delete(ctx, fresh[rand.IntN(len(fresh))]); err != nil && ctx.Err() == nil { //nolint:gosec // any will do
					t.Error(err)
				}
			}
		})
	}},
	{"a body with a wrong octet", []Rule{Bytes}, func(_ context.Context, _ *testing.T, c *Cluster) {
		c.Nodes[0].Links.Clients.Rewrite(Down, func(piece []byte) []byte {
			return bytes.ReplaceAll(piece, []byte("From: client@example.org"), []byte("From: Client@example.org"))
		})
	}},
}

// outdate makes the hints that a node publishes tell of the first modseq, in as many octets.
func outdate(piece []byte) []byte {
	const header, hint, at, trace = 10, 1, 1, 2 // of the frames of package events
	for _, m := range published.FindAllSubmatchIndex(piece, -1) {
		size, err := strconv.Atoi(string(piece[m[2]:m[3]]))
		if err != nil || m[1]+size > len(piece) || size < header || piece[m[1]+1] != hint {
			continue
		}
		frame := piece[m[1]+header : m[1]+size]
		number := func() []byte {
			_, n := binary.Uvarint(frame)
			octets := frame[:max(n, 0)]
			frame = frame[len(octets):]
			return octets
		}
		number()
		number() // the account
		for len(frame) > 2 {
			flags := frame[1]
			frame = frame[2:]
			number() // the mailbox
			modseq := number()
			for i := range modseq {
				modseq[i] = 0x80
			}
			modseq[0] |= 1
			modseq[len(modseq)-1] &= 1
			number() // the epoch
			if flags&at != 0 {
				frame = frame[8:]
			}
			if flags&trace != 0 {
				frame = frame[24:]
			}
		}
	}
	return piece
}

var published = regexp.MustCompile(`PUB \S+ (\d+)\r\n`)

// keys are the objects that are there.
func keys(ctx context.Context, t *testing.T, c *Cluster) []blobstore.Key {
	t.Helper()
	var keys []blobstore.Key
	for info, err := range c.Blobs.List(ctx, "", "") {
		if err != nil && ctx.Err() == nil {
			t.Error(err)
		}
		if err == nil {
			keys = append(keys, info.Key)
		}
	}
	return keys
}

// The checker finds each of these bugs, in seconds and with nothing else broken, and nothing where there is none.
func TestPlantedBugs(t *testing.T) {
	t.Parallel()
	c := start(t, "STARLING_MAIL_SWEEP=10m") // which would mend in time what hints do not tell
	for i, p := range plants {
		t.Run(p.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			p.plant(ctx, t, c)
			begin := time.Now()
			r, _, err := c.Run(ctx, Options{Seed: uint64(100 + i), Time: 1500 * time.Millisecond, Clients: 9, Faults: []Fault{}, Patience: 3 * time.Second}) //nolint:gosec // small
			cancel()
			for _, n := range c.Nodes {
				for _, proxy := range n.Links.all() {
					proxy.Rewrite(Up, nil)
					proxy.Rewrite(Down, nil)
					proxy.Cut(false) // statements prepared on a connection stay as they were
				}
			}
			if err != nil && slices.Contains(p.rules, UIDOnce) && strings.Contains(err.Error(), "append, after all is mended") {
				t.Logf("found after %.1f s: with all mended, what it left behind refuses new mail: %v", time.Since(begin).Seconds(), err)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			found := Check(r)
			if p.rules == nil && len(found) == 0 {
				return
			}
			if !slices.ContainsFunc(found, func(v Violation) bool { return slices.Contains(p.rules, v.Rule) }) {
				t.Fatalf("not found; found %v", found)
			}
			t.Logf("found after %.1f s: %v", time.Since(begin).Seconds(), found[0])
		})
	}
}
