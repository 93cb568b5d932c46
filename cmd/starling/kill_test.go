package main_test

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"starling/metadata"
)

var (
	killSeed   = flag.Uint64("kill.seed", 1, "seed of TestKill")
	killRounds = flag.Int("kill.rounds", 4, "how many nodes TestKill kills")
)

const (
	killWorkers = 8
	killLeast   = 60  // acknowledged changes before the kill
	killSpread  = 200 // up to so many more
)

// place is where a message is.
type place struct {
	mailbox string
	uid     imap.UID
}

// copyOf is a message at a place: its own name, and its flags, sorted.
type copyOf struct{ id, flags string }

// doubt is a change that a worker asked for, and whose answer has not come.
type doubt struct {
	what string // "", append, store, copy, move, expunge
	at   place  // of the message that is changed
	to   string // mailbox of what is made
	made copyOf // what is made, or what it becomes
}

// killWorker is a connection that changes messages of its own.
type killWorker struct {
	no      int
	random  *rand.Rand
	client  *imapclient.Client
	home    string
	other   string
	next    int
	has     map[place]copyOf // acknowledged
	pending doubt
	acked   *atomic.Int64
}

// killMail is the one message that has this name; long ones come in many writes.
func killMail(id string) string {
	var seed [32]byte
	copy(seed[:], id)
	random := rand.New(rand.NewChaCha8(seed))
	var b strings.Builder
	fmt.Fprintf(&b, "From: killer@example.org\r\nSubject: %s\r\n\r\n", id)
	for range random.IntN(1 << random.IntN(10)) {
		fmt.Fprintf(&b, "%x %x %x\r\n", random.Uint64(), random.Uint64(), random.Uint64())
	}
	return b.String()
}

func flagText(flags []imap.Flag) string {
	var words []string
	for _, f := range flags {
		if f != `\Recent` {
			words = append(words, strings.ToLower(string(f)))
		}
	}
	slices.Sort(words)
	return strings.Join(words, " ")
}

func (w *killWorker) someFlags() []imap.Flag {
	var flags []imap.Flag
	for _, f := range []imap.Flag{imap.FlagSeen, imap.FlagFlagged, imap.FlagAnswered, imap.FlagForwarded, imap.Flag(fmt.Sprintf("worker%d", w.no))} {
		if w.random.IntN(3) == 0 {
			flags = append(flags, f)
		}
	}
	return flags
}

// mine is a message at home, if the worker has one there.
func (w *killWorker) mine() (place, bool) {
	var at []place
	for p := range w.has {
		if p.mailbox == w.home {
			at = append(at, p)
		}
	}
	if len(at) == 0 {
		return place{}, false
	}
	slices.SortFunc(at, func(a, b place) int { return int(a.uid) - int(b.uid) })
	return at[w.random.IntN(len(at))], true
}

// step makes one change, and notes that it was acknowledged.
func (w *killWorker) step() error {
	at, ok := w.mine()
	var err error
	switch what := w.random.IntN(10); {
	case !ok || what < 3:
		err = w.append()
	case what < 5:
		err = w.store(at, w.someFlags())
	case what < 7:
		err = w.copyTo(at, false)
	case what < 8:
		err = w.copyTo(at, true)
	default:
		if err = w.store(at, append(w.someFlags(), imap.FlagDeleted)); err == nil {
			err = w.expunge(at)
		}
	}
	return err
}

func (w *killWorker) done() {
	w.pending = doubt{}
	w.acked.Add(1)
}

func (w *killWorker) append() error {
	w.next++
	m := copyOf{id: fmt.Sprintf("%d-%d", w.no, w.next)}
	flags := w.someFlags()
	m.flags = flagText(flags)
	w.pending = doubt{what: "append", to: w.home, made: m}
	mail := killMail(m.id)
	cmd := w.client.Append(w.home, int64(len(mail)), &imap.AppendOptions{Flags: flags})
	_, err := io.WriteString(cmd, mail)
	if cerr := cmd.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	data, err := cmd.Wait()
	if err != nil {
		return err
	}
	w.has[place{w.home, data.UID}] = m
	w.done()
	return nil
}

