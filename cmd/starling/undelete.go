package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"starling/frontend/mailstore"
	"starling/metadata"
)

// undeleteOptions are the flags of starling undelete.
type undeleteOptions struct {
	mailbox, to  string
	uids         []metadata.UIDRange // nil: all
	since, until time.Time           // days by UTC, both included; zero: no bound
	dryRun       bool
	most         int // messages of a mailbox that a dry run lists
}

const (
	// undeleteBatch is how many messages come back in one commit.
	undeleteBatch = 500
	// undeleteNames is how many names are tried for a mailbox whose own is taken.
	undeleteNames = 100
)

func newUndelete() *cobra.Command {
	var o undeleteOptions
	cmd := &cobra.Command{
		Use: "undelete ADDRESS", Short: "Bring expunged messages and deleted mailboxes of an account back",
		Long: "Bring back what the account's clients have deleted, as long as the collector has\n" +
			"not taken it (mail.retention, or a hold: starling account hold): first deleted\n" +
			"mailboxes with what was in them, then messages expunged in those that were there.\n\n" +
			"A mailbox comes back under its name, or the next free one: \"Old (2)\". Messages come\n" +
			"back in their mailbox, as new ones with the same flags and dates; those that were\n" +
			"moved elsewhere are there. Clients that are connected see them at once. All of it\n" +
			"counts against the quota; what does not fit stays deleted, and the status is 1.\n\n" +
			"--since and --until are days by UTC, both included. The server does not know better\n" +
			"on which of a day's hours a message was expunged. Look with --dry-run first.",
		Args: cobra.ExactArgs(1),
	}
	f := cmd.Flags()
	f.StringVar(&o.mailbox, "mailbox", "", "only of mailboxes of this name, and deleted ones that had it")
	uids := f.String("uid", "", "only messages with these UIDs, such as 7,10:20, of --mailbox; no deleted mailboxes")
	since := f.String("since", "", "only what was deleted on this day or later, such as 2026-01-31")
	until := f.String("until", "", "only what was deleted on this day or before")
	f.StringVar(&o.to, "to", "", "bring messages back into this mailbox, made if it is not there; with --mailbox, a deleted one under this name")
	f.BoolVar(&o.dryRun, "dry-run", false, "only list what there is to bring back: of messages mailbox, UID, day, size, date, sender and subject")
	f.IntVar(&o.most, "most", 1000, "with --dry-run: how many messages of a mailbox are listed; the others are counted")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := o.read(*uids, *since, *until); err != nil {
			return usageError{err}
		}
		return withStores(cmd, func(ctx context.Context, n *node) error {
			return n.withStore(ctx, func(ctx context.Context) error { return o.run(ctx, n, args[0], cmd.OutOrStdout()) })
		})
	}
	return cmd
}

func (o *undeleteOptions) read(uids, since, until string) (err error) {
	for _, day := range []struct {
		flag, text string
		to         *time.Time
	}{{"--since", since, &o.since}, {"--until", until, &o.until}} {
		if day.text == "" {
			continue
		}
		if *day.to, err = time.Parse(time.DateOnly, day.text); err != nil {
			return fmt.Errorf("%s: %q is not a day; write it as 2026-01-31", day.flag, day.text)
		}
	}
	switch {
	case o.most < 0:
		return errors.New("--most: is negative")
	case !o.since.IsZero() && !o.until.IsZero() && o.until.Before(o.since):
		return errors.New("--until: is before --since")
	}
	if o.mailbox != "" {
		o.mailbox = mailstore.CleanName(o.mailbox)
	}
	if o.to != "" {
		o.to = mailstore.CleanName(o.to)
		if err := mailstore.CheckName(o.to); err != nil {
			return fmt.Errorf("--to: %w", err)
		}
	}
	if uids == "" {
		return nil
	}
	if o.mailbox == "" {
		return errors.New("--uid: needs --mailbox")
	}
	if o.uids, err = parseUIDs(uids); err != nil {
		return fmt.Errorf("--uid: %w", err)
	}
	return nil
}

