package message

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestMatcher(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		text, needle string
		want         bool
	}{
		{"Hello", "hello", true},
		{"Hello", "ELLO", true},
		{"Hello", "hallo", false},
		{"STRAẞE", "straße", true},
		{"ΣΊΣΥΦΟΣ", "σίσυφος", true},
		{"Äpfel", "äPFEL", true},
		{"K", "k", true}, // the Kelvin sign
		{"", "", true},
		{"", "x", false},
		{"a\xffb", "\xffB", true},
		{"日本語", "本", true},
	} {
		for size := 1; size < 4; size++ {
			m := NewMatcher([][]byte{[]byte(tt.needle), []byte("never")})
			for rest := []byte(tt.text); len(rest) > 0; rest = rest[min(size, len(rest)):] {
				m.Write(rest[:min(size, len(rest))])
			}
			m.Break()
			if got := m.Found(); got[0] != tt.want || got[1] || m.Done() {
				t.Errorf("%q in %q by %d: %v", tt.needle, tt.text, size, got)
			}
		}
		if got := FieldContains([]byte(tt.text), []byte(tt.needle)); got != tt.want {
			t.Errorf("FieldContains(%q, %q) is %v", tt.text, tt.needle, got)
		}
	}
	m := NewMatcher([][]byte{[]byte("ab")})
	m.Write([]byte("a"))
	m.Break()
	m.Write([]byte("b"))
	if m.Done() {
		t.Error("found over a break")
	}
}

// Each character folds to the same as all that differ from it in case only, and to itself folded.
func TestFoldRune(t *testing.T) {
	t.Parallel()
	for r := rune(0); r <= unicode.MaxRune; r++ {
		got := foldRune(r)
		if got != foldOrbit(r) || foldRune(got) != got || foldRune(unicode.SimpleFold(r)) != got {
			t.Fatalf("%U folds to %U, %U to %U", r, got, unicode.SimpleFold(r), foldRune(unicode.SimpleFold(r)))
		}
	}
}

func FuzzMatcher(f *testing.F) {
	f.Add("Hello WÖRLD", "wör", 2)
	f.Add("aaab\xc3", "AAB\xc3", 1)
	f.Fuzz(func(t *testing.T, text, needle string, size int) {
		size = 1 + (size%9+9)%9
		m := NewMatcher([][]byte{[]byte(needle), []byte(text)})
		for rest := []byte(text); len(rest) > 0; rest = rest[min(size, len(rest)):] {
			m.Write(rest[:min(size, len(rest))])
		}
		m.Break()
		want := strings.Contains(string(AppendFolded(nil, []byte(text))), string(AppendFolded(nil, []byte(needle))))
		if got := m.Found(); got[0] != want || !got[1] {
			t.Fatalf("%q in %q: %v, want %v", needle, text, got, want)
		}
		if utf8.ValidString(text) && utf8.ValidString(needle) && strings.EqualFold(text, needle) != bytes.Equal(AppendFolded(nil, []byte(text)), AppendFolded(nil, []byte(needle))) {
			t.Fatalf("%q and %q fold otherwise than strings.EqualFold says", text, needle)
		}
	})
}

// Where a field was folded, and with how much white space, makes no difference to who looks for what is read there.
func TestFieldContains(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		text, needle string
		want         bool
	}{
		{"battle of the\tplanets", "the planets", true},
		{"battle of the    planets", "THE PLANETS", true},
		{"battle of the \t planets", "the\t\tplanets", true},
		{"battle of the planets", "the  planets", true},
		{"battle of theplanets", "the planets", false},
		{"battle of the planets", "theplanets", false},
		{"the\t", "the ", true},
		{"the", "the ", false},
	} {
		if got := FieldContains([]byte(tt.text), []byte(tt.needle)); got != tt.want {
			t.Errorf("FieldContains(%q, %q) is %v", tt.text, tt.needle, got)
		}
	}
}

const searchMail = `Subject: =?iso-8859-1?Q?Gr=FC=DFe?=
 from Vienna
X-Folded: one,
	two  three,
    four
Content-Type: multipart/mixed; boundary=b

--b
Content-Type: text/plain; charset=iso-8859-1
Content-Transfer-Encoding: quoted-printable

Caf=E9 au la=
it
--b
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: base64

w4RwZmVs
--b
Content-Type: application/octet-stream; name=report.pdf
Content-Transfer-Encoding: base64

c2VjcmV0
--b
Content-Type: text/plain; charset=x-nobody
Content-Transfer-Encoding: x-nothing

as it is
--b
Content-Type: message/delivery-status

Final-Recipient: rfc822; nobody@example.net
--b
Content-Type: message/rfc822

Subject: forwarded =?utf-8?Q?b=C3=A4r?=

inner text
--b--
`

