package mailstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"starling/blobstore"
	"starling/blobstore/disk"
	"starling/frontend/message"
	"starling/metadata"
)

// row is a message's row.
func (cl *client) row(uid uint32) metadata.Message {
	cl.t.Helper()
	var row metadata.Message
	err := cl.Messages(cl.t.Context(), one(uid), metadata.ColBlob|metadata.ColSize|metadata.ColIDs|metadata.ColSummary|metadata.ColDates,
		func(m *metadata.Message) error {
			row = *m
			row.Extent, row.Summary = bytes.Clone(m.Extent), bytes.Clone(m.Summary)
			return nil
		})
	if err != nil || row.UID != uid {
		cl.t.Fatalf("row of %d: %v", uid, err)
	}
	return row
}

// body is what BODY[] of a message returns.
func body(t testing.TB, m *client, uid uint32) string {
	t.Helper()
	row := m.row(uid)
	b, err := m.Body(&row)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if b.Size() != row.Size {
		t.Errorf("message %d has %d octets, its row says %d", uid, b.Size(), row.Size)
	}
	var buf bytes.Buffer
	if err := b.ReadRange(t.Context(), &buf, 0, b.Size()); err != nil {
		t.Fatal(err)
	}
	return buf.String()
}

// The object of a message for whose keyword the mailbox has no room is given up at once, so that no restore brings
// back what was refused.
func TestRefusedForItsKeyword(t *testing.T) {
	t.Parallel()
	c := newCluster(t, metadata.Quota{})
	n := c.still()
	var full []string
	for i := range metadata.MaxKeywords {
		full = append(full, fmt.Sprintf("k%d", i))
	}
	c.append(n, Inbox, mail("1"), full...)
	_, err := upload(t.Context(), n.Account, Incoming{Mailbox: Inbox, Flags: flagSet("more")}, mail("2"), nil)
	wantError(t, err, ErrKeywordLimit)
	if r := c.rebuilt(n, RebuildOptions{}); r.Messages != 0 || r.Doomed != 1 {
		t.Errorf("a rebuild says %+v", r)
	}
}

