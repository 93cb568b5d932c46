package metadata

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// Share is how many owners an object is said to have, and how many it has: messages that
// name it and were not moved away, those that wait for the collector included.
type Share struct {
	Object ObjectID
	Refs   int // as it stands in blob_share; 1 if nothing stands there
	Owners int
	stands bool
	boxes  []int64 // whose messages name it
}

// ErrFormat says that a chunk is stored in a form that a check does not know.
var ErrFormat = errors.New("unknown format of a chunk")

// CheckShares compares how many owners each object of an account is said to have with how
// many it has, as of one moment, and returns those that differ: those behind after, at
// most limit, by object. It reads all of the account's messages in one statement, on one
// processor of the server, as Named does.
//
// An object with more owners than it is said to have would be doomed too early; one with
// fewer is never deleted.
func (db *DB) CheckShares(ctx context.Context, account AccountID, after ObjectID, limit int) ([]Share, error) {
	var all []Share
	// The mark of a moved message is a bit of the first byte of its slot, behind the byte of
	// the chunk's format. What has no slot counts as an owner, as for the collector. "offset 0"
	// keeps the chunks out of what is sorted.
	err := db.scan(ctx, "count the owners of objects", `
with o as (
  select g.object, count(*) filter (where f.moved is not true) as owners, max(f.format) as format,
    array_agg(distinct g.mailbox_id) filter (where f.moved is not true) as boxes
  from message g
  left join lateral (
    select get_byte(c.slots, 0) as format,
      length(c.slots) >= $4::int * ((g.uid & 127)::int + 1) + 1
        and get_byte(c.slots, least($4::int * (g.uid & 127)::int + 1, length(c.slots) - 1)) & $5::int <> 0 as moved
    from flags c
    where c.account_id = $1::bigint and c.mailbox_id = g.mailbox_id and c.chunk = (g.uid >> 7)::int
    offset 0) f on true
  where g.account_id = $1::bigint and g.object > $2::uuid
  group by g.object
  having count(*) filter (where f.moved is not true) > 0),
s as (
  select object, refs
  from blob_share
  where account_id = $1::bigint and object > $2::uuid)
select coalesce(o.object, s.object), coalesce(s.refs, 1), coalesce(o.owners, 0), s.refs is not null, o.boxes,
  (select max(format) from o)
from o
full join s on s.object = o.object
where coalesce(s.refs, 1) <> coalesce(o.owners, 0)
order by 1
limit $3::bigint`,
		[]any{account, pgtype.UUID{Bytes: after, Valid: true}, int64(limit), slotSize, int(Moved)}, func(rows pgx.Rows) error {
			var s Share
			var object pgtype.UUID
			var format *int
			if err := rows.Scan(&object, &s.Refs, &s.Owners, &s.stands, &s.boxes, &format); err != nil {
				return err
			}
			if format != nil && *format != chunkFormat {
				return fmt.Errorf("%w: %d", ErrFormat, *format)
			}
			s.Object = object.Bytes
			all = append(all, s)
			return nil
		})
	return all, err
}

// RepairShares makes what CheckShares found what it should be, where it is still as it was
// found. An object without an owner is doomed, but not while the epoch is not accepted; one
// that was doomed and has an owner is not any more. The modseq of the mailboxes that name
// one of the objects rises, as with every commit: raised are those mailboxes, of which other
// nodes have to be told. It returns how many were mended.
func (db *DB) RepairShares(ctx context.Context, account AccountID, shares []Share) (mended int, raised []Raised, err error) {
	shares = slices.SortedFunc(slices.Values(shares), func(a, b Share) int { return bytes.Compare(a.Object[:], b.Object[:]) })
	var boxes []int64
	objects, stands := make([]ObjectID, len(shares)), make([]bool, len(shares))
	refs, owners := make([]int32, len(shares)), make([]int32, len(shares))
	for i, s := range shares {
		objects[i], stands[i] = s.Object, s.stands
		refs[i], owners[i] = int32(s.Refs), int32(s.Owners) //nolint:gosec // refs is an int of the database; owners are messages
		boxes = append(boxes, s.boxes...)
	}
	slices.SortFunc(boxes, cmp.Compare[int64])
	boxes = slices.Compact(boxes)
	const jumps = 3 // one is enough, unless the epoch goes on changing
	for range jumps {
		var stale []MailboxID
		var ids []MailboxID
		var modseqs, epochs []int64
		stamp := random63()
		err := db.writeRow(ctx, "repair the owners of objects", repairSharesSQL,
			[]any{account, notNullBoxes(boxes), stamp, uuids(objects), refs, owners, stands}, &stale, &mended, &ids, &modseqs, &epochs)
		for i, id := range ids {
			raised = append(raised, Raised{Mailbox: id, Version: Version{ModSeq: modseqs[i], Stamp: stamp, Epoch: epochs[i]}})
		}
		if err != nil || len(stale) == 0 {
			return mended, raised, err
		}
		for _, id := range stale {
			if err := db.jump(ctx, account, id); err != nil {
				return 0, nil, err
			}
		}
	}
	return 0, nil, fmt.Errorf("repair the owners of objects: the epoch keeps changing: %w", ErrUnavailable)
}

