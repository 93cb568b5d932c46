package imapwire

import (
	"bytes"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
)

// answers are what a client that knows nothing of this package is told, by command.
var answers = map[string]func(t *testing.T, d *Decoder, e *Encoder){
	"CAPABILITY": func(_ *testing.T, _ *Decoder, e *Encoder) { e.Capability(clientCapabilities) },
	"LOGIN": func(t *testing.T, d *Decoder, _ *Encoder) {
		if l := d.Login(); l != (Login{"jörg", "a\"b\\c"}) {
			t.Errorf("Login = %+v, %v", l, d.Err())
		}
	},
	"SELECT": func(t *testing.T, d *Decoder, e *Encoder) {
		d.SP()
		if name := d.Mailbox(); name != "Entwürfe & mehr" {
			t.Errorf("Mailbox = %q, %v", name, d.Err())
		}
		if p := d.SelectParams(); !p.CondStore {
			t.Errorf("SelectParams = %+v", p)
		}
		e.MailboxFlags([]string{FlagSeen, "$Junk"})
		e.Exists(3)
		e.Status("", OK, CodeUIDValidity(7), "UIDs valid")
		e.Status("", OK, CodeUIDNext(12), "Next UID")
		e.Status("", OK, CodeHighestModSeq(1<<40), "Highest")
		e.Status("", OK, CodePermanentFlags([]string{FlagSeen, FlagWildcard}), "Flags")
	},
	"LIST": func(t *testing.T, d *Decoder, e *Encoder) {
		a := d.ListArgs()
		if a.Reference != "" || len(a.Patterns) != 1 || a.Patterns[0] != "Ü*" || !a.Return.Subscribed {
			t.Errorf("ListArgs = %+v, %v", a, d.Err())
		}
		e.List(&Listing{Attrs: []string{`\HasChildren`}, Delimiter: '/', Name: "Übung", ChildInfo: []string{"SUBSCRIBED"}})
		e.List(&Listing{Delimiter: '/', Name: `Ü "x" & y`})
	},
	"STATUS": func(t *testing.T, d *Decoder, e *Encoder) {
		d.SP()
		name := d.Mailbox()
		d.SP()
		if items := d.StatusItems(); len(items) != 2 {
			t.Errorf("StatusItems = %v, %v", items, d.Err())
		}
		e.StatusBegin(name).StatusNumber(StatusMessages, 3).StatusNumber(StatusUIDNext, 12).StatusEnd()
	},
	"UID SEARCH": func(t *testing.T, d *Decoder, e *Encoder) {
		a := d.SearchArgs()
		if !a.Return.All || !a.Return.Count || len(a.Key.Keys) == 0 {
			t.Errorf("SearchArgs = %+v, %v", a, d.Err())
		}
		e.ESearch(&ESearch{Tag: d.Tag(), UID: true, All: set("3:5,9"), HasCount: true, Count: 4})
	},
	"UID FETCH": func(t *testing.T, d *Decoder, e *Encoder) {
		if s := numbered(d); s.String() != "3:*" {
			t.Errorf("NumSet = %s", s)
		}
		a := d.FetchArgs()
		if len(a.Items) != 3 || a.Items[2].Name != ItemSection || !a.Items[2].Peek {
			t.Fatalf("FetchArgs = %+v, %v", a, d.Err())
		}
		// This client finds the command of a response by the UID, and only looks for it before the first literal.
		e.FetchBegin(1).FetchUID(3)
		e.FetchSection(&a.Items[2]).SP().LiteralHeader(5)
		_ = e.CopyN(strings.NewReader("a\r\n)("), 5)
		e.FetchFlags([]string{FlagSeen, "$Junk"}).FetchEnd()
	},
	"STORE": func(t *testing.T, d *Decoder, _ *Encoder) {
		numbered(d)
		if a := d.StoreArgs(); a.Op != StoreAdd || !a.Silent || len(a.Flags) != 1 || a.Flags[0] != FlagDeleted {
			t.Errorf("StoreArgs = %+v, %v", a, d.Err())
		}
	},
	"APPEND": func(t *testing.T, d *Decoder, _ *Encoder) {
		d.SP()
		d.Mailbox()
		m := d.AppendMessage()
		r, err := d.OpenLiteral()
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r)
		if string(body) != "Subject: x\r\n\r\n" || err != nil || !m.Date.Equal(time.Unix(1_000_000_000, 0)) {
			t.Errorf("append %+v %q, %v", m, body, err)
		}
		d.AppendMessageEnd(m)
	},
}

var clientCapabilities = []string{"IMAP4rev1", "ESEARCH", "CONDSTORE", "LIST-EXTENDED", "UIDPLUS"}

// answer serves conn until the client is gone.
func answer(t *testing.T, conn net.Conn) {
	d, e := NewDecoder(conn, Limits{}), NewEncoder(conn)
	d.Continue = func(Literal) error {
		e.Continue("go on")
		return e.Flush()
	}
	e.Status("", OK, CodeCapability(clientCapabilities), "ready")
	for e.Flush() == nil {
		tag, name, err := d.Command()
		if err != nil {
			return
		}
		if run := answers[name]; run != nil {
			run(t, d, e)
		} else {
			t.Errorf("unexpected command %s", name)
		}
		if err := d.End(); err != nil {
			t.Errorf("%s: %v", name, err)
			return
		}
		code := Code("")
		if name == "APPEND" {
			code = CodeAppendUID(7, NumSetOf(12))
		}
		e.Status(tag, OK, code, name+" completed")
	}
}

