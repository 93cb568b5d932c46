package message

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"mime/quotedprintable"
	"strings"
	"testing"
	"testing/iotest"
)

func TestDecode(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ encoding, in, want string }{
		{"", "a=\r\nb", "a=\r\nb"},
		{"8BIT", "ä", "ä"},
		{"8-bit", "ä=", "ä="},
		{"Base64", "SGVs\r\nbG8=\r\n", "Hello"},
		{"base64", "SGVsbG8", "Hello"},
		{"base64", "S GV*s!bG8====", "Hello"},
		{"base64", "YQ==Yg==", "ab"},
		{"base64", "Y", ""},
		{"base64", "", ""},
		// RFC 2045 §6.7
		{"quoted-printable", "Now's the time =\r\nfor all folk to come=\r\n to the aid of their country.", "Now's the time for all folk to come to the aid of their country."},
		{"quoted-printable", "a=3D=e4=E4\r\n", "a=\xe4\xe4\r\n"},
		{"quoted-printable", "a \t\r\nb \nc  ", "a\r\nb\nc"},
		{"quoted-printable", "a= \t\r\nb=\nc=", "abc"},
		{"quoted-printable", "a=zz=4 =4\r\n=", "a=zz=4 =4\r\n"},
		{"quoted-printable", "a==41=", "a=A"},
		{"quoted-printable", "a\rb c", "a\rb c"},
		{"quoted-printable", "x" + strings.Repeat(" ", 3*maxHeld) + "y", "x" + strings.Repeat(" ", 3*maxHeld) + "y"},
	} {
		for _, wrap := range []func(io.Reader) io.Reader{func(r io.Reader) io.Reader { return r }, iotest.OneByteReader, iotest.DataErrReader} {
			r, err := Decode(wrap(strings.NewReader(tt.in)), tt.encoding)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(r)
			if err != nil || string(got) != tt.want {
				t.Errorf("%s %q: %q, %v, want %q", tt.encoding, tt.in, got, err, tt.want)
			}
		}
	}
	if _, err := Decode(strings.NewReader(""), "x-uuencode"); !errors.Is(err, ErrUnknownEncoding) {
		t.Errorf("x-uuencode: %v", err)
	}
	broken := errors.New("broken")
	r, err := Decode(io.MultiReader(strings.NewReader("YWJj"), iotest.ErrReader(broken)), "base64")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); string(got) != "abc" || !errors.Is(err, broken) {
		t.Errorf("%q, %v", got, err)
	}
}

// What was encoded is decoded to what it was, in pieces of any size.
func FuzzDecode(f *testing.F) {
	f.Add([]byte("Hello, wörld = \t\r\n x "), 3)
	f.Fuzz(func(t *testing.T, in []byte, n int) {
		var qp bytes.Buffer
		w := quotedprintable.NewWriter(&qp)
		w.Binary = true
		w.Write(in)
		w.Close()
		for _, tt := range []struct {
			encoding string
			encoded  []byte
			want     []byte
		}{
			{"base64", []byte(base64.StdEncoding.EncodeToString(in)), in},
			{"quoted-printable", qp.Bytes(), in},
			{"quoted-printable", in, nil},
			{"base64", in, nil},
		} {
			d, err := newTransferDecoder([]byte(tt.encoding))
			if err != nil {
				t.Fatal(err)
			}
			whole := d.decode(nil, tt.encoded, true)
			if tt.want != nil && !bytes.Equal(whole, tt.want) {
				t.Fatalf("%s %q: %q, want %q", tt.encoding, tt.encoded, whole, tt.want)
			}
			d, _ = newTransferDecoder([]byte(tt.encoding))
			var pieces []byte
			step := 1 + (n%7+7)%7
			for rest := tt.encoded; ; rest = rest[step:] {
				if len(rest) <= step {
					pieces = d.decode(pieces, rest, true)
					break
				}
				pieces = d.decode(pieces, rest[:step], false)
			}
			if !bytes.Equal(pieces, whole) {
				t.Fatalf("%s %q in pieces: %q, want %q", tt.encoding, tt.encoded, pieces, whole)
			}
		}
	})
}

