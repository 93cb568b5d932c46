package imap

import (
	"container/heap"
	"errors"
	"os"
	"sync"
	"time"

	"go.uber.org/zap"
)

// lot is where sessions are parked. One goroutine waits for the sockets of all of them, and
// for the first of them whose time is over; whoever takes a session out of it starts a goroutine that
// goes on with it.
type lot struct {
	poll  *poller
	log   *zap.Logger
	began time.Time
	ended chan struct{}

	mu     sync.Mutex
	spaces []*session // by what the poller calls them
	free   []int32    // of spaces
	queue  queue
	alert  time.Duration // when the goroutine is next to look at the queue; 0: never
}

// space is a session's place in the lot, which guards it.
type space struct {
	due    time.Duration // since the lot began: when the wait is over
	no     int32         // 1 + index in spaces, from the first time on that it is parked; 0: none
	queued int32         // 1 + index in the queue while it is parked; 0: it is not
	armed  bool          // the poller tells when something can be read
}

// newLot begins a lot. close ends it.
func newLot(log *zap.Logger) (*lot, error) {
	poll, err := newPoller()
	if err != nil {
		return nil, err
	}
	l := &lot{poll: poll, log: log, began: time.Now(), ended: make(chan struct{})}
	go l.run()
	return l, nil
}

// close ends a lot in which nobody is parked. It may be called on nil.
func (l *lot) close() {
	if l != nil {
		l.poll.close()
		<-l.ended
	}
}

// add parks s for at most timeout.
func (l *lot) add(s *session, timeout time.Duration) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := &s.space
	if p.no == 0 {
		if n := len(l.free); n > 0 {
			p.no, l.free = l.free[n-1], l.free[:n-1]
			l.spaces[p.no-1] = s
		} else {
			l.spaces = append(l.spaces, s)
			p.no = int32(len(l.spaces)) //nolint:gosec // a process has fewer sockets
		}
		if err := l.poll.add(s.raw, p.no); err != nil {
			return err
		}
	} else if !p.armed {
		if err := l.poll.again(s.raw, p.no); err != nil {
			return err
		}
	}
	p.armed, p.due = true, time.Since(l.began)+timeout
	heap.Push(&l.queue, s)
	if l.alert == 0 || p.due < l.alert {
		l.setAlert(p.due)
	}
	return nil
}

// leave gives back the space of a session that has ended. It may be called on nil.
func (l *lot) leave(s *session) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if no := s.space.no; no > 0 {
		l.spaces[no-1] = nil
		l.free = append(l.free, no)
	}
}

// wake goes on with s if it is parked; err says why, nil that something can be read.
func (l *lot) wake(s *session, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.take(s, err)
}

// take is wake; mu is held.
func (l *lot) take(s *session, err error) {
	if i := s.space.queued; i > 0 {
		heap.Remove(&l.queue, int(i-1))
		go s.wake(err)
	}
}

// run wakes sessions that have something to read, and those whose time is over.
func (l *lot) run() {
	defer close(l.ended)
	for {
		ready, err := l.poll.wait()
		switch {
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded):
		case errors.Is(err, os.ErrClosed):
			return
		default: // nothing that is right here makes it fail
			l.log.Panic("wait for connections", zap.Error(err))
		}
		l.mu.Lock()
		for _, no := range ready {
			// It is another session's if the one that was meant has ended: that is woken in vain.
			if s := l.spaces[no-1]; s != nil {
				s.space.armed = false
				l.take(s, nil)
			}
		}
		if err != nil {
			l.wakeDue()
		}
		l.mu.Unlock()
	}
}

// wakeDue wakes the sessions whose time is over; mu is held.
func (l *lot) wakeDue() {
	now := time.Since(l.began)
	for len(l.queue) > 0 && l.queue[0].space.due <= now {
		l.take(l.queue[0], os.ErrDeadlineExceeded)
	}
	next := time.Duration(0)
	if len(l.queue) > 0 {
		next = l.queue[0].space.due
	}
	l.setAlert(next)
}

// setAlert sets when the goroutine is next to look at the queue; mu is held.
func (l *lot) setAlert(due time.Duration) {
	l.alert = due
	at := time.Time{}
	if due > 0 {
		at = l.began.Add(due)
	}
	l.poll.setDeadline(at)
}

// queue is parked sessions as a heap: the first is due first.
type queue []*session

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].space.due < q[j].space.due }

func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].space.queued, q[j].space.queued = int32(i+1), int32(j+1) //nolint:gosec // as in add
}

func (q *queue) Push(x any) {
	s := x.(*session)
	*q = append(*q, s)
	s.space.queued = int32(len(*q)) //nolint:gosec // as in add
}

func (q *queue) Pop() any {
	last := len(*q) - 1
	s := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	s.space.queued = 0
	return s
}
