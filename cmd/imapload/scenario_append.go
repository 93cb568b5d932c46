package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/emersion/go-smtp"
)

// team is one connection for each client, as the user of its number.
func (b *bench) team(ctx context.Context, clients int, user func(int) int, mailbox string) (team []*client, leave func(), err error) {
	leave = func() {
		for _, c := range team {
			_ = c.close() // what it did was looked at
		}
	}
	for i := range clients {
		c, err := b.enter(ctx, i, user(i), mailbox)
		if err != nil {
			leave()
			return nil, nil, err
		}
		team = append(team, c)
	}
	return team, leave, nil
}

func same(int) int           { return 0 }
func eachOwn(client int) int { return client }

// append has each client append to a mailbox of its own, and then compares what is
// there with what was sent.
func (b *bench) append(ctx context.Context) error {
	const mailbox = "load-append"
	clients := min(b.cfg.clients, b.cfg.messages)
	team, leave, err := b.team(ctx, clients, eachOwn, "")
	if err != nil {
		return err
	}
	defer leave()
	for _, c := range team {
		if err := c.renew(mailbox); err != nil {
			return err
		}
	}
	sent := make([][][]byte, clients)
	b.measure(ctx, load{name: "append", clients: clients, count: b.cfg.messages, do: func(client, i int) error {
		mail := b.mails[i%len(b.mails)]
		err := team[client].append(mailbox, mail)
		if err == nil {
			sent[client] = append(sent[client], mail)
		}
		return err
	}})
	for i, c := range team {
		if err := c.ok("SELECT " + mailbox); err != nil {
			return err
		}
		n := 0
		err := c.command("FETCH 1:* (BODY.PEEK[])", func(r response) error {
			n++
			if len(r.literals) != 1 || n > len(sent[i]) || !bytes.Equal(r.literals[0], sent[i][n-1]) {
				return fmt.Errorf("message %d is not as it was sent", n)
			}
			return nil
		})
		if err == nil && n != len(sent[i]) {
			err = fmt.Errorf("%d messages are there of %d", n, len(sent[i]))
		}
		if err != nil {
			b.wrong(fmt.Errorf("append, user %d: %w", i, err))
		}
	}
	return nil
}

// deliver has each client deliver to one account of its own, by LMTP, and then looks
// for what was sent at the end of what is there: delivery puts lines before it.
func (b *bench) deliver(ctx context.Context) error {
	clients := min(b.cfg.clients, b.cfg.messages)
	readers, leave, err := b.team(ctx, clients, eachOwn, "INBOX")
	if err != nil {
		return err
	}
	defer leave()
	agents := make([]*smtp.Client, clients)
	for i, c := range readers {
		if err := c.empty(); err != nil {
			return err
		}
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", b.cfg.lmtp[i%len(b.cfg.lmtp)])
		if err != nil {
			return fmt.Errorf("connect: %w", err)
		}
		agents[i] = smtp.NewClientLMTP(conn)
		agents[i].CommandTimeout, agents[i].SubmissionTimeout = b.cfg.timeout, b.cfg.timeout
		defer func() { _ = agents[i].Close() }() // every delivery was answered
	}
	sent := make([]map[[sha256.Size]byte]int, clients)
	for i := range sent {
		sent[i] = make(map[[sha256.Size]byte]int)
	}
	b.measure(ctx, load{name: "deliver", clients: clients, count: b.cfg.messages, do: func(client, i int) error {
		mail := fmt.Appendf(nil, "X-Load: %d of %d\r\n%s", i, b.report.Began.UnixNano(), b.mails[i%len(b.mails)])
		if err := deliver(agents[client], b.user(client), mail); err != nil {
			return errors.Join(errStop, err)
		}
		sent[client][sha256.Sum256(mail)]++
		return nil
	}})
	for i, c := range readers {
		if err := c.delivered(sent[i]); err != nil {
			b.wrong(fmt.Errorf("deliver, user %d: %w", i, err))
		}
		if err := c.empty(); err != nil {
			return err
		}
	}
	return nil
}

