package metadata_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"starling/metadata"
	"starling/metadata/metadatatest"
)

// BenchmarkAppend is what new mail costs the server: the CPU of its backend, which the wall
// clock of a busy machine says nothing about, and the bytes of its log. It begins with an
// empty mailbox.
func BenchmarkAppend(b *testing.B) {
	for _, test := range []struct {
		name    string
		count   int
		change  func(m *metadata.Message)
		quota   bool
		deliver bool
	}{
		{name: "first-of-thread", count: 1},
		{name: "no-id", count: 1, change: func(m *metadata.Message) { m.References = nil }},
		{name: "reply", count: 1, change: func(m *metadata.Message) { m.References = append(m.References, 1, 2, 3, 4) }},
		{name: "quota", count: 1, quota: true},
		{name: "delivery", count: 1, deliver: true},
		{name: "delivery-reply-quota", count: 1, deliver: true, quota: true, change: func(m *metadata.Message) { m.References = append(m.References, 1, 2, 3, 4) }},
		{name: "first-of-thread-8", count: 8},
		{name: "delivery-8", count: 8, deliver: true},
	} {
		b.Run(test.name, func(b *testing.B) {
			// One connection, so that its backend is the one that works.
			db := metadatatest.Open(b, func(c *metadata.Config) { c.MaxConns = 2 })
			a := metadatatest.Account(b, db, "alice@example.org", func(a *metadata.NewAccount) {
				if test.quota {
					a.Limits = metadata.Quota{Messages: 1 << 40, Bytes: 1 << 50}
				}
			})
			h := &heavy{db: db}
			h.n = h.open(b, a, "INBOX")
			h.to = &node{}
			commit := func() {
				c := h.n.appending(test.count)
				c.Deadline, c.Limited = time.Now().Add(time.Hour), test.quota
				for i := range c.Changes[0].Insert {
					m := &c.Changes[0].Insert[i]
					m.References = []int64{rand.Int64()}
					m.Extent, m.Summary = bytes.Repeat([]byte{7}, 14), make([]byte, 200)
					if test.change != nil {
						test.change(m)
					}
					if test.deliver {
						c.Deliveries = append(c.Deliveries, metadata.Delivery{Digest: digest(fmt.Sprint(rand.Uint64())), Mailbox: h.n.box.ID, UID: m.UID})
					}
				}
				h.commit(b, c)
			}
			cost(b, db, commit)
		})
	}
}

// BenchmarkStore is the same for flags, of one message and of many.
func BenchmarkStore(b *testing.B) {
	for _, count := range []int{1, 1000} {
		b.Run(fmt.Sprint(count), func(b *testing.B) {
			db := metadatatest.Open(b, func(c *metadata.Config) { c.MaxConns = 2 })
			h := &heavy{db: db}
			h.n = h.open(b, metadatatest.Account(b, db, "alice@example.org"), "INBOX")
			h.to = &node{}
			h.commit(b, h.n.appending(2000))
			cost(b, db, func() {
				first := 1 + rand.Uint32N(2000-uint32(count))
				uids := make([]uint32, count)
				for i := range uids {
					uids[i] = first + uint32(i)
				}
				h.commit(b, h.n.storing(metadata.Flags(rand.Uint32())&metadata.SystemFlags, uids...))
			})
		})
	}
}

// cost measures a commit, once the server's caches are warm.
func cost(b *testing.B, db *metadata.DB, commit func()) {
	for range 100 {
		commit()
	}
	before := spent(b, db)
	b.ReportAllocs()
	for b.Loop() {
		commit()
	}
	after := spent(b, db)
	b.ReportMetric(float64((after.cpu-before.cpu).Microseconds())/float64(b.N), "server-us/op")
	b.ReportMetric(float64(after.wal-before.wal)/float64(b.N), "wal-B/op")
}

// spending is what the backends of a database have used so far.
type spending struct {
	cpu time.Duration
	wal int64
}

func spent(b testing.TB, db *metadata.DB) (s spending) {
	b.Helper()
	rows, err := db.Pool().Query(b.Context(), `select pid from pg_stat_activity where datname = current_database() and backend_type = 'client backend'`)
	if err != nil {
		b.Fatal(err)
	}
	pids, err := pgx.CollectRows(rows, pgx.RowTo[int])
	if err != nil {
		b.Fatal(err)
	}
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/schedstat", pid))
		if err != nil {
			b.Skip(err)
		}
		ns, err := strconv.ParseInt(string(bytes.Fields(text)[0]), 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		s.cpu += time.Duration(ns)
	}
	if err := db.Pool().QueryRow(b.Context(), `select pg_current_wal_insert_lsn() - '0/0'`).Scan(&s.wal); err != nil {
		b.Fatal(err)
	}
	return s
}
