package metadata

import (
	"errors"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// queue says who may wait for a connection. A call that would wait in vain is turned
// away at once: when PostgreSQL is away, or hangs, clients hear so without each of them
// waiting for the whole of AcquireTimeout, and those who wait do not pile up.
type queue struct {
	conns    int           // how many connections there may be
	patience time.Duration // for which a call waits
	away     prometheus.Counter
	long     prometheus.Counter

	mu      sync.Mutex
	waiting int           // calls that ask for a connection and have none yet
	given   uint64        // connections that calls got, ever
	hold    time.Duration // for which a call keeps one, on the average of late
	stuck   bool          // the last that waited got none, and since it began nobody did
}

// Why a call is turned away.
var (
	errAway = errors.New("PostgreSQL gives no connection, somebody tries already")
	errLong = errors.New("too many wait for a connection")
)

// enter has a call wait, if that may be worth it; leave follows. While none can be had one
// call at a time goes on trying, and finds out when that is over.
func (q *queue) enter() (turn uint64, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.stuck && q.waiting > 0:
		q.away.Inc()
		return 0, errAway
	case q.hold*time.Duration(q.waiting) > q.patience*time.Duration(q.conns):
		q.long.Inc()
		return 0, errLong
	}
	q.waiting++
	return q.given, nil
}

// leave ends a wait: with a connection, without, or because the call is wanted no more.
func (q *queue) leave(turn uint64, got, unwanted bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.waiting--
	switch {
	case got:
		q.given++
		q.stuck = false
	case !unwanted && q.given == turn:
		q.stuck = true
	}
}

// holdWeight is the weight, one in so many, that the last of the calls has in their average.
const holdWeight = 64

// back notes how long a call has kept its connection.
func (q *queue) back(held time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.hold += (held - q.hold) / holdWeight
}

// length is how many wait.
func (q *queue) length() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.waiting
}
