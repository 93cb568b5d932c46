package metadata_test

import (
	"testing"
	"time"

	"starling/metadata"
	"starling/metadata/metadatatest"
)

// A commit that has to take its mailbox into a new epoch holds no connection while it
// waits for one: after a failover all commits do so at once.
func TestEpochJumpNeedsOneConnection(t *testing.T) {
	t.Parallel()
	db := metadatatest.Open(t, func(c *metadata.Config) { c.MaxConns, c.AcquireTimeout = 2, 2*time.Second })
	ctx := t.Context()
	var boxes []metadata.Mailbox
	for _, name := range []string{"a", "b"} {
		account := metadatatest.Account(t, db, name)
		box, err := db.MailboxByName(ctx, account.ID, "INBOX")
		check(t, err)
		boxes = append(boxes, box)
	}
	check(t, errOf(db.BumpEpoch(ctx)))
	commit := func(box metadata.Mailbox, during func()) error {
		_, err := db.CommitLocked(ctx, box.Account, []metadata.MailboxID{box.ID}, []metadata.Version{box.Version},
			func([]metadata.Load) (*metadata.Commit, error) {
				during()
				return nil, nil
			})
		return err
	}
	locked, done, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- commit(boxes[0], func() {
			close(locked)
			<-done
		})
	}()
	<-locked // one of the two connections is taken
	err := commit(boxes[1], func() {})
	close(done)
	check(t, <-ended)
	check(t, err)
}
