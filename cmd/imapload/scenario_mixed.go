package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// mixedSize is how many messages the mailbox of each client has to begin with.
const mixedSize = 100

// mixer is one client of mixed, which knows what its mailbox must have. It alone uses it.
type mixer struct {
	*client
	random  *rand.Rand
	mails   [][]byte
	mailbox string
	sent    [][]byte // by sequence number - 1
	flagged []bool
}

// doings is what clients do, and how often in a hundred times.
var doings = []struct {
	name  string
	often int
	do    func(*mixer) error
}{
	{"body", 25, (*mixer).read},
	{"flags", 15, (*mixer).look},
	{"envelopes", 10, (*mixer).list},
	{"store", 15, (*mixer).mark},
	{"append", 10, (*mixer).put},
	{"expunge", 5, (*mixer).remove},
	{"status", 10, (*mixer).count},
	{"noop", 10, func(m *mixer) error { return m.ok("NOOP") }},
}

// mixed has each client, as a user of its own, do one thing after the other at random,
// without a pause, for as long as Config.most.
func (b *bench) mixed(ctx context.Context) error {
	const mailbox = "load-mixed"
	team, leave, err := b.team(ctx, b.cfg.clients, eachOwn, "")
	if err != nil {
		return err
	}
	defer leave()
	mixers := make([]*mixer, len(team))
	for i, c := range team {
		if err := c.renew(mailbox); err != nil {
			return err
		}
		sent, err := b.pour(ctx, c, mailbox, mixedSize)
		if err == nil {
			err = c.ok("SELECT " + mailbox)
		}
		if err != nil {
			return err
		}
		mixers[i] = &mixer{
			client: c, random: rand.New(rand.NewPCG(b.cfg.seed, uint64(100+i))), mails: b.mails, mailbox: mailbox,
			sent: sent, flagged: make([]bool, len(sent)),
		}
	}
	ctx, cancel := context.WithTimeout(ctx, b.cfg.most)
	defer cancel()
	samples := make([][][]time.Duration, len(mixers)) // by client, by doing
	before, began := usageOf(b.cfg.pids), time.Now()
	var clients sync.WaitGroup
	for i, m := range mixers {
		samples[i] = make([][]time.Duration, len(doings))
		clients.Go(func() {
			for ctx.Err() == nil {
				what := m.pick()
				start := time.Now()
				if err := doings[what].do(m); err != nil {
					b.wrong(fmt.Errorf("mixed, user %d, %s: %w", i, doings[what].name, err))
					return // what it knows may be wrong now
				}
				samples[i][what] = append(samples[i][what], time.Since(start))
			}
		})
	}
	clients.Wait()
	took := time.Since(began)
	b.add(load{name: "all", clients: len(mixers), units: 1}, slices.Concat(slices.Concat(samples...)...), took, &before)
	for what, d := range doings {
		var of []time.Duration
		for i := range samples {
			of = append(of, samples[i][what]...)
		}
		b.add(load{name: d.name, clients: len(mixers), units: 1}, of, took, nil)
	}
	return nil
}

// pick chooses what to do next.
func (m *mixer) pick() int {
	left := m.random.IntN(100)
	for i, d := range doings {
		if left -= d.often; left < 0 {
			return i
		}
	}
	return len(doings) - 1
}

func (m *mixer) read() error {
	n := m.random.IntN(len(m.sent))
	return m.compare(n+1, "", m.sent[n])
}

func (m *mixer) look() error {
	n := 0
	err := m.command("FETCH 1:* (UID FLAGS)", func(r response) error {
		at := told(r.line, "FETCH")
		if at < 1 || at > len(m.sent) {
			return nil
		}
		n++
		if bytes.Contains(r.line, []byte(`\Flagged`)) != m.flagged[at-1] {
			return fmt.Errorf("%q, want flagged: %t", r.line, m.flagged[at-1])
		}
		return nil
	})
	if err == nil && n != len(m.sent) {
		err = fmt.Errorf("%d messages of %d", n, len(m.sent))
	}
	return err
}

func (m *mixer) list() error {
	first := 1 + m.random.IntN(max(len(m.sent)-25, 1))
	last := min(first+24, len(m.sent))
	n := 0
	err := m.command(fmt.Sprintf("FETCH %d:%d (RFC822.SIZE ENVELOPE BODYSTRUCTURE)", first, last), func(r response) error {
		at := told(r.line, "FETCH")
		if at < first || at > last {
			return nil
		}
		n++
		if size := number(r.line, "RFC822.SIZE "); size != len(m.sent[at-1]) {
			return fmt.Errorf("message %d has %d octets, and was sent with %d", at, size, len(m.sent[at-1]))
		}
		return nil
	})
	if err == nil && n != last-first+1 {
		err = fmt.Errorf("%d messages of %d", n, last-first+1)
	}
	return err
}

func (m *mixer) mark() error {
	n := m.random.IntN(len(m.sent))
	err := m.flag(n+1, !m.flagged[n])
	if err == nil {
		m.flagged[n] = !m.flagged[n]
	}
	return err
}

func (m *mixer) put() error {
	mail := m.mails[m.random.IntN(len(m.mails))]
	if err := m.append(m.mailbox, mail); err != nil {
		return err
	}
	m.sent, m.flagged = append(m.sent, mail), append(m.flagged, false)
	return m.ok("NOOP") // by which it is told of at the latest
}

func (m *mixer) remove() error {
	if len(m.sent) < mixedSize/2 {
		return nil
	}
	n := m.random.IntN(len(m.sent))
	if err := m.ok(fmt.Sprintf(`STORE %d +FLAGS.SILENT (\Deleted)`, n+1)); err != nil {
		return err
	}
	gone := 0
	err := m.command("EXPUNGE", func(r response) error {
		if at := told(r.line, "EXPUNGE"); at > 0 {
			gone = at
		}
		return nil
	})
	if err == nil && gone != n+1 {
		err = fmt.Errorf("%d EXPUNGE, want %d", gone, n+1)
	}
	m.sent, m.flagged = slices.Delete(m.sent, n, n+1), slices.Delete(m.flagged, n, n+1)
	return err
}

func (m *mixer) count() error {
	n, err := m.status("INBOX")
	if err == nil && n < 0 {
		err = errors.New("STATUS said nothing")
	}
	return err
}
