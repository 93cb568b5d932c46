package imap

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"starling/blobstore"
	"starling/blobstore/memory"
	"starling/frontend/imapwire"
	"starling/frontend/mailstore"
)

// searchMails are the messages of the tests, by sequence number and UID from 1.
var searchMails = []struct{ options, text string }{
	{`(\Seen) "01-Feb-2024 23:30:00 +0000"`, `From: Fred Foobar <foobar@example.com>
To: Joe <joe@example.org>, "Smith, Ann" <ann@example.org>
Subject: afternoon meeting
Date: Thu, 1 Feb 2024 22:00:00 -0800
Message-Id: <1@example.com>
X-Loop:

Hello Joe, do you think we can meet at 3:30 tomorrow?
`},
	{`(\Answered \Flagged $Work) "02-Feb-2024 00:30:00 +0100"`, `From: =?utf-8?q?J=C3=BCrgen?= <j@example.com>
Cc: ann@example.org
Subject: =?iso-8859-1?q?Gr=FC=DFe?= aus =?utf-8?b?S8O2bG4=?=
Date: Fri, 2 Feb 2024 01:00:00 +0900
Content-Type: text/plain; charset=iso-8859-1
Content-Transfer-Encoding: quoted-printable

Viele Gr=FC=DFe=
 und bis bald
`},
	{`(\Deleted) "03-Feb-2024 12:00:00 +0000"`, `From: list@example.net
Subject: digest
List-Id: <x.example.net>
X-Odd: Value
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary=b

--b
Content-Type: text/plain
Content-Transfer-Encoding: base64

U2VjcmV0IG1lZXRpbmc=
--b
Content-Type: application/octet-stream; name=meeting-plan.bin

needle in an attachment
--b
Content-Type: message/rfc822

From: inner@example.net
Subject: inner subject

inner body
--b--
`},
	{`(\Draft) "04-Feb-2024 12:00:00 +0000"`, `Bcc: hidden@example.net
Date: nonsense

`},
}

func searchable(t *testing.T) *talk {
	t.Helper()
	c := newTestNode(t).connect(t)
	for _, m := range searchMails {
		c.put("INBOX", m.options, m.text)
	}
	c.ok("SELECT INBOX")
	return c
}

