// Package message reads mail: RFC 5322 headers and MIME structure, as bytes.
//
// A [Parser] takes a message in chunks of any size and yields a [Summary]: the
// envelope, the tree of MIME parts with their offsets in the stored bytes, the
// header fields that clients ask for most, and a preview. A summary is stored
// beside the message ([Summary.AppendBinary], [Summary.Unmarshal]), so that
// listing a mailbox never reads or parses a message again. A [Section] turns
// what a client asks for (BODY[1.2.MIME]) into a range of the message's bytes.
// [Decode], [SearchText] and [Matcher] look into the text.
//
// # Rules for bytes
//
// No message is refused and no byte is changed; offsets are those of the bytes
// as they were written to the parser.
//
//   - A line ends with LF; a CR just before it belongs to the line's end. A CR
//     elsewhere is data.
//   - A header ends with the first empty line, with a delimiter line of an
//     enclosing multipart, or with the message. A line in a header that has no
//     colon and is no continuation is passed over.
//   - The line end before a delimiter line belongs to the delimiter (RFC 2046
//     §5.1.1), so it is in no part. Lines are counted as line ends inside the part's body.
//   - A delimiter line is "--", the boundary, and then the end of the line, white
//     space, or "--". Of several open multiparts the innermost that fits wins.
//   - A multipart in which no delimiter line occurs has one part, text/plain,
//     that is all of its body: its text stays visible. A message/rfc822 that
//     is itself base64 or quoted-printable holds one opaque part.
//
// # Bounds
//
// Memory does not depend on the message. At 500 parts the last one becomes
// application/octet-stream and runs to the end of the message; a multipart or
// message nested 50 deep becomes application/octet-stream. Of a header field
// only so much is kept as the table in fields.go says; what was cut is known
// ([Summary.Complete]). The envelopes of a message list at most 2,000 addresses, of at most 256 fields in a header.
package message
