package imap

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"starling/blobstore"
	"starling/frontend/imapwire"
	"starling/metadata"
)

// nested has a part of each kind: text, base64, quoted-printable, an unknown encoding and a message.
const nested = `From: Ann <ann@example.org>
To: "Bob B." <bob@example.org>, team: cy@example.org, dee@example.org;
Subject: All kinds
Date: Mon, 7 Feb 1994 21:52:25 -0800
Message-ID: <1@example.org>
X-Custom: one
 two
Content-Type: multipart/mixed; boundary=xx

preamble
--xx

plain
--xx
Content-Type: application/octet-stream; name="a b"
Content-Transfer-Encoding: base64
Content-Disposition: attachment; filename=a

AAECAwQF
Bgc=
--xx
Content-Type: text/html; charset=utf-8
Content-Transfer-Encoding: Quoted-Printable

a=3Db=
c
--xx
Content-Type: application/x; charset=utf-8
Content-Transfer-Encoding: x-own

?
--xx
Content-Type: message/rfc822

Subject: inner
From: in@example.org

inside
--xx--
`

func TestFetchItems(t *testing.T) {
	t.Parallel()
	n := newTestNode(t)
	c := n.connect(t)
	c.put("INBOX", `(\Flagged kw) "07-Feb-1994 21:52:25 -0800"`, nested)
	size := strings.Count(nested, "\n") + len(nested)
	c.ok("SELECT INBOX")
	envelope := `ENVELOPE ("Mon, 7 Feb 1994 21:52:25 -0800" "All kinds" (("Ann" NIL "ann" "example.org")) ` +
		`(("Ann" NIL "ann" "example.org")) (("Ann" NIL "ann" "example.org")) ` +
		`(("Bob B." NIL "bob" "example.org")(NIL NIL "team" NIL)(NIL NIL "cy" "example.org")(NIL NIL "dee" "example.org")(NIL NIL NIL NIL)) ` +
		`NIL NIL NIL "<1@example.org>")`
	inner := `(NIL "inner" ((NIL NIL "in" "example.org")) ((NIL NIL "in" "example.org")) ((NIL NIL "in" "example.org")) NIL NIL NIL NIL NIL)`
	body := `BODY (("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 5 0)` +
		`("application" "octet-stream" ("name" "a b") NIL NIL "base64" 14)` +
		`("text" "html" ("charset" "utf-8") NIL NIL "Quoted-Printable" 9 1)` +
		`("application" "x" ("charset" "utf-8") NIL NIL "x-own" 1)` +
		`("message" "rfc822" NIL NIL NIL "7bit" 46 ` + inner + ` ("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 6 0) 3) "mixed")`
	dates := fmt.Sprintf(`INTERNALDATE " 8-Feb-1994 05:52:25 +0000" RFC822.SIZE %d`, size)
	flags := `FLAGS (\Flagged kw \Recent)`
	c.want("FETCH 1 FAST", "* 1 FETCH ("+flags+" "+dates+")", "OK …")
	c.want("FETCH 1 ALL", "* 1 FETCH ("+flags+" "+dates+" "+envelope+")", "OK …")
	c.want("FETCH 1 FULL", "* 1 FETCH ("+flags+" "+dates+" "+envelope+" "+body+")", "OK …")
	c.want("UID FETCH 1 (BODYSTRUCTURE UID)", `* 1 FETCH (UID 1 BODYSTRUCTURE (("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 5 0 NIL NIL NIL NIL)`+
		`("application" "octet-stream" ("name" "a b") NIL NIL "base64" 14 NIL ("attachment" ("filename" "a")) NIL NIL)…`, "OK …")
	c.want("FETCH 1 (FLAGS UID FLAGS)", "* 1 FETCH ("+flags+" UID 1)", "OK …")
	c.want("FETCH 1 (EMAILID THREADID SAVEDATE)", "* 1 FETCH (EMAILID (M…", "OK …")
	c.want("FETCH 2 FLAGS", "BAD …")
	c.want("UID FETCH 2:3 FLAGS", "OK …")
}

