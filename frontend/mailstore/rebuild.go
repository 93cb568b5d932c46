package mailstore

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"starling/blobstore"
	"starling/blobstore/codec"
	"starling/metadata"
)

// Recovered is the mailbox for messages of which nobody knows where they belong.
const Recovered = "Recovered"

const (
	// rebuildBatch is how many messages are read until they are committed.
	rebuildBatch = 200
	// rebuildReaders is how many objects are read at the same time.
	rebuildReaders = 8
	// rebuildWeight is how many headers a message weighs in what is said of the progress.
	rebuildWeight = 4
	// rebuildHold is the reason of the hold while an account is rebuilt.
	rebuildHold = "rebuild"
)

// RebuildOptions say what a rebuild does.
type RebuildOptions struct {
	DryRun bool // only say what would be done; the account need not be there
	// Age is how old an object must be. The row of a younger one may be about to come:
	// named a second time, it would be two messages. 0: all are taken.
	Age time.Duration

	Found    func(Finding)      // told of each object that cannot be read, never twice at the same time; nil: nobody
	Progress func(part float64) // told how much is done, 0 to 1; nil: nobody
}

// RebuildReport is what a rebuild found, and what it brought back.
type RebuildReport struct {
	Objects   int64            `json:"objects"`   // there
	Named     int64            `json:"named"`     // of those, that messages name
	Doomed    int64            `json:"doomed"`    // that are to be deleted: their messages were expunged
	Young     int64            `json:"young"`     // too young; they may be brought back by another run
	Again     int64            `json:"again"`     // that have a message that is there already, from another object
	Damaged   int64            `json:"damaged"`   // that cannot be read
	Messages  int64            `json:"messages"`  // brought back
	Octets    int64            `json:"octets"`    // of those
	Mailboxes map[string]int64 `json:"mailboxes"` // where to
	Created   []string         `json:"created"`   // mailboxes that were made for them
	Held      bool             `json:"held"`      // something is left, and so the hold that a rebuild sets
}

// stray is an object that no message names.
type stray struct {
	object  metadata.ObjectID
	stored  int64 // Unix seconds
	date    int64 // the internal date likewise
	mailbox int32 // of rebuilder.names
}

// rebuilder is a rebuild of an account under way.
type rebuilder struct {
	store   *Store
	db      *metadata.DB
	account metadata.Account
	session *Account
	opts    RebuildOptions
	cutoff  int64 // what is stored later is too young

	boxes  map[metadata.MailboxID]metadata.Mailbox // as PostgreSQL has them
	stored storedList                              // as the object store has them
	names  []string                                // of the mailboxes that messages go to
	index  map[string]int32                        // of names
	emails map[int64]struct{}                      // of the messages that are there
	all    int                                     // strays
	done   float64

	report RebuildReport
}

// Rebuild gives rows to the objects of an account that none names, because PostgreSQL was
// lost, or restored to an older point: each becomes a message of the mailbox that it was
// delivered to, with the flags and the internal date of then, and a new UID; in the order of the
// internal dates. Flags, copies, moves and expunges that PostgreSQL forgot do not come back:
// they are nowhere else. What PostgreSQL knows stays as it is, that which was expunged too.
// An object is named once, and of several with one email id one is, so Rebuild can be
// broken off and called again. What is not acknowledged, because the commit failed after
// the object was stored, comes back as well: nothing tells it from the rest.
//
// Meanwhile the account is on hold, and the collector's; clients may work. The quota is counted
// anew, and limits nothing. The report is right as far as it came, also with an error.
// About 100 octets of memory are needed for each object.
func (s *Store) Rebuild(ctx context.Context, account metadata.Account, opts RebuildOptions) (report RebuildReport, err error) {
	r := &rebuilder{
		store: s, db: s.db.Background(), account: account, opts: opts,
		boxes: make(map[metadata.MailboxID]metadata.Mailbox), index: make(map[string]int32), emails: make(map[int64]struct{}),
		report: RebuildReport{Mailboxes: make(map[string]int64)},
	}
	if opts.DryRun {
		return r.report, r.run(ctx)
	}
	r.session = s.Account(account, func() {})
	defer r.session.Close()
	ctx, unlock, err := r.lock(ctx)
	if err != nil {
		return r.report, fmt.Errorf("keep the collector away: %w", err)
	}
	defer unlock()
	err = r.run(ctx)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	}
	return r.report, r.finish(ctx, err)
}

func (r *rebuilder) run(ctx context.Context) error {
	if err := r.mailboxes(ctx); err != nil {
		return fmt.Errorf("read mailboxes: %w", err)
	}
	strays, err := r.strays(ctx)
	if err != nil {
		return fmt.Errorf("look for objects without a message: %w", err)
	}
	r.all = len(strays)
	if strays, err = r.headers(ctx, strays); err != nil {
		return fmt.Errorf("read headers: %w", err)
	}
	slices.SortFunc(strays, func(a, b stray) int {
		return cmp.Or(cmp.Compare(a.date, b.date), cmp.Compare(a.stored, b.stored), bytes.Compare(a.object[:], b.object[:]))
	})
	for batch := range slices.Chunk(strays, rebuildBatch) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := r.batch(ctx, batch); err != nil {
			return fmt.Errorf("bring back messages: %w", err)
		}
	}
	return nil
}

