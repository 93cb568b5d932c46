package message

import (
	"bytes"
	"runtime"
	"testing"
)

// A large message costs no more than a small one. Not parallel: it counts what is allocated meanwhile.
func TestParserMemory(t *testing.T) {
	for _, tt := range []struct{ name, head, line string }{
		{"body", "Subject: x\r\n\r\n", "0123456789012345678901234567890123456789\r\n"},
		{"html", "Content-Type: text/html\r\n\r\n", "<p>&nbsp;</p>\r\n"},
		{"one line", "\r\n", "x"},
		{"header", "Subject: x\r\n", "To: a@b, c@d, <e@f>\r\nX-Y: z\r\n"},
		{"addresses", "To: a", ",b"},
		{"parts", "Content-Type: multipart/mixed; boundary=b\r\n\r\n", "--b\r\nContent-Type: text/plain; name=abcdefghijklmnopqrstuvwxyz\r\n\r\nx\r\n"},
		{"messages", "Content-Type: multipart/digest; boundary=b\r\n\r\n", "--b\r\n\r\nFrom: abc@example.org\r\nSubject: abcdefghijklmnopqrstuvwxyz\r\n\r\nx\r\n"},
		{"depth", "", "Content-Type: message/rfc822\r\n\r\n"},
		{"delimiter look-alikes", "Content-Type: multipart/mixed; boundary=b\r\n\r\n", "--bb\r\n-\r\n"},
	} {
		chunk := bytes.Repeat([]byte(tt.line), 1+(64<<10)/len(tt.line))
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		p := NewParser()
		p.Write([]byte(tt.head))
		n := len(tt.head)
		for n < 32<<20 {
			p.Write(chunk)
			n += len(chunk)
		}
		s := p.Close()
		runtime.ReadMemStats(&after)
		if s.Size() != int64(n) {
			t.Errorf("%s: size %d, want %d", tt.name, s.Size(), n)
		}
		allocated := (after.TotalAlloc - before.TotalAlloc) >> 10
		t.Logf("%s: %d KiB allocated for %d MiB", tt.name, allocated, n>>20)
		if allocated > 1536 {
			t.Errorf("%s: %d KiB allocated in all", tt.name, allocated)
		}
	}
}
