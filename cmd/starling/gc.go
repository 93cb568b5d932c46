package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"starling/frontend/mailstore"
	"starling/metadata"
)

func newGC() *cobra.Command {
	var account string
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "gc",
		Short: "Run the collector until nothing is due: expunged mail, orphans, deleted accounts",
		Long: "Run the collector until nothing is due, beside those of the nodes, which do the\n" +
			"same by themselves (mail.collect). It deletes mail that was expunged longer ago\n" +
			"than mail.retention, deleted mailboxes likewise, then, after mail.backup_window,\n" +
			"their objects, and what is left of deleted accounts. Objects that no message\n" +
			"names are looked for in an account every mail.orphan_grace, and at once with\n" +
			"--account.\n\n" +
			"After a restore or a failover nothing is deleted until starling epoch accept. Of\n" +
			"accounts on hold nothing ever is.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withStores(cmd, func(ctx context.Context, n *node) error {
				id, err := accountID(ctx, n.db, account)
				if err != nil {
					return err
				}
				if held, err := tellHold(ctx, cmd, n.db, id); held || err != nil {
					return err
				}
				if dryRun {
					due, err := n.store.Due(ctx, id)
					if err == nil {
						printDue(cmd, due)
					}
					return err
				}
				report, err := n.store.Collect(ctx, id)
				printCollected(cmd, report)
				if err == nil && report.Failed > 0 {
					err = fmt.Errorf("%d mailboxes or accounts were left out: see above", report.Failed)
				}
				return err
			})
		},
	}
	cmd.Flags().StringVar(&account, "account", "", "only of this account, and compare its objects with its messages now")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only count what is due now")
	return cmd
}

// tellHold says that an account is on hold, of which the collector does nothing. 0 is no account.
func tellHold(ctx context.Context, cmd *cobra.Command, db *metadata.DB, id metadata.AccountID) (held bool, err error) {
	if id == 0 {
		return false, nil
	}
	h, err := db.Hold(ctx, id)
	if err == nil && h.Held {
		cmd.Printf("The account is on hold, and nothing of it is collected: %s\n", holdText(h))
	}
	return h.Held, err
}

func printDue(cmd *cobra.Command, d mailstore.Due) {
	printCounts(cmd, []count{
		{"mailboxes with expunged messages to be collected", int64(d.Expunged)},
		{"deleted mailboxes to be removed", int64(d.Dropped)},
		{"accounts to be looked through for orphans", int64(d.Scan)},
		{"accounts with objects to be deleted", int64(d.Doomed)},
		{"deleted accounts to be emptied", int64(d.Accounts)},
	})
	if d.Unaccepted {
		cmd.Println("Nothing would be deleted: see starling epoch --help.")
	}
	if d == (mailstore.Due{}) {
		cmd.Println("Nothing is due.")
	}
}

// count is a number of something.
type count struct {
	what string
	n    int64
}

// printCounts prints those that are not 0.
func printCounts(cmd *cobra.Command, counts []count) {
	for _, c := range counts {
		if c.n > 0 {
			cmd.Printf("%8d %s\n", c.n, c.what)
		}
	}
}

// withStores opens the stores of a node, without its frontends.
func withStores(cmd *cobra.Command, do func(context.Context, *node) error) (err error) {
	ctx := cmd.Context()
	cfg, err := configOf(cmd)
	if err != nil {
		return err
	}
	if err := cfg.validateStores(); err != nil {
		return err
	}
	log, err := newLogger(LogConfig{Level: "warn", Format: "console"})
	if err != nil {
		return err
	}
	n := makeNode(cfg, log)
	defer n.close()
	if err := n.openStoresNow(ctx); err != nil {
		return err
	}
	return do(ctx, n)
}

// accountID is the account of that name; 0 if it is empty.
func accountID(ctx context.Context, db *metadata.DB, name string) (metadata.AccountID, error) {
	if name == "" {
		return 0, nil
	}
	a, err := db.Recipient(ctx, name)
	return a.ID, err
}

func printCollected(cmd *cobra.Command, r mailstore.CollectReport) {
	printCounts(cmd, []count{
		{"messages deleted", r.Messages},
		{"mailboxes collected", int64(r.Mailboxes)},
		{"deleted mailboxes removed", int64(r.Dropped)},
		{"empty chunks of flags dropped", int64(r.Chunks)},
		{"unused keywords freed", int64(r.Keywords)},
		{"deliveries forgotten", r.Deliveries},
		{"message ids of threads without a message forgotten", r.Threads},
		{"accounts looked through for orphans", int64(r.Scanned)},
		{"orphans found", r.Orphans},
		{"uploads left behind, ended", r.Uploads},
		{"objects deleted", r.Objects},
		{"objects still named, kept", r.Named},
		{"deleted accounts waiting to be removed", int64(r.Emptied)},
		{"deleted accounts removed", int64(r.Accounts)},
	})
	if r.Unaccepted {
		cmd.Println("Nothing was deleted: the database was restored or failed over since an operator last\nsaid that all is well. See starling epoch --help.")
	}
	if r == (mailstore.CollectReport{}) {
		cmd.Println("Nothing is due.")
	}
}