// Raised is a mailbox whose modseq a repair has raised.
type Raised struct {
	Mailbox MailboxID
	Version Version
}

func notNullBoxes(ids []int64) []int64 {
	if ids == nil {
		return []int64{}
	}
	return ids
}

// repairSharesSQL compares each share under its lock: commits that came since it was
// counted changed its number too, as it has no other way to change.
const repairSharesSQL = `
with l as materialized (
  select w.id, w.stale
  from unnest($2::bigint[]) c(id),
    lateral (
      select m.id, m.epoch <> epoch() and not m.dropped as stale
      from mailbox m
      where m.account_id = $1::bigint and m.id = c.id
      limit 1
      for update) w),
ok as materialized (
  select 1
  from l
  having not coalesce(bool_or(l.stale), false)),
m as (
  update mailbox m
  set modseq = m.modseq + 1, stamp = $3::bigint
  from ok
  where m.account_id = $1::bigint and m.id = any ($2::bigint[])
  returning m.id, m.modseq, m.epoch, m.dropped),
u as materialized (
  select u.object, u.refs, u.owners, u.stands
  from ok, unnest($4::uuid[], $5::int[], $6::int[], $7::boolean[]) u(object, refs, owners, stands)),
k as materialized (
  select w.object, u.owners
  from u,
    lateral (
      select b.object, b.refs
      from blob_share b
      where b.account_id = $1::bigint and b.object = u.object
      limit 1
      for update) w
  where u.stands and w.refs = u.refs),
s as (
  update blob_share b
  set refs = k.owners
  from k
  where b.account_id = $1::bigint and b.object = k.object
  returning b.object, b.refs),
i as (
  insert into blob_share (account_id, object, refs)
  select $1::bigint, u.object, u.owners
  from u
  where not u.stands
  order by u.object
  on conflict (account_id, object) do nothing
  returning 1),
d as (
  insert into doomed (account_id, object)
  select $1::bigint, s.object
  from s
  where s.refs <= 0 and exists (select 1 from cluster c where c.accepted = epoch())
  order by s.object
  on conflict (account_id, object) do nothing),
x as (
  delete from doomed d
  using s
  where d.account_id = $1::bigint and d.object = s.object and s.refs > 0)
select (select array_agg(l.id) from l where l.stale), (select count(*) from s) + (select count(*) from i),
  h.ids, h.modseqs, h.epochs
from (
  select array_agg(m.id) as ids, array_agg(m.modseq) as modseqs, array_agg(m.epoch) as epochs
  from m
  where not m.dropped) h`

// MessageObject is where the bytes of a message are.
type MessageObject struct {
	Mailbox MailboxID
	UID     uint32
	Object  ObjectID
	Extent  []byte // as package blobstore/codec has it
	Size    int64  // octets of the message
}

// MessageObjects lists what the rows of an account's messages name, those included that
// wait for the collector: those behind a mailbox and UID, at most limit, in this order.
// Whether an object that nobody lists is named is asked of Named.
func (db *DB) MessageObjects(ctx context.Context, account AccountID, mailbox MailboxID, uid uint32, limit int) ([]MessageObject, error) {
	var all []MessageObject
	err := db.rows(ctx, "list objects of messages", `
select mailbox_id, uid, object, extent, size
from message
where account_id = $1::bigint and (mailbox_id, uid) > ($2::bigint, $3::bigint)
order by account_id, mailbox_id, uid
limit $4::bigint`,
		[]any{account, mailbox, int64(uid), int64(limit)}, func(rows pgx.Rows) error {
			var m MessageObject
			var object pgtype.UUID
			if err := rows.Scan(&m.Mailbox, &m.UID, &object, &m.Extent, &m.Size); err != nil {
				return err
			}
			m.Object = object.Bytes
			all = append(all, m)
			return nil
		})
	return all, err
}
