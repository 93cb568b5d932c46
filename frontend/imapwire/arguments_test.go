package imapwire

import (
	"errors"
	"io"
	"reflect"
	"testing"
	"time"
)

func day(year int, month time.Month, day int) time.Time {
	return time.Date(year, month, day, 0, 0, 0, 0, time.UTC)
}

func and(keys ...SearchKey) SearchKey     { return SearchKey{Name: KeyAnd, Keys: keys} }
func key(name string) SearchKey           { return SearchKey{Name: name} }
func textKey(name, text string) SearchKey { return SearchKey{Name: name, Text: text} }

func set(s string) NumSet {
	d := newTestDecoder(s + "\r\n")
	if err := d.begin(); err != nil {
		panic(err)
	}
	return d.NumSet()
}

// numbered reads SP sequence-set SP, as most commands about messages begin.
func numbered(d *Decoder) NumSet {
	d.SP()
	s := d.NumSet()
	d.SP()
	return s
}

// commandExamples are the examples of the RFCs, with what they mean.
var commandExamples = []struct {
	input string
	parse func(*Decoder) any
	want  any
}{
	// RFC 9051 §6.4.5, RFC 3501 §6.4.5
	{"A654 FETCH 2:4 (FLAGS BODY[HEADER.FIELDS (DATE FROM)])", parseFetch, FetchArgs{Items: []FetchItem{
		{Name: ItemFlags},
		{Name: ItemSection, Section: Section{Text: "HEADER.FIELDS", Fields: []string{"DATE", "FROM"}}},
	}}},
	{"a FETCH 1 ALL", parseFetch, FetchArgs{Items: []FetchItem{{Name: ItemFlags}, {Name: ItemInternalDate}, {Name: ItemRFC822Size}, {Name: ItemEnvelope}}}},
	{"a FETCH 1 fast", parseFetch, FetchArgs{Items: []FetchItem{{Name: ItemFlags}, {Name: ItemInternalDate}, {Name: ItemRFC822Size}}}},
	{"a FETCH 1 full", parseFetch, FetchArgs{Items: []FetchItem{{Name: ItemFlags}, {Name: ItemInternalDate}, {Name: ItemRFC822Size}, {Name: ItemEnvelope}, {Name: ItemBody}}}},
	{"a FETCH 1 body", parseFetch, FetchArgs{Items: []FetchItem{{Name: ItemBody}}}},
	{"a FETCH 1 body[]", parseFetch, FetchArgs{Items: []FetchItem{{Name: ItemSection}}}},
	{"a FETCH 1 BODY.PEEK[4.2.2.1.MIME]<0.2048>", parseFetch, FetchArgs{Items: []FetchItem{{
		Name: ItemSection, Peek: true, Section: Section{Part: []uint32{4, 2, 2, 1}, Text: "MIME"}, Partial: Partial{0, 2048}, HasPartial: true,
	}}}},
	{"a FETCH 1 (BODY[1] BODY[3.HEADER] BODY[TEXT]<5.9223372036854775807>)", parseFetch, FetchArgs{Items: []FetchItem{
		{Name: ItemSection, Section: Section{Part: []uint32{1}}},
		{Name: ItemSection, Section: Section{Part: []uint32{3}, Text: "HEADER"}},
		{Name: ItemSection, Section: Section{Text: "TEXT"}, Partial: Partial{5, 9223372036854775807}, HasPartial: true},
	}}},
	{"a FETCH 1 BODY[4.HEADER.FIELDS.NOT (\"Subject\" {2}\r\nTo x)]", parseFetch, FetchArgs{Items: []FetchItem{
		{Name: ItemSection, Section: Section{Part: []uint32{4}, Text: "HEADER.FIELDS.NOT", Fields: []string{"Subject", "To", "x"}}},
	}}},
	{"a FETCH 1 (RFC822 RFC822.HEADER RFC822.TEXT RFC822.SIZE UID ENVELOPE INTERNALDATE BODYSTRUCTURE)", parseFetch, FetchArgs{Items: []FetchItem{
		{Name: ItemRFC822},
		{Name: ItemRFC822Header},
		{Name: ItemRFC822Text},
		{Name: ItemRFC822Size},
		{Name: ItemUID},
		{Name: ItemEnvelope},
		{Name: ItemInternalDate},
		{Name: ItemBodyStructure},
	}}},
	// RFC 3516 §4.2
	{"a FETCH 1 (BINARY[1.2] BINARY.PEEK[]<0.1> BINARY.SIZE[3])", parseFetch, FetchArgs{Items: []FetchItem{
		{Name: ItemBinary, Section: Section{Part: []uint32{1, 2}}},
		{Name: ItemBinary, Peek: true, Partial: Partial{0, 1}, HasPartial: true},
		{Name: ItemBinarySize, Section: Section{Part: []uint32{3}}},
	}}},
	// RFC 7162 §3.1.4.1, §3.2.6
	{"s100 UID FETCH 1:* (FLAGS) (CHANGEDSINCE 12345)", parseFetch, FetchArgs{Items: []FetchItem{{Name: ItemFlags}}, HasChangedSince: true, ChangedSince: 12345}},
	{"s100 UID FETCH 1:* (FLAGS) (CHANGEDSINCE 0)", parseFetch, FetchArgs{Items: []FetchItem{{Name: ItemFlags}}, HasChangedSince: true}},
	{"s101 UID FETCH 300:500 (FLAGS) (CHANGEDSINCE 12345 VANISHED)", parseFetch, FetchArgs{Items: []FetchItem{{Name: ItemFlags}}, HasChangedSince: true, ChangedSince: 12345, Vanished: true}},
	// RFC 8474 §5.1, RFC 8514 §4
	{"a FETCH 1:* (EMAILID THREADID MODSEQ SAVEDATE)", parseFetch, FetchArgs{Items: []FetchItem{{Name: ItemEmailID}, {Name: ItemThreadID}, {Name: ItemModSeq}, {Name: ItemSaveDate}}}},

	// RFC 9051 §6.4.6
	{`A003 STORE 2:4 +FLAGS (\Deleted)`, parseStore, StoreArgs{Op: StoreAdd, Flags: []string{FlagDeleted}}},
	{`a STORE 1 flags.silent ()`, parseStore, StoreArgs{Silent: true, Flags: []string{}}},
	{`a UID STORE 1 -FLAGS.SILENT \seen $Junk \X-Own`, parseStore, StoreArgs{Op: StoreRemove, Silent: true, Flags: []string{FlagSeen, "$Junk", `\X-Own`}}},
	// RFC 7162 §3.1.3
	{`a103 UID STORE 6,4,8 (UNCHANGEDSINCE 12121230045) +FLAGS.SILENT (\Deleted)`, parseStore, StoreArgs{Op: StoreAdd, Silent: true, Flags: []string{FlagDeleted}, HasUnchangedSince: true, UnchangedSince: 12121230045}},
	{`c101 STORE 50 (UNCHANGEDSINCE 0) -FLAGS.SILENT ($MDNSent)`, parseStore, StoreArgs{Op: StoreRemove, Silent: true, Flags: []string{"$MDNSent"}, HasUnchangedSince: true}},

	// RFC 9051 §6.4.4
	{`A282 SEARCH RETURN (MIN COUNT) FLAGGED SINCE 1-Feb-1994 NOT FROM "Smith"`, parseSearch, SearchArgs{
		Extended: true, Return: SearchReturn{Min: true, Count: true},
		Key: and(key("FLAGGED"), SearchKey{Name: "SINCE", Date: day(1994, time.February, 1)}, SearchKey{Name: "NOT", Keys: []SearchKey{textKey("FROM", "Smith")}}),
	}},
	{`A283 SEARCH RETURN () UNSEEN`, parseSearch, SearchArgs{Extended: true, Return: SearchReturn{All: true}, Key: and(key("UNSEEN"))}},
	{"A285 SEARCH CHARSET UTF-8 TEXT {12}\r\nпривет", parseSearch, SearchArgs{Charset: "UTF-8", Key: and(textKey("TEXT", "привет"))}},
	{`a SEARCH OR (1:3 $) (NOT UID 7:*) HEADER Message-ID ""`, parseSearch, SearchArgs{Key: and(
		SearchKey{Name: "OR", Keys: []SearchKey{
			and(SearchKey{Name: KeySet, Set: set("1:3")}, SearchKey{Name: KeySet, Set: set("$")}),
			and(SearchKey{Name: "NOT", Keys: []SearchKey{{Name: "UID", Set: set("7:*")}}}),
		}},
		SearchKey{Name: "HEADER", Field: "Message-ID"},
	)}},
	{`a UID SEARCH keyword $Forwarded UNKEYWORD x larger 9 smaller 10 SENTON "02-Mar-2020"`, parseSearch, SearchArgs{Key: and(
		textKey("KEYWORD", "$Forwarded"), textKey("UNKEYWORD", "x"),
		SearchKey{Name: "LARGER", Number: 9}, SearchKey{Name: "SMALLER", Number: 10},
		SearchKey{Name: "SENTON", Date: day(2020, time.March, 2)},
	)}},
	// RFC 5182 §3.1
	{`A300 SEARCH RETURN (SAVE) SINCE 1-Jan-2004 NOT FROM "Smith"`, parseSearch, SearchArgs{
		Extended: true, Return: SearchReturn{Save: true},
		Key: and(SearchKey{Name: "SINCE", Date: day(2004, time.January, 1)}, SearchKey{Name: "NOT", Keys: []SearchKey{textKey("FROM", "Smith")}}),
	}},
	{`A301 UID SEARCH UID $ SMALLER 4096`, parseSearch, SearchArgs{Key: and(SearchKey{Name: "UID", Set: NumSet{Saved: true}}, SearchKey{Name: "SMALLER", Number: 4096})}},
	// RFC 5032 §5
	{`a1 SEARCH UNSEEN YOUNGER 259200 OLDER 1`, parseSearch, SearchArgs{Key: and(key("UNSEEN"), SearchKey{Name: "YOUNGER", Number: 259200}, SearchKey{Name: "OLDER", Number: 1})}},
	// RFC 7162 §3.1.5
	{`a SEARCH MODSEQ "/flags/\\draft" all 620162338`, parseSearch, SearchArgs{Key: and(SearchKey{Name: "MODSEQ", Entry: `/flags/\draft`, EntryType: "all", Number: 620162338})}},
	{`t SEARCH OR NOT MODSEQ 720162338 LARGER 50000`, parseSearch, SearchArgs{Key: and(SearchKey{Name: "OR", Keys: []SearchKey{
		{Name: "NOT", Keys: []SearchKey{{Name: "MODSEQ", Number: 720162338}}}, {Name: "LARGER", Number: 50000},
	}})}},
	// RFC 8474 §6, RFC 8514 §4, RFC 3501 §6.4.4
	{`27 SEARCH EMAILID M6d99ac3275bb4e THREADID T64b478a75b7ea9`, parseSearch, SearchArgs{Key: and(textKey("EMAILID", "M6d99ac3275bb4e"), textKey("THREADID", "T64b478a75b7ea9"))}},
	{`a SEARCH SAVEDATESUPPORTED SAVEDON 5-Nov-2013 SAVEDBEFORE 1-Jan-2014 SAVEDSINCE 1-Jan-2013`, parseSearch, SearchArgs{Key: and(
		key("SAVEDATESUPPORTED"), SearchKey{Name: "SAVEDON", Date: day(2013, time.November, 5)},
		SearchKey{Name: "SAVEDBEFORE", Date: day(2014, time.January, 1)}, SearchKey{Name: "SAVEDSINCE", Date: day(2013, time.January, 1)},
	)}},
	{`a SEARCH new old recent`, parseSearch, SearchArgs{Key: and(key("NEW"), key("OLD"), key("RECENT"))}},

	// RFC 9051 §6.3.9, RFC 5258 §5, RFC 5819 §4, RFC 6154 §5.2
	{`A101 LIST "" ""`, parseList, ListArgs{Patterns: []string{""}}},
	{`A202 LIST ~/Mail/ %`, parseList, ListArgs{Reference: "~/Mail/", Patterns: []string{"%"}}},
	{`A02 LIST (SUBSCRIBED) "" "*"`, parseList, ListArgs{Extended: true, Select: ListSelect{Subscribed: true}, Patterns: []string{"*"}}},
	{`A04 LIST (REMOTE) "" "%" RETURN (SUBSCRIBED CHILDREN)`, parseList, ListArgs{Extended: true, Select: ListSelect{Remote: true}, Patterns: []string{"%"}, Return: ListReturn{Subscribed: true, Children: true}}},
	{`BBB LIST "" ("INBOX" "Drafts" Sent/%)`, parseList, ListArgs{Extended: true, Patterns: []string{"INBOX", "Drafts", "Sent/%"}}},
	{`C03 LIST (SUBSCRIBED RECURSIVEMATCH) "" "%"`, parseList, ListArgs{Extended: true, Select: ListSelect{Subscribed: true, RecursiveMatch: true}, Patterns: []string{"%"}}},
	{`A01 LIST "" % RETURN (STATUS (MESSAGES UNSEEN))`, parseList, ListArgs{Extended: true, Patterns: []string{"%"}, Return: ListReturn{Status: []string{StatusMessages, StatusUnseen}}}},
	{`t3 LIST (SPECIAL-USE) "" "*" RETURN (SPECIAL-USE)`, parseList, ListArgs{Extended: true, Select: ListSelect{SpecialUse: true}, Patterns: []string{"*"}, Return: ListReturn{SpecialUse: true}}},
	{`a LIST () "" &AOk-* RETURN ()`, parseList, ListArgs{Extended: true, Patterns: []string{"é*"}}},
	{`A002 LSUB "news." "comp.mail.*"`, func(d *Decoder) any { r, p := d.LSubArgs(); return [2]string{r, p} }, [2]string{"news.", "comp.mail.*"}},

	// RFC 9051 §6.3.11, RFC 8438 §3, RFC 8474 §4.3, RFC 9208 §5.1
	{`A042 STATUS blurdybloop (UIDNEXT MESSAGES size MAILBOXID HIGHESTMODSEQ DELETED-STORAGE)`, parseStatus, []string{StatusUIDNext, StatusMessages, StatusSize, StatusMailboxID, StatusHighestModSeq, StatusDeletedStorage}},

	// RFC 7162 §3.1.8, §3.2.5
	{`A142 SELECT INBOX`, parseSelect, SelectParams{}},
	{`A142 SELECT INBOX (CONDSTORE)`, parseSelect, SelectParams{CondStore: true}},
	{`A02 SELECT INBOX (QRESYNC (67890007 20050715194045000 41,43:211,214:541))`, parseSelect, SelectParams{QResync: &QResync{UIDValidity: 67890007, ModSeq: 20050715194045000, KnownUIDs: set("41,43:211,214:541")}}},
	{`A02 SELECT INBOX (QRESYNC (67890007 0))`, parseSelect, SelectParams{QResync: &QResync{UIDValidity: 67890007}}},
	{`B04 SELECT INBOX (QRESYNC (67890007 90060115194045000 41:211,214:541 (1,3 5,8)))`, parseSelect, SelectParams{QResync: &QResync{UIDValidity: 67890007, ModSeq: 90060115194045000, KnownUIDs: set("41:211,214:541"), SeqMatch: true, SeqNums: set("1,3"), SeqUIDs: set("5,8")}}},
	{`B05 SELECT INBOX (QRESYNC (67890007 90060115194045000 (1 5)) CONDSTORE)`, parseSelect, SelectParams{CondStore: true, QResync: &QResync{UIDValidity: 67890007, ModSeq: 90060115194045000, SeqMatch: true, SeqNums: set("1"), SeqUIDs: set("5")}}},
	// RFC 6154 §5.3
	{`t2 CREATE Everything (USE (\All \Sent))`, parseCreate, CreateParams{Use: []string{`\All`, `\Sent`}}},
	{`t2 CREATE Everything`, parseCreate, CreateParams{}},

	// RFC 2971 §3.1, RFC 5161 §3.1, RFC 4959 §5
	{`a023 ID ("name" "sodr" "version" "19.34" "vendor" NIL)`, func(d *Decoder) any { return d.ID() }, []IDField{{"name", "sodr"}, {"version", "19.34"}, {"vendor", ""}}},
	{`a042 ID nil`, func(d *Decoder) any { return d.ID() }, []IDField(nil)},
	{`t1 ENABLE CONDSTORE x-good-idea`, func(d *Decoder) any { return d.Enable() }, []string{"CONDSTORE", "X-GOOD-IDEA"}},
	{`C01 AUTHENTICATE plain dGVzdAB0ZXN0AHRlc3Q=`, parseAuth, [2]any{"PLAIN", []byte("test\x00test\x00test")}},
	{`C01 AUTHENTICATE EXTERNAL =`, parseAuth, [2]any{"EXTERNAL", []byte{}}},
	{`C01 AUTHENTICATE LOGIN`, parseAuth, [2]any{"LOGIN", []byte(nil)}},
}

