package codec_test

import (
	"fmt"
	"io"
	"os"
	"testing"

	"starling/blobstore/codec"
)

var sizes = []struct {
	name string
	n    int
}{{"5KB", 5 << 10}, {"1MB", 1 << 20}}

func BenchmarkSpool(b *testing.B) {
	for _, size := range sizes {
		b.Run(size.name, func(b *testing.B) {
			c, data := newCodec(b, codec.Options{}), text(size.n)
			b.ReportAllocs()
			b.SetBytes(int64(size.n))
			for b.Loop() {
				s := c.Spool(header)
				if _, err := s.Write(data); err != nil {
					b.Fatal(err)
				}
				if _, _, _, err := s.Finish(); err != nil {
					b.Fatal(err)
				}
				if err := s.Discard(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkRead(b *testing.B) {
	for _, size := range sizes {
		b.Run(size.name, func(b *testing.B) {
			c, data := newCodec(b, codec.Options{}), text(size.n)
			s := newStore()
			key, ext := save(b, c, s, data)
			b.ReportAllocs()
			b.SetBytes(int64(size.n))
			for b.Loop() {
				body := c.Open(s.Store, key, ext)
				if err := body.ReadRange(b.Context(), io.Discard, 0, body.Size()); err != nil {
					b.Fatal(err)
				}
				body.Close()
			}
		})
	}
}

func BenchmarkExtent(b *testing.B) {
	c := newCodec(b, codec.Options{})
	_, ext := save(b, c, newStore(), text(5<<10))
	stored := ext.Append(nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := codec.ParseExtent(stored); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkFrameSize shows what a frame size costs in bytes: the corpus, and its mails of more than 64 KiB alone.
func BenchmarkFrameSize(b *testing.B) {
	names := corpus(b)
	for _, kib := range []int{32, 64, 128, 256, 512} {
		b.Run(fmt.Sprintf("%dKiB", kib), func(b *testing.B) {
			c := newCodec(b, codec.Options{FrameSize: kib << 10})
			var plain, object, large, largeObject int64
			for b.Loop() {
				plain, object, large, largeObject = 0, 0, 0, 0
				for _, name := range names {
					data, err := os.ReadFile(name)
					if err != nil {
						b.Fatal(err)
					}
					s := c.Spool(header)
					if _, err := s.Write(data); err != nil {
						b.Fatal(err)
					}
					_, _, ext, err := s.Finish()
					if err != nil {
						b.Fatal(err)
					}
					plain, object = plain+ext.Plain, object+ext.Length
					if ext.Plain > 64<<10 {
						large, largeObject = large+ext.Plain, largeObject+ext.Length
					}
					if err := s.Discard(); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.SetBytes(plain)
			b.ReportMetric(100*float64(object)/float64(plain), "%size")
			b.ReportMetric(100*float64(largeObject)/float64(large), "%size-large")
		})
	}
}
