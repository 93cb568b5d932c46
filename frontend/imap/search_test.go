package imap

import (
	"bytes"
	"errors"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"starling/frontend/imapwire"
	mail "starling/frontend/message"
	"starling/metadata"
)

// Kleene's logic over a tree, for all values of its leaves.
func TestSearchNode(t *testing.T) {
	t.Parallel()
	leaf := func(v verdict) searchNode {
		return searchNode{match: func(*candidate) verdict { return v }}
	}
	values := []verdict{no, unknown, yes}
	for _, a := range values {
		if got := (&searchNode{kind: noneOf, kids: []searchNode{leaf(a)}}).eval(nil); got != -a {
			t.Errorf("NOT %d is %d", a, got)
		}
		for _, b := range values {
			kids := []searchNode{leaf(a), leaf(b)}
			if got := (&searchNode{kind: allOf, kids: kids}).eval(nil); got != min(a, b) {
				t.Errorf("%d and %d is %d", a, b, got)
			}
			if got := (&searchNode{kind: anyOf, kids: kids}).eval(nil); got != max(a, b) {
				t.Errorf("%d or %d is %d", a, b, got)
			}
		}
	}
}

// The cheapest keys are asked first, and what they decide asks no others.
func TestSearchNodeOrder(t *testing.T) {
	t.Parallel()
	p := &searchPlan{decode: func(s string) ([]byte, error) { return []byte(s), nil }}
	n, err := p.node(&imapwire.SearchKey{Name: imapwire.KeyAnd, Keys: []imapwire.SearchKey{
		{Name: "BODY", Text: "x"}, {Name: "LARGER"}, {Name: "SENTON"}, {Name: "SEEN"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	var needs []metadata.Columns
	for _, kid := range n.kids {
		needs = append(needs, kid.needs)
	}
	if want := []metadata.Columns{0, metadata.ColSize, metadata.ColSummary, needsText}; !slices.Equal(needs, want) {
		t.Errorf("order is %v, want %v", needs, want)
	}
	if got := n.eval(&candidate{}); got != no {
		t.Errorf("not seen: %d, want no", got)
	}
	seen := candidate{message: message{slot: metadata.Slot{Flags: metadata.Seen, ModSeq: 1}}}
	if got := n.eval(&seen); got != unknown {
		t.Errorf("seen: %d, want unknown", got)
	}
}

// Every key that the decoder knows has a row, and needs what its row says.
func TestSearchKeyTable(t *testing.T) {
	t.Parallel()
	for name := range searchKeys {
		text := map[string]string{
			imapwire.KeySet: "1", "UID": "UID 1", "KEYWORD": "KEYWORD x", "UNKEYWORD": "UNKEYWORD x", "MODSEQ": "MODSEQ 1",
			"HEADER": "HEADER a b", "LARGER": "LARGER 1", "SMALLER": "SMALLER 1", "OLDER": "OLDER 1", "YOUNGER": "YOUNGER 1",
		}[name]
		if text == "" {
			text = name
			switch {
			case strings.HasSuffix(name, "BEFORE"), strings.HasSuffix(name, "SINCE"), strings.HasSuffix(name, "ON"):
				text += " 1-Jan-2024"
			case searchKeys[name].needs&^(metadata.ColDates|metadata.ColSize) != 0:
				text += " x"
			}
		}
		d := imapwire.NewDecoder(strings.NewReader("a SEARCH "+text+"\r\n"), imapwire.Limits{})
		if _, _, err := d.Command(); err != nil {
			t.Fatal(err)
		}
		args := d.SearchArgs()
		if err := d.End(); err != nil {
			t.Errorf("%s: %v", text, err)
		} else if got := args.Key.Keys[0].Name; got != name {
			t.Errorf("%s is read as %s", text, got)
		}
	}
}

// wireCandidate is a message with all that can be known without its bytes.
func wireCandidate(t testing.TB, text string, row metadata.Message) (*candidate, string) {
	t.Helper()
	text = strings.ReplaceAll(text, "\n", "\r\n")
	p := mail.NewParser()
	if _, err := p.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	summary := p.Close()
	row.Size = int64(len(text))
	return &candidate{message: message{seq: 1, uid: 1}, row: &row, summary: summary}, text
}

func keyPlan(t testing.TB, keys ...imapwire.SearchKey) *searchPlan {
	t.Helper()
	p := &searchPlan{now: time.Date(2024, 2, 2, 12, 0, 0, 0, time.UTC)}
	var err error
	if p.decode, err = newTextDecoder(""); err != nil {
		t.Fatal(err)
	}
	if p.root, err = p.node(&imapwire.SearchKey{Name: imapwire.KeyAnd, Keys: keys}); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestWithin(t *testing.T) {
	t.Parallel()
	for age, want := range map[time.Duration]struct{ older, younger verdict }{
		59 * time.Minute: {no, yes},
		time.Hour:        {yes, yes},
		61 * time.Minute: {yes, no},
		-time.Hour:       {no, yes}, // a date in the future
	} {
		older, younger := keyPlan(t, imapwire.SearchKey{Name: "OLDER", Number: 3600}), keyPlan(t, imapwire.SearchKey{Name: "YOUNGER", Number: 3600})
		c := &candidate{}
		if older.root.eval(c) != unknown || younger.root.eval(c) != unknown {
			t.Error("decided without a row")
		}
		c.row = &metadata.Message{InternalDate: older.now.Add(-age)}
		if got := older.root.eval(c); got != want.older {
			t.Errorf("OLDER 3600 of %s: %d", age, got)
		}
		if got := younger.root.eval(c); got != want.younger {
			t.Errorf("YOUNGER 3600 of %s: %d", age, got)
		}
	}
}

// A day is compared without time and zone (RFC 9051 §6.4.4).
func TestDays(t *testing.T) {
	t.Parallel()
	key := time.Date(2024, 2, 29, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		date              string
		before, on, since verdict
	}{
		{"Wed, 28 Feb 2024 23:59:59 -1200", yes, no, no},
		{"Thu, 29 Feb 2024 00:00:00 +1400", no, yes, yes},
		{"Thu, 29 Feb 2024 23:59:59 -1200", no, yes, yes},
		{"Fri, 1 Mar 2024 00:00:00 +1400", no, no, yes},
		{"1 Jan 1969 00:00:00 +0000", yes, no, no},
		{"no date", no, no, no},
	} {
		m, _ := wireCandidate(t, "Date: "+c.date+"\n\n", metadata.Message{})
		for name, want := range map[string]verdict{"SENTBEFORE": c.before, "SENTON": c.on, "SENTSINCE": c.since} {
			if got := keyPlan(t, imapwire.SearchKey{Name: name, Date: key}).root.eval(m); got != want {
				t.Errorf("%s of %q: %d, want %d", name, c.date, got, want)
			}
		}
	}
}

func TestIDKeys(t *testing.T) {
	t.Parallel()
	c := &candidate{row: &metadata.Message{EmailID: 1234567, ThreadID: 89}}
	for _, q := range []struct {
		name, id string
		want     verdict
	}{
		{"EMAILID", emailID(1234567), yes},
		{"EMAILID", strings.ToUpper(emailID(1234567)), no}, // identifiers are compared as they are
		{"EMAILID", threadID(1234567), no},
		{"EMAILID", "", no},
		{"EMAILID", "M", no},
		{"EMAILID", "M+" + emailID(1234567)[1:], no},
		{"THREADID", threadID(89), yes},
		{"THREADID", threadID(88), no},
	} {
		if got := keyPlan(t, imapwire.SearchKey{Name: q.name, Text: q.id}).root.eval(c); got != q.want {
			t.Errorf("%s %q: %d, want %d", q.name, q.id, got, q.want)
		}
	}
}

// A field that the summary did not keep whole is looked for in the header itself.
func TestFieldKeysReadWhatIsNotKept(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x@example.com, ", 6000) + "needle@example.com"
	c, text := wireCandidate(t, "Subject: here\nTo: "+strings.ReplaceAll(long, ", ", ",\n ")+"\nX-Own: =?utf-8?q?gr=C3=BC=C3=9Fe?=\n\nbody\n", metadata.Message{})
	for _, q := range []struct {
		key    imapwire.SearchKey
		first  verdict // from the summary
		second verdict // from the header
	}{
		{imapwire.SearchKey{Name: "SUBJECT", Text: "HERE"}, yes, yes},
		{imapwire.SearchKey{Name: "SUBJECT", Text: "gone"}, no, no},
		{imapwire.SearchKey{Name: "TO", Text: "needle@"}, unknown, yes},
		{imapwire.SearchKey{Name: "HEADER", Field: "x-own", Text: "GRÜSSE"}, unknown, no}, // case, not spelling
		{imapwire.SearchKey{Name: "HEADER", Field: "x-own", Text: "GRÜßE"}, unknown, yes},
		{imapwire.SearchKey{Name: "HEADER", Field: "X-Other", Text: ""}, unknown, no},
	} {
		c.header = nil
		p := keyPlan(t, q.key)
		if got := p.root.eval(c); got != q.first {
			t.Errorf("%+v: %d by the summary, want %d", q.key, got, q.first)
		}
		if got, err := p.evalBytes(strings.NewReader(text), c); err != nil || got != q.second {
			t.Errorf("%+v: %d, %v by the header, want %d", q.key, got, err, q.second)
		}
	}
}

func TestTextDecoder(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ charset, in, want string }{
		{"", "gr\u00fcn", "grün"},
		{"", "gr\xfcn", "gr\xfcn"},
		{"utf-8", "gr\u00fcn", "grün"},
		{"ISO-8859-1", "gr\xfcn", "grün"},
		{"koi8-r", "\xc4\xc1", "да"},
		{"ISO-2022-JP", "\x1b$B4A\x1b(B", "漢"},
		{"windows-1252", "\x80", "€"},
	} {
		decode, err := newTextDecoder(c.charset)
		if err != nil {
			t.Errorf("%s: %v", c.charset, err)
			continue
		}
		if got, err := decode(c.in); err != nil || string(got) != c.want {
			t.Errorf("%s: %q became %q, %v; want %q", c.charset, c.in, got, err, c.want)
		}
	}
	for _, charset := range []string{"X-Martian", "replacement", "ISO-2022-CN", "\x00"} {
		if _, err := newTextDecoder(charset); !errors.Is(err, errCharset) {
			t.Errorf("%q: %v, want BADCHARSET", charset, err)
		}
	}
}

func TestEnds(t *testing.T) {
	t.Parallel()
	both := imapwire.SearchReturn{Min: true, Max: true}
	for _, c := range []struct {
		ret        imapwire.SearchReturn
		uids, want []uint32
	}{
		{imapwire.SearchReturn{Min: true}, []uint32{3, 5, 7}, []uint32{3}},
		{imapwire.SearchReturn{Max: true}, []uint32{3, 5, 7}, []uint32{7}},
		{both, []uint32{3, 5, 7}, []uint32{3, 7}},
		{both, []uint32{3}, []uint32{3}},
	} {
		if got := ends(c.uids, c.ret); !slices.Equal(got, c.want) {
			t.Errorf("%+v of %v: %v, want %v", c.ret, c.uids, got, c.want)
		}
	}
}

func BenchmarkSearchSlots(b *testing.B) {
	p := keyPlan(b, imapwire.SearchKey{Name: "UNSEEN"}, imapwire.SearchKey{Name: "NOT", Keys: []imapwire.SearchKey{{Name: "DELETED"}}})
	c := candidate{message: message{slot: metadata.Slot{ModSeq: 1}}}
	for b.Loop() {
		p.root.eval(&c)
	}
}

func BenchmarkSearchSubject(b *testing.B) {
	c, _ := wireCandidate(b, searchMails[1].text, metadata.Message{})
	p := keyPlan(b, imapwire.SearchKey{Name: "SUBJECT", Text: "aus Köln"}, imapwire.SearchKey{Name: "FROM", Text: "jürgen"})
	if p.root.eval(c) != yes {
		b.Fatal("not found")
	}
	b.ReportAllocs()
	for b.Loop() {
		p.root.eval(c)
	}
}

func BenchmarkSearchBody(b *testing.B) {
	c, text := wireCandidate(b, searchMails[0].text+strings.Repeat("Nothing of the kind that is looked for.\n", 500), metadata.Message{})
	p := keyPlan(b, imapwire.SearchKey{Name: "BODY", Text: "needle"})
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		c.read = false
		if v, err := p.evalBytes(strings.NewReader(text), c); err != nil || v != no {
			b.Fatal(v, err)
		}
	}
}

// Of every real mail: what stands in a kept field is found by the summary as by the header
// itself, and what stands in its text is found in it.
func TestSearchOfCorpus(t *testing.T) {
	t.Parallel()
	for _, file := range corpus(t) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		parser := mail.NewParser()
		if _, err := parser.Write(text); err != nil {
			t.Fatal(err)
		}
		c := &candidate{message: message{seq: 1, uid: 1}, row: &metadata.Message{}, summary: parser.Close()}
		top := &c.summary.Parts[0]
		header := text[top.HeaderStart:top.BodyStart]
		for name, value := range mail.Fields(header) {
			needle := pieceOf(string(mail.AppendDecoded(nil, value)))
			key := imapwire.SearchKey{Name: "HEADER", Field: string(name), Text: needle}
			kept := keyPlan(t, key).root.eval(c)
			if want := yesIf(c.summary.Complete(name)); kept == no || want == yes && kept != yes {
				t.Errorf("%s: %q in %s: %d by the summary", file, needle, name, kept)
			}
			for _, key := range []imapwire.SearchKey{key, {Name: "TEXT", Text: needle}} {
				found := *c
				if v, err := keyPlan(t, key).evalBytes(bytes.NewReader(text), &found); err != nil || v != yes {
					t.Errorf("%s: %s %q of %s: %d, %v", file, key.Name, needle, name, v, err)
				}
			}
		}
		if p := keyPlan(t, imapwire.SearchKey{Name: "TEXT", Text: "no mail has this in it\U0001F9ED"}); p != nil {
			if v, err := p.evalBytes(bytes.NewReader(text), c); err != nil || v != no {
				t.Errorf("%s: found what is not there: %d, %v", file, v, err)
			}
		}
	}
}

// pieceOf is a piece from the middle of text, in capitals if it is ASCII.
func pieceOf(text string) string {
	runes := []rune(text)
	if !utf8.ValidString(text) || len(runes) < 6 {
		return text
	}
	piece := string(runes[len(runes)/3 : min(len(runes)/3+20, len(runes))])
	if strings.IndexFunc(piece, func(r rune) bool { return r >= utf8.RuneSelf }) < 0 {
		piece = strings.ToUpper(piece)
	}
	return piece
}

// What SEARCH saved may be as long as the mailbox, and each of many keys may name it: it is not copied for each.
func TestSearchSharesWhatWasSaved(t *testing.T) { //nolint:paralleltest // it measures what the process allocates
	const messages, keys = 30_000, 450
	v := viewOf(3*messages, nil, byUIDs)
	for uid := uint32(1); uid < 3*messages; uid += 3 {
		v.saved.Add(uid)
	}
	args := imapwire.SearchArgs{Key: imapwire.SearchKey{Name: imapwire.KeyAnd}}
	for i := range keys {
		set := imapwire.NumSetOf(uint32(2 + 3*i)) //nolint:gosec // small
		set.Saved = true
		args.Key.Keys = append(args.Key.Keys, imapwire.SearchKey{Name: imapwire.KeySet, Set: set}, imapwire.SearchKey{Name: "UID", Set: imapwire.NumSet{Saved: true}})
	}
	var was, is runtime.MemStats
	runtime.ReadMemStats(&was)
	plan, err := newSearchPlan(v, &args, time.Now())
	runtime.ReadMemStats(&is)
	if err != nil {
		t.Fatal(err)
	}
	if took := is.TotalAlloc - was.TotalAlloc; took > 4<<20 {
		t.Errorf("%d keys took %d octets", len(args.Key.Keys), took)
	}
	r := search{searchPlan: plan}
	if found, err := r.run(t.Context(), false); err != nil || len(found) != messages {
		t.Errorf("found %d messages, error %v", len(found), err)
	}
}
