package metadata_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"starling/metadata"
	"starling/metadata/metadatatest"
)

// BenchmarkMailbox runs what nodes do with a mailbox of 100,000 and of
// 1,000,000 messages, each in one commit, computing included. Client and server
// share the machine, and the server does not sync: on a real one add the wait for
// its disk, and for the network.
func BenchmarkMailbox(b *testing.B) {
	for _, size := range []int{100_000, 1_000_000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			h := newHeavy(b, size)
			b.Run("load", func(b *testing.B) { h.load(b, metadata.Version{}) })
			b.Run("changes-none", func(b *testing.B) { h.load(b, h.n.box.Version) })
			b.Run("changes-1", func(b *testing.B) {
				seen := h.n.box.Version
				h.commit(b, h.n.storing(metadata.Seen, 7))
				h.load(b, seen)
			})
			b.Run("versions-1", func(b *testing.B) { h.versions(b, 1) })
			b.Run("versions-1000", func(b *testing.B) { h.versions(b, 1000) })
			for _, count := range []int{1, 32} {
				b.Run(fmt.Sprintf("append-%d", count), func(b *testing.B) {
					for b.Loop() {
						h.commit(b, h.n.appending(count))
					}
				})
			}
			for _, count := range []int{1, 1000} {
				h.each(b, "store", count, func(uids []uint32) *metadata.Commit {
					return h.n.storing(metadata.Flags(rand.Uint32())&metadata.SystemFlags, uids...)
				})
				h.each(b, "copy", count, func(uids []uint32) *metadata.Commit { return h.n.transferring(h.to, false, uids...) })
				h.each(b, "move", count, func(uids []uint32) *metadata.Commit { return h.n.transferring(h.to, true, uids...) })
				h.each(b, "expunge", count, func(uids []uint32) *metadata.Commit { return h.n.expunging(uids...) })
			}
			b.Run("collect-1000", h.collect)
			b.Run("named", h.named)
			b.Run("check-mailbox", h.check)
			b.Run("check-shares", h.shares)
		})
	}
}

// BenchmarkMeasure is what metrics and traces add to each statement.
func BenchmarkMeasure(b *testing.B) {
	for name, provider := range map[string]trace.TracerProvider{
		"no-traces":   nil,
		"not-sampled": sdk.NewTracerProvider(sdk.WithSampler(sdk.NeverSample())),
		"sampled":     sdk.NewTracerProvider(),
	} {
		b.Run(name, func(b *testing.B) {
			db := metadatatest.Open(b, func(c *metadata.Config) { c.Metrics, c.Traces = prometheus.NewRegistry(), provider })
			ctx := b.Context()
			if provider != nil { // spans are made below those of commands only
				var span trace.Span
				ctx, span = provider.Tracer("test").Start(ctx, "IMAP LOGIN")
				defer span.End()
			}
			b.ReportAllocs()
			for b.Loop() {
				db.Measure(ctx, "log in")
			}
		})
	}
}

// heavy is a large mailbox, and another one.
type heavy struct {
	db    *metadata.DB
	n, to *node
	size  int
}

func newHeavy(b *testing.B, size int) *heavy {
	b.Helper()
	h := &heavy{db: metadatatest.Open(b), size: size}
	a := metadatatest.Account(b, h.db, "alice@example.org", func(a *metadata.NewAccount) {
		a.Mailboxes = []metadata.NewMailbox{{Name: "Archive"}}
	})
	h.n, h.to = h.open(b, a, "INBOX"), h.open(b, a, "Archive")
	h.fill(b)
	h.n, h.to = h.open(b, a, "INBOX"), h.open(b, a, "Archive")
	return h
}

func (h *heavy) open(b testing.TB, a metadata.Account, name string) *node {
	b.Helper()
	box, err := h.db.MailboxByName(b.Context(), a.ID, name)
	if err != nil {
		b.Fatal(err)
	}
	l, err := h.db.Load(b.Context(), a.ID, box.ID, metadata.Version{})
	if err != nil {
		b.Fatal(err)
	}
	return apply(nil, l)
}

