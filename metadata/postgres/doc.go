// Package postgres finds an installed PostgreSQL and runs a server of one's
// own from a data directory: for tests and for trying Starling on one machine.
// It knows nothing of Starling's schema and has no SQL of its own. A server can be
// made the standby of another, and be promoted.
//
// The server trusts whoever reaches it, so it listens on a Unix socket in a
// directory that only its user can open and, if asked, on a loopback port.
// Started as root it runs as an unprivileged user, since PostgreSQL refuses
// root. It stops when its starter stops, also when that one is killed: a small
// shell stands between the two, waits on a pipe that only the starter holds,
// and shuts the server down when the pipe closes.
package postgres
