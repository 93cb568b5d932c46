package chaos

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"starling/blobstore"
	"starling/frontend/auth"
	"starling/metadata"
)

// Options are what a run is to be.
type Options struct {
	Seed    uint64
	Time    time.Duration // of faults
	Clients int
	Faults  []Fault // nil: those of the seed
	// Patience is how long a client waits in IDLE, after all is mended, to be told what is so; 0: 20 s, which are some
	// sweeps, for what no hint told of.
	Patience time.Duration
	// Meanwhile is done beside the faults; nil: nothing.
	Meanwhile func(ctx context.Context) error
}

// Figures are what happened in a run.
type Figures struct {
	Faults   map[Kind]int
	Commands map[string]int // by name and result
	Told     int            // untagged responses
	Refused  int            // connections and logins that failed
	Cuts     int            // connections broken by proxies, since the cluster's start
	Messages int            // in the end
}

// Add takes the figures of another run in.
func (f *Figures) Add(other Figures) {
	if f.Faults == nil {
		f.Faults, f.Commands = make(map[Kind]int), make(map[string]int)
	}
	for k, n := range other.Faults {
		f.Faults[k] += n
	}
	for k, n := range other.Commands {
		f.Commands[k] += n
	}
	f.Told += other.Told
	f.Refused += other.Refused
	f.Messages += other.Messages
	f.Cuts = other.Cuts
}

func (f Figures) String() string {
	var b strings.Builder
	sum := 0
	for _, n := range f.Faults {
		sum += n
	}
	fmt.Fprintf(&b, "%d faults, %d connections broken by proxies:\n", sum, f.Cuts)
	for _, k := range slices.Sorted(maps.Keys(f.Faults)) {
		fmt.Fprintf(&b, "%8d %s\n", f.Faults[k], k)
	}
	fmt.Fprintf(&b, "%d connections or logins that failed, %d untagged responses, %d messages in the end, and commands:\n", f.Refused, f.Told, f.Messages)
	names := make(map[string]bool)
	for k := range f.Commands {
		name, _, _ := strings.Cut(k, ":")
		names[name] = true
	}
	fmt.Fprintf(&b, "%8v %8v %8v\n", OK, NO, InDoubt)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		fmt.Fprintf(&b, "%8d %8d %8d %s\n", f.Commands[command(name, OK)], f.Commands[command(name, NO)], f.Commands[command(name, InDoubt)], name)
	}
	return b.String()
}

// command is what a command with a result is counted by.
func command(name string, result Result) string { return name + ":" + result.String() }

// Run makes an account, lets clients loose on it while things break, mends them, and returns what the clients
// wrote down and what is found in the end.
func (c *Cluster) Run(ctx context.Context, o Options) (*Run, Figures, error) {
	user := fmt.Sprintf("seed%d@example.org", o.Seed)
	account, err := c.account(ctx, user)
	if err != nil {
		return nil, Figures{}, err
	}
	if o.Faults == nil {
		o.Faults = Schedule(o.Seed, o.Time)
	}
	o.Patience = cmp.Or(o.Patience, 20*time.Second)
	all := c.crowd(user, o)
	b := &breaker{cluster: c, account: account, user: user, begin: all.ringer.begin, done: make(map[Kind]int)}
	working, cancel := context.WithTimeout(ctx, o.Time)
	defer cancel()
	var running sync.WaitGroup
	for _, one := range all.runners() {
		running.Go(func() { one.run(working) })
	}
	running.Go(func() { b.run(working, o.Faults) })
	if o.Meanwhile != nil {
		err = o.Meanwhile(working)
	}
	running.Wait()
	if err := errors.Join(append(b.errs, err)...); err != nil {
		return nil, Figures{}, err
	}
	if err := errors.Join(c.Heal(ctx), c.works(ctx, user)); err != nil {
		return nil, Figures{}, err
	}
	r := &Run{Failovers: b.failovers}
	if r.States, err = c.quiet(account, user, all, o.Patience); err != nil {
		return nil, Figures{}, err
	}
	f := Figures{Faults: b.done, Commands: make(map[string]int), Cuts: c.cuts()}
	all.gather(r, &f)
	for i := range r.Ops {
		f.Commands[command(r.Ops[i].Name, r.Ops[i].Result)]++
		f.Told += len(r.Ops[i].Told)
	}
	used, err := c.DB.Usage(ctx, account)
	if err != nil {
		return nil, Figures{}, err
	}
	r.Bytes, r.Messages, f.Messages = used.Bytes, used.Messages, int(used.Messages)
	if r.Missing, err = c.missing(ctx, account); err != nil {
		return nil, Figures{}, err
	}
	if r.Left, err = c.leftovers(ctx, account); err != nil {
		return nil, Figures{}, err
	}
	r.Unsound, err = c.check(ctx, user)
	return r, f, err
}