// TestFetchStaysAwayFromBodies shows that what the row answers is not read from the object.
func TestFetchStaysAwayFromBodies(t *testing.T) {
	t.Parallel()
	n := newTestNode(t)
	c := n.connect(t)
	c.put("INBOX", "", nested)
	c.ok("SELECT INBOX")
	n.blobs.lose(t)
	c.ok("FETCH 1 (ENVELOPE BODY BODYSTRUCTURE INTERNALDATE RFC822.SIZE EMAILID THREADID SAVEDATE)")
	c.want("FETCH 1 (BODY.PEEK[HEADER.FIELDS (subject FROM)] BODY.PEEK[HEADER.FIELDS (Subject)]<9.4> BODY[7])",
		"* 1 FETCH (BODY[HEADER.FIELDS (subject FROM)] {51}", "From: Ann <ann@example.org>", "Subject: All kinds", "",
		` BODY[HEADER.FIELDS (Subject)]<9> {4}`, `All  BODY[7] NIL FLAGS (\Seen \Recent))`, "OK …")
	if gets := n.blobs.gets.Load(); gets != 0 {
		t.Errorf("%d objects were read", gets)
	}
	c.want("UID FETCH 1 (FLAGS BODY[])", "NO [CORRUPTION] …")
	c.want("FETCH 1 BODY.PEEK[HEADER.FIELDS (X-Custom)]", "NO [CORRUPTION] …")
}

func TestFetchSections(t *testing.T) {
	t.Parallel()
	n := newTestNode(t)
	c := n.connect(t)
	text := strings.ReplaceAll(nested, "\n", "\r\n")
	header, rest, _ := strings.Cut(text, "\r\n\r\n")
	c.put("INBOX", `(\Seen)`, nested)
	c.ok("EXAMINE INBOX")
	inner := "Subject: inner\r\nFrom: in@example.org\r\n\r\n"
	for _, x := range []struct{ item, name, value string }{
		{"BODY[]", "", text},
		{"RFC822", "", text},
		{"RFC822.HEADER", "", header + "\r\n\r\n"},
		{"RFC822.TEXT", "", rest},
		{"BODY[HEADER]", "", header + "\r\n\r\n"},
		{"BODY[TEXT]", "", rest},
		{"BODY.PEEK[TEXT]<0.8>", "BODY[TEXT]<0>", "preamble"},
		{"BODY[]<4.3>", "BODY[]<4>", text[4:7]},
		{fmt.Sprintf("BODY[]<%d.100>", len(text)-3), fmt.Sprintf("BODY[]<%d>", len(text)-3), text[len(text)-3:]},
		{fmt.Sprintf("BODY[]<%d.100>", len(text)), fmt.Sprintf("BODY[]<%d>", len(text)), ""},
		{"BODY[]<9223372036854775807.9223372036854775807>", "BODY[]<9223372036854775807>", ""},
		{"BODY[1]<9223372036854775806.1>", "BODY[1]<9223372036854775806>", ""},
		{"BODY[]<1.9223372036854775807>", "BODY[]<1>", text[1:]},
		{"BODY[1]", "", "plain"},
		{"BODY[1.MIME]", "", "\r\n"},
		{"BODY[2]", "", "AAECAwQF\r\nBgc="},
		{"BODY[2.MIME]<14.12>", "BODY[2.MIME]<14>", "application/"},
		{"BODY[5]", "", inner + "inside"},
		{"BODY[5.HEADER]", "", inner},
		{"BODY[5.TEXT]", "", "inside"},
		{"BODY[5.1]", "", "inside"},
		{"BODY[5.HEADER.FIELDS (FROM)]", "", "From: in@example.org\r\n\r\n"},
		{"BODY[5.HEADER.FIELDS.NOT (FROM)]<0.9>", "BODY[5.HEADER.FIELDS.NOT (FROM)]<0>", "Subject: "},
		{"BODY[HEADER.FIELDS (X-CUSTOM)]", "", "X-Custom: one\r\n two\r\n\r\n"},
		{"BODY[HEADER.FIELDS (X-None)]", "", "\r\n"},
		{"BODY[HEADER.FIELDS.NOT (from to date message-id X-custom Content-Type)]", "", "Subject: All kinds\r\n\r\n"},
		{"BINARY[1]", "", "plain"},
		{"BINARY[2]", "", "~\x00\x01\x02\x03\x04\x05\x06\x07"},
		{"BINARY.PEEK[2]<1.3>", "BINARY[2]<1>", "\x01\x02\x03"},
		{"BINARY[2]<8.3>", "BINARY[2]<8>", ""},
		{"BINARY[3]", "", "a=bc"},
		{"BINARY[5]", "", inner + "inside"},
		{"BINARY[]<0.5>", "BINARY[]<0>", "From:"},
	} {
		name := x.name
		if name == "" {
			name = x.item
		}
		literal := fmt.Sprintf(`{%d}`+"\r\n", len(x.value)) + x.value
		if value, ok := strings.CutPrefix(x.value, "~"); ok {
			literal = fmt.Sprintf("~{%d}\r\n%s", len(value), value)
		}
		want := "* 1 FETCH (" + name + " " + literal + ")"
		if got := strings.Join(c.ok("FETCH 1 %s", x.item), "\r\n"); got != want {
			t.Errorf("%s\n got  %q\n want %q", x.item, got, want)
		}
	}
	for _, absent := range []string{"BODY[6]", "BODY[1.1]", "BODY[1.TEXT]", "BODY[4294967295]", "BODY[5.2]", "BINARY[6]"} {
		c.want("FETCH 1 "+absent, "* 1 FETCH ("+absent+" NIL)", "OK …")
	}
	c.want("FETCH 1 (BINARY.SIZE[1] BINARY.SIZE[2] BINARY.SIZE[3] BINARY.SIZE[6])",
		"* 1 FETCH (BINARY.SIZE[1] 5 BINARY.SIZE[2] 8 BINARY.SIZE[3] 4 BINARY.SIZE[6] 0)", "OK …")
	c.want("FETCH 1 BINARY[4]", "NO [UNKNOWN-CTE] …")
	c.want("UID FETCH 1 (BINARY.SIZE[4] RFC822.SIZE)", fmt.Sprintf("* 1 FETCH (UID 1 RFC822.SIZE %d)", len(text)), "NO [UNKNOWN-CTE] …")
}

