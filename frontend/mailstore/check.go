package mailstore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"starling/metadata"
)

// Damage is a kind of what can be wrong with an account.
type Damage string

// What a check finds. The first nine can be mended from what is there.
const (
	WrongCounters Damage = "counters"       // a mailbox's counters are not what its messages give
	WrongQuota    Damage = "quota"          // the account is said to use what its mailboxes do not have
	WrongOwners   Damage = "owners"         // an object has more or fewer messages than it is said to have
	AheadOfBox    Damage = "ahead"          // UIDs or modseqs in use that the mailbox has not given out
	StrayRow      Damage = "stray_row"      // a message that has no flags, so that no client sees it
	LostRow       Damage = "lost_row"       // of a message only its flags are left
	BadFlags      Damage = "flags"          // flags of a mailbox that cannot be read
	BadExtent     Damage = "extent"         // a message that does not say where its bytes are
	BadSummary    Damage = "summary"        // a message whose envelope and structure cannot be read
	MissingObject Damage = "missing_object" // a message whose object is not there
	ShortObject   Damage = "short_object"   // a message whose object ends too early
	CorruptObject Damage = "corrupt_object" // a message whose bytes are not those that were stored
	CorruptHeader Damage = "corrupt_header" // the message is well, but its object does not say whose it is
)

// Finding is one thing that is wrong.
type Finding struct {
	Damage  Damage `json:"damage"`
	Mailbox string `json:"mailbox,omitempty"` // its name; of a deleted one "deleted mailbox" and its number
	UID     uint32 `json:"uid,omitempty"`
	Object  string `json:"object,omitempty"` // as in its key
	// Count is how many messages it is, where they are too many to be told one by one.
	Count int64 `json:"count,omitempty"`
	// Expunged says that clients do not see the message any more.
	Expunged bool   `json:"expunged,omitempty"`
	Detail   string `json:"detail,omitempty"`
	Mended   bool   `json:"mended"`
}

// CheckOptions say what a check does, and what it may take.
type CheckOptions struct {
	Repair bool // mend what can be mended
	Scrub  bool // read every object and verify its checksums, and read every row whole

	RowRate   int64 // rows of messages and names of objects read in a second; 100,000
	ScrubRate int64 // octets read in a second, of an object 64 KiB at least; 32 MiB

	Found    func(Finding)      // told of each finding, never twice at the same time; nil: nobody
	Progress func(part float64) // told how much is done, 0 to 1; nil: nobody
}

// CheckReport is what a check looked at, and what came of it.
type CheckReport struct {
	Mailboxes int              `json:"mailboxes"`
	Unchecked int              `json:"unchecked"` // mailboxes that changed too fast to say anything of them
	Messages  int64            `json:"messages"`  // rows, those included that wait for the collector
	Objects   int64            `json:"objects"`   // there
	Scrubbed  int64            `json:"scrubbed"`  // objects read
	Octets    int64            `json:"octets"`    // of those
	Orphans   int64            `json:"orphans"`   // objects that no message names: the collector's business, no damage
	Doomed    int64            `json:"doomed"`    // of which it knows already
	Young     int64            `json:"young"`     // objects that no message names so far, too young to be orphans
	NoQuota   int              `json:"no_quota"`  // 1: the quota was not compared, because counters are wrong
	NoOwners  int              `json:"no_owners"` // 1: owners were not compared, because flags cannot be read
	Found     map[Damage]int64 `json:"found"`
	Mended    int64            `json:"mended"`
	Left      int64            `json:"left"`    // found and not mended
	Deleted   bool             `json:"deleted"` // the account is being deleted: nothing that was found then counts
}

const (
	// ownersPage is how many objects with wrong owners are told of, and mended, at a time.
	ownersPage = 1000
	// ownersTries bounds how often owners are mended that change meanwhile.
	ownersTries = 3
	// scrubWeight is how many rows one object weighs in what is said of the progress.
	scrubWeight = 20
)