func (w *killWorker) store(at place, flags []imap.Flag) error {
	m := copyOf{w.has[at].id, flagText(flags)}
	w.pending = doubt{what: "store", at: at, made: m}
	err := w.client.Store(imap.UIDSetNum(at.uid), &imap.StoreFlags{Op: imap.StoreFlagsSet, Flags: flags, Silent: true}, nil).Close()
	if err != nil {
		return err
	}
	w.has[at] = m
	w.done()
	return nil
}

func (w *killWorker) copyTo(at place, move bool) error {
	m := w.has[at]
	set := imap.UIDSetNum(at.uid)
	w.pending = doubt{what: "copy", at: at, to: w.other, made: m}
	var uids imap.NumSet
	if move {
		w.pending.what = "move"
		data, err := w.client.Move(set, w.other).Wait()
		if err != nil {
			return err
		}
		uids = data.DestUIDs
		delete(w.has, at)
	} else {
		data, err := w.client.Copy(set, w.other).Wait()
		if err != nil {
			return err
		}
		uids = data.DestUIDs
	}
	made, ok := uids.(imap.UIDSet)
	if !ok {
		return fmt.Errorf("%s of %v: no COPYUID", w.pending.what, at)
	}
	nums, ok := made.Nums()
	if !ok || len(nums) != 1 {
		return fmt.Errorf("%s of %v: COPYUID %v", w.pending.what, at, made)
	}
	w.has[place{w.other, nums[0]}] = m
	w.done()
	return nil
}

func (w *killWorker) expunge(at place) error {
	w.pending = doubt{what: "expunge", at: at}
	if err := w.client.UIDExpunge(imap.UIDSetNum(at.uid)).Close(); err != nil {
		return err
	}
	delete(w.has, at)
	w.done()
	return nil
}

// A node is killed with SIGKILL in the middle of the changes of 8 connections.
// On the other node everything that was acknowledged is there, what was not is
// there whole or not at all, and the counters are what a recount says.
func TestKill(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	if err := c.db.SetLimits(t.Context(), testUser, metadata.Quota{Bytes: 1 << 40, Messages: 1 << 40}); err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(*killSeed, 0))
	boxes := []string{"INBOX", "Archive"}
	workers := make([]*killWorker, killWorkers)
	for i := range workers {
		workers[i] = &killWorker{
			no: i, random: rand.New(rand.NewPCG(*killSeed, uint64(i)+1)), home: boxes[i%2], other: boxes[1-i%2],
			has: make(map[place]copyOf),
		}
	}
	for round := range *killRounds {
		victim := round % 2
		after := int64(killLeast + random.IntN(killSpread))
		killAfter(t, c.nodes[victim], workers, after)
		actual := inspect(t, c, c.nodes[1-victim].imap, boxes)
		for _, w := range workers {
			if w.pending.what != "" {
				t.Logf("round %d: worker %d was killed in %s", round, w.no, w.pending.what)
			}
			w.settle(t, actual)
		}
		if t.Failed() {
			t.Fatalf("in round %d of -kill.seed %d, after %d changes", round, *killSeed, after)
		}
		c.nodes[victim] = c.serve()
	}
}

// killAfter lets the workers loose on a node and kills it after so many
// acknowledged changes.
func killAfter(t *testing.T, victim *server, workers []*killWorker, after int64) {
	t.Helper()
	var acked atomic.Int64
	var killed atomic.Bool
	enough := make(chan struct{})
	var once sync.Once
	var running sync.WaitGroup
	errs := make([]error, len(workers))
	for i, w := range workers {
		w.acked = &acked
		w.client = login(t, victim.imap, testUser, testPassword, nil)
		if _, err := w.client.Select(w.home, nil).Wait(); err != nil {
			t.Fatal(err)
		}
		running.Go(func() {
			for {
				if err := w.step(); err != nil {
					if !killed.Load() {
						errs[i] = fmt.Errorf("worker %d: %s: %w", w.no, w.pending.what, err)
						once.Do(func() { close(enough) })
					}
					return
				}
				if acked.Load() >= after {
					once.Do(func() { close(enough) })
				}
			}
		})
	}
	<-enough
	killed.Store(true)
	victim.kill()
	running.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatalf("before the kill: %v", err)
	}
}