func TestAppendDecoded(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ in, want string }{
		// RFC 2047 §8
		{"=?US-ASCII?Q?Keith_Moore?= <moore@cs.utk.edu>", "Keith Moore <moore@cs.utk.edu>"},
		{"=?ISO-8859-1?Q?Keld_J=F8rn_Simonsen?= <keld@dkuug.dk>", "Keld Jørn Simonsen <keld@dkuug.dk>"},
		{"=?ISO-8859-1?B?SWYgeW91IGNhbiByZWFkIHRoaXMgeW8=?=\t=?ISO-8859-2?B?dSB1bmRlcnN0YW5kIHRoZSBleGFtcGxlLg==?=", "If you can read this you understand the example."},
		{"Nathaniel Borenstein <nsb@thumper.bellcore.com> (=?iso-8859-8?b?7eXs+SDv4SDs6Oj08A==?=)", "Nathaniel Borenstein <nsb@thumper.bellcore.com> (םולש ןב לטטפנ)"},
		{"(=?ISO-8859-1?Q?a?= b)", "(a b)"},
		{"(=?ISO-8859-1?Q?a?=  =?ISO-8859-1?Q?b?=)", "(ab)"},
		{"(=?ISO-8859-1?Q?a_b?=)", "(a b)"},
		{"(=?ISO-8859-1?Q?a?= =?ISO-8859-2?Q?_b?=)", "(a b)"},
		{"=?utf-8*en?Q?a?=", "a"},
		{"=?utf-8?B?w?= =?utf-8?B?w6Q=?=", "ä"},
		{"=?utf-8?Q?=C3?= =?utf-8?Q?=A4?=", "ä"},
		{"=?iso-2022-jp?B?GyRCRnxLXBsoQg==?=", "日本"},
		{"=?gb2312?B?1tC5+g==?=", "中国"},
		{"=?utf-8?Q?a b?=", "a b"},
		{"x=?utf-8?Q?a?=y", "xay"},
		{"=?x-nobody?Q?=E4?=", "\xe4"},
		{"=?utf-8?X?a?=", "=?utf-8?X?a?="},
		{"=?utf-8?Q?a", "=?utf-8?Q?a"},
		{"=?=?utf-8?Q?a?=", "=?a"},
		{"\xe4 =", "\xe4 ="},
		{"", ""},
	} {
		if got := AppendDecoded(nil, []byte(tt.in)); string(got) != tt.want {
			t.Errorf("%q: %q, want %q", tt.in, got, tt.want)
		}
	}
}

// Words that never end take no more time than others: if each were read on to the end of the
// value, these would take a quarter of an hour.
func TestWordsWithoutEnd(t *testing.T) {
	t.Parallel()
	for _, end := range []string{"", "?="} {
		in := append(bytes.Repeat([]byte("=?a?zx=?a?q!x"), 8<<20/13), end...)
		if got := AppendDecoded(nil, in); !bytes.Equal(got, in) {
			t.Errorf("what ends with %q is decoded", end)
		}
	}
	in := bytes.Repeat([]byte("=?a?q?x"), 8<<20/7)
	if got := AppendDecoded(nil, in); !bytes.Equal(got, in) {
		t.Error("what has no end is decoded")
	}
}

func FuzzAppendDecoded(f *testing.F) {
	f.Add([]byte("=?ISO-8859-1?B?SWY=?=\t=?utf-8?Q?=C3?= x"))
	f.Fuzz(func(t *testing.T, in []byte) {
		got := AppendDecoded([]byte("x"), in)
		if got[0] != 'x' || !bytes.Contains(in, []byte("=?")) && !bytes.Equal(got[1:], in) {
			t.Fatalf("%q: %q", in, got)
		}
		for _, a := range AppendAddresses(nil, in) {
			if a.Host != nil && (len(a.Host) == 0 || len(a.Mailbox) == 0) || a.Host == nil && a.Name != nil {
				t.Fatalf("%q: %s", in, dumpAddresses([]Address{a}))
			}
		}
	})
}