func TestSearchText(t *testing.T) {
	t.Parallel()
	in := crlf(searchMail)
	s := parse(in)
	for _, tt := range []struct {
		needle     string
		body, text bool
	}{
		{"grüsse", false, false},
		{"GRÜSSE", false, false},
		{"grüße from", false, true},
		{"subject: grü", false, true},
		{"one, two three, four", false, true},
		{"one,\ttwo  three,    four", false, true},
		{"café  au", false, false},
		{"CAFÉ AU LAIT", true, true},
		{"äpfel", true, true},
		{"report.PDF", true, true},
		{"secret", false, false},
		{"c2VjcmV0", false, false},
		{"as it is", true, true},
		{"Forwarded Bär", true, true},
		{"inner text", true, true},
		{"NOBODY@example.net", true, true},
		{"lait\r\nÄpfel", false, false},
		{"", true, true},
	} {
		for _, withHeader := range []bool{false, true} {
			got, err := SearchText(bytes.NewReader(in), s, [][]byte{[]byte(tt.needle), []byte("no such text")}, withHeader)
			want := tt.body
			if withHeader {
				want = tt.text
			}
			if err != nil || got[0] != want || got[1] {
				t.Errorf("%q, header %v: %v, %v, want %v", tt.needle, withHeader, got, err, want)
			}
		}
	}
	broken := errors.New("broken")
	if _, err := SearchText(brokenReaderAt{broken}, s, [][]byte{[]byte("x")}, false); !errors.Is(err, broken) {
		t.Errorf("error of the reader: %v", err)
	}
}

type brokenReaderAt struct{ err error }

func (r brokenReaderAt) ReadAt([]byte, int64) (int, error) { return 0, r.err }

// Fields are found wherever the pieces of a long header end.
func TestSearchLongHeader(t *testing.T) {
	t.Parallel()
	header := strings.Repeat("X-Filler: "+strings.Repeat("y", 997)+"\r\n", 100) + "X-Long: " + strings.Repeat("z", 3*searchChunk) + "end\r\nX-Last: needle\r\n\there\r\n\r\n"
	for before := range 3 * len("X-Filler: ") {
		var search textSearch
		search.m.reset([][]byte{[]byte("needle\there"), []byte("x-last: n"), []byte("y\r\nX")})
		part := Part{HeaderStart: int64(before), BodyStart: int64(before + len(header))}
		if err := search.header(strings.NewReader(strings.Repeat("-", before)+header+"-"), &part); err != nil {
			t.Fatal(err)
		}
		if got := search.m.Found(); !got[0] || !got[1] || got[2] {
			t.Errorf("found %v", got)
		}
	}
}

func TestSearchCorpus(t *testing.T) {
	t.Parallel()
	for _, path := range corpus(t) {
		b := readFile(t, path)
		s := parse(b)
		if _, err := SearchText(bytes.NewReader(b), s, [][]byte{[]byte("no such text in any mail")}, true); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		// What the preview shows is in the text, up to white space.
		first, _, _ := strings.Cut(string(s.Preview), " ")
		for i := range s.Parts {
			if p := &s.Parts[i]; p.IsText() && equalFold(p.Subtype, "plain") && len(s.Parts) == 1 && utf8.ValidString(first) && lookupCharset(p.Param("charset")) == nil {
				text, err := io.ReadAll(p.TextReader(bytes.NewReader(b)))
				if err != nil {
					t.Fatal(err)
				}
				if utf8.Valid(text) && !FieldContains(stripUnprintable(text), []byte(first)) {
					t.Errorf("%s: preview %q is not in the text", path, s.Preview)
				}
			}
		}
	}
}

func stripUnprintable(b []byte) []byte {
	return bytes.Map(func(r rune) rune {
		if r < ' ' && r != '\n' || r == 0x7f {
			return -1
		}
		return r
	}, b)
}

func BenchmarkMatcher(b *testing.B) {
	text := bytes.Repeat([]byte("The quick brown fox jumps over the lazy dog. "), 1000)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		m := NewMatcher([][]byte{[]byte("lazy cat"), []byte("slow fox")})
		m.Write(text)
	}
}

func BenchmarkSearchText(b *testing.B) {
	var mails [][]byte
	var summaries []*Summary
	total := 0
	for _, path := range corpus(b) {
		mail := readFile(b, path)
		mails, summaries = append(mails, mail), append(summaries, parse(mail))
		total += len(mail)
	}
	b.SetBytes(int64(total / len(mails)))
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		k := i % len(mails)
		if _, err := SearchText(bytes.NewReader(mails[k]), summaries[k], [][]byte{[]byte("no such text")}, true); err != nil {
			b.Fatal(err)
		}
		i++
	}
}
