package imap

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"starling/blobstore"
	"starling/metadata"
)

// reversingBlobs takes in objects only once so many are on their way, the last ones first, and
// refuses the second. Objects are told apart by their sizes, which are more than a step apart.
type reversingBlobs struct {
	blobstore.Store
	step    int64
	arrived atomic.Int64
	all     chan struct{}   // closed once as many have arrived as there are in taken
	taken   []chan struct{} // closed once the object has been taken in
}

func (b *reversingBlobs) Put(ctx context.Context, key blobstore.Key, r io.ReadSeeker, size int64) (blobstore.PutResult, error) {
	if _, message := key.Object(); !message {
		return b.Store.Put(ctx, key, r, size) // the list of mailboxes
	}
	i := int(size / b.step)
	if b.arrived.Add(1) == int64(len(b.taken)) {
		close(b.all)
	}
	<-b.all
	if i+1 < len(b.taken) {
		<-b.taken[i+1]
	}
	defer close(b.taken[i])
	if i == 1 {
		return blobstore.PutResult{}, blobstore.ErrUnavailable
	}
	return b.Store.Put(ctx, key, r, size)
}

// TestAppendsGoAhead shows that messages that a client sends without waiting for answers are stored at the
// same time, and that answers and messages come in the order of the commands all the same (RFC 9051 §5.5).
func TestAppendsGoAhead(t *testing.T) {
	t.Parallel()
	n := newTestNode(t)
	gate := &reversingBlobs{Store: n.blobs.Store, step: 500, all: make(chan struct{}), taken: make([]chan struct{}, 4)}
	n.blobs.Store = gate
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // made-up mail
	var commands strings.Builder
	texts := make([]string, len(gate.taken))
	for i := range texts {
		gate.taken[i] = make(chan struct{})
		text := make([]byte, 60+500*i) // an object has somewhat more, whatever compression makes of it
		for j := range text {
			text[j] = byte(' ' + random.IntN(95))
		}
		texts[i] = "\r\n" + string(text)
		fmt.Fprintf(&commands, "p%d APPEND INBOX {%d+}\r\n%s\r\n", i, len(texts[i]), texts[i])
	}
	c := n.connect(t)
	go func() { _, _ = io.WriteString(c.conn, commands.String()) }() // what is answered tells
	for i, want := range []string{
		"OK [APPENDUID $ 1] ", "NO [UNAVAILABLE] ", "OK [APPENDUID $ 2] ", "OK [APPENDUID $ 3] ", // after which nothing more comes
	} {
		line, err := c.in.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		words := strings.Fields(line)
		if len(words) > 4 && words[2] == "[APPENDUID" {
			words[3] = "$"
		}
		if got := strings.Join(words, " "); !strings.HasPrefix(got, fmt.Sprintf("p%d %s", i, want)) {
			t.Errorf("command %d was answered by %q, want %q", i, line, want)
		}
	}
	c.ok("SELECT INBOX")
	for i, text := range slices.Delete(texts, 1, 2) {
		if got := strings.Join(c.ok("FETCH %d BODY.PEEK[]", i+1), "\r\n"); !strings.Contains(got, text) {
			t.Errorf("message %d is %q, want %q", i+1, got, text)
		}
	}
}

// Who ends its side of the connection behind its messages hears of them.
func TestAppendsBeforeTheEnd(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, clusterOptions{})
	user := c.account(t, "end@example.org", metadata.Quota{}).Name
	for range 20 { // the end comes together with the messages, or after
		b := c.nodes[0].dial(t).login(user)
		b.send("a APPEND INBOX {3+}\r\nabc\r\nb APPEND INBOX {3+}\r\ndef")
		if err := b.conn.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		b.until("a OK ")
		b.until("b OK ")
	}
}

// A client that waits to be asked for its next message has the answers to those before by then.
func TestAppendsBeforeTheNextIsAskedFor(t *testing.T) {
	t.Parallel()
	c := newTestNode(t).connect(t)
	if _, err := io.WriteString(c.conn, "a APPEND INBOX {3+}\r\nabc\r\nb APPEND INBOX {3+}\r\ndef\r\nc APPEND INBOX {3}\r\n"); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"a OK ", "b OK ", "+ ", "c OK "} {
		if line := c.line(); !strings.HasPrefix(line, want) {
			t.Fatalf("answered with %q, want %q", line, want)
		}
		if want == "+ " {
			if _, err := io.WriteString(c.conn, "ghi\r\n"); err != nil {
				t.Fatal(err)
			}
		}
	}
}