// Each key by itself, and together with others.
func TestSearchKeys(t *testing.T) {
	t.Parallel()
	c := searchable(t)
	c.ok("ENABLE CONDSTORE")
	for _, q := range []struct{ keys, want string }{
		{"ALL", "1 2 3 4"},
		{"2:3", "2 3"},
		{"4,1", "1 4"},
		{"*", "4"},
		{"UID 2:*", "2 3 4"},
		{"UID 9:*", "4"},
		{"UID 100:200", ""},
		{"SEEN", "1"},
		{"UNSEEN", "2 3 4"},
		{"ANSWERED", "2"},
		{"UNANSWERED", "1 3 4"},
		{"FLAGGED", "2"},
		{"UNFLAGGED", "1 3 4"},
		{"DELETED", "3"},
		{"UNDELETED", "1 2 4"},
		{"DRAFT", "4"},
		{"UNDRAFT", "1 2 3"},
		{"KEYWORD $work", "2"},
		{"UNKEYWORD $Work", "1 3 4"},
		{"KEYWORD Nobody", ""},
		{"UNKEYWORD Nobody", "1 2 3 4"},
		{"RECENT", "1 2 3 4"},
		{"NEW", "2 3 4"},
		{"OLD", ""},

		// INTERNALDATE is told in UTC: message 2 has 1 February 23:30 there.
		{"BEFORE 2-Feb-2024", "1 2"},
		{"ON 1-Feb-2024", "1 2"},
		{"SINCE 3-Feb-2024", "3 4"},
		{`ON "03-Feb-2024"`, "3"},
		// SENT keys take the day as it stands in the field.
		{"SENTON 1-Feb-2024", "1"},
		{"SENTON 2-Feb-2024", "2"},
		{"SENTBEFORE 2-Feb-2024", "1"},
		{"SENTSINCE 2-Feb-2024", "2"},
		{"NOT SENTSINCE 2-Feb-2024", "1 3 4"},
		{"SAVEDBEFORE 1-Jan-2020", ""},
		{"SAVEDSINCE 1-Jan-2020", "1 2 3 4"},
		{"SAVEDON 1-Feb-2024", ""},
		{"SAVEDATESUPPORTED", "1 2 3 4"},
		{"OLDER 3600", "1 2 3 4"},
		{"YOUNGER 3600", ""},

		{fmt.Sprintf("LARGER %d", wireSize(3)), ""},
		{fmt.Sprintf("LARGER %d", wireSize(3)-1), "3"},
		{fmt.Sprintf("SMALLER %d", wireSize(4)+1), "4"},
		{fmt.Sprintf("SMALLER %d", wireSize(4)), ""},
		{fmt.Sprintf("NOT LARGER %d", wireSize(1)), "1 4"},

		{"FROM foobar", "1"},
		{`FROM "fred FOOBAR <foobar@"`, "1"},
		{"FROM \"J\u00dcRGEN\"", "2"},
		{"TO ann@EXAMPLE", "1"},
		{"TO smith", "1"},
		{"CC ann", "2"},
		{"BCC hidden", "4"},
		{"SUBJECT meeting", "1"},
		{"SUBJECT \"gr\u00fc\u00dfe aus K\u00d6\"", "2"},
		{`SUBJECT ""`, "1 2 3"},
		{`HEADER List-Id ""`, "3"},
		{`HEADER x-loop ""`, "1"},
		{"HEADER X-Odd value", "3"},
		{"HEADER X-Odd other", ""},
		{"HEADER Message-ID <1@", "1"},
		{`HEADER X-Nowhere ""`, ""},
		{`NOT HEADER X-Nowhere ""`, "1 2 3 4"},

		{"BODY tomorrow?", "1"},
		{"BODY \"gr\u00dc\u00dfe und BIS\"", "2"},
		{`BODY "secret meeting"`, "3"},
		{"BODY meeting-plan", "3"}, // the headers of parts
		{`BODY "inner subject"`, "3"},
		{`BODY "inner body"`, "3"},
		{"BODY afternoon", ""},
		{"BODY attachment", ""},
		{"TEXT afternoon", "1"},
		{"TEXT meeting", "1 3"},
		{"TEXT \"gr\u00fc\u00dfe aus\"", "2"},
		{`BODY ""`, "1 2 3 4"},
		{`TEXT ""`, "1 2 3 4"},

		{"EMAILID Mnobody", ""},
		{"THREADID T0", ""},
		{"MODSEQ 1", "1 2 3 4"},

		{"SEEN FLAGGED", ""},
		{"OR SEEN FLAGGED", "1 2"},
		{"NOT (OR SEEN FLAGGED)", "3 4"},
		{"OR (SEEN TEXT nowhere) (FLAGGED CC ann)", "2"},
		{"OR TEXT tomorrow NOT BODY meeting", "1 2 4"},
		{"NOT NOT TEXT tomorrow", "1"},
		{"NOT (1:2 NOT BODY tomorrow)", "1 3 4"},
		{"OR OR BODY tomorrow TEXT hidden HEADER X-Odd val", "1 3 4"},
		{"2:4 UNDELETED SINCE 1-Feb-2024 OR SUBJECT aus HEADER Bcc hidden", "2 4"},
		{"(ALL) (2 UID 2)", "2"},
		{"BODY tomorrow BODY think TEXT afternoon HEADER From fred", "1"},
	} {
		want := "* SEARCH"
		if q.want != "" {
			want += " " + q.want
		}
		if strings.Contains(q.keys, "MODSEQ") {
			want += " (MODSEQ 5)"
		}
		c.want("SEARCH "+q.keys, want, "OK …")
		c.want("UID SEARCH "+q.keys, want, "OK …")
	}
}

