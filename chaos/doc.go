// Package chaos breaks a cluster of real processes and checks what its clients were told.
//
// A [Cluster] is three nodes, each a process of the real program, over a PostgreSQL, three NATS servers and an S3
// server of its own, and where a test wants it a standby of PostgreSQL. Every node reaches each of them, and is reached by
// its clients, through a [Proxy] that can delay, cut, drop and truncate; before S3 stands a [Gateway] that understands HTTP,
// and the clock of a node can be set wrong ([Clocked]).
//
// Clients change a few shared mailboxes over all nodes, and come back with what they know; some only listen, some make and
// rename mailboxes of their own, transfer agents deliver. Meanwhile a [Schedule] of faults, made from a seed, is carried out.
// Each writes down what it sent and what it was told. [Check] holds these histories, and the state that is found when all is
// quiet again, against the rules that hold whatever breaks.
//
// What is checked does not depend on time, nor on which faults were injected: a command whose answer never came may
// have happened or not, now or later, but whole; and what was answered holds.
package chaos
