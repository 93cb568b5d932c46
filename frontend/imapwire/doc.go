// Package imapwire is the grammar of IMAP (RFC 9051 §9, RFC 3501 §9 and the extensions that Starling speaks) in both
// directions: bytes to the arguments of commands, and response values to bytes.
//
// It is syntax only. It holds no session, looks up no mailbox and decides no policy; what is bounded is bounded by the
// Limits that the caller passes in.
//
// A [Decoder] stands over what a client sends. The server calls [Decoder.Command] for the tag and the name, then the
// functions that the name asks for (d.SP(), d.NumSet(), d.Mailbox(), …) and last [Decoder.End]. The first error sticks:
// everything after it returns zero values and consumes nothing, so that parsers read straight through and ask once, at
// the end. After an error, [Decoder.Discard] skips what is left of the command, literals included, so that the connection
// stays in step.
//
// An [Encoder] appends responses to a buffer and flushes it to the connection. It chooses how strings and mailbox names
// are written by what the client has enabled.
//
// The arguments of each family of commands have a file: fetch.go, search.go, store.go, list.go, status.go, select.go,
// append.go, auth.go. What extensions add to them are rows of the tables in those files.
package imapwire
