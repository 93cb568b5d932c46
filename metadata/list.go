package metadata

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
)

// List is an account's list of mailboxes as of one moment.
type List struct {
	ListSeq       int64
	Mailboxes     []Mailbox // not deleted, by name
	Subscriptions []string  // by name; they may name what does not exist
}

// ListChange is what changed of a list.
type ListChange struct {
	ListSeq  int64     // after the change
	Mailbox  Mailbox   // the one created, deleted or renamed; zero if only its children were there
	Children []Mailbox // renamed with it
}

const inbox = "INBOX"

// MaxMailboxes is how many mailboxes an account can have, and how many subscriptions: a list is held in memory by
// each session that asks for it.
const MaxMailboxes = 10_000

// What the name of a mailbox may have: octets, and levels.
const (
	MaxName   = 1000
	MaxLevels = 20
)

// List reads the mailboxes of an account, with all that STATUS says of them, which is not their
// keywords, and its subscriptions. The error is ErrNotFound if there is no such account.
func (db *DB) List(ctx context.Context, account AccountID) (List, error) {
	var l List
	err := db.rows(ctx, "list mailboxes", `
select m.id, m.name, m.uidvalidity, m.uidnext, m.modseq, m.stamp, m.epoch,
  m.messages, m.unseen, m.deleted, m.bytes, m.deleted_bytes,
  m.recent, m.horizon, m.jumps, '{}'::text[], m.special_use, m.listseq, m.dropped,
  s.name,
  (select a.listseq from account a where a.account_id = $1::bigint)
from (
  select *
  from mailbox
  where account_id = $1::bigint and not dropped) m
full join (
  select name
  from subscription
  where account_id = $1::bigint and subscribed) s on s.name = m.name`,
		[]any{account}, func(rows pgx.Rows) error {
			var subscribed *string
			into := make([]any, 19, 21)
			if rows.RawValues()[0] != nil {
				l.Mailboxes = append(l.Mailboxes, Mailbox{Account: account})
				into = l.Mailboxes[len(l.Mailboxes)-1].into()
			}
			err := rows.Scan(append(into, &subscribed, &l.ListSeq)...)
			if subscribed != nil {
				l.Subscriptions = append(l.Subscriptions, *subscribed)
			}
			return err
		})
	if err != nil {
		return List{}, err
	}
	if len(l.Mailboxes) == 0 { // INBOX is made with the account
		return List{}, fmt.Errorf("list mailboxes of account %x: %w", int64(account), ErrNotFound)
	}
	if err := db.jumped(ctx, l.Mailboxes); err != nil {
		return List{}, err
	}
	slices.SortFunc(l.Mailboxes, func(a, b Mailbox) int { return cmp.Compare(a.Name, b.Name) })
	slices.Sort(l.Subscriptions)
	return l, nil
}

// MailboxByName reads the row of a mailbox. The error is ErrNoMailbox if there
// is none of that name.
func (db *DB) MailboxByName(ctx context.Context, account AccountID, name string) (Mailbox, error) {
	found := []Mailbox{{Account: account}}
	err := db.row(ctx, "find the mailbox", `
select m.id, m.name, m.uidvalidity, m.uidnext, m.modseq, m.stamp, m.epoch,
  m.messages, m.unseen, m.deleted, m.bytes, m.deleted_bytes,
  m.recent, m.horizon, m.jumps, m.keywords, m.special_use, m.listseq, m.dropped
from mailbox m
where m.account_id = $1::bigint and m.name = $2::text and not m.dropped`,
		[]any{account, name}, found[0].into()...)
	if err != nil {
		return Mailbox{}, noMailbox(err, name)
	}
	err = db.jumped(ctx, found)
	return found[0], err
}

// NameRef names a mailbox of any account by its name.
type NameRef struct {
	Account AccountID
	Name    string
}

const mailboxesByNameSQL = `
select m.id, m.name, m.uidvalidity, m.uidnext, m.modseq, m.stamp, m.epoch,
  m.messages, m.unseen, m.deleted, m.bytes, m.deleted_bytes,
  m.recent, m.horizon, m.jumps, m.keywords, m.special_use, m.listseq, m.dropped,
  r.n
from unnest($1::bigint[], $2::text[]) with ordinality r(account_id, name, n),
  lateral (
    select *
    from mailbox b
    where b.account_id = r.account_id and b.name = r.name and not b.dropped
    limit 1) m`