// mendTime is within what a node works again after all is mended: what it found wanting it asks again only after a while.
const mendTime = 10 * time.Second

// works waits until all nodes do what an account asks.
func (c *Cluster) works(ctx context.Context, user string) error {
	errs := make([]error, Nodes)
	var asking sync.WaitGroup
	for i, n := range c.Nodes {
		asking.Go(func() {
			for end := time.Now().Add(mendTime); ; pause(ctx, 50*time.Millisecond) {
				one := &client{user: user, nodes: []string{n.Links.Clients.Addr()}, conns: new(atomic.Int64)}
				err := one.connect(0, boxes()[0])
				one.drop()
				if err == nil {
					return
				}
				if time.Now().After(end) {
					errs[i] = fmt.Errorf("node %d, after all is mended: %w", n.No, err)
					return
				}
			}
		})
	}
	asking.Wait()
	return errors.Join(errs...)
}

func (c *Cluster) account(ctx context.Context, user string) (metadata.AccountID, error) {
	hash, err := auth.Hash(password)
	if err != nil {
		return 0, err
	}
	if _, err := c.DB.CreateTenant(ctx, "chaos"); err != nil && !errors.Is(err, metadata.ErrExists) {
		return 0, err
	}
	if _, err := c.DB.CreateDomain(ctx, "chaos", "example.org"); err != nil && !errors.Is(err, metadata.ErrExists) {
		return 0, err
	}
	a, err := c.DB.CreateAccount(ctx, metadata.NewAccount{
		Name: user, PasswordHash: hash, Mailboxes: metadata.DefaultMailboxes(), Limits: metadata.Quota{Bytes: 1 << 40, Messages: 1 << 40},
	})
	return a.ID, err
}

func (c *Cluster) cuts() int {
	n := 0
	for _, p := range c.Routes {
		n += p.Cuts()
	}
	for _, node := range c.Nodes {
		for _, p := range node.Links.all() {
			n += p.Cuts()
		}
	}
	return n
}

// quiet returns what each node shows when nothing changes any more, and lets the clients ask for their last news: a
// command whose client has given up may still be carried out.
func (c *Cluster) quiet(account metadata.AccountID, user string, all *crowd, patience time.Duration) ([]State, error) {
	const tries = 20
	var last []State
	clients := all.clients
	for range tries {
		if err := all.finish(); err != nil {
			return nil, err
		}
		before, err := c.ring(account, all.ringer, clients, patience)
		if err != nil {
			return nil, err
		}
		var asking sync.WaitGroup
		errs := make([]error, len(clients))
		for i, one := range clients {
			asking.Go(func() { errs[i] = one.last() })
		}
		asking.Wait()
		if err := errors.Join(errs...); err != nil {
			return nil, err
		}
		if last, err = c.inspect(user); err != nil {
			return nil, err
		}
		after, err := c.uids(account)
		if err != nil {
			return nil, err
		}
		if reflect.DeepEqual(before, after) {
			return last, nil
		}
		for _, one := range clients {
			for i := range one.ops {
				one.ops[i].Quiet = false
			}
		}
	}
	return nil, fmt.Errorf("mailboxes still change, or nodes differ now and again, after %d looks", tries)
}

// uids are the messages of each mailbox, by what PostgreSQL has: no node is asked, as that would wake it up.
func (c *Cluster) uids(account metadata.AccountID) (map[string][]uint32, error) {
	ctx, cancel := context.WithTimeout(context.Background(), startTime)
	defer cancel()
	found := make(map[string][]uint32)
	list, err := c.DB.List(ctx, account)
	if err != nil {
		return nil, err
	}
	for i := range list.Mailboxes {
		box, name := &list.Mailboxes[i], list.Mailboxes[i].Name
		found[name] = nil
		loaded, err := c.DB.Load(ctx, account, box.ID, metadata.Version{})
		if err != nil {
			return nil, err
		}
		for _, chunk := range loaded.Chunks {
			for slot := range chunk.Len() {
				if chunk.Slot(slot).Live() {
					found[name] = append(found[name], chunk.First()+uint32(slot)) //nolint:gosec // 128 at most
				}
			}
		}
	}
	return found, nil
}

// ring makes a last change to each mailbox while all clients are in IDLE, and waits until they were told. Nobody asks:
// what one asks, others on its node hear too. It returns what they were to be told.
func (c *Cluster) ring(account metadata.AccountID, ringer *client, clients []*client, patience time.Duration) (map[string][]uint32, error) {
	var final atomic.Pointer[map[string][]uint32]
	var waiting, entering sync.WaitGroup
	errs := make([]error, len(clients))
	entering.Add(len(clients))
	for i, one := range clients {
		waiting.Go(func() { errs[i] = one.hear(&final, patience, sync.OnceFunc(entering.Done)) })
	}
	entering.Wait()
	all, err := c.last(account, ringer)
	final.Store(&all)
	waiting.Wait()
	return all, errors.Join(err, errors.Join(errs...))
}

