package main

import (
	"cmp"
	"fmt"
	"strconv"
)

// step is a scenario of imapload, with the counts that make it long enough to be measured and short enough to be repeated.
type step struct {
	name     string
	scenario string // of imapload
	clients  int
	messages int
	// operations and repeats are of scenarios that do one thing over and over, or read a whole mailbox.
	operations, repeats int
	idlers              int  // that wait in IDLE; 0: as many as the run has
	seconds             int  // of a scenario that lasts; 0: until it is done, mostSeconds at most
	reading             bool // by the second node, which has not seen what the first one wrote
	everywhere          bool // over all nodes
}

// mostSeconds bounds each thing that is measured.
const mostSeconds = 20

// plan is what is measured in each round, in this order: reading follows filling.
var plan = []step{
	{name: "append 8", scenario: "append", clients: 8, messages: 1000},
	{name: "append 32", scenario: "append", clients: 32, messages: 2000},
	{name: "deliver", scenario: "deliver", clients: 8, messages: 500},
	{name: "fill", scenario: "fill"},
	{name: "flags", scenario: "flags", repeats: 1000, reading: true}, // each takes a millisecond or some
	{name: "headers", scenario: "headers", repeats: 5, reading: true},
	{name: "search", scenario: "search", repeats: 5, reading: true},
	{name: "body", scenario: "body", clients: 8, operations: 1000, reading: true},
	{name: "login", scenario: "login", clients: 8, operations: 400, reading: true},
	{name: "poll", scenario: "poll", clients: 1, operations: 1000, reading: true},
	{name: "slices", scenario: "slices", repeats: 2},
	{name: "store 1", scenario: "store", clients: 1, operations: 500, repeats: 3},
	{name: "store 8", scenario: "store", clients: 8, operations: 1000, repeats: 3},
	{name: "move", scenario: "move", operations: 200},
	{name: "idle 2", scenario: "idle", messages: 20, idlers: 2, everywhere: true},
	{name: "idle", scenario: "idle", messages: 20, everywhere: true},
	{name: "mixed", scenario: "mixed", clients: 32, seconds: 10},
}

// quick makes a step small: it shows that all works, and measures nothing.
func (s step) quick() step {
	less := func(n *int, by, least int) {
		if *n > 0 {
			*n = max(*n/by, min(*n, least))
		}
	}
	less(&s.clients, 4, 4)
	less(&s.messages, 40, 8)
	less(&s.operations, 20, 10)
	less(&s.repeats, 5, 2)
	less(&s.seconds, 5, 2)
	return s
}

// args is what imapload is told of a step; what is 0 is as imapload has it.
func (s step) args() []string {
	args := []string{"-run", s.scenario}
	for _, count := range []struct {
		flag  string
		value int
	}{{"-clients", s.clients}, {"-messages", s.messages}, {"-operations", s.operations}, {"-repeats", s.repeats}, {"-idlers", s.idlers}} {
		if count.value > 0 {
			args = append(args, count.flag, strconv.Itoa(count.value))
		}
	}
	return append(args, "-most", fmt.Sprintf("%ds", cmp.Or(s.seconds, mostSeconds)))
}

// kind is what of a measurement is compared.
type kind int

const (
	rate    kind = iota // units in a second, over all
	warm                // units in a second of the median time: what was done once before
	first               // units in a second of the first time
	latency             // the median, in milliseconds
	tail                // the 99th percentile, in milliseconds
)

// goal is a line of the report.
type goal struct {
	name            string
	step, operation string // of which measurement
	other           string // operation of Dovecot, if not the same
	of              kind
	against         kind    // of Dovecot's, if not the same
	ratio           float64 // to Dovecot that is wanted at least; 0: none
	limit           float64 // that Starling's own value must keep at most; 0: none
}