// inspect reads everything on a node, and compares counters with a recount.
func inspect(t *testing.T, c *cluster, address string, boxes []string) map[place]copyOf {
	t.Helper()
	// A statement that the dead node had sent ends within the time of the login.
	client := login(t, address, testUser, testPassword, nil)
	defer func() { _ = client.Close() }() // nothing follows
	actual := make(map[place]copyOf)
	var total metadata.Quota
	for _, box := range boxes {
		if _, err := client.Select(box, nil).Wait(); err != nil {
			t.Fatal(err)
		}
		status, err := client.Status(box, &imap.StatusOptions{
			NumMessages: true, NumUnseen: true, NumDeleted: true, Size: true, UIDNext: true,
		}).Wait()
		if err != nil {
			t.Fatal(err)
		}
		body := &imap.FetchItemBodySection{Peek: true}
		all, err := client.Fetch(imap.UIDSet{imap.UIDRange{Start: 1}}, &imap.FetchOptions{
			UID: true, Flags: true, RFC822Size: true, BodySection: []*imap.FetchItemBodySection{body},
		}).Collect()
		if err != nil {
			t.Fatal(err)
		}
		var unseen, deleted uint32
		var size int64
		for _, m := range all {
			text := string(m.FindBodySection(body))
			_, rest, _ := strings.Cut(text, "Subject: ")
			id, _, _ := strings.Cut(rest, "\r\n")
			if text != killMail(id) || int64(len(text)) != m.RFC822Size {
				t.Errorf("%s %d is not the whole message %q: %d octets, RFC822.SIZE %d", box, m.UID, id, len(text), m.RFC822Size)
			}
			if !slices.Contains(m.Flags, imap.FlagSeen) {
				unseen++
			}
			if slices.Contains(m.Flags, imap.FlagDeleted) {
				deleted++
			}
			if m.UID >= status.UIDNext {
				t.Errorf("%s: UID %d, but UIDNEXT %d", box, m.UID, status.UIDNext)
			}
			size += m.RFC822Size
			actual[place{box, m.UID}] = copyOf{id, flagText(m.Flags)}
		}
		if *status.NumMessages != uint32(len(all)) || *status.NumUnseen != unseen || *status.NumDeleted != deleted || *status.Size != size {
			t.Errorf("%s: STATUS says %d messages, %d unseen, %d deleted, %d octets; there are %d, %d, %d, %d",
				box, *status.NumMessages, *status.NumUnseen, *status.NumDeleted, *status.Size, len(all), unseen, deleted, size)
		}
		total.Messages += int64(len(all))
		total.Bytes += size
	}
	account, err := c.db.Login(t.Context(), testUser)
	if err != nil {
		t.Fatal(err)
	}
	if used, err := c.db.Usage(t.Context(), account.Account.ID); err != nil || used != total {
		t.Errorf("the quota counts %+v, %v; there is %+v", used, err, total)
	}
	return actual
}

// settle compares what is there of the worker's with what was acknowledged and
// the one change that may or may not have happened, and goes on from there.
func (w *killWorker) settle(t *testing.T, actual map[place]copyOf) {
	t.Helper()
	mine := make(map[place]copyOf)
	for p, m := range actual {
		if strings.HasPrefix(m.id, fmt.Sprintf("%d-", w.no)) {
			mine[p] = m
		}
	}
	if !slices.ContainsFunc(w.outcomes(mine), func(want map[place]copyOf) bool { return maps.Equal(want, mine) }) {
		t.Errorf("worker %d, with %+v in doubt:\nacknowledged %v\nfound %v", w.no, w.pending, w.has, mine)
	}
	w.has, w.pending = mine, doubt{}
}

// outcomes are the states that may be found: without the change in doubt, and
// with it. Where it was to make a message, that has the UID under which it is found.
func (w *killWorker) outcomes(mine map[place]copyOf) []map[place]copyOf {
	without := w.has
	if w.pending.what == "" {
		return []map[place]copyOf{without}
	}
	with := maps.Clone(w.has)
	switch w.pending.what {
	case "store":
		with[w.pending.at] = w.pending.made
	case "expunge", "move":
		delete(with, w.pending.at)
	}
	if w.pending.to != "" {
		for p, m := range mine {
			if _, known := w.has[p]; !known && p.mailbox == w.pending.to && m == w.pending.made {
				with[p] = m
				return []map[place]copyOf{without, with}
			}
		}
		return []map[place]copyOf{without}
	}
	return []map[place]copyOf{without, with}
}
