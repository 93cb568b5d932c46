package imap

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"starling/blobstore"
	"starling/frontend/imapwire"
	"starling/frontend/mailstore"
	mail "starling/frontend/message"
	"starling/metadata"
)

// viewOf is a view of a mailbox of n messages with UIDs from 1 on; slot says what each is like.
func viewOf(n int, keywords []string, slot func(uid uint32) metadata.Slot) *view {
	var chunks []*metadata.Chunk
	for first := 0; first <= n; first += metadata.ChunkSlots {
		e := metadata.NewEdit(metadata.ChunkOf(uint32(first)))
		for i := range metadata.ChunkSlots {
			if uid := first + i; uid > 0 && uid <= n {
				e.Set(i, slot(uint32(uid)))
			}
		}
		chunks = append(chunks, e.Chunk())
	}
	row := metadata.Mailbox{UIDNext: int64(n) + 1, Keywords: keywords, Version: metadata.Version{ModSeq: int64(n) + 1}}
	return &view{snap: mailstore.NewSnapshot(row, chunks)}
}

func byUIDs(uid uint32) metadata.Slot { return metadata.Slot{ModSeq: int64(uid) + 1} }

// fetchArgs are the arguments of a FETCH command.
func fetchArgs(t testing.TB, by numbering, text string) fetchCmd {
	t.Helper()
	d := imapwire.NewDecoder(strings.NewReader("a FETCH "+text+"\r\n"), imapwire.Limits{})
	if _, _, err := d.Command(); err != nil {
		t.Fatal(err)
	}
	c, err := parseFetch(by)(d)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return c.(fetchCmd)
}