// errAccountGone ends the check of an account that is being deleted.
var errAccountGone = errors.New("the account is being deleted")

// checker is a check of an account under way.
type checker struct {
	store   *Store
	db      *metadata.DB
	account metadata.Account
	opts    CheckOptions
	names   map[metadata.MailboxID]string
	most    int64 // messages that the mailboxes are said to have
	rows    pace
	unsure  bool // messages may be there of which no row is
	wrong   bool // counters are still wrong
	lost    []lostMessages
	// ownerless are objects that messages should name of which there is no row.
	ownerless map[metadata.ObjectID]struct{}
	unnamed   int64 // objects that no message names, and that are no work of the collector's

	scrubbing sync.Mutex // held while somebody waits for octets
	octets    pace

	mu    sync.Mutex
	steps float64
	slots map[metadata.MailboxID]map[int32]*metadata.Chunk // of mailboxes of which something was found
	// report is what came of it.
	report CheckReport
}

// Check compares the rows of an account's messages with flags, counters, quota and
// objects, while clients work: what they, or the collector, change meanwhile is looked at
// again, and never reported. With Scrub every object is read; Config.Blobs should then be
// no cache. With Repair it mends what can be, by commits like all others, and tells the
// nodes: counters, quota and owners become what was counted, UIDNEXT and modseqs are raised above
// what is in use, and messages without flags come back as new ones, as do those whose flags cannot
// be read. A message of which only the flags are left is expunged, unless the bucket has an object that could be its own: see
// Rebuild. A message whose object is gone keeps its row, so that it is known what is missing. The report is right as far as the check came, also
// with an error, which is for what ended it.
func (s *Store) Check(ctx context.Context, account metadata.Account, opts CheckOptions) (CheckReport, error) {
	if opts.RowRate <= 0 {
		opts.RowRate = 100_000
	}
	if opts.ScrubRate <= 0 {
		opts.ScrubRate = 32 << 20
	}
	c := &checker{
		store: s, db: s.db.Background(), account: account, opts: opts,
		names: make(map[metadata.MailboxID]string), ownerless: make(map[metadata.ObjectID]struct{}), slots: make(map[metadata.MailboxID]map[int32]*metadata.Chunk),
		report: CheckReport{Found: make(map[Damage]int64)},
	}
	for _, step := range []struct {
		what string
		run  func(context.Context) error
	}{
		{"check that it is there", c.there},
		{"check mailboxes", c.mailboxes},
		{"check the quota", c.quota},
		{"check the owners of objects", c.owners},
		{"check objects", c.objects},
		{"mend lost messages", c.lostMessages},
	} {
		err := step.run(ctx)
		if err != nil && ctx.Err() == nil && !errors.Is(err, errAccountGone) {
			if gone := c.there(ctx); errors.Is(gone, errAccountGone) {
				err = gone // which is why
			}
		}
		if errors.Is(err, errAccountGone) {
			c.report.Deleted = true
			return c.report, nil
		}
		if err != nil {
			return c.report, fmt.Errorf("%s: %w", step.what, err)
		}
	}
	return c.report, nil
}

// there is errAccountGone if the account is not there, or not for long.
func (c *checker) there(ctx context.Context) error {
	login, err := c.db.Login(ctx, c.account.Name)
	switch {
	case errors.Is(err, metadata.ErrNotFound):
		return errAccountGone
	case err != nil:
		return err
	case login.ID != c.account.ID || login.State == metadata.Deleting:
		return errAccountGone
	}
	return nil
}

// tell hands on what was found. What is gone with the account is no damage.
func (c *checker) tell(ctx context.Context, found ...Finding) error {
	if len(found) == 0 {
		return nil
	}
	if err := c.there(ctx); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range found {
		n := max(f.Count, 1)
		c.report.Found[f.Damage] += n
		if f.Mended {
			c.report.Mended += n
		} else {
			c.report.Left += n
		}
		if c.opts.Found != nil {
			c.opts.Found(f)
		}
	}
	return nil
}

