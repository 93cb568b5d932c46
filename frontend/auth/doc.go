// Package auth answers one question for every protocol: who is this?
//
// An Authenticator checks an address and a password (Login). It reads the
// account's row from the directory each time, so that a new password or a
// suspension holds at once on every node; what it remembers is only that a
// certain password did or did not match a certain stored hash. Failed logins
// are slowed down by account and by remote address, and told in the log, so many in a
// second at most; the metrics count all of them.
//
// Verify and Hash know the stored forms of passwords: argon2id for new ones,
// and the schemes under which passwords arrive from other servers, each a row
// of the table in schemes.go.
//
// The SASL mechanisms are rows of the table in sasl.go, and a file each. A
// protocol starts one with Authenticator.Start and carries its challenges and
// responses; base64, cancellation and the choice of what to offer without TLS
// are the protocol's.
package auth