func TestFetchSetsSeen(t *testing.T) {
	t.Parallel()
	n := newTestNode(t)
	c, other := n.connect(t, rev2), n.connect(t, condStore|rev2)
	for range 4 {
		c.put("INBOX", "", "Subject: x\n\nbody\n")
	}
	c.ok("EXAMINE INBOX")
	c.want("FETCH 1 BODY[TEXT]", "* 1 FETCH (BODY[TEXT] {6}", "body", ")", "OK …")
	c.ok("SELECT INBOX")
	other.ok("SELECT INBOX")
	c.want("FETCH 1 (BODY.PEEK[TEXT] RFC822.HEADER)", "* 1 FETCH (BODY[TEXT] {6}", "body", " RFC822.HEADER {14}", "Subject: x", "", ")", "OK …")
	c.want("FETCH 1:2 BODY[TEXT]",
		"* 1 FETCH (BODY[TEXT] {6}", "body", ` FLAGS (\Seen))`, "* 2 FETCH (BODY[TEXT] {6}", "body", ` FLAGS (\Seen))`, "OK …")
	c.want("FETCH 2 BODY[TEXT]", "* 2 FETCH (BODY[TEXT] {6}", "body", ")", "OK …")
	other.want("NOOP", `* 1 FETCH (UID 1 FLAGS (\Seen) MODSEQ (6))`, `* 2 FETCH (UID 2 FLAGS (\Seen) MODSEQ (6))`, "OK …")
	other.want("UID FETCH 3 (FLAGS BINARY[1])", `* 3 FETCH (UID 3 FLAGS (\Seen) BINARY[1] {6}`, "body", ` MODSEQ (7))`, "OK …")
	other.want("UID FETCH 4 (RFC822.TEXT)", `* 4 FETCH (UID 4 RFC822.TEXT {6}`, "body", ` FLAGS (\Seen) MODSEQ (8))`, "OK …")
	c.want("NOOP", `* 3 FETCH (UID 3 FLAGS (\Seen))`, `* 4 FETCH (UID 4 FLAGS (\Seen))`, "OK …")
}

// brokenBlobs is an object store that cannot be reached from some time on.
type brokenBlobs struct {
	blobstore.Store
	left atomic.Int64 // reads that still succeed
}

func (b *brokenBlobs) Get(ctx context.Context, key blobstore.Key, offset, length int64) (io.ReadCloser, error) {
	if b.left.Add(-1) < 0 {
		return nil, blobstore.ErrUnavailable
	}
	return b.Store.Get(ctx, key, offset, length)
}