// MailboxesByName reads the rows of many mailboxes in one round trip, and calls each with
// those that are there, and the place of their names in refs. A row is the callee's to keep.
func (db *DB) MailboxesByName(ctx context.Context, refs []NameRef, each func(int, *Mailbox)) error {
	accounts, names := make([]int64, len(refs)), make([]string, len(refs))
	for i, r := range refs {
		accounts[i], names[i] = int64(r.Account), r.Name
	}
	found, places := make([]Mailbox, 0, len(refs)), make([]int, 0, len(refs))
	err := db.rows(ctx, "find mailboxes", mailboxesByNameSQL,
		[]any{accounts, names}, func(rows pgx.Rows) error {
			var m Mailbox
			var n int64
			if err := rows.Scan(append(m.into(), &n)...); err != nil {
				return err
			}
			m.Account = refs[n-1].Account
			found, places = append(found, m), append(places, int(n-1))
			return nil
		})
	if err != nil {
		return err
	}
	if err := db.jumped(ctx, found); err != nil {
		return err
	}
	for i := range found {
		each(places[i], &found[i])
	}
	return nil
}

func noMailbox(err error, name string) error {
	if errors.Is(err, pgx.ErrNoRows) {
		return fmt.Errorf("mailbox %q: %w", name, ErrNoMailbox)
	}
	return err
}

// CreateMailbox makes an empty mailbox, but not what may be missing above it.
// The error is ErrExists if the name is taken, ErrNotFound if the account is
// not there or being deleted, ErrListLimit if it has MaxMailboxes mailboxes.
func (db *DB) CreateMailbox(ctx context.Context, account AccountID, name string, specialUse []string) (ListChange, error) {
	c := ListChange{Mailbox: Mailbox{Account: account}}
	if specialUse == nil {
		specialUse = []string{}
	}
	err := db.writeRow(ctx, fmt.Sprintf("create mailbox %q", name), `
with a as (
  update account
  set listseq = listseq + 1,
    next_mailbox = next_mailbox + 1,
    last_uidvalidity = greatest(last_uidvalidity + 1, extract(epoch from now())::bigint)
  where account_id = $1::bigint and state <> 3
    and not exists (
      select 1
      from mailbox m
      where m.account_id = $1::bigint and m.name = $2::text and not m.dropped)
    and (select count(*) from mailbox m where m.account_id = $1::bigint and not m.dropped) < $5::bigint
  returning listseq, next_mailbox - 1 as id, last_uidvalidity),
m as (
  insert into mailbox as m (account_id, id, uidvalidity, stamp, epoch, listseq, name, special_use)
  select $1::bigint, a.id, a.last_uidvalidity, $4::bigint, epoch(), a.listseq, $2::text, $3::text[]
  from a
  returning m.*)
select m.id, m.name, m.uidvalidity, m.uidnext, m.modseq, m.stamp, m.epoch,
  m.messages, m.unseen, m.deleted, m.bytes, m.deleted_bytes,
  m.recent, m.horizon, m.jumps, m.keywords, m.special_use, m.listseq, m.dropped,
  m.listseq
from m`,
		[]any{account, name, specialUse, random63(), int64(MaxMailboxes)}, append(c.Mailbox.into(), &c.ListSeq)...)
	if errors.Is(err, pgx.ErrNoRows) {
		return ListChange{}, db.whyNotCreated(ctx, account, name)
	}
	return c, err
}

// whyNotCreated tells the account's absence, and its having too many, from a mailbox of that name, which was there
// whatever has become of it since.
func (db *DB) whyNotCreated(ctx context.Context, account AccountID, name string) error {
	var state AccountState
	var many int64
	var there bool
	err := db.row(ctx, "find why a mailbox was not made", `
select a.state, m.many, m.there
from account a, lateral (
  select count(*) as many, coalesce(bool_or(m.name = $2::text), false) as there
  from mailbox m
  where m.account_id = $1::bigint and not m.dropped) m
where a.account_id = $1::bigint`,
		[]any{account, name}, &state, &many, &there)
	switch {
	case errors.Is(err, pgx.ErrNoRows), err == nil && state == Deleting:
		err = ErrNotFound
	case err != nil:
	case many >= MaxMailboxes && !there:
		err = ErrListLimit
	default:
		err = ErrExists
	}
	return fmt.Errorf("create mailbox %q: %w", name, err)
}