func parseFetch(d *Decoder) any  { numbered(d); return d.FetchArgs() }
func parseStore(d *Decoder) any  { numbered(d); return d.StoreArgs() }
func parseSearch(d *Decoder) any { return d.SearchArgs() }
func parseList(d *Decoder) any   { return d.ListArgs() }

func parseStatus(d *Decoder) any {
	d.SP()
	d.Mailbox()
	d.SP()
	return d.StatusItems()
}

func parseSelect(d *Decoder) any {
	d.SP()
	d.Mailbox()
	return d.SelectParams()
}

func parseCreate(d *Decoder) any {
	d.SP()
	d.Mailbox()
	return d.CreateParams()
}

func parseAuth(d *Decoder) any {
	mechanism, initial := d.SASLMechanism()
	return [2]any{mechanism, initial}
}

func TestCommandExamples(t *testing.T) {
	t.Parallel()
	for _, test := range commandExamples {
		bothWays(t, test.input+"\r\n", func(t *testing.T, d *Decoder) {
			if _, _, err := d.Command(); err != nil {
				t.Fatalf("%s: %v", test.input, err)
			}
			got := test.parse(d)
			if err := d.End(); err != nil {
				t.Fatalf("%s: %v", test.input, err)
			}
			if !reflect.DeepEqual(got, test.want) {
				t.Errorf("%s:\n got %+v\nwant %+v", test.input, got, test.want)
			}
		})
	}
}

