package metadata

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype/zeronull"
)

// Load is a mailbox as of one moment, or what changed of it.
type Load struct {
	Mailbox Mailbox
	Whole   bool     // Chunks are all that there are, not only what changed
	Chunks  []*Chunk // by number
}

// into are the destinations of the columns of a mailbox, in this order: id,
// name, uidvalidity, uidnext, modseq, stamp, epoch, messages, unseen, deleted,
// bytes, deleted_bytes, recent, horizon, jumps, keywords, special_use, listseq,
// dropped.
func (m *Mailbox) into() []any {
	return []any{
		&m.ID, &m.Name, &m.UIDValidity, &m.UIDNext, &m.ModSeq, &m.Stamp, &m.Epoch,
		&m.Messages, &m.Unseen, &m.Deleted, &m.Bytes, &m.DeletedBytes,
		&m.Recent, &m.Horizon, &m.Jumps, &m.Keywords, &m.SpecialUse, &m.ListSeq, &m.Dropped,
	}
}

// loadSQL reads a mailbox and its chunks in one statement, so that they are of
// one moment. All chunks come if what the caller has cannot be brought up to
// date: it lies below the horizon, is of another epoch, or has this modseq but
// was made by another commit; or lies above, which is only seen after a restore.
// Where nothing changed, no chunk is looked at: "offset 0" keeps the condition on
// the mailbox's row out of the scan of the chunks, which is then not begun.
const loadSQL = `
select m.id, m.name, m.uidvalidity, m.uidnext, m.modseq, m.stamp, m.epoch,
  m.messages, m.unseen, m.deleted, m.bytes, m.deleted_bytes,
  m.recent, m.horizon, m.jumps, m.keywords, m.special_use, m.listseq, m.dropped,
  m.epoch <> (select epoch()),
  m.horizon > $3::bigint or m.epoch <> $5::bigint or m.modseq < $3::bigint
    or m.modseq = $3::bigint and m.stamp <> $4::bigint,
  f.chunk, f.slots
from mailbox m
left join lateral (
  select c.chunk, c.slots
  from flags c
  where (m.modseq <> $3::bigint or m.stamp <> $4::bigint or m.epoch <> $5::bigint or m.horizon > $3::bigint)
    and c.account_id = m.account_id and c.mailbox_id = m.id
    and c.max_modseq > case
      when m.horizon > $3::bigint or m.epoch <> $5::bigint or m.modseq < $3::bigint
        or m.modseq = $3::bigint and m.stamp <> $4::bigint then 0
      else $3::bigint
    end
  offset 0) f on true
where m.account_id = $1::bigint and m.id = $2::bigint`

// loading gathers the rows of loadSQL.
type loading struct {
	Load
	account AccountID
	stale   bool // of an older epoch
	found   bool
}

func (l *loading) row(rows pgx.Rows) error {
	var chunk *int32
	var slots []byte
	into := make([]any, 21, 23) // of further rows only the chunk is new
	if !l.found {
		into = append(l.Mailbox.into(), &l.stale, &l.Whole)
		l.found = true
	}
	if err := rows.Scan(append(into, &chunk, &slots)...); err != nil {
		return err
	}
	if chunk == nil {
		return nil
	}
	c, err := ParseChunk(*chunk, slots)
	if err != nil {
		return fmt.Errorf("mailbox %d of account %x: %w", l.Mailbox.ID, int64(l.account), err)
	}
	l.Chunks = append(l.Chunks, c)
	return nil
}

func (l *loading) end() (Load, error) {
	if !l.found || l.Mailbox.Dropped {
		return Load{}, ErrNoMailbox
	}
	l.Mailbox.Account = l.account
	byNumber := func(a, b *Chunk) int { return cmp.Compare(a.no, b.no) }
	if !slices.IsSortedFunc(l.Chunks, byNumber) {
		slices.SortFunc(l.Chunks, byNumber)
	}
	return l.Load, nil
}

// Load reads a mailbox: with the zero Version the whole of it, otherwise its
// row and the chunks that changed since that version, or again the whole (Load.Whole) if
// that cannot be told. The error is ErrNoMailbox if it is not there or deleted.
func (db *DB) Load(ctx context.Context, account AccountID, id MailboxID, have Version) (Load, error) {
	const jumps = 3 // one is enough, unless the epoch goes on changing
	for range jumps {
		l := loading{account: account}
		err := db.rows(ctx, "load mailbox", loadSQL, []any{account, id, have.ModSeq, have.Stamp, have.Epoch}, l.row)
		if err != nil {
			return Load{}, err
		}
		if l.Mailbox.Dropped || !l.found {
			return l.end()
		}
		if !l.stale {
			if err := db.epochs.check(l.Mailbox.Epoch); err != nil {
				return Load{}, fmt.Errorf("load mailbox: %w", err)
			}
			return l.end()
		}
		if err := db.jump(ctx, account, id); err != nil {
			return Load{}, err
		}
	}
	return Load{}, fmt.Errorf("load mailbox: the epoch keeps changing: %w", ErrUnavailable)
}

// CountChunks counts the chunks of flags of a mailbox, those included that hold expunged messages only.
func (db *DB) CountChunks(ctx context.Context, ref BoxRef) (n int64, err error) {
	err = db.row(ctx, "count the chunks of a mailbox", `
select count(*)
from flags
where account_id = $1::bigint and mailbox_id = $2::bigint`,
		[]any{ref.Account, ref.Mailbox}, &n)
	return n, err
}

// BoxRef names a mailbox of any account.
type BoxRef struct {
	Account AccountID
	Mailbox MailboxID
}

