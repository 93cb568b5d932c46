package imapwire

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestUTF7(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, encoded string }{
		{"", ""},
		{"INBOX", "INBOX"},
		{"a & b", "a &- b"},
		{"&", "&-"},
		{"~peter/mail/台北/日本語", "~peter/mail/&U,BTFw-/&ZeVnLIqe-"}, // RFC 3501 §5.1.3
		{"Entwürfe", "Entw&APw-rfe"},
		{"é", "&AOk-"},
		{"ééé", "&AOkA6QDp-"},
		{"😀", "&2D3eAA-"},
		{"a\tb", "a&AAk-b"},
		{"\u007f", "&AH8-"},
		{"☺!", "&Jjo-!"}, // RFC 3501 §5.1.3
	} {
		if got := string(AppendUTF7(nil, test.name)); got != test.encoded {
			t.Errorf("encode %q = %q, want %q", test.name, got, test.encoded)
		}
		if got, err := DecodeUTF7(test.encoded); got != test.name || err != nil {
			t.Errorf("decode %q = %q, %v", test.encoded, got, err)
		}
	}
}

func TestUTF7Errors(t *testing.T) {
	t.Parallel()
	for _, in := range []string{
		"&", "&AOk", "a&", "&Jjo!", // RFC 3501 §5.1.3 names the last
		"&U,BTFw-&ZeVnLIqe-", // RFC 3501 §5.1.3: two shifts
		"&AGE-",              // "a", which stands for itself
		"&ACY-",              // "&"
		"&AAA-",              // NUL
		"&2D0-",              // half of a pair
		"&3gA-",              // the other half
		"&2D0AYQ-",           // half of a pair, then "a"
		"&AOl-",              // bits left over
		"&AOkA-",             // six bits left over, and more
		"&A-",
		"&AO k-", "&AO/k-", "\xe9", "é", "a\tb", "a\x00",
	} {
		if got, err := DecodeUTF7(in); err == nil {
			t.Errorf("decode %q = %q", in, got)
		}
	}
}

func FuzzUTF7(f *testing.F) {
	for _, seed := range []string{"&AOk-", "&U,BTFw-/&ZeVnLIqe-", "a&-b", "&2D3eAA-", "é", "\xff"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if name, err := DecodeUTF7(s); err == nil {
			if !utf8.ValidString(name) {
				t.Fatalf("%q decodes to %q, which is not UTF-8", s, name)
			}
			if again := string(AppendUTF7(nil, name)); again != s {
				t.Fatalf("%q decodes to %q, which encodes to %q", s, name, again)
			}
		}
		if strings.IndexByte(s, 0) >= 0 {
			return
		}
		want := strings.ToValidUTF8(s, "\ufffd")
		if !utf8.ValidString(s) {
			want = string([]rune(s)) // one U+FFFD for each byte
		}
		if got, err := DecodeUTF7(string(AppendUTF7(nil, s))); err != nil || got != want {
			t.Fatalf("%q encodes and decodes to %q, %v", s, got, err)
		}
	})
}

func TestMailbox(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		in, want string
		utf8     bool
	}{
		{"inbox", "INBOX", false},
		{`"InBox/Sub"`, "INBOX/Sub", false},
		{"inboxes", "inboxes", false},
		{"{5}\r\ninbox", "INBOX", false},
		{"Entw&APw-rfe", "Entwürfe", false},
		{"e&AwE-", "é", false}, // NFD
		{"Entw&APw-rfe", "Entw&APw-rfe", true},
		{`"Entwürfe"`, "Entwürfe", true},
		{`"Entwürfe"`, "Entwürfe", false}, // as clients send that saw IMAP4rev2 and did not enable it
		{"{2}\r\n\xc3\xbc", "ü", false},
		{"\"e\u0301\"", "é", true},
		{"a]b", "a]b", false},
		{`"a \"b\" \\"`, `a "b" \`, false},
	} {
		bothWays(t, test.in+"\r\n", func(t *testing.T, d *Decoder) {
			d.UTF8 = test.utf8
			if err := d.begin(); err != nil {
				t.Fatal(err)
			}
			if got := d.Mailbox(); got != test.want || d.End() != nil {
				t.Errorf("%q = %q, %v", test.in, got, d.Err())
			}
		})
	}
	for _, in := range []string{"a%b", "a*", "(a)", "{2}\r\n\xc3\x28", ""} {
		d := newTestDecoder(in + "\r\n")
		if err := d.begin(); err != nil {
			t.Fatal(err)
		}
		name := d.Mailbox()
		if d.End() == nil {
			t.Errorf("%q = %q", in, name)
		}
	}
}