func TestCommandErrors(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		input string
		parse func(*Decoder) any
	}{
		{"a FETCH 1", parseFetch},
		{"a FETCH 1 ()", parseFetch},
		{"a FETCH 1 (ALL)", parseFetch},
		{"a FETCH 1 (FLAGS", parseFetch},
		{"a FETCH 1 FLAGS UID", parseFetch},
		{"a FETCH 1 NONSENSE", parseFetch},
		{"a FETCH 1 BODY[", parseFetch},
		{"a FETCH 1 BODY[MIME]", parseFetch},
		{"a FETCH 1 BODY[1.]", parseFetch},
		{"a FETCH 1 BODY[0]", parseFetch},
		{"a FETCH 1 BODY[1TEXT]", parseFetch},
		{"a FETCH 1 BODY[HEADER.FIELDS]", parseFetch},
		{"a FETCH 1 BODY[HEADER.FIELDS ()]", parseFetch},
		{"a FETCH 1 BODY[TEXT", parseFetch},
		{"a FETCH 1 BODY[]<1>", parseFetch},
		{"a FETCH 1 BODY[]<1.0>", parseFetch},
		{"a FETCH 1 BODY.PEEK", parseFetch},
		{"a FETCH 1 BINARY", parseFetch},
		{"a FETCH 1 BINARY[TEXT]", parseFetch},
		{"a FETCH 1 BINARY.SIZE[1]<0.1>", parseFetch},
		{"a FETCH 1 FLAGS (CHANGEDSINCE)", parseFetch},
		{"a FETCH 1 FLAGS (NONSENSE)", parseFetch},
		{"a FETCH 1 FLAGS ()", parseFetch},
		{"a STORE 1 FLAGS", parseStore},
		{`a STORE 1 FLAGS \`, parseStore},
		{`a STORE 1 FLAGS (\*)`, parseStore},
		{"a STORE 1 *FLAGS x", parseStore},
		{"a STORE 1 (UNCHANGEDSINCE) FLAGS x", parseStore},
		{"a STORE 1 (X 1) FLAGS x", parseStore},
		{"a SEARCH", parseSearch},
		{"a SEARCH ", parseSearch},
		{"a SEARCH ()", parseSearch},
		{"a SEARCH NOT", parseSearch},
		{"a SEARCH OR ALL", parseSearch},
		{"a SEARCH SINCE 31-Feb-2020", parseSearch},
		{"a SEARCH SINCE 1-Foo-2020", parseSearch},
		{`a SEARCH SINCE "1-Feb-2020`, parseSearch},
		{"a SEARCH OLDER 0", parseSearch},
		{"a SEARCH NONSENSE", parseSearch},
		{"a SEARCH RETURN ALL", parseSearch},
		{"a SEARCH RETURN (X) ALL", parseSearch},
		{"a SEARCH RETURN (ALL)", parseSearch},
		{`a SEARCH MODSEQ "/flags/x" both 1`, parseSearch},
		{`a LIST ""`, parseList},
		{`a LIST "" ()`, parseList},
		{`a LIST "" * STATUS`, parseList},
		{`a LIST "" * RETURN`, parseList},
		{`a LIST "" * RETURN (X)`, parseList},
		{`a LIST (X) "" *`, parseList},
		{`a LIST (RECURSIVEMATCH) "" *`, parseList},
		{`a LIST (RECURSIVEMATCH REMOTE) "" *`, parseList},
		{"a STATUS x ()", parseStatus},
		{"a STATUS x (NONSENSE)", parseStatus},
		{"a SELECT x ()", parseSelect},
		{"a SELECT x (X)", parseSelect},
		{"a SELECT x (QRESYNC)", parseSelect},
		{"a SELECT x (QRESYNC (0 1))", parseSelect},
		{"a SELECT x (QRESYNC (1 1 1:*))", parseSelect},
		{"a SELECT x (QRESYNC (1 1 1:2 (1:2 3)))", parseSelect},
		{"a CREATE x (USE \\All)", parseCreate},
		{"a CREATE x (USE (All))", parseCreate},
		{"a AUTHENTICATE PLAIN ", parseAuth},
		{"a AUTHENTICATE PLAIN AAA", parseAuth},
		{"a ID", func(d *Decoder) any { return d.ID() }},
		{`a ID ("a")`, func(d *Decoder) any { return d.ID() }},
		{"a ENABLE", func(d *Decoder) any { return d.Enable() }},
	} {
		d := newTestDecoder(test.input + "\r\nb NOOP\r\n")
		if _, _, err := d.Command(); err != nil {
			t.Fatalf("%s: %v", test.input, err)
		}
		got := test.parse(d)
		var syntax *SyntaxError
		if err := d.End(); !errors.As(err, &syntax) {
			t.Errorf("%s = %+v, %v", test.input, got, err)
		}
		if tag, _, err := d.Command(); tag != "b" || err != nil {
			t.Errorf("%s: then %q %v", test.input, tag, err)
		}
	}
}

