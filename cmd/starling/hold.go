package main

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"starling/blobstore"
	"starling/metadata"
)

func newAccountHold() *cobra.Command {
	cmd := &cobra.Command{
		Use: "hold ADDRESS --reason TEXT", Short: "Keep the collector away from an account: nothing that is deleted goes for good", Args: cobra.ExactArgs(1),
		Long: "Keep the collector away from an account: of expunged mail, deleted mailboxes and the\n" +
			"account itself, should it be deleted, nothing goes for good. Its users see no\n" +
			"difference. What is kept takes room in bucket and database, and does not count\n" +
			"against the quota; starling undelete brings it back, however old.",
	}
	reason := cmd.Flags().String("reason", "", "why, for those who come later")
	required(cmd, "reason")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if strings.TrimSpace(*reason) == "" {
			return usageError{errors.New("--reason: is empty")}
		}
		return setHold(cmd, args[0], *reason)
	}
	return cmd
}

func newAccountRelease() *cobra.Command {
	cmd := &cobra.Command{
		Use: "release ADDRESS", Short: "End the hold of an account", Args: cobra.ExactArgs(1),
		Long: "End the hold of an account. What is past its retention by then goes with the next\n" +
			"run of the collector.",
	}
	yes := cmd.Flags().Bool("yes", false, "do not ask")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !*yes {
			return usageError{fmt.Errorf("what %s deleted longer ago than mail.retention would go for good; say so with --yes", args[0])}
		}
		return setHold(cmd, args[0], "")
	}
	return cmd
}

func setHold(cmd *cobra.Command, name, reason string) error {
	return withDB(cmd, func(ctx context.Context, db *metadata.DB) error {
		if err := db.SetHold(ctx, name, reason); err != nil {
			return err
		}
		if reason != "" {
			cmd.Printf("%s is on hold: nothing of it is collected until starling account release\n", name)
		} else {
			cmd.Printf("%s is on hold no more\n", name)
		}
		return nil
	})
}

func newAccountShow() *cobra.Command {
	return &cobra.Command{
		Use: "show ADDRESS|ID", Short: "Show an account, and what is left of it in database and bucket", Args: cobra.ExactArgs(1),
		Long: "Show an account: its state, whether it is on hold and why, its use, and how many rows\n" +
			"and objects it has, those of deleted mail included; they are counted, which takes\n" +
			"time. Once a deleted account is gone for good its name is not known any more: ask by\n" +
			"the id, which this prints, until nothing is left.",
		RunE: func(cmd *cobra.Command, args []string) error {
			return withStores(cmd, func(ctx context.Context, n *node) error { return n.showAccount(ctx, cmd, args[0]) })
		},
	}
}

func (n *node) showAccount(ctx context.Context, cmd *cobra.Command, which string) error {
	var a metadata.Account
	var err error
	id, isID := parseAccountID(which)
	if isID {
		a, err = n.db.AccountByID(ctx, id)
	} else {
		a, err = n.db.Recipient(ctx, which)
		id = a.ID
	}
	switch {
	case isID && errors.Is(err, metadata.ErrNotFound): // but something may be left of it
	case err != nil:
		return err
	default:
		used, err := n.db.Usage(ctx, id)
		if err != nil {
			return err
		}
		cmd.Printf("account\t%s\nstate\t%s\nuse\t%s bytes, %s messages\n", a.Name, stateName(a.State),
			useText(used.Bytes, a.Limits.Bytes), useText(used.Messages, a.Limits.Messages))
	}
	cmd.Printf("id\t%016x\n", int64(id))
	hold, err := n.db.Hold(ctx, id)
	if err != nil && !errors.Is(err, metadata.ErrNotFound) {
		return err
	}
	if hold.Held {
		cmd.Printf("hold\t%s\n", holdText(hold))
	}
	left, err := n.db.Left(ctx, id)
	if err != nil {
		return err
	}
	objects, octets, err := n.countObjects(ctx, id)
	if err != nil {
		return err
	}
	if left == (metadata.Left{}) && objects == 0 {
		cmd.Println("left\tnothing: no row, and no object below the prefix")
		return nil
	}
	cmd.Printf("rows\t%d messages, %d mailboxes, %d chunks of flags, %d deliveries, %d threads, %d doomed objects, %d others\n",
		left.Messages, left.Mailboxes, left.Flags, left.Deliveries, left.Threads, left.Doomed, left.Other)
	cmd.Printf("objects\t%d, of %d octets\n", objects, octets)
	return nil
}

// countObjects counts what lies below the account's prefix.
func (n *node) countObjects(ctx context.Context, id metadata.AccountID) (objects, octets int64, err error) {
	for info, err := range n.blobs.List(ctx, blobstore.AccountPrefix(int64(id)), "") {
		if err != nil {
			return 0, 0, fmt.Errorf("list the objects of account %x: %w", int64(id), err)
		}
		objects++
		octets += info.Size
	}
	return objects, octets, nil
}

func holdText(h metadata.Hold) string {
	text := h.Reason
	if text == "" {
		text = "no reason is known"
	}
	if !h.Since.IsZero() {
		text += ", since " + h.Since.UTC().Format(time.RFC3339)
	}
	return text
}

// parseAccountID reads an account's id as it stands in the prefix of its objects.
func parseAccountID(s string) (metadata.AccountID, bool) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != 8 || b[0]&0x80 != 0 {
		return 0, false
	}
	return metadata.AccountID(binary.BigEndian.Uint64(b)), true //nolint:gosec // 63 bits
}