// DeleteMailbox marks a mailbox as deleted, with all that is in it; its
// children stay. Its name is free at once, and its mail no longer counts. The
// error is ErrInbox for INBOX, ErrHasChildren for a name that only stands
// above others, ErrNoMailbox if there is none of that name.
func (db *DB) DeleteMailbox(ctx context.Context, account AccountID, name string) (ListChange, error) {
	if name == inbox {
		return ListChange{}, fmt.Errorf("delete mailbox %q: %w", name, ErrInbox)
	}
	c := ListChange{Mailbox: Mailbox{Account: account}}
	err := db.writeRow(ctx, fmt.Sprintf("delete mailbox %q", name), `
with a as (
  update account
  set listseq = listseq + 1
  where account_id = $1::bigint
    and exists (
      select 1
      from mailbox m
      where m.account_id = $1::bigint and m.name = $2::text and not m.dropped)
  returning listseq),
m as (
  update mailbox m
  set dropped = true, dropped_at = now(), listseq = a.listseq, modseq = m.modseq + 1, stamp = $3::bigint
  from a
  where m.account_id = $1::bigint and m.name = $2::text and not m.dropped
  returning m.*),
q as (
  update quota q
  set bytes = q.bytes - m.bytes, messages = q.messages - m.messages
  from m
  where q.account_id = $1::bigint)
select m.id, m.name, m.uidvalidity, m.uidnext, m.modseq, m.stamp, m.epoch,
  m.messages, m.unseen, m.deleted, m.bytes, m.deleted_bytes,
  m.recent, m.horizon, m.jumps, m.keywords, m.special_use, m.listseq, m.dropped,
  m.listseq
from m`,
		[]any{account, name, random63()}, append(c.Mailbox.into(), &c.ListSeq)...)
	if errors.Is(err, pgx.ErrNoRows) {
		return ListChange{}, db.whyNotDeleted(ctx, account, name)
	}
	return c, err
}

func (db *DB) whyNotDeleted(ctx context.Context, account AccountID, name string) error {
	var children bool
	err := db.row(ctx, "look for children", `
select exists (
  select 1
  from mailbox
  where account_id = $1::bigint and name >= $2::text || '/' and name < $2::text || '0' and not dropped)`,
		[]any{account, name}, &children)
	if err == nil && children {
		err = ErrHasChildren
	} else if err == nil {
		err = ErrNoMailbox
	}
	return fmt.Errorf("delete mailbox %q: %w", name, err)
}