func TestFetchWithoutBlobs(t *testing.T) {
	t.Parallel()
	n := newTestNode(t)
	broken := &brokenBlobs{Store: n.blobs.Store}
	n.blobs.Store = broken
	c := n.connect(t)
	for range 3 {
		c.put("INBOX", "", "Subject: x\n\nbody\n")
	}
	c.ok("SELECT INBOX")
	c.want("FETCH 1:3 BODY[TEXT]", "NO [UNAVAILABLE] …")
	c.want("FETCH 1:3 (FLAGS BODY.PEEK[HEADER.FIELDS (Subject)])",
		`* 1 FETCH (FLAGS (\Recent) BODY[HEADER.FIELDS (Subject)] {14}`, "Subject: x", "", ")",
		`* 2 FETCH (FLAGS (\Recent) BODY[HEADER.FIELDS (Subject)] {14}`, "Subject: x", "", ")",
		`* 3 FETCH (FLAGS (\Recent) BODY[HEADER.FIELDS (Subject)] {14}`, "Subject: x", "", ")", "OK …")
	broken.left.Store(1)
	lines := c.do("FETCH 1:3 BODY[TEXT]")
	if len(lines) != 4 || !strings.HasSuffix(lines[0], "FETCH (BODY[TEXT] {6}") || lines[2] != ` FLAGS (\Seen \Recent))` ||
		!strings.HasPrefix(lines[3], "NO [UNAVAILABLE]") {
		t.Errorf("one of three messages: %q", lines)
	}
	if seen := c.ok("SEARCH SEEN"); len(strings.Fields(seen[0])) != 3 {
		t.Errorf("seen are %q, want one", seen)
	}
}

func TestFetchManyBodies(t *testing.T) {
	t.Parallel()
	n := newTestNode(t)
	c := n.connect(t)
	const messages = 30
	for i := range messages {
		c.put("INBOX", "", fmt.Sprintf("Subject: %d\n\nbody %d\n", i, i))
	}
	c.ok("SELECT INBOX")
	lines := c.ok("UID FETCH 1:* (BODY.PEEK[TEXT])")
	for i := range messages {
		if want := fmt.Sprintf("body %d", i); lines[3*i+1] != want {
			t.Fatalf("message %d: %q", i, lines[3*i:3*i+3])
		}
	}
	if gets := n.blobs.gets.Load(); gets != messages {
		t.Errorf("%d reads for %d messages", gets, messages)
	}
}

// TestFetchInSlices shows that a large message that is read in slices is not fetched anew for each.
func TestFetchInSlices(t *testing.T) {
	t.Parallel()
	n := newTestNode(t)
	c := n.connect(t)
	var b strings.Builder
	b.WriteString("Subject: large\n\n")
	for i := range 100_000 {
		fmt.Fprintf(&b, "line %d of %x\n", i, uint32(i)*2654435761)
	}
	c.put("INBOX", "", b.String())
	text := strings.ReplaceAll(b.String(), "\n", "\r\n")
	c.ok("SELECT INBOX")
	const slice = 50_000
	commands := 0
	for off := 0; off < len(text); off += slice {
		want := text[off:min(len(text), off+slice)]
		got := strings.Join(c.ok("UID FETCH 1 BODY.PEEK[]<%d.%d>", off, slice), "\r\n")
		if want = fmt.Sprintf("* 1 FETCH (UID 1 BODY[]<%d> {%d}\r\n%s)", off, len(want), want); got != want {
			t.Fatalf("slice from %d is wrong", off)
		}
		commands++
	}
	if gets := n.blobs.gets.Load(); gets > int64(commands)/3 {
		t.Errorf("%d reads for %d slices", gets, commands)
	}
	n.blobs.gets.Store(0)
	got := strings.Join(c.ok("UID FETCH 1 BODY.PEEK[]"), "\r\n")
	if want := fmt.Sprintf("* 1 FETCH (UID 1 BODY[] {%d}\r\n%s)", len(text), text); got != want {
		t.Error("the whole message is wrong")
	}
	if gets := n.blobs.gets.Load(); gets > 1 {
		t.Errorf("%d reads for the whole message", gets)
	}
}

