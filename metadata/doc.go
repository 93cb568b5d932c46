// Package metadata keeps tenants, accounts, mailboxes and what changes of
// messages in PostgreSQL. It is the only package that says SQL.
//
// # What stands where
//
// A mailbox has one row, which answers SELECT and STATUS: counters, UIDNEXT,
// modseq, the names of its keywords. What may change of a message, its flags
// and its modseq, is a slot of a [Chunk], 128 to a row, packed. What never
// changes of it is a row of its own, written once. An expunged message keeps
// slot and row until the collector takes them.
//
// # How a change is made
//
// The node holds the chunks of a mailbox as of some [Version], computes the
// new ones, and calls [DB.Commit]. That is one statement in one round trip. It
// begins with a compare-and-set on the mailbox row, and all else hangs on it:
// if the version is no longer the current one, nothing happens and the error
// is [ErrConflict]. If it is, nobody has committed since, so the images are
// right. UIDs and modseqs thus become visible in order and without gaps. A
// node that has lost takes the row lock first, by [DB.CommitLocked].
//
// Everybody who writes flags, messages or shares of objects does it that way,
// the collector included. [DB.Load] reads a mailbox, or what changed of it
// since a version, in one statement, so that the modseq and the chunks are of
// one moment.
//
// # What can go wrong
//
// A connection may be lost when the commit was sent and its answer was not
// seen. Commit then looks, under the row's lock, whether it happened; only if
// that cannot be found out is the error [ErrInDoubt].
//
// After a failover or a restore numbers may be given out twice. The epoch of
// the database tells: a mailbox whose row carries another one jumps, far
// enough that no number means two things (see [Mailbox.Jumps]).
//
// # How mail ends
//
// An expunged message keeps slot and row for the retention time, in which it can
// be brought back. Then [DB.Collect] deletes the row, by a compare-and-set like
// every other change, and drops chunks that hold nothing else: [Mailbox.Horizon]
// tells up to which modseq. An object is owned by the messages that name it, but
// for those that were moved away; who owns it alone, or with how many others,
// stands in blob_share. When the last owner is deleted the object is doomed, and
// only after a further delay, and another look ([DB.Named]), may it be deleted.
// Objects that no message ever came to name get there too ([DB.Doom]), but not
// before somebody has vouched for the epoch ([DB.AcceptEpoch]).
//
// A deleted mailbox stays likewise, with all that is in it: [DB.RestoreMailbox] brings it
// back. Of an account on hold ([DB.SetHold]) nothing is collected.
//
// # What is counted twice
//
// Counters, the use of a quota and the owners of objects can be counted anew, from the
// slots and rows that they stand for, while others write: [DB.CheckMailbox],
// [DB.CheckQuota], [DB.CheckShares], each with a repair.
//
// # Rules for those who write SQL here
//
// Every table of an account leads its key with account_id, every statement
// names it, and no statement or reference crosses accounts (the directory of
// tenants, domains and addresses apart). There are no sequences and no state
// of the session, so a pooler in transaction mode may stand between. Never
// join flags or message to unnest in an UPDATE or a SELECT: the plan may read
// the whole mailbox. Where a mailbox is found by its id, say "dropped is not
// true": with "not dropped" the planner may take the index on names, and read
// all mailboxes of the account. Locks are taken in the order mailboxes by id, quota,
// shares of objects, threads; account rows before mailboxes.
package metadata