// paceRows is a metadata.Pace.
func (c *checker) paceRows(ctx context.Context, n int) error {
	c.step(float64(n))
	return c.rows.wait(ctx, time.Duration(float64(n)/float64(c.opts.RowRate)*float64(time.Second)))
}

// paceObject waits until an object of so many octets may be read.
func (c *checker) paceObject(ctx context.Context, octets int64) error {
	c.scrubbing.Lock()
	defer c.scrubbing.Unlock()
	return c.octets.wait(ctx, time.Duration(float64(max(octets, scrubLeast))/float64(c.opts.ScrubRate)*float64(time.Second)))
}

// step says that n rows more are done. How many there will be is a guess: the counters
// may be wrong, and expunged messages are not counted.
func (c *checker) step(n float64) {
	if c.opts.Progress == nil {
		return
	}
	all := 3 * float64(c.most) // each is compared with its flags, listed, and its object listed
	if c.opts.Scrub {
		all += scrubWeight * float64(c.most)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.steps += n
	c.opts.Progress(min(1, c.steps/max(1, all)))
}

func (c *checker) mailboxes(ctx context.Context) error {
	list, err := c.db.List(ctx, c.account.ID)
	if err != nil {
		return err
	}
	for i := range list.Mailboxes {
		m := &list.Mailboxes[i]
		c.names[m.ID] = m.Name
		c.most += max(0, m.Messages)
	}
	for i := range list.Mailboxes {
		m := &list.Mailboxes[i]
		if err := c.mailbox(ctx, metadata.BoxRef{Account: c.account.ID, Mailbox: m.ID}, m.Name); err != nil {
			return fmt.Errorf("%s: %w", m.Name, err)
		}
	}
	return nil
}

func (c *checker) mailbox(ctx context.Context, ref metadata.BoxRef, name string) error {
	check, err := c.db.CheckMailbox(ctx, ref, c.paceRows)
	if c.opts.Repair && errors.Is(err, metadata.ErrChunk) {
		check, err = c.mendFlags(ctx, ref, name, err)
	}
	switch {
	case err == nil:
	case errors.Is(err, metadata.ErrNoMailbox):
		return nil
	case errors.Is(err, metadata.ErrConflict):
		c.report.Unchecked++
		c.unsure = true
		return nil
	case ctx.Err() != nil, errors.Is(err, metadata.ErrUnavailable):
		return err
	default:
		c.unsure = true
		return c.tell(ctx, Finding{Damage: BadFlags, Mailbox: name, Detail: err.Error()})
	}
	c.report.Mailboxes++
	c.unsure = c.unsure || check.LostCount > 0
	after := check
	if c.opts.Repair && !check.Sound() {
		if after, err = c.mend(ctx, ref, &check, false); err != nil {
			return err
		}
	}
	stray := messagesOf(StrayRow, name, check.Stray, check.StrayCount)
	if c.opts.Repair && after.StrayCount == 0 {
		mended(stray, "brought back as a new message")
	}
	found := stray
	if check.Ahead {
		found = append(found, Finding{
			Damage: AheadOfBox, Mailbox: name, Mended: !after.Ahead,
			Detail: fmt.Sprintf("UIDNEXT is %d, the modseq %d", check.Mailbox.UIDNext, check.Mailbox.ModSeq),
		})
	}
	right := after.Mailbox.Counters == after.Counted
	if is, counted := check.Mailbox.Counters, check.Counted; is != counted {
		found = append(found, Finding{Damage: WrongCounters, Mailbox: name, Detail: compareCounters(is, counted), Mended: right})
	}
	c.wrong = c.wrong || !right
	switch lost := messagesOf(LostRow, name, check.Lost, check.LostCount); {
	case len(lost) == 0:
	case c.opts.Repair: // once it is known what the bucket has
		c.lost = append(c.lost, lostMessages{ref: ref, check: after, found: lost})
	default:
		found = append(found, lost...)
	}
	return c.tell(ctx, found...)
}

// lostMessages are those of a mailbox of which only the flags are left.
type lostMessages struct {
	ref   metadata.BoxRef
	check metadata.MailboxCheck
	found []Finding
}

// lostMessages expunges lost messages, of which nobody could ever read anything, and which
// no EXPUNGE could remove, unless an object is there that may be the mail of one of them.
func (c *checker) lostMessages(ctx context.Context) error {
	for _, lost := range c.lost {
		if c.unnamed > 0 {
			for i := range lost.found {
				lost.found[i].Detail = "left, because it may be one of the objects that no message names: let starling rebuild name them first"
			}
		} else {
			after, err := c.mend(ctx, lost.ref, &lost.check, true)
			if err != nil {
				return err
			}
			if after.LostCount == 0 {
				mended(lost.found, "expunged")
			}
			if !c.wrong { // else the quota was not compared, and is not mended
				if _, err := c.db.RepairQuota(ctx, c.account.ID); err != nil {
					return err
				}
			}
		}
		if err := c.tell(ctx, lost.found...); err != nil {
			return err
		}
	}
	return nil
}

// mended says of findings that they are, and how.
func mended(found []Finding, how string) {
	for i := range found {
		found[i].Mended, found[i].Detail = true, how
	}
}

// messagesOf are findings of messages, of which not all may be listed.
func messagesOf(d Damage, mailbox string, uids []uint32, count int) []Finding {
	found := make([]Finding, 0, len(uids)+1)
	for _, uid := range uids {
		found = append(found, Finding{Damage: d, Mailbox: mailbox, UID: uid})
	}
	if more := count - len(uids); more > 0 {
		found = append(found, Finding{Damage: d, Mailbox: mailbox, Count: int64(more), Detail: "further ones"})
	}
	return found
}

// compareCounters names those that are wrong.
func compareCounters(is, counted metadata.Counters) string {
	var wrong []string
	for _, n := range []struct {
		what        string
		is, counted int64
	}{
		{"messages", is.Messages, counted.Messages},
		{"unseen", is.Unseen, counted.Unseen},
		{"deleted", is.Deleted, counted.Deleted},
		{"octets", is.Bytes, counted.Bytes},
		{"octets deleted", is.DeletedBytes, counted.DeletedBytes},
	} {
		if n.is != n.counted {
			wrong = append(wrong, fmt.Sprintf("%s %d, counted %d", n.what, n.is, n.counted))
		}
	}
	return strings.Join(wrong, "; ")
}

// mend mends a mailbox as far as can be, and returns what is found then: before, if it changes too
// fast or is gone.
func (c *checker) mend(ctx context.Context, ref metadata.BoxRef, before *metadata.MailboxCheck, lost bool) (metadata.MailboxCheck, error) {
	_, err := c.db.RepairMailbox(ctx, ref, lost, c.paceRows)
	var after metadata.MailboxCheck
	if err == nil {
		after, err = c.db.CheckMailbox(ctx, ref, c.paceRows)
	}
	switch {
	case errors.Is(err, metadata.ErrNoMailbox), errors.Is(err, metadata.ErrConflict):
		return *before, nil
	case err != nil:
		return after, err
	}
	return after, c.store.collected(ctx, ref, after.Mailbox.Version)
}

// mendFlags mends a mailbox of which flags cannot be read, because of cause, and checks it again.
func (c *checker) mendFlags(ctx context.Context, ref metadata.BoxRef, name string, cause error) (after metadata.MailboxCheck, err error) {
	before, err := c.db.RepairMailbox(ctx, ref, false, c.paceRows)
	if err == nil {
		after, err = c.db.CheckMailbox(ctx, ref, c.paceRows)
	}
	if err == nil {
		err = c.store.collected(ctx, ref, after.Mailbox.Version)
	}
	if err != nil {
		return after, err
	}
	return after, c.tell(ctx, Finding{Damage: BadFlags, Mailbox: name, Mended: true, Detail: fmt.Sprintf(
		"%v: %d messages brought back as new ones without flags, those too that were expunged or moved away", cause, before.StrayCount)})
}

func (c *checker) quota(ctx context.Context) error {
	if c.wrong { // it is counted by the counters
		c.report.NoQuota++
		return nil
	}
	check, err := c.db.CheckQuota(ctx, c.account.ID)
	if err != nil || check.Sound() {
		return err
	}
	f := Finding{Damage: WrongQuota, Detail: fmt.Sprintf("says %d octets and %d messages, counted %d and %d",
		check.Used.Bytes, check.Used.Messages, check.Counted.Bytes, check.Counted.Messages)}
	if c.opts.Repair {
		if _, err := c.db.RepairQuota(ctx, c.account.ID); err != nil {
			return err
		}
		after, err := c.db.CheckQuota(ctx, c.account.ID)
		if err != nil {
			return err
		}
		f.Mended = after.Sound()
	}
	return c.tell(ctx, f)
}

func (c *checker) owners(ctx context.Context) error {
	for after := (metadata.ObjectID{}); ; {
		page, err := c.db.CheckShares(ctx, c.account.ID, after, ownersPage)
		if errors.Is(err, metadata.ErrFormat) {
			if c.report.Found[BadFlags] > 0 {
				c.report.NoOwners++
				return nil // it was told
			}
			return c.tell(ctx, Finding{Damage: BadFlags, Detail: err.Error()})
		}
		if err != nil || len(page) == 0 {
			return err
		}
		left := make(map[metadata.ObjectID]bool)
		if c.opts.Repair {
			if left, err = c.mendOwners(ctx, after, page); err != nil {
				return err
			}
		}
		found := make([]Finding, len(page))
		for i, share := range page {
			if share.Owners == 0 {
				c.ownerless[share.Object] = struct{}{}
			}
			found[i] = Finding{
				Damage: WrongOwners, Object: fmt.Sprintf("%x", share.Object), Mended: c.opts.Repair && !left[share.Object],
				Detail: fmt.Sprintf("says %d, counted %d", share.Refs, share.Owners),
			}
			if c.opts.Repair && c.keep(share) {
				found[i].Detail += "; left so that it is not deleted: other messages of the account may be owners that cannot be counted"
			}
		}
		if err := c.tell(ctx, found...); err != nil {
			return err
		}
		after = page[len(page)-1].Object
	}
}

// keep reports whether an object must not lose owners that were not found: if rows are
// lost, it may be the last that there is of a message.
func (c *checker) keep(s metadata.Share) bool { return c.unsure && s.Owners < s.Refs }

// mendOwners mends a page of what is behind after, and returns what is still wrong with it.
func (c *checker) mendOwners(ctx context.Context, after metadata.ObjectID, page []metadata.Share) (map[metadata.ObjectID]bool, error) {
	left := make(map[metadata.ObjectID]bool)
	for range ownersTries {
		var mend []metadata.Share
		clear(left)
		for _, s := range page {
			left[s.Object] = true
			if !c.keep(s) {
				mend = append(mend, s)
			}
		}
		if len(mend) == 0 {
			break
		}
		_, raised, err := c.db.RepairShares(ctx, c.account.ID, mend)
		if err != nil {
			return nil, err
		}
		for _, r := range raised {
			if err := c.store.collected(ctx, metadata.BoxRef{Account: c.account.ID, Mailbox: r.Mailbox}, r.Version); err != nil {
				return nil, err
			}
		}
		if page, err = c.db.CheckShares(ctx, c.account.ID, after, len(page)); err != nil {
			return nil, err
		}
	}
	return left, nil
}
