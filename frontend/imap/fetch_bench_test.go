package imap

import (
	"bytes"
	"io"
	"os"
	"testing"

	"starling/frontend/imapwire"
	mail "starling/frontend/message"
	"starling/metadata"
)

func benchmarkView(b *testing.B, by numbering, keywords bool, args string) {
	const messages = 100_000
	v := viewOf(messages, []string{"$Forwarded", "NonJunk"}, func(uid uint32) metadata.Slot {
		s := metadata.Slot{ModSeq: int64(uid), Flags: metadata.Flags(uid) & metadata.SystemFlags}
		if keywords && uid%2 == 0 {
			s.Flags |= metadata.Keyword(1)
		}
		return s
	})
	s := &session{enc: imapwire.NewEncoder(io.Discard), view: v}
	c := fetchArgs(b, by, args)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.run(b.Context(), s); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)*messages/b.Elapsed().Seconds(), "lines/s")
}

func BenchmarkFetchFlags(b *testing.B) {
	b.Run("UID", func(b *testing.B) { benchmarkView(b, bySeq, false, "1:* (UID FLAGS)") })
	b.Run("UID FETCH", func(b *testing.B) { benchmarkView(b, byUID, false, "1:* (FLAGS)") })
	b.Run("MODSEQ", func(b *testing.B) { benchmarkView(b, byUID, false, "1:* (FLAGS MODSEQ)") })
	b.Run("keywords", func(b *testing.B) { benchmarkView(b, byUID, true, "1:* (FLAGS)") })
}

func benchmarkSummaries(b *testing.B, items ...string) {
	var summaries []*mail.Summary
	for _, file := range corpus(b) {
		text, err := os.ReadFile(file)
		if err != nil {
			b.Fatal(err)
		}
		summaries = append(summaries, summaryOf(string(text)))
	}
	f := &fetch{s: &session{enc: imapwire.NewEncoder(io.Discard)}}
	m := &fetched{fetchRow: &fetchRow{seq: 1}}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		m.summary = *summaries[i%len(summaries)]
		f.begin(m)
		for _, item := range items {
			fetchItems[item].write(f, m)
		}
		f.s.enc.FetchEnd()
		i++
	}
}

func BenchmarkEnvelope(b *testing.B) { benchmarkSummaries(b, imapwire.ItemEnvelope) }

func BenchmarkBodyStructure(b *testing.B) { benchmarkSummaries(b, imapwire.ItemBodyStructure) }

// BenchmarkFetchRows is what a message costs from its row on, without PostgreSQL: with the
// summary as it is stored, and as the node remembers it.
func BenchmarkFetchRows(b *testing.B) {
	b.Run("stored", func(b *testing.B) { benchmarkFetchRows(b, bytes.Clone) })
	b.Run("remembered", func(b *testing.B) {
		benchmarkFetchRows(b, func(stored []byte) []byte {
			plain, err := mail.Decompress(stored)
			if err != nil {
				b.Fatal(err)
			}
			return plain
		})
	})
}

func benchmarkFetchRows(b *testing.B, form func(stored []byte) []byte) {
	var rows []metadata.Message
	for _, file := range corpus(b) {
		text, err := os.ReadFile(file)
		if err != nil {
			b.Fatal(err)
		}
		summary := summaryOf(string(text))
		if !summary.CompleteFor(mail.NewFieldNames([][]byte{[]byte("from"), []byte("to"), []byte("subject"), []byte("date")})) {
			continue
		}
		packed, err := summary.AppendBinary(nil)
		if err != nil {
			b.Fatal(err)
		}
		rows = append(rows, metadata.Message{Size: int64(len(text)), Summary: form(packed)})
	}
	for _, args := range []string{"1:* (ENVELOPE)", "1:* (BODYSTRUCTURE)", "1:* (BODY.PEEK[HEADER.FIELDS (From To Subject Date)])"} {
		b.Run(args, func(b *testing.B) {
			s := &session{enc: imapwire.NewEncoder(io.Discard), view: viewOf(len(rows), nil, byUIDs)}
			f := newFetch(s, fetchArgs(b, byUID, args))
			b.ReportAllocs()
			for b.Loop() {
				f.rows, f.held, f.taken = f.rows[:0], 0, 0
				for i := range rows {
					rows[i].UID = uint32(i) + 1
					f.rows = append(f.rows, fetchRow{seq: rows[i].UID, uid: rows[i].UID})
				}
				for i := range rows {
					_ = f.rowBatch.take(&rows[i]) // that there is much of it does not matter here
				}
				f.answerBatch(b.Context())
			}
			b.ReportMetric(float64(b.N)*float64(len(rows))/b.Elapsed().Seconds(), "messages/s")
		})
	}
}