func TestFetchChangedSince(t *testing.T) {
	t.Parallel()
	n := newTestNode(t)
	c, other := n.connect(t, qResync|rev2), n.connect(t, rev2)
	for range 5 {
		c.put("INBOX", "", "Subject: x\n\nbody\n") // modseqs 2 to 6
	}
	c.ok("SELECT INBOX")
	other.ok("SELECT INBOX")
	other.ok(`STORE 2 +FLAGS.SILENT (\Flagged)`)
	other.ok(`STORE 1,5 +FLAGS.SILENT (\Deleted)`)
	other.ok("EXPUNGE")
	c.ok("NOOP")
	c.want("FETCH 1:* FLAGS (CHANGEDSINCE 5 VANISHED)", "BAD …")
	c.want("UID FETCH 1:* FLAGS (VANISHED)", "BAD …")
	other.want("UID FETCH 1:* FLAGS (CHANGEDSINCE 5 VANISHED)", "BAD …")
	c.want("UID FETCH 1:* (FLAGS) (CHANGEDSINCE 6 VANISHED)",
		"* VANISHED (EARLIER) 1,5", `* 1 FETCH (UID 2 FLAGS (\Flagged) MODSEQ (…`, "OK …")
	c.want("UID FETCH 2:4 (FLAGS) (CHANGEDSINCE 6 VANISHED)", `* 1 FETCH (UID 2 FLAGS (\Flagged) MODSEQ (…`, "OK …")
	other.want("UID FETCH 1:* (FLAGS) (CHANGEDSINCE 100)", "* OK [HIGHESTMODSEQ …", "OK …")
	other.want("FETCH 2 MODSEQ", "* 2 FETCH (MODSEQ (…", "OK …")
	if changed := other.ok("STORE 3 FLAGS ()"); len(changed) != 1 || !strings.Contains(changed[0], "MODSEQ") {
		t.Errorf("after FETCH MODSEQ a STORE tells %q", changed)
	}
}

// TestFetchGhost shows that a message which another session expunged can be fetched until its
// expunge is told (RFC 2180 §4.1.2).
func TestFetchGhost(t *testing.T) {
	t.Parallel()
	n := newTestNode(t)
	c, other := n.connect(t), n.connect(t)
	for i := range 3 {
		c.put("INBOX", "", fmt.Sprintf("Subject: %d\n\nbody\n", i))
	}
	c.ok("SELECT INBOX")
	other.ok("SELECT INBOX")
	other.ok(`STORE 2 +FLAGS.SILENT (\Deleted)`)
	other.ok("EXPUNGE")
	for range 2 { // the first still from the snapshot, the second as a ghost
		c.want("FETCH 2:3 (UID BODY.PEEK[HEADER.FIELDS (Subject)])",
			"* 2 FETCH (UID 2 BODY[HEADER.FIELDS (Subject)] {14}", "Subject: 1", "", ")",
			"* 3 FETCH (UID 3 BODY[HEADER.FIELDS (Subject)] {14}", "Subject: 2", "", ")", "OK …")
	}
	c.want("FETCH 2:3 BODY[TEXT]", "* 2 FETCH (BODY[TEXT] {6}", "body", ")",
		"* 3 FETCH (BODY[TEXT] {6}", "body", ` FLAGS (\Seen \Recent))`, "OK …")
	c.want("NOOP", "* 2 EXPUNGE", "OK …")
}

// gatedBlobs lets reads go on once so many are under way, and counts how many were at most.
type gatedBlobs struct {
	blobstore.Store
	open  chan struct{} // closed once enough have come
	need  int64
	now   atomic.Int64
	most  atomic.Int64
	total atomic.Int64
}

