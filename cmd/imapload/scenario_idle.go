package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const idleMailbox = "load-idle"

// news is that an idler was told how many messages there are.
type news struct {
	node   int // of the idler
	exists int
	at     time.Time
	err    error
}

// watch waits in IDLE until the connection is closed or gets something wrong, and passes
// on what it is told.
func (c *client) watch(node int, told chan<- news) {
	for {
		r, err := c.next()
		if err != nil {
			told <- news{err: err}
			return
		}
		if exists := existing(r.line); exists >= 0 {
			told <- news{node: node, exists: exists, at: time.Now()}
		}
	}
}

func existing(line []byte) int {
	if !bytes.HasSuffix(line, []byte(" EXISTS")) {
		return -1
	}
	return number(line, "* ")
}

// rest begins IDLE.
func (c *client) rest() error {
	if err := c.begin("IDLE"); err != nil {
		return err
	}
	for {
		r, err := c.next()
		if err != nil {
			return err
		}
		if bytes.HasPrefix(r.line, []byte("+")) {
			return c.conn.SetDeadline(time.Time{})
		}
	}
}

// idle has many clients wait in IDLE on one mailbox, on all nodes, and one append to
// it, on the first node. What is measured is from the writer's OK to each that waits.
func (b *bench) idle(ctx context.Context) error {
	writer, err := b.enter(ctx, 0, 0, "")
	if err != nil {
		return err
	}
	if err := writer.renew(idleMailbox); err != nil {
		return writer.fail(err)
	}
	idlers := make([]*client, 0, b.cfg.idlers)
	told := make(chan news, b.cfg.idlers)
	var watching sync.WaitGroup
	defer func() {
		for _, c := range idlers {
			_ = c.conn.Close() // ends its watch
		}
		go func() { // takes what they have to say at the end
			watching.Wait()
			close(told)
		}()
		for range told { //nolint:revive // until all have ended
		}
		_ = writer.close() // every command was answered
	}()
	for i := range b.cfg.idlers {
		c, err := b.enter(ctx, i, 0, idleMailbox)
		if err != nil {
			return err
		}
		idlers = append(idlers, c)
		if err := c.rest(); err != nil {
			return err
		}
		watching.Go(func() { c.watch(i%len(b.cfg.addrs), told) })
	}
	return b.tell(ctx, writer, told)
}

// tell appends messages one by one, each when all idlers have heard of the one before.
func (b *bench) tell(ctx context.Context, writer *client, told <-chan news) error {
	var here, others []time.Duration
	before, began := usageOf(b.cfg.pids), time.Now()
	defer func() {
		took := time.Since(began)
		b.add(load{name: "from OK to each", clients: b.cfg.idlers, units: 1}, slices.Concat(here, others), took, &before)
		if len(b.cfg.addrs) > 1 {
			b.add(load{name: "from OK to other nodes", clients: b.cfg.idlers, units: 1}, others, took, nil)
		}
	}()
	late := time.NewTimer(b.cfg.timeout)
	for i := 0; i < b.cfg.messages && time.Since(began) < b.cfg.most && ctx.Err() == nil; i++ {
		if err := writer.append(idleMailbox, b.mails[i%len(b.mails)]); err != nil {
			return err
		}
		ok := time.Now()
		late.Reset(b.cfg.timeout)
		for range b.cfg.idlers {
			select {
			case n := <-told:
				if n.err != nil {
					return fmt.Errorf("in IDLE: %w", n.err)
				}
				if n.exists != i+1 {
					return fmt.Errorf("in IDLE: %d EXISTS, want %d", n.exists, i+1)
				}
				if n.node == 0 {
					here = append(here, max(n.at.Sub(ok), 0))
				} else {
					others = append(others, max(n.at.Sub(ok), 0))
				}
			case <-late.C:
				return errors.New("in IDLE: a client was told nothing")
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return nil
}

// idleMemory is how much memory a server has for a client that waits in IDLE, in the
// INBOX of as many users as there are clients. What a server that collects its garbage
// has left from before blurs it: it is to be started anew, and this to be run alone.
func (b *bench) idleMemory(ctx context.Context) error {
	warm := 2 * b.cfg.clients // what is made once is there then
	idlers := make([]*client, warm+b.cfg.idlers)
	defer func() {
		for _, c := range idlers {
			if c != nil {
				_ = c.conn.Close() // it is not needed any more
			}
		}
	}()
	enter := func(from, to int) error {
		var next atomic.Int64
		next.Store(int64(from))
		errs := make([]error, b.cfg.clients)
		var entering sync.WaitGroup
		for i := range errs {
			entering.Go(func() {
				for n := next.Add(1) - 1; n < int64(to) && errs[i] == nil; n = next.Add(1) - 1 {
					idlers[n], errs[i] = b.park(ctx, int(n))
				}
			})
		}
		entering.Wait()
		return errors.Join(errs...)
	}
	if err := enter(0, warm); err != nil {
		return err
	}
	pause(ctx, b.cfg.settle)
	before, began := usageOf(b.cfg.pids), time.Now()
	if err := enter(warm, len(idlers)); err != nil {
		return err
	}
	took := time.Since(began)
	pause(ctx, b.cfg.settle)
	b.add(load{name: "memory", clients: b.cfg.idlers}, nil, took, &before)
	last := &b.report.Results[len(b.report.Results)-1]
	last.PerClient = (last.Memory - before.memory) / int64(b.cfg.idlers)
	return nil
}

// park enters as connection number n and waits in IDLE, with no more memory of our own than that needs.
func (b *bench) park(ctx context.Context, n int) (*client, error) {
	c, err := b.enter(ctx, n, n%b.cfg.clients, "INBOX")
	if err != nil {
		return nil, err
	}
	if err := c.rest(); err != nil {
		return nil, c.fail(err)
	}
	return &client{conn: c.conn}, nil
}

// pause lets a server do what it does when nobody asks for anything.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
