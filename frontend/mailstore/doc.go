// Package mailstore is what an account can do with its mail: the one place
// where metadata, objects and hints meet, and the one that knows the rules of
// mail. The protocols in front of it only translate.
//
// A [Store] is a node's. A session takes an [Account] of it after the login and
// opens a [Mailbox]. What it sees there is a [Snapshot]: an immutable list of
// chunks of 128 UIDs. All sessions of a mailbox on a node share the current
// snapshot; each also holds the one its client knows, and [Diff] of the two is
// what the client has to be told.
//
// A change runs like this (commit.go): the session's operation is queued at the
// mailbox's box; whoever drains the queue applies all that wait to a build on
// the current snapshot, each under a modseq of its own; one statement writes
// the result if nobody else has changed the mailbox meanwhile; the build becomes
// the current snapshot, and a hint goes to the other nodes. If somebody was
// faster, what changed is read, and the operations are applied again, now under
// the mailbox's row lock. COPY and MOVE (copy.go) are the same over two mailboxes.
//
// A change of another node arrives as a hint, or is found by the sweep
// (watch.go): the box reads what changed since its snapshot, and wakes its
// sessions. Hints are never believed, only followed up.
//
// Mail comes in through an [Upload] (upload.go): it is compressed and parsed as
// it arrives, its object is put, then the row that names it is committed.
//
// What is expunged stays for a time, in which [Mailbox.Undelete] brings it back, and
// [Account.RestoreMailbox] mailboxes that were deleted.
// Then the collector (collect.go) takes it, on any node: the rows first, by commits
// like all others, and their objects a good while later, when no backup of the
// database names them any more (collect_objects.go). Beside its mails an account has one
// more object, the list of its mailboxes (lists.go).
//
// What a node holds is bounded by budgets (budget.go): messages on their way in,
// mailboxes, and what is read to answer with. Who finds no room waits a little
// and is then told to come back. What a snapshot is due to, and the trace that it is part
// of, goes from the commit to the sessions on all nodes (trace.go).
package mailstore
