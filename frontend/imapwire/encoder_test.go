package imapwire

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// encoded is what write makes an encoder send.
func encoded(t *testing.T, utf8 bool, write func(*Encoder)) string {
	t.Helper()
	var out bytes.Buffer
	e := NewEncoder(&out)
	e.UTF8 = utf8
	write(e)
	if err := e.Release(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestString(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 5000)
	for _, test := range []struct{ in, plain, utf8, literal8 string }{
		{"", `""`, `""`, `""`},
		{"a b", `"a b"`, `"a b"`, `"a b"`},
		{`a"b\c`, `"a\"b\\c"`, `"a\"b\\c"`, `"a\"b\\c"`},
		{"a\tb", "\"a\tb\"", "\"a\tb\"", "\"a\tb\""},
		{"a\nb", "{3}\r\na\nb", "{3}\r\na\nb", "{3}\r\na\nb"},
		{"a\rb", "{3}\r\na\rb", "{3}\r\na\rb", "{3}\r\na\rb"},
		{"ü", "{2}\r\nü", `"ü"`, "{2}\r\nü"},
		{"\xfc", "{1}\r\n\xfc", "{1}\r\n\xfc", "{1}\r\n\xfc"},
		{"a\x00", "{2}\r\na\x00", "{2}\r\na\x00", "~{2}\r\na\x00"},
		{long, "{5000}\r\n" + long, "{5000}\r\n" + long, "{5000}\r\n" + long},
	} {
		for _, got := range []struct{ name, got, want string }{
			{"plain", encoded(t, false, func(e *Encoder) { e.String(test.in) }), test.plain},
			{"bytes", encoded(t, false, func(e *Encoder) { e.Bytes([]byte(test.in)) }), test.plain},
			{"UTF-8", encoded(t, true, func(e *Encoder) { e.String(test.in) }), test.utf8},
			{"UTF-8 bytes", encoded(t, true, func(e *Encoder) { e.Bytes([]byte(test.in)) }), test.utf8},
			{"literal8", encoded(t, false, func(e *Encoder) { e.Bytes8([]byte(test.in)) }), test.literal8},
		} {
			if got.got != got.want {
				t.Errorf("%s %.20q = %.40q, want %.40q", got.name, test.in, got.got, got.want)
			}
		}
	}
}

func TestEncodeMailbox(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, plain, utf8 string }{
		{"INBOX", "INBOX", "INBOX"},
		{"a b", `"a b"`, `"a b"`},
		{"nil", `"nil"`, `"nil"`},
		{"", `""`, `""`},
		{"Entwürfe", "Entw&APw-rfe", `"Entwürfe"`},
		{"Ü b", `"&ANw- b"`, `"Ü b"`},
		{"a&b", "a&-b", `"a&b"`},
		{`a"b`, `"a\"b"`, `"a\"b"`},
		{"a\nb", "a&AAo-b", "{3}\r\na\nb"},
	} {
		if got := encoded(t, false, func(e *Encoder) { e.Mailbox(test.name) }); got != test.plain {
			t.Errorf("%q = %q, want %q", test.name, got, test.plain)
		}
		if got := encoded(t, true, func(e *Encoder) { e.Mailbox(test.name) }); got != test.utf8 {
			t.Errorf("%q in UTF-8 = %q, want %q", test.name, got, test.utf8)
		}
	}
}