// RenameMailbox gives a mailbox and its children another name; from may also
// be a name that only stands above others. The error is ErrInbox for INBOX,
// ErrNoMailbox if nothing is there, ErrExists if one of the new names is taken, ErrName if
// one of the children would have a longer name than MaxName octets or MaxLevels levels.
func (db *DB) RenameMailbox(ctx context.Context, account AccountID, from, to string) (ListChange, error) {
	what := fmt.Sprintf("rename mailbox %q to %q", from, to)
	if from == inbox {
		return ListChange{}, fmt.Errorf("%s: %w", what, ErrInbox)
	}
	if from == to {
		return ListChange{}, fmt.Errorf("%s: %w", what, ErrExists)
	}
	var c ListChange
	found, long := false, false
	err := db.writeRows(ctx, what, `
with v as materialized (
  select m.id, $3::text || substr(m.name, length($2::text) + 1) as new_name
  from mailbox m
  where m.account_id = $1::bigint and not m.dropped
    and (m.name = $2::text or m.name >= $2::text || '/' and m.name < $2::text || '0')),
long as materialized (
  select 1
  from v
  where octet_length(v.new_name) > $4::bigint or length(v.new_name) - length(replace(v.new_name, '/', '')) >= $5::bigint
  limit 1),
a as (
  update account
  set listseq = listseq + 1
  where account_id = $1::bigint
    and exists (select 1 from v)
    and not exists (select 1 from long)
    and not exists (
      select 1
      from v
      join mailbox m on m.account_id = $1::bigint and m.name = v.new_name and not m.dropped)
    and not exists ( -- also where only children are there to be renamed
      select 1
      from mailbox m
      where m.account_id = $1::bigint and m.name = $3::text and not m.dropped)
  returning listseq),
r as (
  update mailbox m
  set name = $3::text || substr(m.name, length($2::text) + 1), old_name = m.name, listseq = a.listseq
  from a
  where m.account_id = $1::bigint and not m.dropped
    and (m.name = $2::text or m.name >= $2::text || '/' and m.name < $2::text || '0')
  returning m.*)
select m.id, m.name, m.uidvalidity, m.uidnext, m.modseq, m.stamp, m.epoch,
  m.messages, m.unseen, m.deleted, m.bytes, m.deleted_bytes,
  m.recent, m.horizon, m.jumps, m.keywords, m.special_use, m.listseq, m.dropped,
  exists (select 1 from v) and ((select count(*) from a) = 0 or m.id is not null), -- nothing: others were faster to rename or delete it
  exists (select 1 from long)
from (select 1) one
left join r m on true`,
		[]any{account, from, to, int64(MaxName), int64(MaxLevels)}, func(rows pgx.Rows) error {
			if rows.RawValues()[0] == nil {
				return rows.Scan(append(make([]any, 19, 21), &found, &long)...)
			}
			m := Mailbox{Account: account}
			err := rows.Scan(append(m.into(), &found, &long)...)
			c.ListSeq = m.ListSeq
			if m.Name == to {
				c.Mailbox = m
			} else {
				c.Children = append(c.Children, m)
			}
			return err
		})
	switch {
	case err != nil:
		return ListChange{}, err
	case !found:
		return ListChange{}, fmt.Errorf("%s: %w", what, ErrNoMailbox)
	case long:
		return ListChange{}, fmt.Errorf("%s: %w: that of a mailbox below it is too long", what, ErrName)
	case c.ListSeq == 0:
		return ListChange{}, fmt.Errorf("%s: %w", what, ErrExists)
	}
	slices.SortFunc(c.Children, func(a, b Mailbox) int { return cmp.Compare(a.Name, b.Name) })
	return c, nil
}

// Subscribe adds a name to the subscriptions, whether or not there is such a
// mailbox. If it is there already nothing changes. The error is ErrListLimit if there are MaxMailboxes already.
func (db *DB) Subscribe(ctx context.Context, account AccountID, name string) (ListChange, error) {
	return db.setSubscribed(ctx, account, name, true)
}

// Unsubscribe removes a name from the subscriptions. If it is not there
// nothing changes.
func (db *DB) Unsubscribe(ctx context.Context, account AccountID, name string) (ListChange, error) {
	return db.setSubscribed(ctx, account, name, false)
}

func (db *DB) setSubscribed(ctx context.Context, account AccountID, name string, subscribed bool) (ListChange, error) {
	var c ListChange
	refused := false
	err := db.writeRow(ctx, fmt.Sprintf("change the subscription of %q", name), `
with a as (
  update account
  set listseq = listseq + 1
  where account_id = $1::bigint
    and $3::boolean <> exists (
      select 1
      from subscription s
      where s.account_id = $1::bigint and s.name = $2::text and s.subscribed)
    and (not $3::boolean
      or (select count(*) from subscription s where s.account_id = $1::bigint and s.subscribed) < $4::bigint)
  returning listseq),
s as (
  insert into subscription (account_id, name, subscribed, listseq)
  select $1::bigint, $2::text, $3::boolean, a.listseq
  from a
  on conflict (account_id, name) do update set subscribed = excluded.subscribed, listseq = excluded.listseq)
select coalesce((select listseq from a), o.listseq),
  $3::boolean and not exists (select 1 from a) and not exists (
    select 1
    from subscription s
    where s.account_id = $1::bigint and s.name = $2::text and s.subscribed)
from account o
where o.account_id = $1::bigint`,
		[]any{account, name, subscribed, int64(MaxMailboxes)}, &c.ListSeq, &refused)
	if err == nil && refused {
		return ListChange{}, fmt.Errorf("subscribe to %q: %w", name, ErrListLimit)
	}
	return c, notFound(err, "account %x", int64(account))
}