// wireSize is the size of a message of the tests, by its number.
func wireSize(n int) int {
	return len(strings.ReplaceAll(searchMails[n-1].text, "\n", "\r\n"))
}

func TestSearchCharsets(t *testing.T) {
	t.Parallel()
	c := searchable(t)
	c.want("SEARCH CHARSET utf-8 SUBJECT {7+}\r\ngr\u00fc\u00dfe", "* SEARCH 2", "OK …")
	c.want("SEARCH CHARSET iso-8859-1 SUBJECT {5+}\r\ngr\xfc\xdfe", "* SEARCH 2", "OK …")
	c.want("SEARCH CHARSET iso-8859-1 BODY {5+}\r\ngr\xfc\xdfe", "* SEARCH 2", "OK …")
	c.want("SEARCH CHARSET US-ASCII SUBJECT digest", "* SEARCH 3", "OK …")
	c.want("SEARCH CHARSET X-Martian SUBJECT digest", "NO [BADCHARSET (US-ASCII UTF-8)] …")
	c.ok("ENABLE UTF8=ACCEPT")
	c.want("SEARCH CHARSET UTF-8 ALL", "BAD …") // RFC 6855 §3
	c.want("SEARCH SUBJECT \"gr\u00fc\"", "* SEARCH 2", "OK …")
}

func TestSearchOfAnEmptyMailbox(t *testing.T) {
	t.Parallel()
	c := newTestNode(t).connect(t)
	c.ok("SELECT INBOX")
	c.want("SEARCH 1:*", "* SEARCH", "OK …")
	c.want("UID SEARCH 1:* NOT DELETED", "* SEARCH", "OK …")
	c.want("UID SEARCH RETURN (MIN MAX ALL COUNT) UID 1:*", `* ESEARCH (TAG "TAG") UID COUNT 0`, "OK …")
	c.want("SEARCH MODSEQ 1", "* OK [HIGHESTMODSEQ 1] …", "* SEARCH", "OK …")
}

func TestSearchErrors(t *testing.T) {
	t.Parallel()
	c := searchable(t)
	c.want("SEARCH 9", "BAD …")
	c.want("SEARCH FROM", "BAD …")
	c.want("SEARCH", "BAD …")
	c.want("SEARCH BANANA", "BAD …")
	c.want("SEARCH RETURN (SOMETIMES) ALL", "BAD …")
	c.want("SEARCH ON 31-Feb-2024", "BAD …")
	c.want("SEARCH ALL", "* SEARCH 1 2 3 4", "OK …")
}

// RFC 4731 §3.1, RFC 7162 §3.1.10.
func TestESearch(t *testing.T) {
	t.Parallel()
	c := searchable(t)
	c.want("SEARCH RETURN (MIN COUNT) UNSEEN", `* ESEARCH (TAG "TAG") MIN 2 COUNT 3`, "OK …")
	c.want("UID SEARCH RETURN (MIN MAX) UNSEEN", `* ESEARCH (TAG "TAG") UID MIN 2 MAX 4`, "OK …")
	c.want("SEARCH RETURN () OR SEEN 3:4", `* ESEARCH (TAG "TAG") ALL 1,3:4`, "OK …")
	c.want("SEARCH RETURN (ALL MAX) ALL", `* ESEARCH (TAG "TAG") MAX 4 ALL 1:4`, "OK …")
	c.want("SEARCH RETURN (MAX) KEYWORD x", `* ESEARCH (TAG "TAG")`, "OK …")
	c.ok("STORE 2 +FLAGS.SILENT (x)")
	c.want("SEARCH RETURN (MIN) MODSEQ 1", "* OK [HIGHESTMODSEQ 6] …", `* ESEARCH (TAG "TAG") MIN 1 MODSEQ 2`, "OK …")
	c.want("SEARCH RETURN (MAX) MODSEQ 1", `* ESEARCH (TAG "TAG") MAX 4 MODSEQ 5`, "OK …")
	c.want("SEARCH RETURN (MIN MAX) MODSEQ 1", `* ESEARCH (TAG "TAG") MIN 1 MAX 4 MODSEQ 5`, "OK …")
	c.want("SEARCH RETURN (MIN COUNT) MODSEQ 1", `* ESEARCH (TAG "TAG") MIN 1 COUNT 4 MODSEQ 6`, "OK …")
	c.want(`SEARCH RETURN (ALL) MODSEQ "/flags/\\draft" all 6`, `* ESEARCH (TAG "TAG") ALL 2 MODSEQ 6`, "OK …")
	c.want("SEARCH RETURN (ALL) MODSEQ 7", `* ESEARCH (TAG "TAG")`, "OK …")
}