// A message that is too big is refused before it is read, or as soon as it is,
// and nothing of it is kept.
func TestTooBig(t *testing.T) {
	t.Parallel()
	c := newCluster(t, metadata.Quota{})
	x := c.still(func(c *Config) { c.MaxMessage = 1000 })
	_, err := x.Upload(t.Context(), Incoming{Mailbox: Inbox}, 1001)
	wantError(t, err, ErrTooBig)
	u, err := x.Upload(t.Context(), Incoming{Mailbox: Inbox}, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Discard()
	if _, err := u.Write(make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	_, err = u.Write([]byte("x"))
	wantError(t, err, ErrTooBig)
	_, err = u.Append(t.Context(), nil)
	wantError(t, err, ErrTooBig)
	if c.check(Inbox).Len() != 0 || c.blobs.puts.Load() != 0 {
		t.Error("something of it was kept")
	}
}

// What another took of the quota while the message was on its way is found out
// by the commit.
func TestOverQuotaAtCommit(t *testing.T) {
	t.Parallel()
	c := newCluster(t, metadata.Quota{Messages: 1})
	x, y := c.still(), c.still()
	u, err := x.Upload(t.Context(), Incoming{Mailbox: Inbox}, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Discard()
	c.append(y, "Archive", mail("1"))
	_, err = u.Append(t.Context(), nil)
	wantError(t, err, metadata.ErrOverQuota)
	if got := c.check(Inbox); got.Len() != 0 || got.row.ModSeq != 1 {
		t.Errorf("INBOX has %d messages, modseq %d", got.Len(), got.row.ModSeq)
	}
}

// A limit that is raised holds for sessions that began before.
func TestQuotaRaisedDuringSession(t *testing.T) {
	t.Parallel()
	c := newCluster(t, metadata.Quota{Messages: 1})
	x := c.still()
	c.append(x, Inbox, mail("1"))
	_, err := upload(t.Context(), x.Account, Incoming{Mailbox: Inbox}, mail("2"), nil)
	wantError(t, err, metadata.ErrOverQuota)
	if err := x.db.SetLimits(t.Context(), x.Row().Name, metadata.Quota{Messages: 2}); err != nil {
		t.Fatal(err)
	}
	c.append(x, Inbox, mail("2"))
	_, err = upload(t.Context(), x.Account, Incoming{Mailbox: Inbox}, mail("3"), nil)
	wantError(t, err, metadata.ErrOverQuota)
}

// The mailbox may go while the message comes in.
func TestMailboxDeletedDuringUpload(t *testing.T) {
	t.Parallel()
	for _, again := range []bool{false, true} {
		t.Run(fmt.Sprintf("made again=%v", again), func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, metadata.Quota{})
			x, y := c.still(), c.still()
			u, err := x.Upload(t.Context(), Incoming{Mailbox: "Archive"}, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer u.Discard()
			remove(t, y, "Archive")
			if again {
				create(t, y, "Archive")
			}
			done, err := u.Append(t.Context(), nil)
			if !again {
				wantError(t, err, metadata.ErrNoMailbox)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if s := c.check("Archive"); s.Len() != 1 || s.row.UIDValidity != done.UIDValidity {
				t.Errorf("%d messages in %d, appended to %d", s.Len(), s.row.UIDValidity, done.UIDValidity)
			}
		})
	}
}

// A message whose object cannot be put is not there at all, also when its client
// goes away, or the store is too slow.
func TestObjectNotPut(t *testing.T) {
	t.Parallel()
	c := newCluster(t, metadata.Quota{})
	x := c.still(func(c *Config) { c.PutTimeout = 20 * time.Millisecond })
	mine := c.enter(x, Inbox)
	slow := func(ctx context.Context) error {
		<-ctx.Done()
		return blobstore.ContextError(ctx)
	}
	left, leave := context.WithCancel(t.Context())
	leave()
	for _, test := range []struct {
		name string
		ctx  context.Context //nolint:containedctx // of a case
		set  func()
		want error
	}{
		{"away", t.Context(), func() { c.blobs.failed = blobstore.ErrUnavailable }, blobstore.ErrUnavailable},
		{"slow", t.Context(), func() { c.blobs.failed, c.blobs.put = nil, slow }, blobstore.ErrUnavailable},
		{"client gone", left, func() {}, context.Canceled},
	} {
		c.blobs.set(test.set)
		u, err := x.Upload(t.Context(), Incoming{Mailbox: Inbox}, 0)
		if err != nil {
			t.Fatal(err)
		}
		_, err = u.Append(test.ctx, nil)
		u.Discard()
		wantError(t, err, test.want)
		if s := mine.refresh(); s.Len() != 0 || s.row.ModSeq != 1 {
			t.Errorf("%s: %d messages, modseq %d", test.name, s.Len(), s.row.ModSeq)
		}
	}
	c.blobs.set(func() { c.blobs.put = nil })
	c.append(x, Inbox, mail("again"))
}

// An object that is too old when its row is to be committed is put again, under
// another key; one that always is, is refused in the end.
func TestLateObjectIsPutAgain(t *testing.T) {
	t.Parallel()
	c := newCluster(t, metadata.Quota{})
	x := c.still(func(c *Config) { c.OrphanGrace = 2 * time.Hour })
	mine := c.enter(x, Inbox)
	late := 2
	c.blobs.set(func() {
		c.blobs.dated = func(now time.Time) time.Time {
			if late--; late >= 0 {
				return now.Add(-90 * time.Minute)
			}
			return now
		}
	})
	text := mail("late") + strings.Repeat("0123456789abcdef\r\n", 100_000)
	done := c.append(x, Inbox, text)
	if got := c.blobs.puts.Load(); got != 3 {
		t.Errorf("put %d times", got)
	}
	if body(t, mine, done.UID) != text {
		t.Error("the message is another one")
	}
	late = 1000
	_, err := upload(t.Context(), x.Account, Incoming{Mailbox: Inbox}, text, nil)
	wantError(t, err, metadata.ErrLate)
	if c.check(Inbox).Len() != 1 {
		t.Error("the late message is there")
	}
}

// A delivery that is tried again is there once: later, on another node, at the
// same time on both.
func TestDeliveryTriedAgain(t *testing.T) {
	t.Parallel()
	c := newCluster(t, metadata.Quota{})
	x, y := c.still(), c.still()
	c.enter(x, Inbox)
	c.enter(y, Inbox)
	deliver := func(n *node, digest byte) (bool, error) {
		done, err := upload(t.Context(), n.Account, Incoming{Mailbox: Inbox, Fit: true}, mail("d"), &[32]byte{digest})
		return done.Again, err
	}
	for i, n := range []*node{x, x, y} {
		if again, err := deliver(n, 1); err != nil || again != (i > 0) {
			t.Errorf("try %d: again %v, %v", i, again, err)
		}
	}
	const digests = 10
	var running sync.WaitGroup
	var mu sync.Mutex
	fresh := make(map[int]int)
	for i := range 8 * digests {
		running.Go(func() {
			again, err := deliver([]*node{x, y}[i%2], byte(10+i/8))
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Error(err)
			}
			if !again {
				fresh[i/8]++
			}
		})
	}
	running.Wait()
	for i := range digests {
		if fresh[i] != 1 {
			t.Errorf("delivery %d was made %d times", i, fresh[i])
		}
	}
	// Nothing of them comes back twice after a restore either.
	if r := c.rebuilt(x, RebuildOptions{}); r.Messages != 0 || r.Doomed != 2+7*digests {
		t.Errorf("a rebuild says %+v", r)
	}
	if got := c.check(Inbox).Len(); got != 1+digests {
		t.Errorf("%d messages", got)
	}
}

// BODY[] is what was appended, byte for byte, whatever it is; the row says what
// else there is to know of it.
func TestAppendedIsWhatIsRead(t *testing.T) {
	t.Parallel()
	c := newCluster(t, metadata.Quota{})
	x, y := c.still(), c.still()
	mine := c.enter(x, Inbox)
	date := time.Date(2020, 2, 29, 12, 34, 56, 0, time.FixedZone("", 3600))
	for _, text := range []string{
		"", "x", "\r\n", "no header at all", "Subject: bare\nlines\n\nonly\n", "\x00\xff\x80", "a\rb\r\r\n\n",
		mail("plain"), strings.Repeat("long line", 100_000), strings.Repeat("line\r\n", 300_000),
	} {
		done, err := upload(t.Context(), x.Account, Incoming{Mailbox: Inbox, Date: date}, text, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := body(t, mine, done.UID); got != text {
			t.Errorf("%.20q came back as %.20q", text, got)
		}
		row := mine.row(done.UID)
		if row.Size != int64(len(text)) || !row.InternalDate.Equal(date) || row.EmailID == 0 || row.ThreadID == 0 || row.SaveDate.IsZero() {
			t.Errorf("row of %.20q: %+v", text, row)
		}
		if err := new(message.Summary).UnmarshalBinary(row.Summary); err != nil {
			t.Errorf("summary of %.20q: %v", text, err)
		}
	}
	theirs := c.enter(y, Inbox)
	if body(t, theirs, 8) != mail("plain") {
		t.Error("the other node reads something else")
	}
}

// THREADID is that of the message replied to, and stays (RFC 8474 §5.2).
func TestThreads(t *testing.T) {
	t.Parallel()
	c := newCluster(t, metadata.Quota{})
	x, y := c.still(), c.still()
	mine := c.enter(x, Inbox)
	letter := func(id, header string) string { return "Message-ID: <" + id + "@x>\r\n" + header + "\r\nx\r\n" }
	c.append(x, Inbox, letter("1", ""))
	c.append(y, "Archive", letter("2", "In-Reply-To: <1@x>\r\n"))
	c.append(x, Inbox, letter("3", "References: <1@x> <2@x>\r\n"))
	c.append(x, Inbox, letter("4", ""))
	c.append(x, Inbox, letter("6", "References: <5@x>\r\n")) // of the same thread as what comes late
	c.append(x, Inbox, letter("5", ""))
	c.append(x, Inbox, "Subject: no id\r\n\r\n")
	reply := c.enter(y, "Archive").row(1).ThreadID
	var threads []int64
	for uid := range uint32(6) {
		threads = append(threads, mine.row(uid+1).ThreadID)
	}
	if threads[0] != reply || threads[1] != reply || threads[3] != threads[4] {
		t.Errorf("threads %v, of the reply %d", threads, reply)
	}
	if threads[2] == reply || threads[3] == reply || threads[5] == reply || threads[5] == threads[3] || threads[5] == 0 {
		t.Errorf("what does not belong together has one thread: %v, %d", threads, reply)
	}
	done, err := mine.Copy(t.Context(), CopyArgs{View: mine.Snapshot(), UIDs: one(2), Dest: "Archive"})
	if err != nil {
		t.Fatal(err)
	}
	copied, source := c.enter(x, "Archive").row(done.First), mine.row(2)
	if copied.ThreadID != reply || copied.EmailID != source.EmailID || copied.Object != source.Object || !copied.InternalDate.Equal(source.InternalDate) {
		t.Errorf("the copy is %+v, the source %+v", copied, source)
	}
}

// A large message passes through without being held in memory, in both
// directions. Not in parallel: it measures what the process allocates.
func TestLargeMessage(t *testing.T) {
	c := newCluster(t, metadata.Quota{})
	var err error
	if c.blobs.Store, err = disk.Open(filepath.Join(t.TempDir(), "blobs")); err != nil {
		t.Fatal(err)
	}
	x := c.still()
	mine := c.enter(x, Inbox)
	const size = 30 << 20
	source := func() io.Reader { return io.LimitReader(rand.NewChaCha8([32]byte{1}), size) } // does not compress
	c.append(x, Inbox, strings.Repeat("the tables of the compressor are made once\r\n", 100_000))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	u, err := x.Upload(t.Context(), Incoming{Mailbox: Inbox}, size)
	if err != nil {
		t.Fatal(err)
	}
	sent := crc32.NewIEEE()
	if _, err := io.Copy(io.MultiWriter(u, sent), source()); err != nil {
		t.Fatal(err)
	}
	done, err := u.Append(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	u.Discard()
	row := mine.row(done.UID)
	b, err := mine.Body(&row)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	got := crc32.NewIEEE()
	if err := b.ReadRange(t.Context(), got, 0, size); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if got.Sum32() != sent.Sum32() {
		t.Error("other bytes came back")
	}
	if allocated := after.TotalAlloc - before.TotalAlloc; allocated > size/2 {
		t.Errorf("%d KiB were allocated for a message of %d KiB", allocated>>10, size>>10)
	} else {
		t.Logf("%d KiB allocated", allocated>>10)
	}
	left, err := os.ReadDir(x.cfg.TempDir)
	if err != nil || len(left) != 0 {
		t.Errorf("files left: %v, %v", left, err)
	}
}

// What is large is sent to the store while it comes in, and nothing of it is left if it
// does not come whole.
func TestLargeMessageIsSentWhileItComesIn(t *testing.T) {
	t.Parallel()
	c := newCluster(t, metadata.Quota{})
	dir := filepath.Join(t.TempDir(), "blobs")
	store, err := disk.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	x := c.still(func(cfg *Config) { cfg.Blobs, cfg.MaxMessage = store, 8<<20 })
	mine := c.enter(x, Inbox)
	sent := func() (octets int64) {
		t.Helper()
		files, err := os.ReadDir(filepath.Join(dir, ".tmp"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			info, err := f.Info()
			if err != nil {
				t.Fatal(err)
			}
			octets += info.Size()
		}
		return octets
	}
	objects := func() (n int) {
		for _, err := range store.List(t.Context(), "", "") {
			if n++; err != nil {
				t.Fatal(err)
			}
		}
		return n
	}
	data := make([]byte, 5<<20)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(data) // does not compress
	for _, end := range []string{"appended", "broken off", "too big"} {
		u, err := x.Upload(t.Context(), Incoming{Mailbox: Inbox}, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := u.Write(data); err != nil {
			t.Fatal(err)
		}
		if got := sent(); got < 4<<20 {
			t.Errorf("%s: %d octets were sent before the last has come", end, got)
		}
		switch end {
		case "appended":
			done, err := u.Append(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			if body(t, mine, done.UID) != string(data) {
				t.Error("another message came back")
			}
		case "too big":
			_, err := u.Write(data)
			wantError(t, err, ErrTooBig)
		}
		u.Discard()
		if octets, n := sent(), objects(); octets != 0 || n != 1 {
			t.Errorf("%s: %d octets were left, and %d objects are there", end, octets, n)
		}
	}
}

// Every mail of the corpus is taken, and comes back as it was.
func TestCorpus(t *testing.T) {
	t.Parallel()
	files := corpus(t)
	c := newCluster(t, metadata.Quota{})
	x, y := c.still(), c.still()
	mine := c.enter(y, Inbox)
	texts := make([]string, len(files))
	for i, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		texts[i] = string(text)
		if done := c.append(x, Inbox, texts[i]); done.UID != uint32(i+1) {
			t.Fatalf("%s got UID %d", file, done.UID)
		}
	}
	if mine.refresh().Len() != len(files) {
		t.Fatalf("%d messages of %d", mine.Snapshot().Len(), len(files))
	}
	for i, text := range texts {
		if body(t, mine, uint32(i+1)) != text {
			t.Errorf("%s came back as something else", files[i])
		}
	}
	c.check(Inbox)
}

func corpus(t *testing.T) []string {
	t.Helper()
	dir := os.Getenv("STARLING_CORPUS")
	for up := ".."; dir == "" && len(up) < 30; up += "/.." {
		if _, err := os.Stat(filepath.Join(up, "shared", "corpus")); err == nil {
			dir = filepath.Join(up, "shared", "corpus")
		} else if !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	var files []string
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".eml") {
			files = append(files, path)
		}
		return err
	})
	if dir == "" || err != nil || len(files) == 0 {
		t.Skipf("no corpus: set STARLING_CORPUS to a folder of .eml files (%v)", err)
	}
	return files
}