func (b *gatedBlobs) Get(ctx context.Context, key blobstore.Key, offset, length int64) (io.ReadCloser, error) {
	now := b.now.Add(1)
	defer b.now.Add(-1)
	for most := b.most.Load(); now > most && !b.most.CompareAndSwap(most, now); {
		most = b.most.Load()
	}
	if b.total.Add(1) == b.need {
		close(b.open)
	}
	select {
	case <-b.open:
		return b.Store.Get(ctx, key, offset, length)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// TestFetchRunsAhead shows that bodies are fetched in parallel, and how many at most.
func TestFetchRunsAhead(t *testing.T) {
	t.Parallel()
	n := newTestNode(t)
	gate := &gatedBlobs{Store: n.blobs.Store, open: make(chan struct{}), need: aheadObjects}
	n.blobs.Store = gate
	c := n.connect(t)
	const messages = 3 * aheadObjects
	for i := range messages {
		text := fmt.Sprintf("Subject: %d\n\nbody %02d\n", i, i)
		if i%aheadObjects == 0 { // too large to be fetched as a whole
			text += strings.Repeat("more\n", aheadWhole/4)
		}
		c.put("INBOX", "", text)
	}
	c.ok("SELECT INBOX")
	lines := c.ok("FETCH 1:* BODY.PEEK[TEXT]<0.7>") // none would come if the first waited for nobody
	for i := range messages {
		if want := fmt.Sprintf("body %02d)", i); len(lines) != 2*messages || lines[2*i+1] != want {
			t.Fatalf("%d lines; of message %d %q", len(lines), i, lines[2*i+1])
		}
	}
	if total := gate.total.Load(); total != messages {
		t.Errorf("%d reads for %d messages", total, messages)
	}
	if most := gate.most.Load(); most != aheadObjects {
		t.Errorf("%d reads at the same time, want %d", most, aheadObjects)
	}
}

// TestFetchCutOff shows that a session that is cut off while bodies are fetched leaves nothing running.
func TestFetchCutOff(t *testing.T) {
	t.Parallel()
	n := newTestNode(t)
	gate := &gatedBlobs{Store: n.blobs.Store, open: make(chan struct{}), need: 1000} // never opens
	n.blobs.Store = gate
	c := n.connect(t)
	for range 20 {
		c.put("INBOX", "", "Subject: x\n\nbody\n")
	}
	account := n.store.Account(n.account, func() {})
	defer account.Close()
	box, err := account.Open(t.Context(), "INBOX", func() {})
	if err != nil {
		t.Fatal(err)
	}
	defer box.Close()
	ctx, cancel := context.WithCancel(t.Context())
	s := &session{account: account, enc: imapwire.NewEncoder(io.Discard), view: &view{mailbox: box, snap: box.Snapshot()}}
	ended := make(chan error, 1)
	go func() {
		_, err := fetchArgs(t, bySeq, "1:* BODY.PEEK[]").run(ctx, s)
		ended <- err
	}()
	for gate.now.Load() < aheadObjects {
		runtime.Gosched()
	}
	cancel()
	if err := <-ended; !errors.Is(err, errCut) {
		t.Errorf("ended with %v", err)
	}
	if now := gate.now.Load(); now != 0 {
		t.Errorf("%d reads still run", now)
	}
}

// TestFetchFromADeletedMailbox shows that messages are served where their flags cannot be stored.
func TestFetchFromADeletedMailbox(t *testing.T) {
	t.Parallel()
	n := newTestNode(t)
	c, other := n.connect(t), n.connect(t)
	c.ok("CREATE A")
	c.put("A", "", "Subject: x\n\nbody\n")
	c.ok("SELECT A")
	other.ok("DELETE A")
	lines := c.tail("FETCH 1 BODY[TEXT]")
	want := []string{"* 1 FETCH (BODY[TEXT] {6}", "body", ")", "* BYE [NONEXISTENT] The selected mailbox was deleted"}
	if fmt.Sprint(lines) != fmt.Sprint(want) {
		t.Errorf("got %q, want %q", lines, want)
	}
}

// What one client was told of messages the next one is told without a question to PostgreSQL,
// and so is who then reads one of them.
func TestFetchAsksOnce(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, clusterOptions{})
	user := c.account(t, "once@example.org", metadata.Quota{}).Name
	a := c.nodes[0].dial(t).login(user)
	const text = "From: a@example.org\r\nSubject: once\r\n\r\nhello\r\n"
	for range 3 {
		a.send(fmt.Sprintf("a APPEND INBOX {%d+}\r\n%s", len(text), text))
		a.until("a OK ")
	}
	for i, command := range []string{
		"FETCH 1:* (FLAGS INTERNALDATE RFC822.SIZE ENVELOPE BODYSTRUCTURE)", "FETCH 1:* (ENVELOPE EMAILID)", "FETCH 2 (BODY[])",
		"UID FETCH 1:* (BODY.PEEK[HEADER.FIELDS (SUBJECT)])", "FETCH 3 (BODY.PEEK[TEXT]<1.2>)",
	} {
		b := c.nodes[0].dial(t).login(user)
		b.send("a EXAMINE INBOX")
		b.until("a OK ")
		before := c.db.Stats().RoundTrips
		b.send("a " + command)
		b.until("a OK ")
		if trips := c.db.Stats().RoundTrips - before; trips != int64(max(1-i, 0)) {
			t.Errorf("%s: %d round trips", command, trips)
		}
	}
}