// last appends a message to each mailbox, expunges one, and returns what there is then.
func (c *Cluster) last(account metadata.AccountID, ringer *client) (map[string][]uint32, error) {
	for _, name := range boxes() {
		ringer.drop()
		if err := ringer.connect(ringer.random.IntN(Nodes), name); err != nil {
			return nil, fmt.Errorf("connect, after all is mended: %w", err)
		}
		changes := []func(){func() { ringer.append(name, "") }}
		if len(ringer.uids) > 0 {
			first := slices.Clone(ringer.uids[:1])
			changes = append(changes, func() { ringer.store(first, `\deleted`, true) },
				func() { ringer.do(Op{Name: "UID EXPUNGE", UIDs: first}, "UID EXPUNGE "+setText(first)) })
		}
		for _, change := range changes {
			if err := ringer.until(change); err != nil {
				return nil, err
			}
		}
	}
	ringer.drop()
	return c.uids(account)
}

// until sends a command until it is answered with OK, which it is soon.
func (c *client) until(send func()) error {
	for end := time.Now().Add(mendTime); ; pause(context.Background(), 50*time.Millisecond) {
		send()
		o := &c.ops[len(c.ops)-1]
		if o.Result == OK {
			return nil
		}
		if c.wire == nil || time.Now().After(end) {
			return fmt.Errorf("%s, after all is mended: %s", strings.ToLower(o.Name), o.Answer)
		}
	}
}

// hear waits in IDLE until the client has heard what there is, and calls entered once it is there, or cannot be. It does so
// on the connection that the client has, or else on a new one.
func (c *client) hear(final *atomic.Pointer[map[string][]uint32], patience time.Duration, entered func()) error {
	defer entered()
	if c.late {
		return nil // it comes back when all is over
	}
	const tries = 3 // the connection may have been broken before all was mended
	for range tries {
		if c.wire == nil {
			if err := c.connect(c.no%Nodes, boxes()[c.no%len(boxes())]); err != nil {
				return fmt.Errorf("client %d, after all is mended: %w", c.no, err)
			}
		}
		looked := 0
		c.idle(context.Background(), patience, func() bool {
			if looked++; looked == 3 { // it was told that it is in IDLE, or something that is older
				entered()
			}
			all := final.Load()
			return all != nil && knows(c.uids, (*all)[c.mailbox])
		})
		if c.wire != nil && c.ops[len(c.ops)-1].Result == OK {
			break
		}
	}
	return nil
}

// knows says whether a list in which 0 is one whose UID was not said yet can be that of these UIDs.
func knows(list, uids []uint32) bool {
	return len(list) == len(uids) && !slices.ContainsFunc(uids, func(uid uint32) bool { return slotOf(list, uid) < 0 })
}

// last asks for the last news, or comes back for them.
func (c *client) last() error {
	if c.late {
		// An answer that does not fit what it was told is for the checker.
		if err := c.resync(c.no/3%Nodes, true); err != nil && c.wire == nil {
			return fmt.Errorf("client %d, after all is mended: %w", c.no, err)
		}
	}
	if c.wire != nil {
		c.sync(true)
	}
	if c.wire == nil {
		return fmt.Errorf("client %d, after all is mended: %s", c.no, c.ops[len(c.ops)-1].Answer)
	}
	return nil
}

// inspect reads everything on each node.
func (c *Cluster) inspect(user string) ([]State, error) {
	states := make([]State, Nodes)
	errs := make([]error, Nodes)
	var reading sync.WaitGroup
	for i, n := range c.Nodes {
		reading.Go(func() {
			states[i] = State{Node: n.No, Boxes: make(map[string]Box)}
			reader := &client{user: user, nodes: []string{n.Links.Clients.Addr()}, conns: new(atomic.Int64), ids: make(map[uint32]string)}
			defer reader.drop()
			if errs[i] = reader.connect(0, ""); errs[i] != nil {
				return
			}
			reader.list()
			list := reader.ops[len(reader.ops)-1]
			if list.Result != OK {
				errs[i] = fmt.Errorf("list mailboxes on node %d, after all is mended: %s", n.No, list.Answer)
				return
			}
			for _, count := range list.Counts {
				box, err := reader.read(count.Mailbox)
				if err != nil {
					errs[i] = fmt.Errorf("read %s on node %d, after all is mended: %w", count.Mailbox, n.No, err)
					break
				}
				states[i].Boxes[count.Mailbox] = box
			}
		})
	}
	reading.Wait()
	return states, errors.Join(errs...)
}