// parseUIDs reads UIDs and ranges of them, which must rise.
func parseUIDs(s string) ([]metadata.UIDRange, error) {
	var all []metadata.UIDRange
	for part := range strings.SplitSeq(s, ",") {
		first, last, isRange := strings.Cut(part, ":")
		if !isRange {
			last = first
		}
		from, err := strconv.ParseUint(first, 10, 32)
		to, lastErr := strconv.ParseUint(last, 10, 32)
		if err != nil || lastErr != nil || from == 0 || from > to || len(all) > 0 && uint64(all[len(all)-1].Last) >= from {
			return nil, fmt.Errorf("%q is not a rising list of UIDs; write it as 7,10:20", s)
		}
		all = append(all, metadata.UIDRange{First: uint32(from), Last: uint32(to)})
	}
	return all, nil
}

// within says whether what was deleted on that day is meant.
func (o *undeleteOptions) within(day time.Time) bool {
	day = day.UTC().Truncate(24 * time.Hour)
	return (o.since.IsZero() || !day.Before(o.since)) && (o.until.IsZero() || !day.After(o.until))
}

// undelete is a run of starling undelete.
type undelete struct {
	*undeleteOptions
	account *mailstore.Account
	out     io.Writer
	missed  int // messages and mailboxes that could have come back and did not
	told    bool
	known   bool // there is a mailbox that is meant, or was
}

func (o *undeleteOptions) run(ctx context.Context, n *node, address string, out io.Writer) error {
	row, err := n.db.Recipient(ctx, address)
	if err != nil {
		return err
	}
	if row.State == metadata.Deleting {
		return fmt.Errorf("account %s is being deleted", row.Name)
	}
	u := &undelete{undeleteOptions: o, account: n.store.Account(row, func() {}), out: out}
	defer u.account.Close()
	list, err := u.account.List(ctx)
	if err != nil {
		return err
	}
	if o.uids == nil {
		if err := u.mailboxes(ctx); err != nil {
			return err
		}
	}
	for i := range list.Mailboxes {
		if name := list.Mailboxes[i].Name; o.mailbox == "" || o.mailbox == name {
			u.known = true
			if err := u.messages(ctx, name); err != nil {
				return fmt.Errorf("mailbox %q: %w", name, err)
			}
		}
	}
	switch {
	case u.missed > 0:
		return fmt.Errorf("messages and mailboxes that could not be brought back: %d", u.missed)
	case !u.known && o.uids != nil:
		return fmt.Errorf("mailbox %q: %w; --uid is for those that are there", o.mailbox, metadata.ErrNoMailbox)
	case !u.known:
		return fmt.Errorf("mailbox %q: %w, and none of this name that was deleted and could come back", o.mailbox, metadata.ErrNoMailbox)
	case !u.told:
		u.say("Nothing is there to bring back.")
	}
	return nil
}

func (u *undelete) say(format string, args ...any) {
	u.told = true
	_, _ = fmt.Fprintf(u.out, format+"\n", args...) // whoever reads it has gone, the mail still comes back
}

// mailboxes brings deleted mailboxes back.
func (u *undelete) mailboxes(ctx context.Context) error {
	deleted, err := u.account.DeletedMailboxes(ctx)
	if err != nil {
		return err
	}
	for i := range deleted {
		d := &deleted[i]
		if u.mailbox != "" && u.mailbox != d.Name {
			continue
		}
		u.known = true
		if !u.within(d.At) {
			continue
		}
		if u.dryRun {
			u.say("mailbox %q, deleted %s: %d messages, %d octets", d.Name, d.At.UTC().Format(time.RFC3339), d.Messages, d.Bytes)
			continue
		}
		if err := u.restore(ctx, d); err != nil {
			return fmt.Errorf("mailbox %q: %w", d.Name, err)
		}
	}
	return nil
}

// restore brings a mailbox back under the first name that is free.
func (u *undelete) restore(ctx context.Context, d *metadata.DeletedMailbox) error {
	want := d.Name
	if u.mailbox != "" && u.to != "" {
		want = u.to
	}
	name := want
	for try := 2; ; try++ {
		m, lost, err := u.account.RestoreMailbox(ctx, d.ID, name)
		switch {
		case errors.Is(err, metadata.ErrExists) && try < undeleteNames:
			name = fmt.Sprintf("%s (%d)", want, try)
			continue
		case errors.Is(err, metadata.ErrNoMailbox), errors.Is(err, metadata.ErrConflict):
			u.say("mailbox %q: the collector is taking it, or somebody else brought it back", d.Name)
			u.missed++
			return nil
		case errors.Is(err, metadata.ErrOverQuota):
			u.say("mailbox %q: over quota with its %d messages of %d octets; it stays deleted", d.Name, d.Messages, d.Bytes)
			u.missed++
			return nil
		case err != nil:
			return err
		}
		if err := u.account.Subscribe(ctx, name); err != nil {
			return err
		}
		u.say("mailbox %q: brought back as %q with %d messages%s", d.Name, name, m.Messages, collectedToo(lost))
		return nil
	}
}

