package mailstore

import (
	"context"
	"fmt"

	"starling/metadata"
)

// Due is what the collector would work on if it ran now.
type Due struct {
	Expunged   int // mailboxes with expunged messages past their retention
	Dropped    int // deleted mailboxes past it
	Scan       int // accounts whose objects are to be compared with their messages
	Doomed     int // accounts with objects past the backup window
	Accounts   int // deleted accounts to be emptied
	Unaccepted bool
}

// Due counts what the collector would work on now, and changes nothing. With an account
// that is not 0 only that one's. What a run does may make more due.
func (s *Store) Due(ctx context.Context, account metadata.AccountID) (due Due, err error) {
	db := s.db.Background()
	accepted, err := db.EpochAccepted(ctx)
	if err != nil {
		return Due{}, err
	}
	due.Unaccepted = !accepted
	mailboxes := make(map[metadata.BoxRef]struct{}) // each is listed once for each day
	for _, list := range []struct {
		due  listDue
		note func(metadata.Due)
	}{
		{db.DueExpunged, func(d metadata.Due) { mailboxes[d.BoxRef] = struct{}{} }},
		{db.DueDropped, func(metadata.Due) { due.Dropped++ }},
	} {
		var last *metadata.Due
		for more := true; more; {
			page, err := list.due(ctx, account, s.cfg.Retention, last, collectPage)
			if err != nil {
				return Due{}, fmt.Errorf("count what is due: %w", err)
			}
			for i := range page {
				list.note(page[i])
				last = &page[i]
			}
			more = len(page) == collectPage
		}
	}
	due.Expunged = len(mailboxes)
	for _, list := range []struct {
		count *int
		of    func(after metadata.AccountID, limit int) ([]metadata.AccountID, error)
	}{
		{&due.Doomed, func(after metadata.AccountID, limit int) ([]metadata.AccountID, error) {
			return db.AccountsWithDoomed(ctx, account, s.cfg.BackupWindow, after, limit)
		}},
		{&due.Accounts, func(after metadata.AccountID, limit int) ([]metadata.AccountID, error) {
			return db.DeletingAccounts(ctx, account, s.cfg.OrphanGrace/2, after, limit)
		}},
	} {
		after := metadata.AccountID(0)
		for more := true; more; {
			page, err := list.of(after, collectPage)
			if err != nil {
				return Due{}, fmt.Errorf("count what is due: %w", err)
			}
			if more = len(page) == collectPage; more {
				after = page[len(page)-1]
			}
			*list.count += len(page)
		}
	}
	scan, err := db.AccountsToScan(ctx, account, s.cfg.OrphanGrace, 1<<31)
	due.Scan = len(scan)
	return due, err
}