// IMAP4rev2 is always answered with ESEARCH (RFC 9051 §6.4.4).
func TestSearchOfRev2(t *testing.T) {
	t.Parallel()
	n := newTestNode(t)
	c := n.connect(t, rev2)
	for _, m := range searchMails {
		c.put("INBOX", m.options, m.text)
	}
	c.ok("SELECT INBOX")
	c.want("UID SEARCH CHARSET UTF-8 SEEN", `* ESEARCH (TAG "TAG") UID ALL 1`, "OK …")
	c.want("SEARCH DELETED SEEN", `* ESEARCH (TAG "TAG")`, "OK …")
	c.want("SEARCH RECENT", `* ESEARCH (TAG "TAG")`, "OK …") // nothing is recent to it
}

// A message is read only if the keys that cost less leave it open.
func TestSearchReadsNoMoreThanItMust(t *testing.T) {
	t.Parallel()
	n := newTestNode(t)
	c := n.connect(t)
	for _, m := range searchMails {
		c.put("INBOX", m.options, m.text)
	}
	c.ok("SELECT INBOX")
	for _, q := range []struct {
		keys  string
		reads int64
	}{
		{"SUBJECT x FROM y SENTON 1-Feb-2024 LARGER 1 SINCE 1-Jan-2024 TO x HEADER List-Id x", 0},
		{"SEEN BODY nowhere", 1},
		{"OR SEEN BODY nowhere", 2}, // message 4 has no body
		{"BODY tomorrow SUBJECT nothing", 0},
		{"NOT (BODY tomorrow SUBJECT nothing)", 0},
		{"SINCE 3-Feb-2024 BODY nowhere BODY nothing", 1},
		{"HEADER X-Odd value LARGER 100000", 0},
		{"HEADER X-Odd value", 4},
	} {
		before := n.blobs.gets.Load()
		c.ok("SEARCH %s", q.keys)
		if got := n.blobs.gets.Load() - before; got != q.reads {
			t.Errorf("SEARCH %s read %d messages, want %d", q.keys, got, q.reads)
		}
	}
}

// A message whose object is lost does not keep others from being found.
func TestSearchPassesOverLostMessages(t *testing.T) {
	t.Parallel()
	n := newTestNode(t)
	c := n.connect(t)
	c.put("INBOX", "", "Subject: a\n\nbody\n")
	n.blobs.lose(t)
	c.put("INBOX", "", "Subject: b\n\nbody\n")
	c.ok("SELECT INBOX")
	c.want("SEARCH BODY body", "* SEARCH 2", "OK …")
	c.want("SEARCH SUBJECT a", "* SEARCH 1", "OK …")
}

