package imap

import "testing"

// Whole commands that change 1,000 messages of 4,096 and tell of them.
func BenchmarkStoreMany(b *testing.B) {
	c := filled(b, 12)
	sign := '-'
	for _, item := range []string{"FLAGS", "FLAGS.SILENT"} {
		b.Run(item, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				sign ^= '+' ^ '-'
				c.ok(`STORE 1:1000 %c%s (\Answered)`, sign, item)
			}
		})
	}
}