func TestResponses(t *testing.T) {
	t.Parallel()
	zone := time.FixedZone("", -7*3600)
	for _, test := range []struct {
		want  string
		write func(*Encoder)
	}{
		{"* OK [ALERT] System shutdown in 10 minutes", func(e *Encoder) { e.Status("", OK, CodeAlert, "System shutdown in 10 minutes") }},
		{"A1 NO a?b?c??", func(e *Encoder) { e.Status("A1", NO, "", "a\rb\nc\xc3\xbc") }},
		{"* PREAUTH hello", func(e *Encoder) { e.Status("", PREAUTH, "", "hello") }},
		{"+ idling", func(e *Encoder) { e.Continue("idling") }},
		{"+ ", func(e *Encoder) { e.Continue("") }},
		{"a OK [COPYUID 38505 304,319:320 3956:3958] Done", func(e *Encoder) {
			e.Status("a", OK, CodeCopyUID(38505, NumSetOf(304, 319, 320), NumSetOf(3956, 3957, 3958)), "Done")
		}},
		{"a OK [APPENDUID 38505 3955] x", func(e *Encoder) { e.Status("a", OK, CodeAppendUID(38505, NumSetOf(3955)), "x") }},
		{"a OK [MODIFIED 7,9] x", func(e *Encoder) { e.Status("a", OK, CodeModified(NumSetOf(9, 7)), "x") }},
		{"* OK [HIGHESTMODSEQ 715194045007] x", func(e *Encoder) { e.Status("", OK, CodeHighestModSeq(715194045007), "x") }},
		{"* OK [UIDNEXT 4392] x", func(e *Encoder) { e.Status("", OK, CodeUIDNext(4392), "x") }},
		{"* OK [UIDVALIDITY 3857529045] x", func(e *Encoder) { e.Status("", OK, CodeUIDValidity(3857529045), "x") }},
		{"* OK [UNSEEN 17] x", func(e *Encoder) { e.Status("", OK, CodeUnseen(17), "x") }},
		{`* OK [PERMANENTFLAGS (\Deleted \Seen \*)] x`, func(e *Encoder) {
			e.Status("", OK, CodePermanentFlags([]string{FlagDeleted, FlagSeen, FlagWildcard}), "x")
		}},
		{"* OK [CAPABILITY IMAP4rev1 IMAP4rev2] x", func(e *Encoder) { e.Status("", OK, CodeCapability([]string{"IMAP4rev1", "IMAP4rev2"}), "x") }},
		{"* OK [MAILBOXID (F2212ea87-6097-4256-9d51-71338625)] x", func(e *Encoder) { e.Status("", OK, CodeMailboxID("F2212ea87-6097-4256-9d51-71338625"), "x") }},
		{"a NO [BADCHARSET (US-ASCII UTF-8)] x", func(e *Encoder) { e.Status("a", NO, CodeBadCharset("US-ASCII", "UTF-8"), "x") }},
		{"* CAPABILITY IMAP4rev2 STARTTLS", func(e *Encoder) { e.Capability([]string{"IMAP4rev2", "STARTTLS"}) }},
		{"* ENABLED", func(e *Encoder) { e.Enabled(nil) }},
		{"* 23 EXISTS", func(e *Encoder) { e.Exists(23) }},
		{"* 5 RECENT", func(e *Encoder) { e.Recent(5) }},
		{"* 44 EXPUNGE", func(e *Encoder) { e.Expunge(44) }},
		{"* VANISHED (EARLIER) 41,43:116", func(e *Encoder) { e.Vanished(set("41,43:116"), true) }},
		{"* VANISHED 1", func(e *Encoder) { e.Vanished(NumSetOf(1), false) }},
		{`* FLAGS (\Answered \Seen)`, func(e *Encoder) { e.MailboxFlags([]string{FlagAnswered, FlagSeen}) }},
		{`* 23 FETCH (UID 4827313 FLAGS (\Seen) MODSEQ (624140003) RFC822.SIZE 44827)`, func(e *Encoder) {
			e.FetchBegin(23).FetchUID(4827313).FetchFlags([]string{FlagSeen}).FetchModSeq(624140003).Item(ItemRFC822Size).SP().Number(44827).FetchEnd()
		}},
		{`* 1 FETCH (FLAGS () INTERNALDATE "17-Jul-1996 02:44:25 -0700")`, func(e *Encoder) {
			e.FetchBegin(1).FetchFlags(nil).Item(ItemInternalDate).SP().DateTime(time.Date(1996, 7, 17, 2, 44, 25, 0, zone)).FetchEnd()
		}},
		{`* 1 FETCH (INTERNALDATE " 1-Jul-1996 02:44:25 +0000")`, func(e *Encoder) {
			e.FetchBegin(1).Item(ItemInternalDate).SP().DateTime(time.Date(1996, 7, 1, 2, 44, 25, 0, time.UTC)).FetchEnd()
		}},
		{"* 1 FETCH (BODY[1.2.HEADER.FIELDS (Date \"a b\")]<5> {3}\r\nab  UID 3)", func(e *Encoder) {
			item := FetchItem{Name: ItemSection, Section: Section{Part: []uint32{1, 2}, Text: "HEADER.FIELDS", Fields: []string{"Date", "a b"}}, HasPartial: true, Partial: Partial{5, 9}}
			e.FetchBegin(1).FetchSection(&item).SP().LiteralHeader(3)
			_ = e.CopyN(strings.NewReader("ab and more"), 3)
			e.FetchUID(3).FetchEnd()
		}},
		{"* 1 FETCH (BINARY[] ~{1}\r\n\x00 BINARY.SIZE[2] 3 BODY[TEXT] \"\")", func(e *Encoder) {
			e.FetchBegin(1).FetchSection(&FetchItem{Name: ItemBinary}).SP().Literal8Header(1).Byte(0)
			e.FetchSection(&FetchItem{Name: ItemBinarySize, Section: Section{Part: []uint32{2}}}).SP().Number(3)
			e.FetchSection(&FetchItem{Name: ItemSection, Section: Section{Text: "TEXT"}}).SP().Bytes([]byte{}).FetchEnd()
		}},
		{`* 1 FETCH (ENVELOPE (NIL "s" ((NIL "a")) x) UID 1)`, func(e *Encoder) {
			e.FetchBegin(1).Item(ItemEnvelope).Open().Item("NIL").SP().NString("s").Open().Open().NIL().SP().NBytes([]byte("a")).Close().Close().Item("x").Close().FetchUID(1).FetchEnd()
		}},
		{`* LIST (\Noselect) "/" ~/Mail/foo`, func(e *Encoder) { e.List(&Listing{Attrs: []string{`\Noselect`}, Delimiter: '/', Name: "~/Mail/foo"}) }},
		{`* LIST () NIL "" ("CHILDINFO" ("SUBSCRIBED") "OLDNAME" ("a b"))`, func(e *Encoder) {
			e.List(&Listing{ChildInfo: []string{"SUBSCRIBED"}, OldName: "a b"})
		}},
		{`* LIST () "\\" x ("OLDNAME" (y))`, func(e *Encoder) { e.List(&Listing{Delimiter: '\\', Name: "x", OldName: "y"}) }},
		{`* LSUB () "." #news.comp.mail.mime`, func(e *Encoder) { e.LSub(&Listing{Delimiter: '.', Name: "#news.comp.mail.mime"}) }},
		{"* STATUS blurdybloop (MESSAGES 231 UIDNEXT 44292 MAILBOXID (F1) APPENDLIMIT NIL)", func(e *Encoder) {
			e.StatusBegin("blurdybloop").StatusNumber(StatusMessages, 231).StatusNumber(StatusUIDNext, 44292).StatusID(StatusMailboxID, "F1").StatusNIL(StatusAppendLimit).StatusEnd()
		}},
		{"* SEARCH 2 3 6", func(e *Encoder) { e.Search(NumSetOf(2, 3, 6), 0) }},
		{"* SEARCH", func(e *Encoder) { e.Search(NumSet{}, 0) }},
		{"* SEARCH 2 5 6 7 (MODSEQ 917162500)", func(e *Encoder) { e.Search(set("2,5:7"), 917162500) }},
		{`* ESEARCH (TAG "A285") UID MIN 7 MAX 3800 ALL 7,9:10 COUNT 3 MODSEQ 12`, func(e *Encoder) {
			e.ESearch(&ESearch{Tag: "A285", UID: true, Min: 7, Max: 3800, All: set("7,9:10"), HasCount: true, Count: 3, ModSeq: 12})
		}},
		{`* ESEARCH (TAG "A283") COUNT 0`, func(e *Encoder) { e.ESearch(&ESearch{Tag: "A283", HasCount: true}) }},
		{`* NAMESPACE (("" "/")) NIL (("#shared/" "/")("#p&-" NIL))`, func(e *Encoder) {
			e.Namespaces([]Namespace{{"", '/'}}, nil, []Namespace{{"#shared/", '/'}, {"#p&", 0}})
		}},
		{`* ID ("name" "x" "version" NIL)`, func(e *Encoder) { e.ID([]IDField{{"name", "x"}, {"version", ""}}) }},
		{"* ID NIL", func(e *Encoder) { e.ID(nil) }},
	} {
		got := encoded(t, false, test.write)
		if got != test.want && got != test.want+"\r\n" {
			t.Errorf("got  %q\nwant %q", got, test.want)
		}
		if !strings.HasSuffix(got, "\r\n") {
			t.Errorf("%q does not end the line", got)
		}
	}
}