func collectedToo(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("; %d were collected and are gone", n)
}

// messages brings expunged messages of a mailbox back.
func (u *undelete) messages(ctx context.Context, name string) error {
	m, err := u.account.Open(ctx, name, func() {})
	if errors.Is(err, metadata.ErrNoMailbox) {
		return nil // deleted just now
	}
	if err != nil {
		return err
	}
	defer m.Close()
	uids := u.uids
	if uids == nil {
		uids = []metadata.UIDRange{{First: 1, Last: math.MaxUint32}}
	}
	found, collected, err := m.Expunged(ctx, uids)
	if err != nil {
		return err
	}
	found = slices.DeleteFunc(found, func(e mailstore.Expunged) bool { return !u.within(e.Day) })
	if u.uids == nil {
		collected = 0 // in the days that were asked for, or before
	}
	if u.dryRun {
		if err := u.list(ctx, m, name, found); err != nil {
			return err
		}
	}
	if u.dryRun || len(found) == 0 {
		if collected > 0 {
			u.say("%s: %d were collected and are gone", name, collected)
		}
		return nil
	}
	wanted := make([]uint32, len(found))
	for i := range found {
		wanted[i] = found[i].UID
	}
	return u.bringBack(ctx, m, name, wanted, collected)
}

// list says what messages there are to bring back.
func (u *undelete) list(ctx context.Context, m *mailstore.Mailbox, name string, found []mailstore.Expunged) error {
	if len(found) == 0 {
		return nil
	}
	var octets int64
	for i := range found {
		octets += found[i].Size
	}
	listed := found[:min(len(found), u.most)]
	for batch := range slices.Chunk(listed, undeleteBatch) {
		uids, i := make([]uint32, len(batch)), 0
		for i := range batch {
			uids[i] = batch[i].UID
		}
		err := m.Headings(ctx, uids, func(uid uint32, h mailstore.Heading) {
			for batch[i].UID < uid { // the collector took it meanwhile
				i++
			}
			e := &batch[i]
			u.say("%s\t%d\t%s\t%d octets\t%s\t%s\t%s", name, uid, e.Day.Format(time.DateOnly), e.Size, e.Date.UTC().Format(time.RFC3339), h.From, h.Subject)
		})
		if err != nil {
			return err
		}
	}
	if more := len(found) - len(listed); more > 0 {
		u.say("%s: %d further messages; narrow it by --uid, --since or --until, or list more with --most", name, more)
	}
	u.say("%s: %d messages to bring back, %d octets", name, len(found), octets)
	return nil
}

// bringBack brings messages back in batches, as many as the quota has room for.
func (u *undelete) bringBack(ctx context.Context, m *mailstore.Mailbox, name string, wanted []uint32, collected int) error {
	into := name
	if u.to != "" && u.to != name {
		into = u.to
		if err := ensureMailbox(ctx, u.account, into); err != nil {
			return err
		}
	}
	back, size := 0, undeleteBatch
	for len(wanted) > 0 {
		batch := wanted[:min(size, len(wanted))]
		done, err := m.Undelete(ctx, metadata.Ranges(batch, 0))
		if errors.Is(err, metadata.ErrOverQuota) {
			if size = len(batch) / 2; size > 0 {
				continue
			}
			u.say("%s: over quota; %d messages stay deleted", name, len(wanted))
			u.missed += len(wanted)
			break
		}
		if err != nil {
			return err
		}
		n := len(done.Source)
		if into != name && n > 0 {
			come := []metadata.UIDRange{{First: done.First, Last: done.First + uint32(n) - 1}} //nolint:gosec // a batch
			if _, err := m.Move(ctx, mailstore.CopyArgs{View: done.After, UIDs: come, Dest: into}); err != nil {
				return fmt.Errorf("%d messages came back, and do not go on to %q: %w", n, into, err)
			}
		}
		back += n
		collected += len(batch) - n
		if wanted = wanted[len(batch):]; len(wanted) > 0 {
			u.say("%s: %d messages, %d to go", name, back, len(wanted))
		}
	}
	u.say("%s: %d messages brought back into %q%s", name, back, into, collectedToo(collected))
	return nil
}
