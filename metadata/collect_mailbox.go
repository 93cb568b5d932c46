package metadata

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// errRefs says that more owners of an object were deleted than were counted: a
// bug, of which nothing was committed.
var errRefs = errors.New("object has fewer owners than messages")

// Collected is what was collected of a mailbox.
type Collected struct {
	Messages int     // rows deleted
	Chunks   int     // dropped, of 128 UIDs each
	Keywords int     // whose bits were freed
	Version  Version // of the mailbox after the last commit; zero if there was none
}

// collectBatch is how many messages one commit takes: the mailbox is locked
// for some milliseconds, as by any other change.
const collectBatch = 1000

// collection is what a commit of the collector does to its mailbox.
type collection struct {
	through  int64 // what was expunged up to this modseq is done with; 0: there is more
	dropped  bool  // the mailbox is a deleted one
	rows     []row // to be deleted
	owned    []row // those of rows that own their object: all but the moved ones
	chunks   []int32
	horizon  int64
	keywords []string // nil: unchanged
}

type row struct {
	uid    uint32
	object ObjectID
}

// collect is the statement for the collector. It deletes rows and chunks by
// where they stand, which no one else changes while the compare-and-set holds;
// a join would read the whole mailbox. An object loses an owner by the same
// upsert that gives it one, so that no change of others is missed, and is doomed
// with the last. What has no row in blob_share had one owner, and gets 0.
func (p *plan) collect() {
	ch, c := p.changes[0], p.collecting
	uids := make([]int64, len(c.rows))
	for i, r := range c.rows {
		uids[i] = int64(r.uid)
	}
	objects, owners := c.owners()
	p.sql = `
with m as (
  update mailbox m
  set modseq = $6::bigint,
    stamp = $7::bigint,
    horizon = greatest(m.horizon, $8::bigint),
    keywords = coalesce($9::text[], m.keywords)
  where m.account_id = $1::bigint and m.id = $2::bigint
    and m.modseq = $3::bigint and m.stamp = $4::bigint and m.epoch = $5::bigint
    and m.dropped = $10::boolean and (m.dropped or m.epoch = epoch())
    and not exists (select 1 from account a where a.account_id = $1::bigint and a.hold)
  returning 1),
g as (
  delete from message g
  where g.ctid = any (array(
      select r.ctid
      from m, unnest($11::bigint[]) u(uid),
        lateral (
          select o.ctid
          from message o
          where o.account_id = $1::bigint and o.mailbox_id = $2::bigint and o.uid = u.uid
          limit 1) r))
    and g.account_id = $1::bigint and g.mailbox_id = $2::bigint
  returning 1),
s as (
  insert into blob_share as s (account_id, object, refs)
  select $1::bigint, u.object, 1 - u.owners
  from m, unnest($12::uuid[], $13::int[]) u(object, owners)
  order by u.object
  on conflict (account_id, object) do update set refs = s.refs + excluded.refs - 1
  returning s.object, s.refs),
d as (
  insert into doomed (account_id, object)
  select $1::bigint, s.object
  from s
  where s.refs <= 0
  order by s.object
  on conflict (account_id, object) do update set at = excluded.at),
f as (
  delete from flags f
  where f.ctid = any (array(
      select r.ctid
      from m, unnest($14::int[]) u(chunk),
        lateral (
          select o.ctid
          from flags o
          where o.account_id = $1::bigint and o.mailbox_id = $2::bigint and o.chunk = u.chunk
          limit 1) r))
    and f.account_id = $1::bigint and f.mailbox_id = $2::bigint
  returning 1),
e as (
  delete from expunged e
  using m
  where e.account_id = $1::bigint and e.mailbox_id = $2::bigint and e.modseq <= $15::bigint)
select
  case
    when exists (select 1 from m) then
      case
        when (select count(*) from g) < cardinality($11::bigint[]) then refuse('source')
        when (select count(*) from f) < cardinality($14::int[]) then refuse('source')
        when exists (select 1 from s where s.refs < 0) then refuse('refs')
        else ''
      end
    when w.dropped <> $10::boolean then 'mailbox'
    when exists (select 1 from account a where a.account_id = $1::bigint and a.hold) then 'held'
    else 'conflict'
  end,
  now()
from mailbox w
where w.account_id = $1::bigint and w.id = $2::bigint`
	p.args = []any{
		p.Account, ch.Mailbox, ch.Seen.ModSeq, ch.Seen.Stamp, ch.Seen.Epoch,
		ch.ModSeq, p.stamps[0], c.horizon, c.keywords, c.dropped,
		uids, objects, owners, notNullChunks(c.chunks), c.through,
	}
}

func notNullChunks(numbers []int32) []int32 {
	if numbers == nil {
		return []int32{}
	}
	return numbers
}

