package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
)

// store sets and removes flags, one by one by several clients of one mailbox, each of
// which has messages of its own, and of many at once. Then it reads them all.
func (b *bench) store(ctx context.Context) error {
	if err := b.fill(ctx); err != nil {
		return err
	}
	clients := min(b.cfg.clients, b.cfg.operations)
	team, leave, err := b.team(ctx, clients, same, filledMailbox)
	if err != nil {
		return err
	}
	defer leave()
	if err := team[0].ok(`STORE 1:* -FLAGS.SILENT (\Flagged \Answered)`); err != nil { // of an earlier run
		return err
	}
	flagged := make([]bool, len(b.sent)+1) // each client writes its own
	randoms := make([]*rand.Rand, clients)
	for i := range randoms {
		randoms[i] = rand.New(rand.NewPCG(b.cfg.seed, uint64(3+i)))
	}
	b.measure(ctx, load{name: "one", clients: clients, count: b.cfg.operations, do: func(client, _ int) error {
		n := 1 + client + clients*randoms[client].IntN(len(b.sent)/clients)
		set := !flagged[n]
		if err := team[client].flag(n, set); err != nil {
			return err
		}
		flagged[n] = set
		return nil
	}})
	many := min(1000, len(b.sent))
	set := false
	check := func() error {
		n := 0
		err := team[0].digest(func(r response) error {
			if bytes.Contains(r.line, []byte(`\Answered`)) == set && told(r.line, "FETCH") > 0 {
				n++
			}
			return nil
		})
		if err == nil && n < many {
			err = fmt.Errorf("%d changes were told of, of %d", n, many)
		}
		return err
	}
	b.measure(ctx, load{name: "many at once", clients: 1, count: 2 * b.cfg.repeats, units: many, check: check, do: func(_, i int) error {
		set = i%2 == 0
		return team[0].swallow(fmt.Sprintf(`STORE 1:%d %cFLAGS (\Answered)`, many, "+-"[i%2]))
	}})
	wrong := 0
	err = team[0].command("FETCH 1:* (FLAGS)", func(r response) error {
		n := told(r.line, "FETCH")
		if n > 0 && n < len(flagged) && (flagged[n] != bytes.Contains(r.line, []byte(`\Flagged`)) || bytes.Contains(r.line, []byte(`\Answered`))) {
			wrong++
		}
		return nil
	})
	if err == nil && wrong > 0 {
		err = fmt.Errorf("%d messages have not the flags that were set", wrong)
	}
	return err
}

// flag sets or removes \Flagged, and wants to be told.
func (c *client) flag(n int, set bool) error {
	sign := "-"
	if set {
		sign = "+"
	}
	seen := false
	err := c.command(fmt.Sprintf(`STORE %d %sFLAGS (\Flagged)`, n, sign), func(r response) error {
		seen = seen || told(r.line, "FETCH") == n && bytes.Contains(r.line, []byte(`\Flagged`)) == set
		return nil
	})
	if err == nil && !seen {
		err = fmt.Errorf("STORE of message %d was not told of", n)
	}
	return err
}

// move copies, moves and expunges, one message and many.
func (b *bench) move(ctx context.Context) error {
	const from, to = "load-from", "load-to"
	c, err := b.reader(ctx)
	if err != nil {
		return err
	}
	if err := errors.Join(c.renew(from), c.renew(to)); err != nil {
		return c.fail(err)
	}
	singles, many := min(b.cfg.operations, len(b.sent)/2), min(1000, len(b.sent))
	b.measure(ctx, load{name: "copy one", clients: 1, count: singles, do: func(_, i int) error {
		return c.ok(fmt.Sprintf("COPY %d %s", i+1, from))
	}})
	if err := errors.Join(c.holds(from, b.sent[:singles]), c.renew(from), c.ok("SELECT "+filledMailbox)); err != nil {
		return c.fail(err)
	}
	for _, bulk := range []struct {
		name, command, of, mailbox string
	}{
		{"copy", fmt.Sprintf("COPY 1:%d %s", many, from), filledMailbox, from},
		{"move", "MOVE 1:* " + to, from, to},
	} {
		if err := c.ok("SELECT " + bulk.of); err != nil {
			return c.fail(err)
		}
		b.measure(ctx, load{name: bulk.name + " many", clients: 1, count: 1, units: many, do: func(_, _ int) error { return c.ok(bulk.command) }})
		if err := c.holds(bulk.mailbox, b.sent[:many]); err != nil {
			return c.fail(err)
		}
	}
	if err := errors.Join(c.ok("SELECT "+to), b.expunge(ctx, c, many)); err != nil {
		return c.fail(err)
	}
	return c.close()
}

// expunge removes the first half of the selected mailbox one by one, the rest at once.
func (b *bench) expunge(ctx context.Context, c *client, messages int) error {
	one := func(response) error { return nil }
	singles := min(b.cfg.operations, messages/2)
	b.measure(ctx, load{name: "delete and expunge one", clients: 1, count: singles, do: func(_, _ int) error {
		return errors.Join(c.command(`STORE 1 +FLAGS.SILENT (\Deleted)`, one), c.ok("EXPUNGE"))
	}})
	left := messages - singles
	if err := c.ok(`STORE 1:* +FLAGS.SILENT (\Deleted)`); err != nil {
		return err
	}
	b.measure(ctx, load{name: "expunge many", clients: 1, count: 1, units: left, do: func(_, _ int) error {
		gone := 0
		err := c.command("EXPUNGE", func(r response) error {
			if told(r.line, "EXPUNGE") > 0 {
				gone++
			}
			return nil
		})
		if err == nil && gone != left {
			err = fmt.Errorf("%d messages are gone, want %d", gone, left)
		}
		return err
	}})
	return nil
}

// holds wants a mailbox to have as many messages as were put there, of their sizes, in
// their order.
func (c *client) holds(mailbox string, want [][]byte) error {
	if err := c.ok("EXAMINE " + mailbox); err != nil {
		return err
	}
	var sizes []int
	err := c.command("FETCH 1:* (RFC822.SIZE)", func(r response) error {
		if told(r.line, "FETCH") > 0 {
			sizes = append(sizes, number(r.line, "RFC822.SIZE "))
		}
		return nil
	})
	if err == nil && !slices.EqualFunc(sizes, want, func(size int, mail []byte) bool { return size == len(mail) }) {
		err = fmt.Errorf("%s has %d messages, not the %d that it should have", mailbox, len(sizes), len(want))
	}
	return errors.Join(err, c.ok("UNSELECT"))
}
