package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"starling/blobstore"
	"starling/frontend/mailstore"
	"starling/metadata"
)

// importPatience is how long an import waits for PostgreSQL or the object storage to be there
// again before it breaks off.
const importPatience = time.Minute

// importOptions are the flags of starling import.
type importOptions struct {
	mailbox  string
	format   string
	state    string
	parallel int
}

func newImport() *cobra.Command {
	var o importOptions
	cmd := &cobra.Command{
		Use: "import ADDRESS PATH…", Short: "Bring mail of mbox files, Maildirs and folders of .eml files into an account",
		Long: "Bring mail into an account: mbox files, Maildirs, .eml files, and folders of them.\n" +
			"Folders in a Maildir (Maildir++ or nested) and in other folders become mailboxes,\n" +
			"below --mailbox unless that is INBOX.\n\n" +
			"A mailbox gets each message once, however often it is imported and whenever an\n" +
			"import was broken off: what went in is noted in the state file, and a message\n" +
			"whose very bytes are noted for a mailbox is left out. For a week the server\n" +
			"remembers it as well, state file or not. Flags and dates are of the first time.\n\n" +
			"Messages are kept as they are, but for three things: where the first line ends in\n" +
			"a bare LF, all lines are made to end in CRLF; in mbox files the line From and the\n" +
			"empty line before the next are no part of a message; and of lines From that are\n" +
			"quoted there by one or more >, one is taken off. Flags come from a Maildir's file\n" +
			"names, or the fields Status and X-Status in an mbox; dates from a Maildir's files'\n" +
			"times, an mbox's From lines, or the field Date.\n\n" +
			"Where PostgreSQL or the object storage is away, it waits for a minute.\n" +
			"Nodes may serve the account meanwhile. The configuration is that of serve.",
		Args: cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd, args[0], args[1:]) },
	}
	f := cmd.Flags()
	f.StringVar(&o.mailbox, "mailbox", mailstore.Inbox, "mailbox to bring it into; made if it is not there")
	f.StringVar(&o.format, "format", formatAuto, "auto, mbox, maildir or eml")
	f.StringVar(&o.state, "state", "", "file in which it is noted what went in (default: one for the account in ~/.local/state/starling)")
	f.IntVar(&o.parallel, "parallel", 8, "messages on their way at the same time, 1 to 64; with 1 their order is kept exactly")
	return cmd
}

func (o *importOptions) run(cmd *cobra.Command, address string, paths []string) error {
	o.mailbox = mailstore.CleanName(o.mailbox)
	if err := mailstore.CheckName(o.mailbox); err != nil {
		return usageError{fmt.Errorf("--mailbox: %w", err)}
	}
	if o.parallel < 1 || o.parallel > 64 {
		return usageError{fmt.Errorf("--parallel: is %d; want 1 to 64", o.parallel)}
	}
	source := importSource{paths: paths, format: o.format, mailbox: o.mailbox}
	size, err := source.check()
	if err != nil {
		return usageError{err}
	}
	cfg, err := configOf(cmd)
	if err != nil {
		return err
	}
	cfg.Mail.Collect = -1 // nodes do
	if err := cfg.validateStores(); err != nil {
		return err
	}
	log, err := newLogger(LogConfig{Level: "warn", Format: "console"})
	if err != nil {
		return err
	}
	n := makeNode(cfg, log)
	defer n.close()
	if err := n.openStoresNow(cmd.Context()); err != nil {
		return err
	}
	return n.withStore(cmd.Context(), func(ctx context.Context) error {
		account, detail, err := n.store.Recipient(ctx, address)
		if err == nil && detail != "" {
			account.Close()
			err = metadata.ErrNotFound
		}
		if err != nil {
			return fmt.Errorf("account %s: %w", address, err)
		}
		defer account.Close()
		state, err := openImportState(o.state, int64(account.Row().ID))
		if err != nil {
			return err
		}
		im := &importer{account: account, state: state, boxes: make(map[string]bool), progress: newImportProgress(cmd.OutOrStdout(), size)}
		return errors.Join(im.run(ctx, &source, o.parallel), state.close())
	})
}

// withStore runs do while the node's store runs.
func (n *node) withStore(ctx context.Context, do func(context.Context) error) error {
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	var store sync.WaitGroup
	var storeErr error
	store.Go(func() { storeErr = n.store.Run(running) })
	err := do(ctx)
	stop()
	store.Wait()
	return errors.Join(err, storeErr)
}