// TestClient has another implementation of the grammar read what the encoder writes, and write what the decoder reads.
func TestClient(t *testing.T) {
	t.Parallel()
	ours, theirs := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		answer(t, ours)
	}()
	client := imapclient.New(theirs, nil)
	defer func() { _ = client.Close(); <-done }()

	if err := client.Login("jörg", "a\"b\\c").Wait(); err != nil {
		t.Fatal(err)
	}
	selected, err := client.Select("Entwürfe & mehr", &imap.SelectOptions{CondStore: true}).Wait()
	if err != nil || selected.NumMessages != 3 || selected.UIDNext != 12 || selected.HighestModSeq != 1<<40 || len(selected.PermanentFlags) != 2 {
		t.Errorf("Select = %+v, %v", selected, err)
	}
	list, err := client.List("", "Ü*", &imap.ListOptions{ReturnSubscribed: true}).Collect()
	if err != nil || len(list) != 2 || list[0].Mailbox != "Übung" || !list[0].ChildInfo.Subscribed || list[1].Mailbox != `Ü "x" & y` {
		t.Errorf("List = %+v, %v", list, err)
	}
	status, err := client.Status("a b", &imap.StatusOptions{NumMessages: true, UIDNext: true}).Wait()
	if err != nil || status.Mailbox != "a b" || *status.NumMessages != 3 || status.UIDNext != 12 {
		t.Errorf("Status = %+v, %v", status, err)
	}
	found, err := client.UIDSearch(&imap.SearchCriteria{
		Since: time.Unix(1_000_000_000, 0), Body: []string{"grün"}, NotFlag: []imap.Flag{imap.FlagSeen},
		Or: [][2]imap.SearchCriteria{{{Larger: 5}, {Header: []imap.SearchCriteriaHeaderField{{Key: "X", Value: "a\r\nb"}}}}},
	}, &imap.SearchOptions{ReturnAll: true, ReturnCount: true}).Wait()
	if err != nil || found.All.String() != "3:5,9" || found.Count != 4 {
		t.Errorf("Search = %+v, %v", found, err)
	}
	section := &imap.FetchItemBodySection{Peek: true, Specifier: imap.PartSpecifierHeader, HeaderFields: []string{"Subject", "Date"}}
	fetched, err := client.Fetch(imap.UIDSet{{Start: 3, Stop: 0}}, &imap.FetchOptions{Flags: true, UID: true, BodySection: []*imap.FetchItemBodySection{section}}).Collect()
	if err != nil || len(fetched) != 1 || fetched[0].UID != 3 || len(fetched[0].Flags) != 2 || !bytes.Equal(fetched[0].FindBodySection(section), []byte("a\r\n)(")) {
		t.Errorf("Fetch = %+v, %v", fetched, err)
	}
	if err := client.Store(imap.SeqSetNum(1, 2), &imap.StoreFlags{Op: imap.StoreFlagsAdd, Silent: true, Flags: []imap.Flag{imap.FlagDeleted}}, nil).Close(); err != nil {
		t.Errorf("Store: %v", err)
	}
	body := "Subject: x\r\n\r\n"
	appending := client.Append("Entwürfe", int64(len(body)), &imap.AppendOptions{Flags: []imap.Flag{imap.FlagSeen}, Time: time.Unix(1_000_000_000, 0)})
	if _, err := io.WriteString(appending, body); err != nil {
		t.Error(err)
	}
	if err := appending.Close(); err != nil {
		t.Error(err)
	}
	if appended, err := appending.Wait(); err != nil || appended.UID != 12 || appended.UIDValidity != 7 {
		t.Errorf("Append = %+v, %v", appended, err)
	}
}

// TestHotPathsDoNotAllocate cannot run beside other tests, whose allocations it would count.
func TestHotPathsDoNotAllocate(t *testing.T) {
	e := NewEncoder(io.Discard)
	flags := []string{FlagSeen, FlagAnswered}
	var uids NumSet
	uids.AddRange(5, 9)
	date := time.Unix(1_000_000_000, 0).UTC()
	section := FetchItem{Name: ItemSection, Section: Section{Part: []uint32{1}, Text: "MIME"}}
	subject := []byte("sübject \"x\"")
	write := func() {
		e.FetchBegin(7).FetchUID(1 << 31).FetchFlags(flags).FetchModSeq(1 << 40).Item(ItemInternalDate).SP().DateTime(date)
		e.FetchSection(&section).SP().Bytes(subject).FetchEnd()
		e.Exists(1 << 20)
		e.Vanished(uids, false)
		e.StatusBegin("Entwürfe").StatusNumber(StatusMessages, 1<<20).StatusEnd()
	}
	for range 2 * flushSize / 200 {
		write() // until the buffer has its size
	}
	if n := testing.AllocsPerRun(1000, write); n != 0 {
		t.Errorf("%v allocations for a message", n)
	}
}
