package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
)

// login connects, logs in, selects the large mailbox, and leaves.
func (b *bench) login(ctx context.Context) error {
	if err := b.fill(ctx); err != nil {
		return err
	}
	b.measure(ctx, load{name: "login+select", clients: b.cfg.clients, count: b.cfg.operations, do: func(_, i int) error {
		c, err := b.enter(ctx, i, 0, "")
		if err != nil {
			return err
		}
		return errors.Join(c.opens(filledMailbox, len(b.sent)), c.close())
	}})
	return nil
}

// poll asks whether there is news, as clients do that do not wait in IDLE: of the mailbox
// that is selected, of another, and by selecting it anew.
func (b *bench) poll(ctx context.Context) error {
	if err := b.fill(ctx); err != nil {
		return err
	}
	clients := min(b.cfg.clients, b.cfg.operations)
	team, leave, err := b.team(ctx, clients, same, filledMailbox)
	if err != nil {
		return err
	}
	defer leave()
	b.measure(ctx, load{name: "noop", clients: clients, count: b.cfg.operations, do: func(client, _ int) error {
		return team[client].ok("NOOP")
	}})
	b.measure(ctx, load{name: "select", clients: clients, count: b.cfg.operations, do: func(client, _ int) error {
		return team[client].opens(filledMailbox, len(b.sent))
	}})
	for _, c := range team {
		if err := c.ok("SELECT INBOX"); err != nil {
			return err
		}
	}
	b.measure(ctx, load{name: "status", clients: clients, count: b.cfg.operations, do: func(client, _ int) error {
		messages, err := team[client].status(filledMailbox)
		if err == nil && messages != len(b.sent) {
			err = fmt.Errorf("STATUS says %d messages of %d", messages, len(b.sent))
		}
		return err
	}})
	return nil
}

// opens selects a mailbox, which must have so many messages.
func (c *client) opens(mailbox string, messages int) error {
	exists := -1
	err := c.command("SELECT "+mailbox, func(r response) error {
		exists = max(exists, told(r.line, "EXISTS"))
		return nil
	})
	if err == nil && exists != messages {
		err = fmt.Errorf("EXISTS says %d of %d", exists, messages)
	}
	return err
}

// reader is one client that has the large mailbox.
func (b *bench) reader(ctx context.Context) (*client, error) {
	if err := b.fill(ctx); err != nil {
		return nil, err
	}
	return b.enter(ctx, 0, 0, filledMailbox)
}

// all measures a FETCH of all messages, of which there must be an answer with each of
// these words, of these sizes.
func (b *bench) all(ctx context.Context, c *client, name, items string, words ...string) {
	check := func() error {
		n := 0
		err := c.digest(func(r response) error {
			if told(r.line, "FETCH") < 0 {
				return nil
			}
			n++
			for _, word := range words {
				if !bytes.Contains(r.line, []byte(word)) {
					return fmt.Errorf("%.200q has no %s", r.line, word)
				}
			}
			if size := number(r.line, "RFC822.SIZE "); size >= 0 && n <= len(b.sent) && size != len(b.sent[n-1]) {
				return fmt.Errorf("message %d has %d octets, and was sent with %d", n, size, len(b.sent[n-1]))
			}
			return nil
		})
		if err == nil && n != len(b.sent) {
			err = fmt.Errorf("%d messages were told of, of %d", n, len(b.sent))
		}
		return err
	}
	b.measure(ctx, load{name: name, clients: 1, count: b.cfg.repeats, units: len(b.sent), check: check, do: func(_, _ int) error {
		return c.swallow("UID FETCH 1:* (" + items + ")")
	}})
}

// flags reads the flags of all messages, as a client does that comes back.
func (b *bench) flags(ctx context.Context) error {
	c, err := b.reader(ctx)
	if err != nil {
		return err
	}
	b.all(ctx, c, "flags of all", "FLAGS", "FLAGS (", "UID ")
	return c.close()
}

// headers reads what a list of messages shows.
func (b *bench) headers(ctx context.Context) error {
	c, err := b.reader(ctx)
	if err != nil {
		return err
	}
	b.all(ctx, c, "envelopes of all", "FLAGS INTERNALDATE RFC822.SIZE ENVELOPE BODYSTRUCTURE", "ENVELOPE (", "BODYSTRUCTURE (", "RFC822.SIZE ")
	b.all(ctx, c, "fields of all", "FLAGS RFC822.SIZE BODY.PEEK[HEADER.FIELDS (From To Cc Subject Date Message-ID References)]", "BODY[HEADER.FIELDS", "RFC822.SIZE ")
	return c.close()
}