// importer brings messages into an account.
type importer struct {
	account  *mailstore.Account
	state    *importState
	progress *importProgress

	mu    sync.Mutex
	boxes map[string]bool // that are known to be there
}

// run imports everything. A message that cannot be had or kept is told of and
// left out; what concerns all of them ends the run.
func (im *importer) run(ctx context.Context, source *importSource, parallel int) error {
	items := make(chan importItem)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(items)
		return source.walk(func(item importItem) error {
			if item.err != nil {
				im.progress.failed(item.name, item.err)
				return nil //nolint:nilerr // it was told
			}
			select {
			case items <- item:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	})
	for range parallel {
		group.Go(func() error {
			for item := range items {
				if err := im.one(ctx, item); err != nil {
					return fmt.Errorf("%s: %w", item.name, err)
				}
			}
			return nil
		})
	}
	err := group.Wait()
	failed := im.progress.finish(err == nil)
	switch {
	case err != nil:
		return fmt.Errorf("import broken off, run it again to go on: %w", err)
	case failed > 0:
		return fmt.Errorf("messages that could not be imported: %d", failed)
	}
	return nil
}

// one imports a message. The error is one that ends the run.
func (im *importer) one(ctx context.Context, item importItem) error {
	known, err := item.read(nil)
	if err == nil && known.size == 0 {
		err = fmt.Errorf("%w: it is empty", errImportSource)
	}
	if err != nil {
		im.progress.failed(item.name, err)
		return nil //nolint:nilerr // it was told, and the others can be had
	}
	digest := item.digest(int64(im.account.Row().ID), known.sum)
	if !im.state.claim(digest) {
		im.progress.again(item.size)
		return nil
	}
	again, err := patiently(ctx, func() (bool, error) {
		if err := im.ensure(ctx, item.mailbox); err != nil {
			return false, err
		}
		return im.append(ctx, item, known, digest)
	})
	switch {
	case errors.Is(err, mailstore.ErrTooBig) || errors.Is(err, errImportSource):
		im.progress.failed(item.name, err)
		return nil
	case err != nil:
		return err
	}
	if err := im.state.add(digest); err != nil {
		return err
	}
	if again {
		im.progress.again(item.size)
	} else {
		im.progress.imported(item.size)
	}
	return nil
}

// patiently does something until it succeeds or fails for another reason than that a server
// is not to be had, and gives up in the end. It must be harmless to do again.
func patiently[T any](ctx context.Context, do func() (T, error)) (T, error) {
	return backoff.Retry(ctx, func() (T, error) {
		done, err := do()
		if err != nil && !errors.Is(err, metadata.ErrUnavailable) && !errors.Is(err, blobstore.ErrUnavailable) {
			err = backoff.Permanent(err)
		}
		return done, err
	}, backoff.WithMaxElapsedTime(importPatience))
}

func (im *importer) append(ctx context.Context, item importItem, known importRead, digest [32]byte) (again bool, err error) {
	in := mailstore.Incoming{Mailbox: item.mailbox, Flags: item.flagsOf(known), Date: item.dateOf(known), Fit: true}
	upload, err := im.account.Upload(ctx, in, known.size)
	if err != nil {
		return false, err
	}
	defer upload.Discard()
	now, err := item.read(upload)
	if err != nil {
		return false, err
	}
	if now.sum != known.sum {
		return false, fmt.Errorf("%w: it changed while it was read", errImportSource)
	}
	done, err := upload.Append(ctx, &digest)
	return done.Again, err
}

// ensure makes the mailbox if it is not there, once.
func (im *importer) ensure(ctx context.Context, mailbox string) error {
	im.mu.Lock()
	defer im.mu.Unlock()
	if im.boxes[mailbox] {
		return nil
	}
	if err := ensureMailbox(ctx, im.account, mailbox); err != nil {
		return err
	}
	im.boxes[mailbox] = true
	return nil
}

// ensureMailbox makes a mailbox if it is not there, with a subscription, so that clients
// show it.
func ensureMailbox(ctx context.Context, account *mailstore.Account, mailbox string) error {
	_, err := account.Mailbox(ctx, mailbox)
	if errors.Is(err, metadata.ErrNoMailbox) {
		if _, err = account.Create(ctx, mailbox, nil); err == nil {
			err = account.Subscribe(ctx, mailbox)
		} else if errors.Is(err, metadata.ErrExists) {
			err = nil
		}
	}
	if err != nil {
		return fmt.Errorf("make mailbox %q: %w", mailbox, err)
	}
	return nil
}
