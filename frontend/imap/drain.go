package imap

import (
	"context"
	"math/rand/v2"
	"time"
)

const (
	// drainShare is the part of the time that is left in which sessions are told to go;
	// the rest is for the commands that run then.
	drainShare = 0.8
	// drainPace is the time for each session beyond which nothing is gained by ending
	// them more slowly.
	drainPace = 50 * time.Millisecond
)

// drain tells sessions to end. One that runs a command is told at once, and ends when
// that is answered. Those that wait are told one after the other, in no order, spread
// over the time that ctx leaves.
func drain(ctx context.Context, sessions []*session, done <-chan struct{}) {
	waiting := sessions[:0]
	for _, s := range sessions {
		if s.alarm.isWaiting() {
			waiting = append(waiting, s)
			continue
		}
		s.ring(alarmShutdown)
	}
	var left time.Duration
	if deadline, ok := ctx.Deadline(); ok {
		left = time.Until(deadline)
	}
	window := drainWindow(len(waiting), left)
	began := time.Now()
	for i, s := range waiting {
		select {
		case <-time.After(drainAt(i, len(waiting), window, rand.Float64()) - time.Since(began)): //nolint:gosec // not for secrecy
		case <-ctx.Done():
			return
		case <-done:
			return
		}
		s.ring(alarmShutdown)
	}
}

// drainWindow is the time over which n sessions are told to end, when left is there.
func drainWindow(n int, left time.Duration) time.Duration {
	return max(0, min(time.Duration(drainShare*float64(left)), time.Duration(n)*drainPace))
}

// drainAt is when the i-th of n sessions is told: at a random moment, by jitter from 0
// to 1, of its share of the window.
func drainAt(i, n int, window time.Duration, jitter float64) time.Duration {
	return window*time.Duration(i)/time.Duration(n) + time.Duration(jitter*float64(window)/float64(n))
}