func TestAppend(t *testing.T) {
	t.Parallel()
	date := time.Date(1994, time.February, 7, 21, 52, 25, 0, time.FixedZone("", -8*3600))
	for _, test := range []struct {
		input, body string
		want        AppendMessage
	}{
		{"a APPEND x {3}\r\na\r\n", "a\r\n", AppendMessage{Literal: Literal{Size: 3}}},
		{"a APPEND x (\\Seen) {0+}\r\n", "", AppendMessage{Flags: []string{FlagSeen}, Literal: Literal{NonSync: true}}},
		{"a APPEND x () \" 7-Feb-1994 21:52:25 -0800\" ~{2}\r\n\x00\x01", "\x00\x01", AppendMessage{Flags: []string{}, Date: date, Literal: Literal{Size: 2, Binary: true}}},
		{"a APPEND x \"07-Feb-1994 21:52:25 -0800\" UTF8 (~{2+}\r\n\xc3\xbc)", "ü", AppendMessage{Date: date, UTF8: true, Literal: Literal{Size: 2, Binary: true, NonSync: true}}},
	} {
		bothWays(t, test.input+"\r\n", func(t *testing.T, d *Decoder) {
			if _, _, err := d.Command(); err != nil {
				t.Fatal(err)
			}
			d.SP()
			d.Mailbox()
			m := d.AppendMessage()
			if !m.Date.Equal(test.want.Date) {
				t.Errorf("date = %v", m.Date)
			}
			m.Date = test.want.Date
			if !reflect.DeepEqual(m, test.want) {
				t.Errorf("%+v, want %+v", m, test.want)
			}
			r, err := d.OpenLiteral()
			if err != nil {
				t.Fatal(err)
			}
			if body, err := io.ReadAll(r); string(body) != test.body || err != nil {
				t.Errorf("body = %q, %v", body, err)
			}
			d.AppendMessageEnd(m)
			if err := d.End(); err != nil {
				t.Error(err)
			}
		})
	}
	for _, input := range []string{
		"a APPEND x y", "a APPEND x (\\Seen {1}", "a APPEND x \"7-Feb-1994\" {1}", "a APPEND x UTF9 (~{1}", "a APPEND x UTF8 ({1}",
		"a APPEND x \" 1-Jan-0000 00:59:59 +0100\" {1}", "a APPEND x \"31-Dec-9999 23:00:00 -0100\" {1}",
		"a APPEND x \"07-Feb-1994 24:52:25 -0800\" {1}", "a APPEND x \"07-Feb-1994 21:52:25 0800\" {1}", "a APPEND x \"07-Feb-1994 21:52:25 +0860\" {1}",
	} {
		d := newTestDecoder(input + "\r\n")
		if _, _, err := d.Command(); err != nil {
			t.Fatal(err)
		}
		d.SP()
		d.Mailbox()
		if m := d.AppendMessage(); d.Err() == nil {
			t.Errorf("%s = %+v", input, m)
		}
	}
}

