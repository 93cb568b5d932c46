package metadata

import (
	"errors"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Who would wait in vain is turned away at once, and somebody goes on trying.
func TestQueue(t *testing.T) {
	t.Parallel()
	m := newMetrics(prometheus.NewRegistry(), nil)
	newQueue := func() *queue {
		return &queue{conns: 2, patience: 2 * time.Second, away: m.shed[shedAway], long: m.shed[shedLong]}
	}
	enter := func(q *queue, want error) uint64 {
		t.Helper()
		turn, err := q.enter()
		if !errors.Is(err, want) {
			t.Fatalf("got %v, want %v", err, want)
		}
		return turn
	}

	q := newQueue()
	first, second := enter(q, nil), enter(q, nil)
	q.leave(first, false, false)
	enter(q, errAway) // the second still tries
	q.leave(second, false, false)
	third := enter(q, nil) // nobody does
	enter(q, errAway)
	q.leave(third, true, false)
	fourth, fifth := enter(q, nil), enter(q, nil) // it was found to be there again
	q.leave(fourth, true, false)
	q.leave(fifth, false, false) // somebody got one while it waited: only slow
	sixth, _ := enter(q, nil), enter(q, nil)
	q.leave(sixth, false, true) // nobody wanted it any more
	enter(q, nil)
	if q.length() != 2 {
		t.Errorf("%d wait, want 2", q.length())
	}

	q = newQueue()
	for range 10 * holdWeight {
		q.back(time.Second)
	}
	for range 5 { // four wait for their turns on two connections, and the fifth comes next
		enter(q, nil)
	}
	enter(q, errLong)
	for range 10 * holdWeight {
		q.back(time.Millisecond)
	}
	enter(q, nil)
}