// owners counts the owners that each object loses.
func (c *collection) owners() (objects []pgtype.UUID, owners []int32) {
	count := make(map[ObjectID]int32, len(c.owned))
	for _, r := range c.owned {
		count[r.object]++
	}
	sorted := slices.SortedFunc(maps.Keys(count), func(a, b ObjectID) int { return bytes.Compare(a[:], b[:]) })
	objects, owners = make([]pgtype.UUID, len(sorted)), make([]int32, len(sorted))
	for i, o := range sorted {
		objects[i], owners[i] = pgtype.UUID{Bytes: o, Valid: true}, count[o]
	}
	return objects, owners
}

// Collect deletes the rows of the messages that were expunged up to the modseq
// through, in commits of at most 1,000, and dooms the objects that nobody owns
// any more. The last commit drops the chunks that hold nothing else, and frees
// the keywords that no slot has. The mailbox's modseq rises with every commit.
//
// The error is ErrNoMailbox if the mailbox was deleted, ErrHeld if the account is on
// hold; ErrConflict and ErrSourceGone if somebody else collects here too. What was
// committed before an error is reported with it, and stays.
func (db *DB) Collect(ctx context.Context, ref BoxRef, through int64) (Collected, error) {
	l, err := db.Load(ctx, ref.Account, ref.Mailbox, Version{})
	if err != nil {
		return Collected{}, fmt.Errorf("collect: %w", err)
	}
	c := newCollector(db, l, min(through, l.Mailbox.ModSeq))
	for more := true; more; {
		var batch []row
		if batch, more, err = c.next(ctx); err == nil {
			err = c.commit(ctx, batch, !more)
		}
		if err != nil {
			return c.done, fmt.Errorf("collect mailbox %d: %w", ref.Mailbox, err)
		}
	}
	return c.done, nil
}

// collector is the collection of one mailbox under way.
type collector struct {
	db      *DB
	box     Mailbox
	chunks  map[int32]*Chunk
	through int64
	left    []UIDRange // that hold messages to be deleted
	done    Collected
}

func newCollector(db *DB, l Load, through int64) *collector {
	c := &collector{db: db, through: through}
	c.bring(l)
	for _, no := range slices.Sorted(maps.Keys(c.chunks)) {
		chunk := c.chunks[no]
		for i := range chunk.Len() {
			if c.due(chunk.Slot(i)) {
				c.add(chunk.First() + uint32(i)) //nolint:gosec // below 128
			}
		}
	}
	return c
}

// bring takes in what was loaded.
func (c *collector) bring(l Load) {
	if l.Whole || c.chunks == nil {
		c.chunks = make(map[int32]*Chunk, len(l.Chunks))
	}
	c.box = l.Mailbox
	for _, chunk := range l.Chunks {
		c.chunks[chunk.No()] = chunk
	}
}

// due says whether a slot is that of a message to be deleted. Slots do not
// become due while the collector works: what is expunged meanwhile has a higher
// modseq.
func (c *collector) due(s Slot) bool {
	return s.ModSeq != 0 && s.Flags&Expunged != 0 && s.ModSeq <= c.through
}

func (c *collector) add(uid uint32) {
	if n := len(c.left); n > 0 && c.left[n-1].Last+1 == uid {
		c.left[n-1].Last = uid
		return
	}
	c.left = append(c.left, UIDRange{First: uid, Last: uid})
}

func (c *collector) slot(uid uint32) Slot {
	if chunk := c.chunks[ChunkOf(uid)]; chunk != nil {
		return chunk.Slot(int(uid - chunk.First()))
	}
	return Slot{}
}

// next reads the rows of the next batch. Of many messages the rows are gone
// already: they are found by their slots, which stay while the chunk does.
func (c *collector) next(ctx context.Context) (batch []row, more bool, err error) {
	for len(batch) <= collectBatch && len(c.left) > 0 {
		piece := c.left[:min(len(c.left), maxRanges)]
		got, err := c.db.objects(ctx, BoxRef{c.box.Account, c.box.ID}, piece, collectBatch+1-len(batch))
		if err != nil {
			return nil, false, err
		}
		batch = append(batch, got...)
		if len(batch) <= collectBatch {
			c.left = c.left[len(piece):]
		}
	}
	if len(batch) <= collectBatch {
		return batch, false, nil
	}
	// The one that is too many begins the next batch.
	batch = batch[:collectBatch]
	last := batch[collectBatch-1].uid
	i := slices.IndexFunc(c.left, func(r UIDRange) bool { return r.Last > last })
	c.left = c.left[i:]
	c.left[0].First = max(c.left[0].First, last+1)
	return batch, true, nil
}

// objects reads which objects the messages in ranges, which rise, name: the
// first ones of those whose rows are there.
func (db *DB) objects(ctx context.Context, ref BoxRef, ranges []UIDRange, limit int) ([]row, error) {
	first, last := make([]int64, len(ranges)), make([]int64, len(ranges))
	for i, r := range ranges {
		first[i], last[i] = int64(r.First), int64(r.Last)
	}
	var all []row
	err := db.rows(ctx, "read objects of messages", `
select g.uid, g.object
from unnest($3::bigint[], $4::bigint[]) r(first, last),
  lateral (
    select o.uid, o.object
    from message o
    where o.account_id = $1::bigint and o.mailbox_id = $2::bigint and o.uid between r.first and r.last
    order by o.account_id, o.mailbox_id, o.uid
    limit $5::bigint) g
limit $5::bigint`,
		[]any{ref.Account, ref.Mailbox, first, last, int64(limit)}, func(rows pgx.Rows) error {
			var r row
			var object pgtype.UUID
			if err := rows.Scan(&r.uid, &object); err != nil {
				return err
			}
			if n := len(all); n > 0 && all[n-1].uid >= r.uid {
				return fmt.Errorf("UID %d came after %d", r.uid, all[n-1].uid)
			}
			r.object = object.Bytes
			all = append(all, r)
			return nil
		})
	return all, err
}