// RFC 5182.
func TestSearchResult(t *testing.T) {
	t.Parallel()
	c := searchable(t)
	saved := func(want string) {
		t.Helper()
		c.want("UID SEARCH $", strings.TrimSuffix("* SEARCH "+want, " "), "OK …")
	}
	saved("")
	c.want("SEARCH RETURN (SAVE) UNSEEN", "OK …")
	saved("2 3 4")
	c.want("SEARCH UID $ DELETED", "* SEARCH 3", "OK …")
	c.want("SEARCH NOT $", "* SEARCH 1", "OK …")
	c.want("SEARCH RETURN (SAVE MIN) $", `* ESEARCH (TAG "TAG") MIN 2`, "OK …")
	saved("2")
	c.want("SEARCH RETURN (SAVE MAX) ALL", `* ESEARCH (TAG "TAG") MAX 4`, "OK …")
	saved("4")
	c.want("SEARCH RETURN (SAVE MIN MAX) ALL", `* ESEARCH (TAG "TAG") MIN 1 MAX 4`, "OK …")
	saved("1 4")
	c.want("SEARCH RETURN (SAVE MIN COUNT) 2:3", `* ESEARCH (TAG "TAG") MIN 2 COUNT 2`, "OK …")
	saved("2 3")
	c.want("SEARCH RETURN (SAVE MIN ALL) 3:4", `* ESEARCH (TAG "TAG") MIN 3 ALL 3:4`, "OK …")
	saved("3 4")
	c.want("SEARCH RETURN (SAVE) 99", "BAD …") // changes nothing
	saved("3 4")
	c.want("SEARCH RETURN (SAVE) CHARSET X-Martian TEXT x", "NO [BADCHARSET …")
	saved("")
	c.ok("SEARCH RETURN (SAVE) ALL")
	c.ok("EXPUNGE") // message 3
	saved("1 2 4")
	c.want("SEARCH $", "* SEARCH 1 2 3", "OK …")
	c.want("SEARCH RETURN (SAVE) KEYWORD nobody", "OK …")
	saved("")
	c.ok("SEARCH RETURN (SAVE) ALL")
	c.ok("SELECT INBOX")
	saved("")
}

// What others expunged keeps its number while SEARCH by number runs (RFC 9051 §7.5.1).
func TestSearchWithGhosts(t *testing.T) {
	t.Parallel()
	n := newTestNode(t)
	c, other := n.connect(t), n.connect(t)
	for _, m := range searchMails {
		c.put("INBOX", m.options, m.text)
	}
	c.ok("SELECT INBOX")
	other.ok("SELECT INBOX")
	other.ok("EXPUNGE")
	c.want("SEARCH ALL", "* SEARCH 1 2 3 4", "OK …")
	c.want("SEARCH DELETED", "* SEARCH 3", "OK …")
	c.want(`SEARCH BODY "secret meeting"`, "* SEARCH 3", "OK …")
	c.want("SEARCH RETURN (SAVE) ALL", "OK …")
	c.want("UID SEARCH ALL", "* SEARCH 1 2 4", "* 3 EXPUNGE", "OK …")
	c.want("UID SEARCH $", "* SEARCH 1 2 4", "OK …")
}

// A search that cannot be finished says so, and saves nothing (RFC 5182 §2.1).
func TestSearchWithoutObjects(t *testing.T) {
	t.Parallel()
	n := newTestNode(t)
	c := n.connect(t)
	c.put("INBOX", "", "Subject: a\n\nbody\n")
	c.ok("SELECT INBOX")
	c.want("SEARCH RETURN (SAVE) ALL", "OK …")
	n.blobs.down.Store(true)
	c.want("SEARCH BODY body", "NO [UNAVAILABLE] …")
	c.want("UID SEARCH $", "* SEARCH 1", "OK …")
	c.want("SEARCH RETURN (SAVE) BODY body", "NO [UNAVAILABLE] …")
	c.want("UID SEARCH $", "* SEARCH", "OK …")
	n.blobs.down.Store(false)
	c.want("SEARCH RETURN (SAVE) BODY body", "OK …")
	c.want("UID SEARCH $", "* SEARCH 1", "OK …")
}

