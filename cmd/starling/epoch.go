package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"starling/metadata"
)

// newEpoch is the commands for after a failover or a restore of PostgreSQL.
func newEpoch() *cobra.Command {
	cmd := &cobra.Command{
		Use: "epoch", Short: "See and set what holds after a failover or a restore of PostgreSQL", Args: cobra.NoArgs,
		Long: "The epoch says which history of the database nodes work with: PostgreSQL's timeline,\n" +
			"which every failover and every restore to a point in time raises, and a generation,\n" +
			"which starling epoch bump raises after other restores. In another epoch nodes pass\n" +
			"over UIDs and modseqs that may have been given out already, so that no client takes\n" +
			"one message for another.\n\n" +
			"In an epoch that nobody has accepted the collector deletes nothing: what the database\n" +
			"calls expunged or does not know of may be mail that was acknowledged and lost with\n" +
			"the other history, and its object the last copy. Without a command this prints the\n" +
			"epoch, and whether it is accepted.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withDB(cmd, func(ctx context.Context, db *metadata.DB) error {
				epoch, err := db.Epoch(ctx)
				if err != nil {
					return err
				}
				accepted, err := db.EpochAccepted(ctx)
				if err != nil {
					return err
				}
				state := "accepted"
				if !accepted {
					state = "not accepted: nothing is collected until starling epoch accept"
				}
				cmd.Printf("epoch %d (timeline %d, generation %d), %s\n", epoch, epoch>>24, epoch&(1<<24-1), state)
				return nil
			})
		},
	}
	cmd.AddCommand(
		newEpochSet("accept", "Say that all is well with the database as it is: the collector goes on",
			"Say that all is well with the database as it is, after a failover or a restore. From\n"+
				"then on the collector deletes again what is due by it: expunged mail past its\n"+
				"retention, deleted accounts, and objects that no message names. Before that, bring\n"+
				"back what is missing: an object whose row was lost is the last copy of a mail, and\n"+
				"is an orphan from then on. A newer failover or restore has to be accepted anew.",
			"the collector would delete again what this database does not know of", "epoch %d accepted\n", (*metadata.DB).AcceptEpoch),
		newEpochSet("bump", "Begin a new epoch, after a restore from a dump or a copy of the disk",
			"Begin a new epoch, while no node runs, after a restore that did not raise PostgreSQL's\n"+
				"timeline: from a dump, or a copy of the disk. Every mailbox jumps ahead with UIDs and\n"+
				"modseqs when it is next used, and clients synchronise it anew. In a cluster of a lower\n"+
				"timeline than the old one had, as a new one, do it once for each failover and restore\n"+
				"since the dump or copy was made, and once more: each passes over the numbers of one.\n"+
				"Nothing is collected until starling epoch accept.",
			"all clients would synchronise anew, and nothing is collected until the epoch is accepted",
			"epoch %d began; nothing is collected until starling epoch accept\n", (*metadata.DB).BumpEpoch),
	)
	return cmd
}

func newEpochSet(use, short, long, refusal, done string, set func(*metadata.DB, context.Context) (int64, error)) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Long: long, Args: cobra.NoArgs}
	yes := cmd.Flags().Bool("yes", false, "do not ask")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if !*yes {
			return usageError{errors.New(refusal + "; say so with --yes")}
		}
		return withDB(cmd, func(ctx context.Context, db *metadata.DB) error {
			epoch, err := set(db, ctx)
			if err != nil {
				return err
			}
			cmd.Printf(done, epoch)
			return nil
		})
	}
	return cmd
}