// commit deletes a batch: by what is held of the mailbox, and if somebody else
// changed it, under its lock.
func (c *collector) commit(ctx context.Context, batch []row, last bool) error {
	commit := c.compute(batch, last)
	if commit == nil {
		return c.db.forgetExpunged(ctx, BoxRef{c.box.Account, c.box.ID}, c.through)
	}
	done, err := c.db.Commit(ctx, commit)
	if errors.Is(err, ErrConflict) {
		done, err = c.db.CommitLocked(ctx, c.box.Account, []MailboxID{c.box.ID}, []Version{c.box.Version},
			func(loads []Load) (*Commit, error) {
				c.bring(loads[0])
				commit = c.compute(batch, last)
				return commit, nil
			})
		if err == nil && commit == nil {
			return c.db.forgetExpunged(ctx, BoxRef{c.box.Account, c.box.ID}, c.through)
		}
	}
	if err != nil {
		return err
	}
	c.committed(commit, done)
	return nil
}

// compute is the commit that deletes a batch from the mailbox as it is held;
// nil if there is nothing to change.
func (c *collector) compute(batch []row, last bool) *Commit {
	what := &collection{}
	for _, r := range batch {
		s := c.slot(r.uid)
		if !c.due(s) {
			continue
		}
		what.rows = append(what.rows, r)
		if s.Flags&Moved == 0 {
			what.owned = append(what.owned, r)
		}
	}
	if last {
		what.through = c.through
		what.chunks, what.horizon = c.dead()
		what.keywords = c.unused(what.chunks)
	}
	if len(what.rows) == 0 && len(what.chunks) == 0 && what.keywords == nil {
		return nil
	}
	return c.change(what)
}

func (c *collector) change(what *collection) *Commit {
	return &Commit{
		Account:    c.box.Account,
		Changes:    []Change{{Mailbox: c.box.ID, Seen: c.box.Version, ModSeq: c.box.ModSeq + 1}},
		collecting: what,
	}
}

// committed takes over what a commit did.
func (c *collector) committed(commit *Commit, done Committed) {
	what := commit.collecting
	c.box.Version = done.Version(commit, 0)
	c.box.Horizon = max(c.box.Horizon, what.horizon)
	for _, no := range what.chunks {
		delete(c.chunks, no)
	}
	c.done.Messages += len(what.rows)
	c.done.Chunks += len(what.chunks)
	if what.keywords != nil {
		for i, name := range what.keywords {
			if name != c.box.Keywords[i] {
				c.done.Keywords++
			}
		}
		c.box.Keywords = what.keywords
	}
	c.done.Version = c.box.Version
}

// dead are the chunks that hold nothing but slots of deleted messages, and the
// greatest modseq in them. The one that the next message goes to stays.
func (c *collector) dead() (numbers []int32, horizon int64) {
	for no, chunk := range c.chunks {
		if int64(no) >= c.box.UIDNext>>chunkShift || chunk.Live() > 0 || chunk.MaxModSeq() > c.through {
			continue
		}
		numbers = append(numbers, no)
		horizon = max(horizon, chunk.MaxModSeq())
	}
	slices.SortFunc(numbers, cmp.Compare[int32])
	return numbers, horizon
}

// unused are the mailbox's keywords without those that no slot has any more
// when the given chunks are gone; nil if all are in use.
func (c *collector) unused(gone []int32) []string {
	var used Flags
	for no, chunk := range c.chunks {
		if _, dead := slices.BinarySearch(gone, no); dead {
			continue
		}
		for i := range chunk.Len() {
			used |= chunk.Slot(i).Flags
		}
	}
	var kept []string
	for i, name := range c.box.Keywords {
		if name == "" || used&Keyword(i) != 0 {
			continue
		}
		if kept == nil {
			kept = slices.Clone(c.box.Keywords)
		}
		kept[i] = ""
	}
	return kept
}

// forgetExpunged ends the work on a mailbox in which nothing was left to do. An
// expunge that comes meanwhile raises the modseq of its row, which then stays.
func (db *DB) forgetExpunged(ctx context.Context, ref BoxRef, through int64) error {
	return db.writeRows(ctx, "forget what was expunged", `
delete from expunged
where account_id = $1::bigint and mailbox_id = $2::bigint and modseq <= $3::bigint`,
		[]any{ref.Account, ref.Mailbox, through}, func(pgx.Rows) error { return nil })
}