// filled makes a mailbox of 2^doublings messages with the searchMails' texts.
func filled(t testing.TB, doublings int) *talk {
	t.Helper()
	c := newTestNode(t).connect(t)
	for _, m := range searchMails[:2] {
		c.put("INBOX", m.options, m.text)
	}
	c.ok("SELECT INBOX")
	for range doublings - 1 {
		c.ok("COPY 1:* INBOX")
	}
	return c
}

// More messages than are read at a time, of which some are in doubt until they are read.
func TestSearchManyMessages(t *testing.T) {
	t.Parallel()
	c := filled(t, 12)
	c.want(`SEARCH RETURN (MIN MAX COUNT) OR FLAGGED BODY tomorrow`, `* ESEARCH (TAG "TAG") MIN 1 MAX 4096 COUNT 4096`, "OK …")
	c.want(`SEARCH RETURN (COUNT) NOT FLAGGED BODY tomorrow`, `* ESEARCH (TAG "TAG") COUNT 2048`, "OK …")
	c.want(`UID SEARCH RETURN (MIN MAX COUNT) SUBJECT meeting`, `* ESEARCH (TAG "TAG") UID MIN 1 MAX 4095 COUNT 2048`, "OK …")
	c.want(`SEARCH RETURN (MAX COUNT) ON 1-Feb-2024 UNSEEN`, `* ESEARCH (TAG "TAG") MAX 4096 COUNT 2048`, "OK …")
	c.want(`SEARCH RETURN (ALL) 1000:1003,4000:* SEEN`, `* ESEARCH (TAG "TAG") ALL 1001,1003,4001,4003,4005,4007,4009,4011,4013,4015,4017,4019,4021,4023,4025,4027,4029,4031,4033,4035,4037,4039,4041,4043,4045,4047,4049,4051,4053,4055,4057,4059,4061,4063,4065,4067,4069,4071,4073,4075,4077,4079,4081,4083,4085,4087,4089,4091,4093,4095`, "OK …")
}

// Whole commands over a mailbox of 16,384 messages, in memory but for PostgreSQL.
func BenchmarkSearchMailbox(b *testing.B) {
	c := filled(b, 14)
	for _, keys := range []string{
		"UNSEEN", "SINCE 3-Feb-2024", "LARGER 100000", "SENTSINCE 1-Jan-2030", "SUBJECT meeting", "FROM nobody",
		"OR SUBJECT nothing FROM nobody", "HEADER List-Id x", "BODY tomorrow",
	} {
		b.Run(keys, func(b *testing.B) {
			for b.Loop() {
				c.ok("UID SEARCH RETURN (COUNT) %s", keys)
			}
		})
	}
}

// A search that reads messages for long gives signs of life, and ends when nobody hears them.
func TestSearchSignsOfLife(t *testing.T) {
	t.Parallel()
	n := newTestNode(t)
	n.server.signs = 0
	c := n.connect(t)
	c.put("INBOX", "", "Subject: x\n\nhello\n")
	c.put("INBOX", "", "Subject: x\n\nworld\n")
	c.ok("SELECT INBOX")
	c.want("SEARCH BODY hello", "* OK Still searching", "* SEARCH 1", "OK SEARCH completed")

	account := n.store.Account(n.account, func() {})
	defer account.Close()
	box, err := account.Open(t.Context(), "INBOX", func() {})
	if err != nil {
		t.Fatal(err)
	}
	defer box.Close()
	away, other := net.Pipe()
	_ = other.Close()
	s := &session{server: n.server, account: account, enc: imapwire.NewEncoder(away), view: &view{mailbox: box, snap: box.Snapshot()}}
	args := imapwire.SearchArgs{Key: imapwire.SearchKey{Name: "BODY", Text: "hello"}}
	if _, err := (searchCmd{args: args}).run(t.Context(), s); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("the search went on: %v", err)
	}
}

// stuckBlobs are objects that are never read to the end: who reads one waits until it is told to stop.
type stuckBlobs struct {
	blobstore.Store
	asked, ended chan struct{}
}