// mailboxes reads what mailboxes there are, and were.
func (r *rebuilder) mailboxes(ctx context.Context) error {
	now, err := r.db.Now(ctx)
	if err != nil {
		return err
	}
	r.cutoff = now.Add(-r.opts.Age).Unix()
	list, err := r.db.List(ctx, r.account.ID)
	if err != nil && (!r.opts.DryRun || !errors.Is(err, metadata.ErrNotFound)) {
		return err
	}
	for _, m := range list.Mailboxes {
		r.boxes[m.ID] = m
	}
	stored, err := r.store.readList(ctx, r.account.ID)
	if stored != nil {
		r.stored = *stored
	}
	return err
}

// strays lists the objects that are there, and then leaves out those that PostgreSQL knows:
// what is named is listed before, or too young.
func (r *rebuilder) strays(ctx context.Context) ([]stray, error) {
	var all []stray
	for info, err := range r.store.blobs.List(ctx, blobstore.AccountPrefix(int64(r.account.ID)), "") {
		if err != nil {
			return nil, err
		}
		if object, ok := info.Key.Object(); ok {
			all = append(all, stray{object: metadata.ObjectID(object), stored: info.Modified.Unix()})
		}
	}
	r.report.Objects = int64(len(all))
	known := make(map[metadata.ObjectID]bool) // whether it is doomed, and nothing else
	err := r.db.KnownObjects(ctx, r.account.ID, func(k metadata.KnownObject) {
		doomed, again := known[k.Object]
		known[k.Object] = k.Doomed && (doomed || !again)
		if k.EmailID != 0 {
			r.emails[k.EmailID] = struct{}{}
		}
	})
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(s stray) bool {
		doomed, there := known[s.object]
		switch {
		case doomed:
			r.report.Doomed++
		case there:
			r.report.Named++
		case s.stored > r.cutoff && r.opts.Age > 0:
			r.report.Young++
		default:
			return false
		}
		return true
	}), nil
}

// headers reads where the objects belong, and leaves out those that do not say.
func (r *rebuilder) headers(ctx context.Context, strays []stray) ([]stray, error) {
	found := make([]codec.Header, rebuildBatch)
	errs := make([]error, rebuildBatch)
	kept := strays[:0]
	for batch := range slices.Chunk(strays, rebuildBatch) {
		var group errgroup.Group
		group.SetLimit(rebuildReaders)
		for i := range batch {
			group.Go(func() error {
				found[i], errs[i] = codec.ReadHeader(ctx, r.store.blobs, r.key(&batch[i]))
				return nil
			})
		}
		_ = group.Wait() // each has its own error
		for i, s := range batch {
			ok, err := r.readable(&s, &found[i], errs[i])
			if err != nil {
				return nil, err
			}
			if ok {
				s.date, s.mailbox = dateOf(&found[i], &s).Unix(), r.name(&found[i], &s)
				kept = append(kept, s)
			}
			r.step(1)
		}
	}
	return kept, nil
}

func (r *rebuilder) key(s *stray) blobstore.Key {
	return blobstore.Object(s.object).Key(int64(r.account.ID))
}

// readable tells of an object that is damaged. The error is what is none of the object's.
func (r *rebuilder) readable(s *stray, h *codec.Header, err error) (bool, error) {
	d := CorruptHeader
	switch {
	case err != nil:
		if d = damageOf(err); d == "" {
			return false, err
		}
	case h.Account != int64(r.account.ID):
		err = fmt.Errorf("%w: header of account %x", blobstore.ErrCorrupt, h.Account)
	case h.KeyID != 0:
		err = fmt.Errorf("%w: encrypted with the unknown key %d", blobstore.ErrCorrupt, h.KeyID)
	default:
		return true, nil
	}
	r.report.Damaged++
	if r.opts.Found != nil {
		r.opts.Found(Finding{Damage: d, Object: blobstore.Object(s.object).String(), Detail: err.Error()})
	}
	return false, nil
}

func dateOf(h *codec.Header, s *stray) time.Time {
	if h.InternalDate.IsZero() {
		return time.Unix(s.stored, 0)
	}
	return h.InternalDate
}

// name is the index of the mailbox that a message goes to.
func (r *rebuilder) name(h *codec.Header, s *stray) int32 {
	name := r.mailboxOf(h, s)
	i, ok := r.index[name]
	if !ok {
		i = int32(len(r.names)) //nolint:gosec // mailboxes
		r.names = append(r.names, name)
		r.index[name] = i
	}
	return i
}

// mailboxOf is the mailbox with the id in the header, under the name that it has now, or
// had last. But ids that PostgreSQL forgot it gives out again: a mailbox that was made
// after the object was stored is another one. Then the name of then counts.
func (r *rebuilder) mailboxOf(h *codec.Header, s *stray) string {
	before := func(uidValidity uint32) bool { return int64(uidValidity) <= s.stored } // it is the time of birth
	if m, ok := r.boxes[metadata.MailboxID(h.Mailbox)]; ok && (m.Name == h.MailboxName || before(m.UIDValidity)) {
		return m.Name
	}
	for i := range r.stored.Mailboxes {
		if m := &r.stored.Mailboxes[i]; m.ID == h.Mailbox && before(m.UIDValidity) && CheckName(m.Name) == nil {
			return m.Name
		}
	}
	if name := CleanName(h.MailboxName); CheckName(name) == nil {
		return name
	}
	return Recovered
}

// step says that n of the work is done, in headers read.
func (r *rebuilder) step(n float64) {
	if r.opts.Progress == nil {
		return
	}
	r.done += n
	r.opts.Progress(min(1, r.done/float64((1+rebuildWeight)*r.all)))
}