// goals are the lines of the report; those without a ratio or limit are told for completeness.
var goals = []goal{
	{name: "FETCH 1:* (FLAGS), messages/s", step: "flags", operation: "flags of all", of: warm, ratio: 5},
	{name: "FETCH 1:* (ENVELOPE BODYSTRUCTURE …), messages/s", step: "headers", operation: "envelopes of all", of: warm, ratio: 1.5},
	{name: "… the first time", step: "headers", operation: "envelopes of all", of: first},
	{name: "… the first time, against Dovecot's later ones", step: "headers", operation: "envelopes of all", of: first, against: warm, ratio: 1.5},
	{name: "FETCH 1:* (header fields), messages/s", step: "headers", operation: "fields of all", of: warm},
	{name: "connect, LOGIN, SELECT, LOGOUT, 8 clients, /s", step: "login", operation: "login+select", of: rate, ratio: 5},
	{name: "NOOP, /s", step: "poll", operation: "noop", of: rate, ratio: 1},
	{name: "STATUS, /s", step: "poll", operation: "status", of: rate, ratio: 1},
	{name: "SELECT, /s", step: "poll", operation: "select", of: rate},
	{name: "STORE of one message, 1 client, /s", step: "store 1", operation: "one", of: rate, ratio: 0.5},
	{name: "STORE of one message, 8 clients in a mailbox, /s", step: "store 8", operation: "one", of: rate, ratio: 0.5},
	{name: "STORE of 1,000, messages/s", step: "store 1", operation: "many at once", of: warm, ratio: 3},
	{name: "COPY of one message, /s", step: "move", operation: "copy one", of: rate},
	{name: "COPY of 1,000, messages/s", step: "move", operation: "copy many", of: rate, ratio: 1},
	{name: "MOVE of 1,000, messages/s", step: "move", operation: "move many", of: rate, ratio: 1},
	{name: "EXPUNGE of 800, messages/s", step: "move", operation: "expunge many", of: rate, ratio: 1},
	{name: "STORE \\Deleted, EXPUNGE of one message, /s", step: "move", operation: "delete and expunge one", of: rate},
	{name: "APPEND, 8 clients, messages/s", step: "append 8", operation: "append", of: rate, ratio: 0.7},
	{name: "APPEND, 32 clients, messages/s", step: "append 32", operation: "append", of: rate, ratio: 0.7},
	{name: "APPEND, 1 client, pipelined, messages/s", step: "fill", operation: "fill", of: rate},
	{name: "LMTP, 8 clients, messages/s", step: "deliver", operation: "deliver", of: rate},
	{name: "FETCH n (BODY[]) read before, 8 clients, /s", step: "body", operation: "body again", of: rate, ratio: 0.7},
	{name: "FETCH n (BODY[]) the first time, 8 clients, /s", step: "body", operation: "body", of: rate},
	{name: "FETCH 1 (BODY[]<…>), 64 KiB of 11 MB, /s", step: "slices", operation: "slice of 64 KiB", of: rate},
	{name: "SEARCH SUBJECT, /s", step: "search", operation: "subject", of: warm, ratio: 2},
	{name: "SEARCH SUBJECT the first time, /s", step: "search", operation: "subject", of: first},
	{name: "SEARCH FROM, /s", step: "search", operation: "from", of: warm, ratio: 2},
	{name: "SEARCH SENTSINCE, /s", step: "search", operation: "sentsince", of: warm, ratio: 2},
	{name: "SEARCH SENTSINCE the first time, /s", step: "search", operation: "sentsince", of: first},
	{name: "SEARCH SINCE, /s", step: "search", operation: "since", of: warm, ratio: 2},
	{name: "SEARCH UNSEEN, /s", step: "search", operation: "unseen", of: warm},
	{name: "SEARCH TEXT, /s", step: "search", operation: "text", of: warm},
	{name: "SEARCH TEXT the first time, /s", step: "search", operation: "text", of: first},
	{name: "mixed load of 32 clients, commands/s", step: "mixed", operation: "all", of: rate, ratio: 1},
	{name: "IDLE, from OK to a client of another node, p50, ms", step: "idle 2", operation: "from OK to other nodes", other: "from OK to each", of: latency, limit: 3},
	{name: "IDLE, from OK to a client of another node, p99, ms", step: "idle 2", operation: "from OK to other nodes", other: "from OK to each", of: tail, limit: 20},
	{name: "IDLE, from OK to 50 clients of another node, p50, ms (a)", step: "idle", operation: "from OK to other nodes", other: "from OK to each", of: latency, limit: 3},
	{name: "IDLE, from OK to 50 clients of another node, p99, ms (a)", step: "idle", operation: "from OK to other nodes", other: "from OK to each", of: tail, limit: 20},
}

// notes explain the letters in the report.
var notes = []string{
	"(a) of 100 that wait on two nodes; Dovecot's wait on its one.",
	"(b) resident, half a minute after 10,000 sessions began on a node that had served each account once, less what it had then; of Dovecot 500.",
	"Nodes keep messages that they have read on the local disk, as deploy/systemd has it.",
}