func (b *stuckBlobs) Get(ctx context.Context, _ blobstore.Key, _, _ int64) (io.ReadCloser, error) {
	b.asked <- struct{}{}
	<-ctx.Done()
	b.ended <- struct{}{}
	return nil, ctx.Err()
}

// A search whose client is gone ends, though nothing that it waits for does, and long before the
// next sign of life is due; under TLS too, and whatever else the client has sent. One whose client has only
// no more to ask goes on, and gives more of them.
func TestSearchEndsWithItsClient(t *testing.T) {
	t.Parallel()
	for _, over := range []uint16{0, tls.VersionTLS12, tls.VersionTLS13} {
		for _, gone := range []bool{true, false} {
			t.Run(fmt.Sprintf("TLS %x gone %v", over, gone), func(t *testing.T) {
				t.Parallel()
				testSearchEnd(t, over, gone)
			})
		}
	}
}

func testSearchEnd(t *testing.T, version uint16, gone bool) {
	t.Helper()
	if runtime.GOOS != "linux" && gone {
		t.Skip("what a client has sent hides here that it is gone")
	}
	serves, trusts := testCertificate(t)
	serves.MaxVersion = version // 0: as high as can be
	blobs := &stuckBlobs{Store: memory.New(), asked: make(chan struct{}, 10), ended: make(chan struct{}, 10)}
	n := newTestNode(t, func(c *mailstore.Config, server *Config) { c.Blobs, server.TLS = blobs, serves })
	n.server.signs = 24 * time.Hour
	c := n.connect(t)
	c.put("INBOX", "", "Subject: x\n\nhello\n")
	socket, server := tcpPair(t)
	var client net.Conn = socket
	if version != 0 {
		client = tls.Client(socket, trusts)
	}
	c = n.talkOver(t, client, server)
	c.ok("SELECT INBOX")
	if _, err := io.WriteString(client, "s SEARCH BODY hello\r\nx NOOP\r\n"); err != nil {
		t.Fatal(err)
	}
	<-blobs.asked
	if gone {
		if err := client.Close(); err != nil {
			t.Fatal(err)
		}
		<-blobs.ended
		return
	}
	if err := socket.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if line := c.line(); !strings.HasPrefix(line, "* OK Still searching") {
			t.Fatalf("%q", line)
		}
	}
	select {
	case <-blobs.ended:
		t.Error("the search of a client that listens was ended")
	default:
	}
}

// tcpPair is both ends of a connection.
func tcpPair(t *testing.T) (client *net.TCPConn, server net.Conn) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if server, err = listener.Accept(); err != nil {
		t.Fatal(err)
	}
	return conn.(*net.TCPConn), server
}

// A search holds rows within the memory for those: where there is none it is refused for now.
func TestSearchWithinMemory(t *testing.T) {
	t.Parallel()
	n := newTestNode(t, func(c *mailstore.Config, _ *Config) { c.ReadMemory = 3 << 20 })
	c := n.connect(t)
	c.put("INBOX", "", "Subject: x\n\nhello\n")
	c.ok("SELECT INBOX")
	other := n.store.Account(n.account, func() {})
	defer other.Close()
	if err := other.ReserveRows(t.Context(), 1<<20); err != nil {
		t.Fatal(err)
	}
	c.want("SEARCH BODY hello", "NO [UNAVAILABLE] …")
	other.AdjustRows(-1 << 20)
	if err := other.ReserveRead(t.Context(), 2<<20); err != nil {
		t.Fatal(err)
	}
	c.want("SEARCH BODY hello", "NO [UNAVAILABLE] …")
	c.want("SEARCH SUBJECT x", "* SEARCH 1", "OK …") // which needs no body
	other.AdjustRead(-2 << 20)
	c.want("SEARCH BODY hello", "* SEARCH 1", "OK SEARCH completed")
	if !other.TryReserveRows(1 << 20) {
		t.Error("the search did not give back what it reserved")
	}
	other.AdjustRows(-1 << 20)
}