// body reads messages in no order, and compares them with what was sent.
func (b *bench) body(ctx context.Context) error {
	if err := b.fill(ctx); err != nil {
		return err
	}
	clients := min(b.cfg.clients, b.cfg.operations)
	team, leave, err := b.team(ctx, clients, same, filledMailbox)
	if err != nil {
		return err
	}
	defer leave()
	random := rand.New(rand.NewPCG(b.cfg.seed, 2))
	order := make([]int, b.cfg.operations)
	for i := range order {
		order[i] = random.IntN(len(b.sent))
	}
	for _, name := range []string{"body", "body again"} {
		b.measure(ctx, load{name: name, clients: clients, count: len(order), do: func(client, i int) error {
			return team[client].compare(order[i]+1, "", b.sent[order[i]])
		}})
	}
	return nil
}

// compare reads message n, or a part of it, and compares it with want.
func (c *client) compare(n int, part string, want []byte) error {
	found := false
	err := c.command(fmt.Sprintf("FETCH %d (BODY.PEEK[]%s)", n, part), func(r response) error {
		if told(r.line, "FETCH") != n {
			return nil
		}
		found = true
		switch {
		case len(r.literals) == 1 && bytes.Equal(r.literals[0], want):
			return nil
		case len(r.literals) == 0 && len(want) < 100 && bytes.Contains(r.line, want): // it may be quoted
			return nil
		}
		return fmt.Errorf("message %d%s is not as it was sent", n, part)
	})
	if err == nil && !found {
		err = fmt.Errorf("message %d did not come", n)
	}
	return err
}

// slices reads a large message piece by piece, as a telephone does.
func (b *bench) slices(ctx context.Context) error {
	const mailbox, octets = "load-large", 8 << 20
	c, err := b.enter(ctx, 0, 0, "")
	if err != nil {
		return err
	}
	if err := c.renew(mailbox); err != nil {
		return c.fail(err)
	}
	mail := largeMail(b.cfg.seed, octets)
	if err := errors.Join(c.append(mailbox, mail), c.ok("SELECT "+mailbox)); err != nil {
		return c.fail(err)
	}
	pieces := (len(mail) + b.cfg.slice - 1) / b.cfg.slice
	b.measure(ctx, load{name: fmt.Sprintf("slice of %d KiB", b.cfg.slice>>10), clients: 1, count: pieces * b.cfg.repeats, do: func(_, i int) error {
		start := i % pieces * b.cfg.slice
		return c.compare(1, fmt.Sprintf("<%d.%d>", start, b.cfg.slice), mail[start:min(start+b.cfg.slice, len(mail))])
	}})
	return c.close()
}

// search looks for messages. What every server must find the same is counted here too.
func (b *bench) search(ctx context.Context) error {
	c, err := b.reader(ctx)
	if err != nil {
		return err
	}
	larger := 0
	for _, mail := range b.sent {
		if len(mail) > 10_000 {
			larger++
		}
	}
	for _, s := range []struct {
		name, key string
		hits      int // -1: as many as the first time
	}{
		{"unseen", "UNSEEN", len(b.sent)},
		{"larger", "LARGER 10000", larger},
		{"since", "SINCE 1-Jan-2020", len(b.sent)},
		{"subject", "SUBJECT budget", -1},
		{"from", "FROM sender", -1},
		{"sentsince", "SENTSINCE 5-Jan-2026", -1},
		{"text", "TEXT estimate", -1},
	} {
		want := s.hits
		b.measure(ctx, load{name: s.name, clients: 1, count: b.cfg.repeats, do: func(_, _ int) error {
			hits := -1
			err := c.command("UID SEARCH "+s.key, func(r response) error {
				if rest, ok := strings.CutPrefix(string(r.line), "* SEARCH"); ok {
					hits = len(strings.Fields(rest))
				}
				return nil
			})
			if want < 0 {
				want = hits
			}
			if err == nil && hits != want {
				err = fmt.Errorf("%d hits, want %d", hits, want)
			}
			return err
		}})
		b.report.Results[len(b.report.Results)-1].Hits = want
	}
	return c.close()
}