// writes counts how often, and how much at most, is written at once.
type writes struct {
	bytes.Buffer
	count, largest int
}

func (w *writes) Write(p []byte) (int, error) {
	w.count++
	w.largest = max(w.largest, len(p))
	return w.Buffer.Write(p)
}

func TestEncoderFlushes(t *testing.T) {
	t.Parallel()
	var out writes
	e := NewEncoder(&out)
	e.Exists(1)
	if out.count != 0 || e.Buffered() == 0 {
		t.Errorf("%d writes of a short response", out.count)
	}
	for i := range uint32(10_000) {
		e.Expunge(i)
	}
	if out.count == 0 || out.count > 10 || out.largest > 2*flushSize {
		t.Errorf("%d writes, of up to %d bytes", out.count, out.largest)
	}
	if err := e.Release(); err != nil || e.buf != nil || e.Buffered() != 0 {
		t.Errorf("Release: %v", err)
	}
	e.Exists(2)
	if err := e.Flush(); err != nil || !strings.HasSuffix(out.String(), "* 9999 EXPUNGE\r\n* 2 EXISTS\r\n") {
		t.Error("what came after Release is not there")
	}
}

func TestCopyN(t *testing.T) {
	t.Parallel()
	body := strings.Repeat("0123456789\r\n", 100_000)
	var out writes
	e := NewEncoder(&out)
	e.Raw("* 1 FETCH (BODY[] ").LiteralHeader(int64(len(body)))
	if err := e.CopyN(iotest.HalfReader(strings.NewReader(body)), int64(len(body))); err != nil {
		t.Fatal(err)
	}
	e.FetchEnd()
	if err := e.Flush(); err != nil {
		t.Fatal(err)
	}
	if want := "* 1 FETCH (BODY[] {1200000}\r\n" + body + ")\r\n"; out.String() != want {
		t.Error("the body is not what was copied")
	}
	if out.largest > 2*flushSize {
		t.Errorf("%d bytes were gathered", out.largest)
	}
	e.LiteralHeader(4)
	if err := e.CopyN(strings.NewReader("abc"), 4); !errors.Is(err, io.ErrUnexpectedEOF) || !errors.Is(e.Err(), io.ErrUnexpectedEOF) {
		t.Errorf("a short body: %v", err)
	}
	if !strings.HasSuffix(out.String(), "{4}\r\nabc") {
		t.Error("what there is of a short body was not sent")
	}
}

type brokenWriter struct{ err error }

func (w brokenWriter) Write([]byte) (int, error) { return 0, w.err }

func TestEncoderKeepsItsFirstError(t *testing.T) {
	t.Parallel()
	broken := errors.New("connection reset")
	e := NewEncoder(brokenWriter{broken})
	e.Exists(1)
	if err := e.Flush(); !errors.Is(err, broken) {
		t.Errorf("Flush: %v", err)
	}
	e.Exists(2)
	if err := e.Release(); !errors.Is(err, broken) || !errors.Is(e.Err(), broken) {
		t.Errorf("Release: %v", err)
	}
	var out bytes.Buffer
	_ = e.Reset(&out)
	e.Exists(3)
	if err := e.Flush(); err != nil || out.String() != "* 3 EXISTS\r\n" {
		t.Errorf("after Reset: %q, %v", out.String(), err)
	}
}