// fill writes the mailbox's tables as that many appends would have.
func (h *heavy) fill(b *testing.B) {
	b.Helper()
	ctx := b.Context()
	box := h.n.box
	edits := make([]*metadata.Edit, h.size>>7+1)
	for i := range edits {
		edits[i] = metadata.NewEdit(int32(i))
	}
	for uid := 1; uid <= h.size; uid++ {
		edits[uid>>7].Set(uid&127, metadata.Slot{ModSeq: int64(uid) + 1})
	}
	chunks := pgx.CopyFromSlice(len(edits), func(i int) ([]any, error) {
		c := edits[i].Chunk()
		return []any{int64(box.Account), int64(box.ID), c.No(), c.Stored(), c.MaxModSeq()}, nil
	})
	if _, err := h.db.Pool().CopyFrom(ctx, pgx.Identifier{"flags"},
		[]string{"account_id", "mailbox_id", "chunk", "slots", "max_modseq"}, chunks); err != nil {
		b.Fatal(err)
	}
	conn, err := h.db.Pool().Acquire(ctx)
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Release()
	for _, sql := range []string{
		`set statement_timeout = 0`,
		`insert into message (account_id, mailbox_id, uid, internal_date, save_date, size, email_id, thread_id, object, extent, summary)
select m.account_id, m.id, i, now(), now(), 100, i, i, gen_random_uuid(), '\x0102', decode(repeat('5a', 170), 'hex')
from mailbox m, generate_series(m.uidnext, ` + fmt.Sprint(h.size) + `) i
where m.name = 'INBOX'`,
		`update mailbox
set uidnext = g.n + 1, modseq = g.n + 1, messages = g.n, unseen = g.n, bytes = 100 * g.n
from (select count(*) as n from message) g
where name = 'INBOX'`,
		`vacuum analyze`,
		`reset statement_timeout`,
	} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			b.Fatal(err)
		}
	}
}

func (h *heavy) load(b *testing.B, have metadata.Version) {
	for b.Loop() {
		if _, err := h.db.Load(b.Context(), h.n.box.Account, h.n.box.ID, have); err != nil {
			b.Fatal(err)
		}
	}
}

func (h *heavy) versions(b *testing.B, count int) {
	refs := make([]metadata.BoxRef, count)
	for i := range refs {
		refs[i] = ref(h.n)
	}
	for b.Loop() {
		if _, err := h.db.Pulses(b.Context(), refs); err != nil {
			b.Fatal(err)
		}
	}
}

// each commits changes of that many consecutive messages, from place to place.
func (h *heavy) each(b *testing.B, name string, count int, change func(uids []uint32) *metadata.Commit) {
	b.Run(fmt.Sprintf("%s-%d", name, count), func(b *testing.B) {
		uids := make([]uint32, count)
		for b.Loop() {
			first := rand.IntN(h.size - count)
			for i := range uids {
				uids[i] = uint32(first + i + 1)
			}
			h.commit(b, change(uids))
		}
	})
}

// commit commits, and brings what is held up to date, as a node does.
func (h *heavy) commit(b *testing.B, c *metadata.Commit) {
	b.Helper()
	done, err := h.db.Commit(b.Context(), c)
	if err != nil {
		b.Fatal(err)
	}
	for i := range c.Changes {
		ch, n := &c.Changes[i], h.n
		if ch.Mailbox == h.to.box.ID {
			n = h.to
		}
		n.box.Version, n.box.UIDNext = done.Version(c, i), ch.UIDNext
		n.box.Counters = n.box.Counters.Add(ch.Delta)
		for _, chunk := range ch.Chunks {
			n.chunks[chunk.No()] = chunk
		}
	}
}

// collect expunges 1,000 messages and measures only how they are collected:
// the load of the mailbox, and one commit.
func (h *heavy) collect(b *testing.B) {
	uids := make([]uint32, 1000)
	for b.Loop() {
		b.StopTimer()
		first := uint32(h.n.box.UIDNext)
		h.commit(b, h.n.appending(len(uids)))
		for i := range uids {
			uids[i] = first + uint32(i)
		}
		h.commit(b, h.n.expunging(uids...))
		b.StartTimer()
		done, err := h.db.Collect(b.Context(), ref(h.n), h.n.box.ModSeq)
		if err != nil || done.Messages < len(uids) {
			b.Fatalf("collected %+v: %v", done, err)
		}
		b.StopTimer()
		h.n = h.open(b, metadata.Account{ID: h.n.box.Account}, "INBOX")
		b.StartTimer()
	}
}

// check counts the mailbox anew.
func (h *heavy) check(b *testing.B) {
	for b.Loop() {
		if found, err := h.db.CheckMailbox(b.Context(), ref(h.n), nil); err != nil || !found.Sound() {
			b.Fatalf("%+v, %v", found, err)
		}
	}
}

// shares counts the owners of the account's objects.
func (h *heavy) shares(b *testing.B) {
	for b.Loop() {
		if found, err := h.db.CheckShares(b.Context(), h.n.box.Account, metadata.ObjectID{}, 10); err != nil || len(found) > 0 {
			b.Fatal(found, err)
		}
	}
}

// named looks once more whether anything names some objects.
func (h *heavy) named(b *testing.B) {
	objects := make([]metadata.ObjectID, 10_000)
	for i := range objects {
		objects[i] = newMessage(1).Object
	}
	for b.Loop() {
		if named, err := h.db.Named(b.Context(), h.n.box.Account, objects); err != nil || len(named) > 0 {
			b.Fatal(len(named), err)
		}
	}
}