// deliver delivers a message.
func deliver(agent *smtp.Client, to string, mail []byte) error {
	if err := agent.Mail("sender@example.net", nil); err != nil {
		return fmt.Errorf("MAIL: %w", err)
	}
	if err := agent.Rcpt(to, nil); err != nil {
		return fmt.Errorf("RCPT: %w", err)
	}
	data, err := agent.Data()
	if err != nil {
		return fmt.Errorf("DATA: %w", err)
	}
	if _, err := data.Write(mail); err != nil {
		return fmt.Errorf("DATA: %w", err)
	}
	if _, err := data.CloseWithLMTPResponse(); err != nil {
		return fmt.Errorf("DATA: %w", err)
	}
	return nil
}

// delivered compares the selected mailbox with what was delivered.
func (c *client) delivered(sent map[[sha256.Size]byte]int) error {
	if err := c.ok("NOOP"); err != nil {
		return err
	}
	err := c.command("FETCH 1:* (BODY.PEEK[])", func(r response) error {
		if len(r.literals) != 1 {
			return fmt.Errorf("%.100q has no body", r.line)
		}
		start := bytes.Index(r.literals[0], []byte("X-Load: "))
		mail := sha256.Sum256(r.literals[0][max(start, 0):])
		if sent[mail]--; sent[mail] == 0 {
			delete(sent, mail)
		}
		return nil
	})
	if err == nil && len(sent) > 0 {
		err = fmt.Errorf("%d messages are missing, changed or there twice", len(sent))
	}
	return err
}

// empty removes all messages of the selected mailbox.
func (c *client) empty() error {
	messages := 0
	err := c.command("NOOP", func(response) error { return nil })
	if err == nil {
		messages, err = c.status("INBOX")
	}
	if err != nil || messages == 0 {
		return err
	}
	if err := c.ok(`STORE 1:* +FLAGS.SILENT (\Deleted)`); err != nil {
		return err
	}
	return c.ok("EXPUNGE")
}

// filledMailbox is what the scenarios for reading share.
const filledMailbox = "load-filled"

// fill makes the mailbox that is read, once, or finds it from an earlier run.
func (b *bench) fill(ctx context.Context) error {
	if b.filled {
		return nil
	}
	if b.cfg.reuse && b.refound(ctx) {
		return nil
	}
	return b.refill(ctx)
}

// refound says whether an earlier run left the mailbox that this one would fill.
func (b *bench) refound(ctx context.Context) bool {
	c, err := b.enter(ctx, 0, 0, "")
	if err != nil {
		return false // filling will say why
	}
	defer func() { _ = c.close() }() // every command was answered
	want := make([][]byte, b.cfg.size)
	for i := range want {
		want[i] = b.mails[i%len(b.mails)]
	}
	if c.holds(filledMailbox, want) != nil {
		return false // it is another, or none
	}
	b.sent, b.filled = want, true
	return true
}

// refill makes the mailbox that is read anew, as a client does that brings its mail along:
// by one connection, several messages at a time.
func (b *bench) refill(ctx context.Context) error {
	c, err := b.enter(ctx, 0, 0, "")
	if err != nil {
		return err
	}
	defer func() { _ = c.close() }() // every command was answered
	if err := c.renew(filledMailbox); err != nil {
		return err
	}
	before, began := usageOf(b.cfg.pids), time.Now()
	if b.sent, err = b.pour(ctx, c, filledMailbox, b.cfg.size); err != nil {
		return err
	}
	took := time.Since(began)
	b.add(load{name: "fill", clients: 1, units: len(b.sent)}, []time.Duration{took}, took, &before)
	b.filled = true
	return nil
}

// pour appends n messages to a mailbox as fast as one connection can, several being
// under way at the same time where the server takes literals without being asked.
func (b *bench) pour(ctx context.Context, c *client, mailbox string, n int) (sent [][]byte, err error) {
	most := 1
	if c.plus {
		most = 50
	}
	for len(sent) < n && ctx.Err() == nil {
		batch := min(most, n-len(sent))
		for range batch {
			mail := b.mails[len(sent)%len(b.mails)]
			if err := c.send(mailbox, mail); err != nil {
				return nil, err
			}
			sent = append(sent, mail)
		}
		for last, first := c.tag, c.tag-batch+1; first <= last; first++ {
			c.tag = first
			if err := c.finish(func(response) error { return nil }); err != nil {
				return nil, err
			}
		}
	}
	return sent, ctx.Err()
}
