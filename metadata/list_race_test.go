package metadata_test

import (
	"context"
	"errors"
	"sync"
	"testing"

	"starling/metadata"
)

// Who waits for another change of the list, and finds that it has made his own impossible, is told why.
func TestListRaces(t *testing.T) {
	t.Parallel()
	account := func(d *doubting) metadata.AccountID { return d.n.box.Account }
	deleting := func(ctx context.Context, d *doubting) error {
		return errOf(d.through.DeleteMailbox(ctx, account(d), "Y"))
	}
	renaming := func(ctx context.Context, d *doubting) error {
		return errOf(d.through.RenameMailbox(ctx, account(d), "Y", "Z"))
	}
	const (
		created = `insert into mailbox (account_id, id, uidvalidity, stamp, epoch, listseq, name) values ($1, 99, 1, 1, epoch(), 99, 'Z')`
		deleted = `update mailbox set dropped = true, dropped_at = now() where account_id = $1 and name = 'Y'`
		renamed = `update mailbox set name = 'W' where account_id = $1 and name = 'Y'`
	)
	for name, test := range map[string]struct {
		mine   func(context.Context, *doubting) error
		theirs string
		want   error
	}{
		"deleted while it is deleted":                  {deleting, deleted, metadata.ErrNoMailbox},
		"deleted while it is renamed":                  {deleting, renamed, metadata.ErrNoMailbox},
		"renamed while it is deleted":                  {renaming, deleted, metadata.ErrNoMailbox},
		"renamed while it is renamed":                  {renaming, renamed, metadata.ErrNoMailbox},
		"renamed while one of the new name is created": {renaming, created, metadata.ErrExists},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDoubting(t)
			check(t, errOf(d.direct.CreateMailbox(t.Context(), account(d), "Y", nil)))
			tx, err := d.direct.Pool().Begin(t.Context())
			check(t, err)
			_, err = tx.Exec(t.Context(), `update account set listseq = listseq + 1 where account_id = $1`, account(d))
			check(t, err)
			got := make(chan error, 1)
			go func() { got <- test.mine(t.Context(), d) }()
			d.waiters("%update account%")
			_, err = tx.Exec(t.Context(), test.theirs, account(d))
			check(t, errors.Join(err, tx.Commit(t.Context())))
			wantErr(t, <-got, test.want)
		})
	}
}

// Who creates a mailbox of a name that another session gives up at that moment is told that it was there, not that
// there is no such account.
func TestCreateWhileDeleted(t *testing.T) {
	t.Parallel()
	d := newDoubting(t)
	account, db := d.n.box.Account, d.direct
	ctx, cancel := context.WithCancel(t.Context())
	var other sync.WaitGroup
	other.Go(func() {
		for ctx.Err() == nil {
			if err := errOf(db.CreateMailbox(t.Context(), account, "X", nil)); err != nil && !errors.Is(err, metadata.ErrExists) {
				t.Error(err)
				return
			}
			if err := errOf(db.DeleteMailbox(t.Context(), account, "X")); err != nil && !errors.Is(err, metadata.ErrNoMailbox) {
				t.Error(err)
				return
			}
		}
	})
	for met := 0; met < 300 && !t.Failed(); {
		err := errOf(db.CreateMailbox(t.Context(), account, "X", nil))
		if errors.Is(err, metadata.ErrExists) {
			met++
			continue
		}
		check(t, err)
	}
	cancel()
	other.Wait()
}