func runFetch(t testing.TB, v *view, by numbering, enabled extensions, text string) string {
	t.Helper()
	var out bytes.Buffer
	s := &session{enc: imapwire.NewEncoder(&out), view: v, enabled: enabled}
	if _, err := fetchArgs(t, by, text).run(t.Context(), s); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	if err := s.enc.Flush(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// Which messages are recent is known without going through them: those of a session may be as many as the mailbox has,
// and are counted whenever one arrives.
func TestRecent(t *testing.T) {
	t.Parallel()
	const messages = 2000
	v := viewOf(messages, nil, func(uid uint32) metadata.Slot {
		slot := byUIDs(uid)
		if uid%7 == 0 || uid%10 == 9 {
			slot.Flags = metadata.Expunged
		}
		return slot
	})
	for uid := uint32(7); uid < messages; uid += 21 {
		v.ghosts = append(v.ghosts, ghost{uid: uid, slot: byUIDs(uid)})
	}
	want := make(map[uint32]bool)
	for first := uint32(3); first < messages; first += 10 {
		v.recent.add(first, first+6)
		for uid := first; uid <= first+6; uid++ {
			want[uid] = true
		}
	}
	n := uint32(0)
	for m := range v.messages(everything) {
		if v.recent.contains(m.uid) != want[m.uid] {
			t.Errorf("%d is recent: %v", m.uid, !want[m.uid])
		}
		if want[m.uid] {
			n++
		}
	}
	if got := v.recent.count(v); got != n {
		t.Errorf("%d are recent, want %d", got, n)
	}
}

func TestFetchFromView(t *testing.T) {
	t.Parallel()
	gone := metadata.Slot{ModSeq: 50, Flags: metadata.Expunged}
	v := viewOf(300, []string{"one", "", "$Two"}, func(uid uint32) metadata.Slot {
		switch uid {
		case 2, 5, 299, 300:
			return gone
		case 3:
			return metadata.Slot{ModSeq: 4, Flags: metadata.Seen | metadata.Draft | metadata.Keyword(0) | metadata.Keyword(2)}
		case 4:
			return metadata.Slot{ModSeq: 60, Flags: metadata.Keyword(2)}
		}
		return metadata.Slot{ModSeq: int64(min(uid, 40))}
	})
	v.ghosts = []ghost{{uid: 5, slot: metadata.Slot{ModSeq: 45, Flags: metadata.Answered}}, {uid: 299, slot: metadata.Slot{ModSeq: 3}}}
	for _, x := range []struct {
		by         numbering
		args, want string
	}{
		{bySeq, "1:4 FLAGS", "* 1 FETCH (FLAGS ())\r\n" +
			`* 2 FETCH (FLAGS (\Seen \Draft one $Two))` + "\r\n" + "* 3 FETCH (FLAGS ($Two))\r\n" + `* 4 FETCH (FLAGS (\Answered))` + "\r\n"},
		{byUID, "2:4 (FLAGS UID)", `* 2 FETCH (UID 3 FLAGS (\Seen \Draft one $Two))` + "\r\n* 3 FETCH (UID 4 FLAGS ($Two))\r\n"},
		{byUID, "3 MODSEQ", "* 2 FETCH (UID 3 MODSEQ (4))\r\n"},
		{bySeq, "* (UID)", "* 298 FETCH (UID 299)\r\n"},
		{bySeq, "1:* (UID) (CHANGEDSINCE 40)", "* 3 FETCH (UID 4 MODSEQ (60))\r\n* 4 FETCH (UID 5 MODSEQ (45))\r\n"},
		{byUID, "1:3,5:600 (UID) (CHANGEDSINCE 40)", "* 4 FETCH (UID 5 MODSEQ (45))\r\n"},
		{byUID, "1:* (UID) (CHANGEDSINCE 45 VANISHED)", "* VANISHED (EARLIER) 2,300\r\n* 3 FETCH (UID 4 MODSEQ (60))\r\n"},
		{byUID, "3:4,299:* (UID) (CHANGEDSINCE 49 VANISHED)", "* VANISHED (EARLIER) 300\r\n* 3 FETCH (UID 4 MODSEQ (60))\r\n"},
		{byUID, "1:* (UID) (CHANGEDSINCE 60 VANISHED)", ""},
		{byUID, "1000 FLAGS", ""},
	} {
		if got := runFetch(t, v, x.by, qResync|condStore, x.args); got != x.want {
			t.Errorf("%s\n got  %q\n want %q", x.args, got, x.want)
		}
	}
	v.snap.Mailbox().Horizon = 55 // what went before is no longer known one by one
	want := "* VANISHED (EARLIER) 2,300\r\n* 3 FETCH (UID 4 MODSEQ (60))\r\n"
	if got := runFetch(t, v, byUID, qResync|condStore, "1:* (UID) (CHANGEDSINCE 52 VANISHED)"); got != want {
		t.Errorf("below the horizon\n got  %q\n want %q", got, want)
	}
}

// Sequence match data keep VANISHED short, never the flags that changed (RFC 7162 §3.2.5.2).
func TestResyncBelowHorizon(t *testing.T) {
	t.Parallel()
	v := viewOf(6, nil, func(uid uint32) metadata.Slot {
		switch uid {
		case 2, 5:
			return metadata.Slot{ModSeq: 20, Flags: metadata.Expunged}
		case 1, 6:
			return metadata.Slot{ModSeq: 30, Flags: metadata.Seen}
		}
		return metadata.Slot{ModSeq: 4}
	})
	row := v.snap.Mailbox()
	row.UIDValidity, row.Horizon, row.ModSeq = 7, 21, 30
	const flags = "* 1 FETCH (UID 1 FLAGS (\\Seen) MODSEQ (30))\r\n* 4 FETCH (UID 6 FLAGS (\\Seen) MODSEQ (30))\r\n"
	for params, want := range map[string]string{
		"7 10":                             "* VANISHED (EARLIER) 2,5\r\n" + flags,
		"7 10 (1:2,4 1,3,5)":               "* VANISHED (EARLIER) 5\r\n" + flags,
		"7 10 (1:3 1:3)":                   "* VANISHED (EARLIER) 2,5\r\n" + flags,
		"7 10 (1:4294967295 1:4294967295)": "* VANISHED (EARLIER) 2,5\r\n" + flags,
		"7 10 (4 6)":                       flags,
		"7 10 1:3 (1:2 1,3)":               flags[:strings.Index(flags, "* 4")],
		"7 10 2:5":                         "* VANISHED (EARLIER) 2,5\r\n",
		"8 10":                             "",
	} {
		d := imapwire.NewDecoder(strings.NewReader("a SELECT x (QRESYNC ("+params+"))\r\n"), imapwire.Limits{})
		if _, _, err := d.Command(); err != nil {
			t.Fatal(err)
		}
		c, err := parseSelect(false)(d)
		if err != nil {
			t.Fatalf("%s: %v", params, err)
		}
		var out bytes.Buffer
		s := &session{enc: imapwire.NewEncoder(&out), view: v, enabled: qResync | condStore}
		s.resync(c.(selectCmd).params.QResync)
		if err := s.enc.Flush(); err != nil {
			t.Fatal(err)
		}
		if got := out.String(); got != want {
			t.Errorf("%s\n got  %q\n want %q", params, got, want)
		}
	}
}

func TestFetchEnablesCondStore(t *testing.T) {
	t.Parallel()
	v := viewOf(1, nil, byUIDs)
	for args, want := range map[string]bool{"1 FLAGS": false, "1 (UID MODSEQ)": true, "1 UID (CHANGEDSINCE 1)": true} {
		s := &session{enc: imapwire.NewEncoder(io.Discard), view: v}
		if _, err := fetchArgs(t, bySeq, args).run(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		if s.has(condStore) != want || s.told != want {
			t.Errorf("%s: enabled %v, told %v, want %v", args, s.has(condStore), s.told, want)
		}
	}
}

func TestChangedSinceModel(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		v := viewOf(1+r.IntN(400), nil, func(uid uint32) metadata.Slot {
			s := metadata.Slot{ModSeq: r.Int64N(6)}
			if s.ModSeq > 0 && r.IntN(3) == 0 {
				s.Flags = metadata.Expunged
				return s
			}
			return s
		})
		ranges := []metadata.UIDRange{{First: 1, Last: uint32(1 + r.IntN(100))}, {First: 150, Last: uint32(150 + r.IntN(300))}}
		since := r.Int64N(6)
		var want, got []uint32
		for m := range v.messages(ranges) {
			if m.slot.ModSeq > since {
				want = append(want, m.seq, m.uid)
			}
		}
		for m := range v.messages(v.changedSince(ranges, since)) {
			got = append(got, m.seq, m.uid)
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("since %d of %v: got %v, want %v", since, ranges, got, want)
		}
	}
}

// A message whose row the collector has taken is left out, and the command ends with EXPUNGEISSUED.
func TestFetchOfACollectedMessage(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	s := &session{enc: imapwire.NewEncoder(&out), view: viewOf(2, nil, byUIDs)}
	f := newFetch(s, fetchArgs(t, bySeq, "1:2 RFC822.SIZE"))
	for m := range s.view.messages([]metadata.UIDRange{{First: 1, Last: 2}}) {
		f.rows = append(f.rows, fetchRow{seq: m.seq, uid: m.uid, slot: m.slot})
	}
	if err := f.take(&metadata.Message{UID: 2, Size: 7}); err != nil {
		t.Fatal(err)
	}
	f.answerBatch(t.Context())
	if err := s.enc.Flush(); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); got != "* 2 FETCH (RFC822.SIZE 7)\r\n" {
		t.Errorf("got %q", got)
	}
	if status := s.statusOf(f.failure); status.Status != imapwire.NO || status.Code != imapwire.CodeExpungeIssued {
		t.Errorf("ends with %v", status)
	}
}

// shortBody is a message whose bytes cannot be had from some offset on, fails times.
type shortBody struct {
	text  string
	from  int64
	fails int
}

func (b *shortBody) Size() int64 { return int64(len(b.text)) }
func (b *shortBody) Close()      {}

func (b *shortBody) Holds(int64, bool) int64 { return 0 }
func (b *shortBody) ReadAhead(bool)          {}

func (b *shortBody) ReadRange(_ context.Context, w io.Writer, off, n int64) error {
	end := off + n
	if b.fails > 0 && end > b.from {
		end = max(off, b.from)
	}
	if _, err := io.WriteString(w, b.text[off:end]); err != nil {
		return err
	}
	if end < off+n {
		b.fails--
		return blobstore.ErrUnavailable
	}
	return nil
}

// When a body breaks off inside of its literal the rest is read again; if that
// does not help, the connection ends, and before the literal nothing was said.
func TestFetchBrokenBody(t *testing.T) {
	t.Parallel()
	text := strings.Repeat("0123456789abcdef", 4096)
	for _, x := range []struct {
		body *shortBody
		want string // of what was written
		cut  bool
		fail bool
	}{
		{&shortBody{text, 100, 2}, "* 1 FETCH (UID 1 BODY[] {65536}\r\n" + text + ")\r\n", false, false},
		{&shortBody{text, 100, 9}, "* 1 FETCH (UID 1 BODY[] {65536}\r\n" + text[:100], true, true},
		{&shortBody{text, 0, 9}, "", false, true},
	} {
		var out bytes.Buffer
		s := &session{enc: imapwire.NewEncoder(&out), view: viewOf(1, nil, byUIDs)}
		f := newFetch(s, fetchArgs(t, bySeq, "1 (UID BODY.PEEK[])"))
		row := fetchRow{seq: 1, uid: 1, found: true, row: metadata.Message{Size: x.body.Size()}}
		m := &fetched{fetchRow: &row, body: x.body}
		m.pieces = []piece{{}, locateSection(&f.items[1], m)}
		f.respond(t.Context(), m)
		cut := s.enc.Err() != nil
		_ = s.enc.Flush() // its error is asked for above
		if out.String() != x.want || cut != x.cut || (f.failure != nil) != x.fail {
			t.Errorf("from %d: wrote %d octets, want %d; cut %v, want %v; %v", x.body.from, out.Len(), len(x.want), cut, x.cut, f.failure)
		}
		if x.fail && !errors.Is(f.failure, blobstore.ErrUnavailable) {
			t.Errorf("ends with %v", f.failure)
		}
	}
}

// What is too long to be held is decoded twice, and gives the same.
func TestFetchLongBinary(t *testing.T) {
	t.Parallel()
	line := strings.Repeat("AAECAwQFBgcICQoL", 4) + "\r\n" // 48 octets with a NUL
	text := strings.Repeat(line, 30_000)
	plain := strings.Repeat("\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b", 4*30_000)
	b := &shortBody{text: text}
	for item, want := range map[string]string{
		"BINARY.PEEK[1]":             fmt.Sprintf("BINARY[1] ~{%d}\r\n%s", len(plain), plain),
		"BINARY.PEEK[1]<5.1300000>":  fmt.Sprintf("BINARY[1]<5> ~{%d}\r\n%s", 1_300_000, plain[5:1_300_005]),
		"BINARY.PEEK[1]<1.11>":       "BINARY[1]<1> {11}\r\n" + plain[1:12],
		"BINARY.PEEK[1]<1439999.11>": "BINARY[1]<1439999> {1}\r\n\x0b",
		"BINARY.PEEK[1]<1440000.11>": "BINARY[1]<1440000> {0}\r\n",
		"BINARY.SIZE[1]":             "BINARY.SIZE[1] 1440000",
	} {
		var out bytes.Buffer
		s := &session{enc: imapwire.NewEncoder(&out), view: viewOf(1, nil, byUIDs)}
		f := newFetch(s, fetchArgs(t, bySeq, "1 "+item))
		row := fetchRow{seq: 1, uid: 1, found: true, row: metadata.Message{Size: b.Size()}}
		m := &fetched{fetchRow: &row, body: b, pieces: []piece{{kind: pieceDecode, n: b.Size(), encoding: "base64"}}}
		f.respond(t.Context(), m)
		if err := errors.Join(s.enc.Flush(), f.failure); err != nil {
			t.Errorf("%s: %v", item, err)
		}
		if got := out.String(); got != "* 1 FETCH ("+want+")\r\n" {
			t.Errorf("%s: got %.80q, want %.80q", item, got, want)
		}
	}
}

func summaryOf(text string) *mail.Summary {
	p := mail.NewParser()
	_, _ = p.Write([]byte(text)) // never fails
	return p.Close()
}

func written(utf8 bool, write func(*imapwire.Encoder)) string {
	var out bytes.Buffer
	e := imapwire.NewEncoder(&out)
	e.UTF8 = utf8
	write(e)
	_ = e.Flush() // a buffer takes all
	return out.String()
}

// The envelope of RFC 9051 §8, and what is not as plain as that.
func TestWriteEnvelope(t *testing.T) {
	t.Parallel()
	for _, x := range []struct{ name, text, rev1, utf8 string }{
		{
			"RFC 9051", "Date: Wed, 17 Jul 1996 02:23:25 -0700 (PDT)\r\nFrom: Terry Gray <gray@cac.washington.edu>\r\n" +
				"Subject: IMAP4rev2 WG mtg summary and minutes\r\nTo: imap@cac.washington.edu\r\n" +
				"cc: minutes@CNRI.Reston.VA.US, John Klensin <KLENSIN@MIT.EDU>\r\nMessage-Id: <B27397-0100000@cac.washington.edu>\r\n\r\n",
			`("Wed, 17 Jul 1996 02:23:25 -0700 (PDT)" "IMAP4rev2 WG mtg summary and minutes" ` +
				`(("Terry Gray" NIL "gray" "cac.washington.edu")) (("Terry Gray" NIL "gray" "cac.washington.edu")) ` +
				`(("Terry Gray" NIL "gray" "cac.washington.edu")) ((NIL NIL "imap" "cac.washington.edu")) ` +
				`((NIL NIL "minutes" "CNRI.Reston.VA.US")("John Klensin" NIL "KLENSIN" "MIT.EDU")) NIL NIL "<B27397-0100000@cac.washington.edu>")`, "",
		},
		{"nothing", "\r\n", "(NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL)", ""},
		{"empty", "Subject:\r\nDate: \r\n\r\n", `("" "" NIL NIL NIL NIL NIL NIL NIL NIL)`, ""},
		{
			"UTF-8", "Subject: caf\u00e9\r\n\r\n",
			"(NIL {5}\r\ncaf\u00e9 NIL NIL NIL NIL NIL NIL NIL NIL)", "(NIL \"caf\u00e9\" NIL NIL NIL NIL NIL NIL NIL NIL)",
		},
		{"8 bit", "Subject: caf\xe9\r\n\r\n", "(NIL {4}\r\ncaf\xe9 NIL NIL NIL NIL NIL NIL NIL NIL)", ""},
		{"quoted", "Subject: a \"b\" \\c\r\n\r\n", `(NIL "a \"b\" \\c" NIL NIL NIL NIL NIL NIL NIL NIL)`, ""},
		{"lone CR", "Subject: a\rb\r\n\r\n", "(NIL {3}\r\na\rb NIL NIL NIL NIL NIL NIL NIL NIL)", ""},
		{"encoded words stay", "Subject: =?utf-8?q?a?=\r\n\r\n", `(NIL "=?utf-8?q?a?=" NIL NIL NIL NIL NIL NIL NIL NIL)`, ""},
	} {
		s := summaryOf(x.text)
		if x.utf8 == "" {
			x.utf8 = x.rev1
		}
		for i, want := range []string{x.rev1, x.utf8} {
			got := written(i == 1, func(e *imapwire.Encoder) { writeEnvelope(e, s.Envelope()) })
			if got != want {
				t.Errorf("%s\n got  %q\n want %q", x.name, got, want)
			}
		}
	}
}

// Many items that name long fields do not have each message hold them many times.
func TestFetchHoldsNoFields(t *testing.T) { //nolint:paralleltest // it measures what the process allocates
	const items, octets = 1000, 60 << 10
	packed, err := summaryOf("To: " + strings.Repeat("a@b,", octets/4) + "\r\n\r\n").AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	var out counter
	s := &session{enc: imapwire.NewEncoder(&out), view: viewOf(1, nil, byUIDs)}
	f := newFetch(s, fetchArgs(t, byUID, "1 (BODY.PEEK[HEADER.FIELDS (To)]"+strings.Repeat(" BODY.PEEK[HEADER.FIELDS (to)]", items-1)+")"))
	f.rows = []fetchRow{{seq: 1, uid: 1, found: true, row: metadata.Message{UID: 1, Summary: packed}}}
	var was, is runtime.MemStats
	runtime.ReadMemStats(&was)
	f.answerBatch(t.Context())
	runtime.ReadMemStats(&is)
	if err := s.enc.Flush(); err != nil || f.failure != nil || out < items*octets {
		t.Errorf("%d octets were sent, errors %v, %v", out, err, f.failure)
	}
	if took := is.TotalAlloc - was.TotalAlloc; took > 8<<20 {
		t.Errorf("%d items took %d octets", items, took)
	}
}

// counter is a writer that counts octets.
type counter int

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

func TestWriteStructure(t *testing.T) {
	t.Parallel()
	for _, x := range []struct{ text, body, structure string }{
		{
			"\r\na\r\nb\r\n", `("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 6 2)`,
			`("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 6 2 NIL NIL NIL NIL)`,
		},
		{
			"Content-Type: image/png; name=x\r\nContent-ID: <i>\r\nContent-Description: d\r\nContent-Transfer-Encoding: BASE64\r\n" +
				"Content-MD5: Q==\r\nContent-Disposition: inline\r\nContent-Language: de, en\r\nContent-Location: http://x/\r\n\r\nAA==",
			`("image" "png" ("name" "x") "<i>" "d" "BASE64" 4)`,
			`("image" "png" ("name" "x") "<i>" "d" "BASE64" 4 "Q==" ("inline" NIL) ("de" "en") "http://x/")`,
		},
		{
			"Content-Type: multipart/alternative; boundary=b\r\n\r\n--b\r\n\r\nx\r\n--b\r\nContent-Type: application/x\r\n\r\n--b--\r\n",
			`(("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 1 0)("application" "x" NIL NIL NIL "7bit" 0) "alternative")`,
			`(("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 1 0 NIL NIL NIL NIL)("application" "x" NIL NIL NIL "7bit" 0 NIL NIL NIL NIL) ` +
				`"alternative" ("boundary" "b") NIL NIL NIL)`,
		},
	} {
		s := summaryOf(x.text)
		for want, extended := range map[string]bool{x.body: false, x.structure: true} {
			got := written(false, func(e *imapwire.Encoder) { writeStructure(e, s, 0, extended) })
			if got != want {
				t.Errorf("%q\n got  %s\n want %s", x.text, got, want)
			}
		}
	}
}

// corpus returns the test mails, or skips the test.
func corpus(tb testing.TB) []string {
	tb.Helper()
	dir := os.Getenv("STARLING_CORPUS")
	if dir == "" {
		at, err := os.Getwd()
		if err != nil {
			tb.Fatal(err)
		}
		for ; dir == "" && at != filepath.Dir(at); at = filepath.Dir(at) {
			try := filepath.Join(at, "shared", "corpus")
			if info, err := os.Stat(try); err == nil && info.IsDir() {
				dir = try
			}
		}
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.eml"))
	if err != nil {
		tb.Fatal(err)
	}
	if dir == "" || len(files) == 0 {
		tb.Skip("no corpus: set STARLING_CORPUS to a folder of *.eml files")
	}
	return files
}

// Another client reads the envelope and the structure of each mail of the corpus, and finds the same parts.
func TestStructuresOfCorpus(t *testing.T) {
	t.Parallel()
	for _, utf8 := range []bool{false, true} {
		t.Run(fmt.Sprintf("utf8=%v", utf8), func(t *testing.T) {
			t.Parallel()
			readCorpus(t, corpus(t), utf8)
		})
	}
}

func readCorpus(t *testing.T, files []string, utf8 bool) {
	summaries := make([]*mail.Summary, len(files))
	for i, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		summaries[i] = summaryOf(string(text))
	}
	ours, theirs := net.Pipe()
	served := make(chan error, 1)
	go func() { served <- serveStructures(ours, summaries, utf8) }()
	client := imapclient.New(theirs, nil)
	fetch := client.Fetch(imap.SeqSet{{Start: 1, Stop: 0}}, &imap.FetchOptions{
		Envelope: true, BodyStructure: &imap.FetchItemBodyStructure{Extended: true},
	})
	i := 0
	for m := fetch.Next(); m != nil; m = fetch.Next() {
		read, err := m.Collect()
		if err != nil {
			t.Fatalf("%s: %v", files[i], err)
		}
		if read.Envelope == nil || read.BodyStructure == nil {
			t.Fatalf("%s: something is missing", files[i])
		}
		parts := 0
		read.BodyStructure.Walk(func([]int, imap.BodyStructure) bool {
			parts++
			return true
		})
		want := 0
		for _, p := range summaries[i].Parts {
			if p.Parent < 0 || !summaries[i].Parts[p.Parent].IsMessage() {
				want++
			}
		}
		if nested := len(summaries[i].Envelopes) > 1; !nested && parts != want {
			t.Errorf("%s: %d parts, want %d", filepath.Base(files[i]), parts, want)
		}
		if got, want := read.Envelope.MessageID, string(summaries[i].Envelope().MessageID); want != "" && !strings.Contains(want, got) {
			t.Errorf("%s: message id %q, want %q", filepath.Base(files[i]), got, want)
		}
		i++
	}
	if err := fetch.Close(); err != nil {
		t.Fatalf("after %d messages: %v", i, err)
	}
	if i != len(files) {
		t.Errorf("%d messages, want %d", i, len(files))
	}
	_ = client.Close()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// serveStructures answers one FETCH.
func serveStructures(conn net.Conn, summaries []*mail.Summary, utf8 bool) error {
	defer conn.Close()
	e := imapwire.NewEncoder(conn)
	e.UTF8 = utf8
	e.Status("", imapwire.PREAUTH, imapwire.CodeCapability([]string{"IMAP4rev1"}), "ready")
	if err := e.Flush(); err != nil {
		return err
	}
	d := imapwire.NewDecoder(conn, imapwire.Limits{})
	tag, name, err := d.Command()
	if err != nil || name != "FETCH" {
		return fmt.Errorf("%s: %w", name, err)
	}
	if err := d.Discard(); err != nil {
		return err
	}
	f := &fetch{s: &session{enc: e}}
	for i, s := range summaries {
		m := &fetched{fetchRow: &fetchRow{seq: uint32(i) + 1}, summary: *s}
		f.begin(m)
		writeEnvelopeItem(f, m)
		writeBodyStructureItem(f, m)
		e.FetchEnd()
	}
	e.Status(tag, imapwire.OK, "", "done")
	return e.Flush()
}
