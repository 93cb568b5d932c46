// Command bench runs Starling beside Dovecot on this machine, puts the same load on both, and
// prints how they compare: `make bench`.
//
// Starling is as in production: PostgreSQL that syncs every commit, an S3 server, a NATS server and two nodes, processes all
// of them but NATS, built from this tree. Dovecot has its mail in sdbox on the same file system, and settings that favour it:
// see dovecot.go. The load is cmd/imapload's, which looks at every answer. Both run all the time, and only one of them has
// something to do; they take turns in each scenario, the other first in the next round, so that what else this machine does
// hits both. What is compared is the median of the rounds' ratios.
//
// It needs Linux, PostgreSQL and Dovecot 2.3 (deploy/setup bench installs both), and leaves nothing behind but its report.
package main
