// Package events tells the nodes of a cluster that something changed.
//
// An [Event] is a hint: it says that a mailbox, an account's list of mailboxes or an account's right to log in moved on, and to which
// number. What changed is read from PostgreSQL. So a hint that is lost, late, doubled or out of order never makes a node wrong; it can only
// make it late, and a [Bus] says in [News] when a node may be late: then what it follows there is compared with PostgreSQL.
//
// The code that publishes and follows needs [Bus] and [Subscription] alone. A process opens its end of the bus, a [Node], with one of the
// packages beneath: events/nats between processes, events/memory inside one. The Node holds all that the two have in common: it numbers what
// it publishes, beats, finds gaps and silence, and coalesces. What differs is a [Transport].
package events

import (
	"context"
	"errors"
	"fmt"
)

// Kind says what moved on. Nodes of a later release may send kinds that are not listed here: they are to be ignored.
type Kind uint8

const (
	// Changed is a change in one mailbox: ModSeq is the mailbox's new modseq.
	Changed Kind = 1
	// List is a change in the account's list of mailboxes: Mailbox is 0 and ModSeq is the account's new listseq.
	List Kind = 2
	// Auth is a new password, a suspension or a deletion: Mailbox is 0 and ModSeq is the account's new auth_version.
	Auth Kind = 3
)

// String returns the kind's name in lower case.
func (k Kind) String() string {
	switch k {
	case Changed:
		return "changed"
	case List:
		return "list"
	case Auth:
		return "auth"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Event is a hint that something changed. All numbers are 0 or greater.
type Event struct {
	Account int64
	Mailbox int64 // 0 unless Kind is Changed
	Kind    Kind
	ModSeq  int64 // after the change; of what, Kind says
	Epoch   int64 // of the database at the change: a greater one is later, whatever the modseqs say
	At      int64 // when the change was committed, in Unix nanoseconds by the clock of the node that did; 0: not known
	Trace   Trace // of the change; zero: none
}

// Trace names a span by its W3C trace id (16 bytes) and span id (8), for what a change brings about on other nodes to be seen as a part of it.
// It is set only if the span is sampled.
type Trace [24]byte

// merged is the one event that stands for e and an earlier one about the same thing. It has waited for as long as the older of them, and
// belongs to a trace if either does.
func (e Event) merged(old Event) Event {
	late, early := e, old
	if !e.supersedes(old) {
		late, early = old, e
	}
	if late.At == 0 || early.At != 0 && early.At < late.At {
		late.At = early.At
	}
	if late.Trace == (Trace{}) {
		late.Trace = early.Trace
	}
	return late
}

// supersedes reports whether e, about the same thing as old, is later.
func (e Event) supersedes(old Event) bool {
	if e.Epoch != old.Epoch {
		return e.Epoch > old.Epoch
	}
	return e.ModSeq > old.ModSeq
}

func (e Event) check() error {
	if e.Kind == 0 {
		return fmt.Errorf("event without a kind: %+v", e)
	}
	if e.Account < 0 || e.Mailbox < 0 || e.ModSeq < 0 || e.Epoch < 0 || e.At < 0 {
		return fmt.Errorf("event with a negative number: %+v", e)
	}
	return nil
}

// Shards is how many shards there are. It is part of what nodes say to each other and cannot change while a cluster runs.
const Shards = 256

// Shard is a part of all accounts: the unit of subscription and of numbering.
type Shard uint8

// ShardOf returns the account's shard, the low byte of its id. Account ids are random.
func ShardOf(account int64) Shard { return Shard(uint8(account & 0xff)) }

// Bus carries hints between the nodes of a cluster.
type Bus interface {
	// Publish sends hints to the other nodes that follow their accounts; one's own node, which knows its changes, does not hear them.
	// It never waits for the network. The hints of one call go out together, those of one account (side by side in the call) in one message.
	// An error means that the hints may not arrive, which the other nodes find out by themselves: it is for logs.
	Publish(hints ...Event) error

	// Subscribe returns a subscription that follows nothing yet. It never waits for the network either. The subscription ends with Close,
	// or with ctx. A process needs one, or one for each part of it, not one for each client.
	Subscribe(ctx context.Context) (Subscription, error)
}

// Subscription collects what happened to the accounts it follows until somebody asks for it with Next. All methods can be called at the
// same time, Next by one goroutine.
type Subscription interface {
	// Follow begins to collect hints about the account. It does not wait for the network: who follows an account and then
	// reads it from PostgreSQL misses nothing, because what comes in between is told, or the account's shard is Suspect later.
	// As many calls of Unfollow undo it.
	Follow(account int64)

	// Unfollow takes back one Follow. News about the account that was not yet handed out may still come.
	Unfollow(account int64)

	// Next waits for news, at most until ctx is done, whose error it then returns. After Close it returns ErrClosed.
	Next(ctx context.Context) (News, error)

	// Close ends the subscription and wakes Next. It can be called again.
	Close() error
}

// News is what happened since the last call of Next. What belongs to the same account, mailbox and kind is one event,
// the latest, with the earliest time.
type News struct {
	// Events are in the order in which their subjects were first heard of.
	Events []Event

	// Suspect lists the shards in which a hint may have been missed. Whatever is followed there is to be compared with PostgreSQL; the
	// comparison must begin after Next returned.
	Suspect []Shard

	// Connected is false while hints are known not to arrive: no server is reached, or another node fell silent without
	// a goodbye within the last minute. Then it is time to ask PostgreSQL more often. A subscription begins as if it had said true.
	Connected bool
}

// ErrClosed is returned after the subscription or its bus was closed.
var ErrClosed = errors.New("events: closed")

// ErrOverflow is returned by Publish when hints are published faster than the network takes them. The hints are dropped.
var ErrOverflow = errors.New("events: too many hints wait to be sent")
