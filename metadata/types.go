package metadata

import (
	"errors"
	"time"
)

// AccountID names an account: 63 random bits, never 0, never used again. It
// is also the first part of the account's object keys.
type AccountID int64

// MailboxID numbers a mailbox within its account, from 1, never used again.
type MailboxID int64

// TenantID names a tenant: 63 random bits, never 0.
type TenantID int64

// ObjectID is the random part of a blob's key, unique in its account.
type ObjectID [16]byte

// The errors of this package that callers tell apart with errors.Is.
var (
	// ErrNotFound says that a tenant, domain, account, address or message is not there.
	ErrNotFound = errors.New("not found")
	// ErrExists says that a name is taken.
	ErrExists = errors.New("already exists")
	// ErrNoMailbox says that no mailbox has this name or id, or that it was deleted.
	ErrNoMailbox = errors.New("no such mailbox")
	// ErrHasChildren says that a name that only stands above others cannot be deleted.
	ErrHasChildren = errors.New("mailbox has children")
	// ErrListLimit says that the account has MaxMailboxes mailboxes, or subscriptions, already.
	ErrListLimit = errors.New("account cannot have more mailboxes or subscriptions")
	// ErrInbox says that INBOX cannot be deleted, or cannot be what was asked.
	ErrInbox = errors.New("not possible with INBOX")
	// ErrConflict says that another commit came first: nothing happened.
	ErrConflict = errors.New("mailbox was changed by another commit")
	// ErrOverQuota says that the account's limit would be passed: nothing happened.
	ErrOverQuota = errors.New("over quota")
	// ErrLate says that an object is too old to be named by a new row, since the collector
	// may already take it for an orphan: put it again. Nothing happened.
	ErrLate = errors.New("object is too old to be committed")
	// ErrDelivered says that the same delivery was made before: nothing happened.
	ErrDelivered = errors.New("already delivered")
	// ErrSourceGone says that a message to be copied has no row any more: nothing happened.
	ErrSourceGone = errors.New("source message is gone")
	// ErrUnavailable says that PostgreSQL cannot be reached, or did not answer in time.
	ErrUnavailable = errors.New("metadata is unavailable")
	// ErrSchemaOld says that the database has no schema, or one from before this release:
	// starling migrate makes it.
	ErrSchemaOld = errors.New("schema is too old")
	// ErrSchemaNew says that the schema is one that only newer releases may work with.
	ErrSchemaNew = errors.New("schema is too new")
	// ErrInDoubt says that it could not be found out whether a commit happened. It is
	// also an ErrUnavailable. Objects that the commit names must stay.
	ErrInDoubt = errors.New("outcome of the commit is unknown")
)

// Version identifies one state of a mailbox. Two states are the same only if
// all three fields are equal.
type Version struct {
	ModSeq int64 // of the last change, at least 1
	Stamp  int64 // random, of the last commit
	Epoch  int64 // of the database in which it was committed
}

// Counters are the numbers that SELECT and STATUS ask for; they count what is
// not expunged. In a Change they are differences.
type Counters struct {
	Messages     int64
	Unseen       int64 // without \Seen
	Deleted      int64 // with \Deleted
	Bytes        int64 // sum of the sizes
	DeletedBytes int64 // sum of the sizes of those with \Deleted
}

// Add returns the sum of c and d.
func (c Counters) Add(d Counters) Counters {
	return Counters{
		Messages:     c.Messages + d.Messages,
		Unseen:       c.Unseen + d.Unseen,
		Deleted:      c.Deleted + d.Deleted,
		Bytes:        c.Bytes + d.Bytes,
		DeletedBytes: c.DeletedBytes + d.DeletedBytes,
	}
}

// Mailbox is a mailbox's row.
type Mailbox struct {
	Account     AccountID
	ID          MailboxID
	Name        string // UTF-8, NFC, hierarchy delimiter "/", INBOX in capitals
	UIDValidity uint32
	UIDNext     int64 // 1 to 4,294,967,295
	Version
	Counters
	Recent     int64    // the lowest UID not yet given out as \Recent
	Horizon    int64    // below this modseq expunges are no longer known one by one
	Jumps      []int64  // modseqs at which the epoch changed, rising
	Keywords   []string // by bit; "" where a bit is free
	SpecialUse []string // attributes with their backslash, RFC 6154 §2
	ListSeq    int64    // of the last change of this row's place in the list
	Dropped    bool     // deleted, not yet collected
}

// Message is a message's row: written once, never changed but by RepairRow.
type Message struct {
	UID          uint32
	InternalDate time.Time
	SaveDate     time.Time // when it was committed to this mailbox (RFC 8514 §3); set by the database
	Size         int64     // octets of the message (RFC822.SIZE)
	EmailID      int64
	ThreadID     int64 // on insert that of a message without any References
	Object       ObjectID
	Extent       []byte // where in the object the bytes are, as package blobstore/codec has it
	Summary      []byte // what package frontend/message found in it
	// References are the hashes of the message ids by which a thread is known: first its
	// own Message-ID (0 if it has none), then those that it refers to, the thread's first one
	// before the others. Only for inserts, as is RootUnknown.
	References []int64
	// RootUnknown says that the first message that it refers to is the one that it answers,
	// and may itself be an answer.
	RootUnknown bool
}

// UIDRange is the UIDs from First to Last, both included.
type UIDRange struct{ First, Last uint32 }

// Ranges are the ranges that UIDs, which rise, make up, with up to gap others between
// those of one range: a row too many is cheaper than a range more.
func Ranges(uids []uint32, gap uint32) []UIDRange {
	var ranges []UIDRange
	for _, uid := range uids {
		if n := len(ranges); n > 0 && uid-ranges[n-1].Last <= gap+1 {
			ranges[n-1].Last = uid
			continue
		}
		ranges = append(ranges, UIDRange{First: uid, Last: uid})
	}
	return ranges
}
