package message

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"
)

// checkTree fails if offsets or links do not make a tree.
func checkTree(t *testing.T, s *Summary, size int) {
	t.Helper()
	if s.Size() != int64(size) || s.Parts[0].HeaderStart != 0 {
		t.Fatalf("message is [%d, %d), want [0, %d)", s.Parts[0].HeaderStart, s.Size(), size)
	}
	for i := range s.Parts {
		p := &s.Parts[i]
		if p.HeaderStart > p.BodyStart || p.BodyStart > p.End || p.Lines < 0 || p.Lines > p.Size() {
			t.Fatalf("part %d: offsets %d %d %d, %d lines", i, p.HeaderStart, p.BodyStart, p.End, p.Lines)
		}
		at := p.BodyStart
		n := 0
		for c := s.FirstChild(i); c >= 0; c = s.Parts[c].Next {
			child := &s.Parts[c]
			if child.HeaderStart < at || child.End > p.End || child.Parent != i {
				t.Fatalf("part %d [%d, %d) is not inside of part %d [%d, %d)", c, child.HeaderStart, child.End, i, at, p.End)
			}
			at = child.End
			if n++; s.Child(i, n) != c {
				t.Fatalf("child %d of part %d is %d, not %d", n, i, s.Child(i, n), c)
			}
		}
		if n != p.Children || (n > 0) != (p.IsMultipart() || p.IsMessage()) || p.IsMessage() && n != 1 {
			t.Fatalf("part %d has %d children, walked %d", i, p.Children, n)
		}
		if (p.Envelope >= 0) != (i == 0 || s.Parts[p.Parent].IsMessage()) {
			t.Fatalf("part %d has envelope %d", i, p.Envelope)
		}
	}
}

func TestCorpusParses(t *testing.T) {
	t.Parallel()
	for _, path := range corpus(t) {
		b := readFile(t, path)
		s := parse(b)
		t.Run(filepath.Base(path), func(t *testing.T) {
			checkTree(t, s, len(b))
			for i := range s.Parts {
				p := &s.Parts[i]
				n := bytes.Count(b[p.BodyStart:p.End], []byte{'\n'})
				if !p.IsText() && !p.IsMessage() {
					n = 0
				}
				if int64(n) != p.Lines {
					t.Errorf("part %d: %d lines, body has %d", i, p.Lines, n)
				}
			}
			p := NewParser()
			for i := range b {
				p.Write(b[i : i+1])
			}
			if got, want := dumpAll(p.Close()), dumpAll(s); got != want {
				t.Errorf("byte by byte:\n%s\nat once:\n%s", got, want)
			}
		})
	}
}

func crlf(s string) []byte { return []byte(strings.ReplaceAll(s, "\n", "\r\n")) }
