// Package imap is the IMAP server: IMAP4rev1 (RFC 3501) and IMAP4rev2 (RFC 9051)
// with the extensions of the table in caps.go. RFC.md says which section of which
// RFC is where, and which test shows it.
//
// It translates. What bytes mean is package imapwire's, what mail is made of is
// package message's, and what may happen to mail package mailstore's: no rule
// about UIDs, flags or quotas is here.
//
// # A connection's life
//
// A [Server] accepts it and makes a session (session.go), which one goroutine
// serves; everything in a session belongs to that goroutine. It waits for a command
// with no buffer held, and soon it ends and leaves the session to the lot (lot.go),
// until another goes on with it. Others reach a session by its alarm alone (alarm.go),
// which ends that wait: for news in IDLE, when the login ended, when the server stops.
//
// SELECT gives the session a view (view.go): the snapshot of the mailbox that the
// client knows, and the ghosts, which are messages that are expunged in it and of
// which the client may not be told yet. Sequence numbers count both. Any node
// serves any mailbox, so a snapshot says only what this client was told; what is
// true stands in the mailstore.
//
// # A command's life
//
// The dispatcher (commands.go) reads tag and name, finds the row in the table of
// commands, and has it parse the rest: a value that is a command. Its run does
// what the client asks by way of the mailstore, writes untagged responses, and
// returns a response code or an error. Then the client is told what is new, as
// far as the row allows (updates.go), and the dispatcher writes the tagged
// response; what an error becomes is decided in status.go alone.
//
// A malformed command gets BAD, what is left of it is skipped, literals included,
// and the connection goes on in step.
//
// # The kinds of file
//
//   - cmd_<family>.go: a command's parser, its value and its run.
//   - items.go has the table of FETCH items, item_*.go what writes them;
//     fetch_*.go and runahead.go read rows and bodies for them.
//   - keys.go has the table of SEARCH keys, key_*.go what matches them;
//     search_*.go plans and runs a search.
//   - list_*.go: the hierarchy of names that LIST shows, and its patterns.
//   - ext_<name>.go: what one extension adds, called from rows of those tables.
//
// Protocol scripts in testdata/script show all of it, each with its connections on
// one node and spread over two: TestScripts says how they are written. A bug
// begins with a script.
package imap