// Pulse is the version that a mailbox has now, with all else by which a change of it shows.
type Pulse struct {
	BoxRef
	Version
	Dropped     bool // deleted, or not there at all
	UIDValidity uint32
	ListSeq     int64
	Recent      int64
}

const pulsesSQL = `
select r.account_id, r.id, coalesce(m.modseq, 0), coalesce(m.stamp, 0), (select epoch()), coalesce(m.dropped, true),
  coalesce(m.uidvalidity, 0), coalesce(m.listseq, 0), coalesce(m.recent, 0)
from unnest($1::bigint[], $2::bigint[]) with ordinality r(account_id, id, n)
left join lateral (
  select b.modseq, b.stamp, b.dropped, b.uidvalidity, b.listseq, b.recent
  from mailbox b
  where b.account_id = r.account_id and b.id = r.id
  limit 1) m on true
order by r.n`

// Pulses reads the versions of many mailboxes in one round trip, in the order
// asked for. A mailbox that has yet to be taken into the database's epoch
// carries that epoch already, so that it differs from what anybody has.
func (db *DB) Pulses(ctx context.Context, refs []BoxRef) ([]Pulse, error) {
	if len(refs) == 1 {
		p, err := db.pulse(ctx, refs[0])
		return []Pulse{p}, err
	}
	accounts, mailboxes := make([]int64, len(refs)), make([]int64, len(refs))
	for i, r := range refs {
		accounts[i], mailboxes[i] = int64(r.Account), int64(r.Mailbox)
	}
	pulses := make([]Pulse, 0, len(refs))
	err := db.rows(ctx, "read the versions of mailboxes", pulsesSQL,
		[]any{accounts, mailboxes}, func(rows pgx.Rows) error {
			var p Pulse
			if err := rows.Scan(&p.Account, &p.Mailbox, &p.ModSeq, &p.Stamp, &p.Epoch, &p.Dropped,
				&p.UIDValidity, &p.ListSeq, &p.Recent); err != nil {
				return err
			}
			pulses = append(pulses, p)
			return db.epochs.check(p.Epoch)
		})
	return pulses, err
}

// pulse is Pulses of one mailbox, which is what is asked most often: it takes half the time
// of a statement that would return what changed as well.
func (db *DB) pulse(ctx context.Context, ref BoxRef) (Pulse, error) {
	p := Pulse{BoxRef: ref}
	err := db.row(ctx, "read the version of a mailbox", `
select modseq, stamp, (select epoch()), dropped, uidvalidity, listseq, recent
from mailbox
where account_id = $1::bigint and id = $2::bigint`,
		[]any{ref.Account, ref.Mailbox}, &p.ModSeq, &p.Stamp, &p.Epoch, &p.Dropped, &p.UIDValidity, &p.ListSeq, &p.Recent)
	if errors.Is(err, pgx.ErrNoRows) {
		p.Dropped = true
		return p, nil
	}
	if err == nil {
		err = db.epochs.check(p.Epoch)
	}
	return p, err
}

// AccountPulse is what sessions of an account have to notice beside its mail.
type AccountPulse struct {
	Account     AccountID
	ListSeq     int64
	AuthVersion int64
	State       AccountState
	TraceUntil  time.Time // until when the protocol of its sessions is logged; zero: not at all
}

func (p *AccountPulse) into() []any {
	return []any{&p.Account, &p.ListSeq, &p.AuthVersion, &p.State, (*zeronull.Timestamptz)(&p.TraceUntil)}
}

// AccountPulses reads them for many accounts in one round trip. Accounts that
// are not there any more are reported as Deleting.
func (db *DB) AccountPulses(ctx context.Context, accounts []AccountID) ([]AccountPulse, error) {
	ids := make([]int64, len(accounts))
	for i, a := range accounts {
		ids[i] = int64(a)
	}
	pulses := make([]AccountPulse, 0, len(accounts))
	err := db.rows(ctx, "read the versions of accounts", `
select r.account_id, coalesce(a.listseq, 0), coalesce(a.auth_version, 0), coalesce(a.state, 3), a.trace_until
from unnest($1::bigint[]) with ordinality r(account_id, n)
left join lateral (
  select b.listseq, b.auth_version, b.state, b.trace_until
  from account b
  where b.account_id = r.account_id
  limit 1) a on true
order by r.n`,
		[]any{ids}, func(rows pgx.Rows) error {
			var p AccountPulse
			if err := rows.Scan(p.into()...); err != nil {
				return err
			}
			pulses = append(pulses, p)
			return nil
		})
	return pulses, err
}

// ClaimRecent gives the caller the messages from UID from up to below uidnext
// as \Recent, if won; otherwise others have them. Modseq and stamp stay. Nobody waits for
// the disk: after a crash a message may be recent once more (RFC 3501 §2.3.2).
func (db *DB) ClaimRecent(ctx context.Context, account AccountID, id MailboxID, uidnext int64) (from int64, won bool, err error) {
	var unsynced string
	err = db.writeRow(ctx, "claim recent messages", `
with o as materialized (
  select recent
  from mailbox
  where account_id = $1::bigint and id = $2::bigint and recent < $3::bigint and dropped is not true
  for update)
update mailbox m
set recent = $3::bigint
from o
where m.account_id = $1::bigint and m.id = $2::bigint
returning o.recent, set_config('synchronous_commit', 'off', true)`,
		[]any{account, id, uidnext}, &from, &unsynced)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, false, nil
	}
	return from, err == nil, err
}