// TestLinesThatAnswer reads what answers continuation requests.
func TestLinesThatAnswer(t *testing.T) {
	t.Parallel()
	bothWays(t, "a AUTHENTICATE X\r\nYWJj\r\n\r\n*\r\nb IDLE\r\ndone\r\nc IDLE\r\nNOOP\r\nd NOOP\r\n", func(t *testing.T, d *Decoder) {
		if err := outcome(d, func(d *Decoder) { d.SASLMechanism() }); err != nil {
			t.Fatal(err)
		}
		if r, cancelled, err := d.SASLResponse(); string(r) != "abc" || cancelled || err != nil || d.Tag() != "a" {
			t.Errorf("response = %q %v %v, tag %q", r, cancelled, err, d.Tag())
		}
		if r, cancelled, err := d.SASLResponse(); len(r) != 0 || cancelled || err != nil {
			t.Errorf("empty response = %q %v %v", r, cancelled, err)
		}
		if _, cancelled, err := d.SASLResponse(); !cancelled || err != nil {
			t.Errorf("cancelled = %v %v", cancelled, err)
		}
		if err := outcome(d, nil); err != nil {
			t.Fatal(err)
		}
		if err := d.Done(); err != nil || d.Tag() != "b" {
			t.Errorf("Done: %v, tag %q", err, d.Tag())
		}
		if err := outcome(d, nil); err != nil {
			t.Fatal(err)
		}
		if err := d.Done(); err == nil || d.Tag() != "c" {
			t.Errorf("Done of NOOP: %v, tag %q", err, d.Tag())
		}
		if err := outcome(d, nil); err != nil || d.Tag() != "d" {
			t.Errorf("after IDLE: %v, tag %q", err, d.Tag())
		}
	})
}