// read reads a mailbox, and what STATUS says of it.
func (c *client) read(name string) (Box, error) {
	c.drop()
	if err := c.connect(0, name); err != nil {
		return Box{}, err
	}
	selected := c.ops[slices.IndexFunc(c.ops, func(o Op) bool { return o.Name == "SELECT" && o.Mailbox == name })]
	box := Box{ID: selected.MailboxID, UIDValidity: selected.UIDValidity, UIDNext: selected.UIDNext, HighestModSeq: selected.HighestModSeq}
	ask := func(text string, each func(response)) error {
		answer, err := "", c.wire.send(text)
		if err == nil {
			answer, err = c.wire.finish(each)
		}
		if err == nil && !strings.HasPrefix(answer, "OK") {
			err = errors.New(answer)
		}
		return err
	}
	fetch := func(body string) error {
		box.Mails = nil
		return ask("UID FETCH 1:* (UID MODSEQ FLAGS RFC822.SIZE"+body+")", func(r response) {
			if t, size, ok := parse(r); ok && t.Kind == Fetched {
				box.Mails = append(box.Mails, Mail{UID: t.UID, ModSeq: t.ModSeq, ID: t.ID, Flags: t.Flags, Size: size, Corrupt: t.Corrupt || body == ""})
			}
		})
	}
	err := fetch(" BODY.PEEK[]")
	for end := time.Now().Add(mendTime); err != nil && strings.HasPrefix(err.Error(), "NO [UNAVAILABLE]") && time.Now().Before(end); {
		pause(context.Background(), 100*time.Millisecond)
		err = fetch(" BODY.PEEK[]")
	}
	if err != nil && c.wire != nil && strings.HasPrefix(err.Error(), "NO") {
		err = fetch("") // all that can still be known, with no body vouched for
	}
	if err != nil {
		return Box{}, err
	}
	err = ask("STATUS "+name+" (MESSAGES UNSEEN DELETED SIZE)", func(r response) {
		for name, into := range map[string]*uint32{"MESSAGES": &box.Messages, "UNSEEN": &box.Unseen, "DELETED": &box.Deleted} {
			if n, ok := after(r.line, name); ok {
				*into = uint32(n) //nolint:gosec // IMAP's numbers have 32 bits
			}
		}
		if n, ok := after(r.line, "SIZE"); ok {
			box.Size = n
		}
	})
	return box, err
}

// after is the number after a word of a STATUS response.
func after(line, word string) (int64, bool) {
	_, rest, found := strings.Cut(line, word+" ")
	var n int64
	if _, err := fmt.Sscanf(rest, "%d", &n); err != nil {
		return 0, false
	}
	return n, found && strings.HasPrefix(line, "* STATUS ")
}

// missing lists the messages whose objects are not there, those included that wait for the collector.
func (c *Cluster) missing(ctx context.Context, account metadata.AccountID) ([]string, error) {
	before, err := c.rows(ctx, account)
	if err != nil {
		return nil, err
	}
	there, err := c.objectsOf(ctx, account)
	if err != nil {
		return nil, err
	}
	// What the collector has taken away meanwhile, rows first, is no more named now.
	after, err := c.rows(ctx, account)
	if err != nil {
		return nil, err
	}
	var missing []string
	for row, object := range before {
		if _, named := after[row]; named && !there[object] {
			missing = append(missing, row)
		}
	}
	slices.Sort(missing)
	return missing, nil
}

// objectsOf are an account's objects that are there.
func (c *Cluster) objectsOf(ctx context.Context, account metadata.AccountID) (map[blobstore.Object]bool, error) {
	there := make(map[blobstore.Object]bool)
	for info, err := range c.Blobs.List(ctx, blobstore.AccountPrefix(int64(account)), "") {
		if err != nil {
			return nil, err
		}
		if object, ok := info.Key.Object(); ok {
			there[object] = true
		}
	}
	return there, nil
}

// rows are the objects that an account's messages name.
func (c *Cluster) rows(ctx context.Context, account metadata.AccountID) (map[string]blobstore.Object, error) {
	const page = 1000
	rows := make(map[string]blobstore.Object)
	var mailbox metadata.MailboxID
	var uid uint32
	for {
		some, err := c.DB.MessageObjects(ctx, account, mailbox, uid, page)
		if err != nil {
			return nil, err
		}
		for _, m := range some {
			mailbox, uid = m.Mailbox, m.UID
			rows[fmt.Sprintf("mailbox %d, UID %d, object %x", m.Mailbox, m.UID, m.Object)] = blobstore.Object(m.Object)
		}
		if len(some) < page {
			return rows, nil
		}
	}
}
