package metadata_test

import (
	"testing"

	"starling/metadata"
)

// What comes in at the moment in which a limit is lifted, or taken up by others, meets the limit that there is then.
func TestLimitLiftedMeanwhile(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change string
		locked bool
		want   error
	}{
		"lifted":              {change: `delete from quota where account_id = $1`},
		"lifted, under locks": {change: `delete from quota where account_id = $1`, locked: true},
		"raised":              {change: `update quota set max_messages = 2000 where account_id = $1`},
		"taken up":            {change: `update quota set messages = 1000 where account_id = $1`, want: metadata.ErrOverQuota},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDoubting(t)
			check(t, d.direct.SetLimits(t.Context(), "alice@example.org", metadata.Quota{Messages: 1000}))
			n := load(t, d.direct, d.n.box)
			tx, err := d.direct.Pool().Begin(t.Context())
			check(t, err)
			_, err = tx.Exec(t.Context(), test.change, n.box.Account)
			check(t, err)
			c := n.appending(2)
			c.Charge = metadata.Quota{Bytes: 200, Messages: 2}
			got := make(chan error, 1)
			go func() {
				if !test.locked {
					got <- errOf(d.through.Commit(t.Context(), c))
					return
				}
				got <- errOf(d.through.CommitLocked(t.Context(), n.box.Account, []metadata.MailboxID{n.box.ID}, []metadata.Version{n.box.Version},
					func([]metadata.Load) (*metadata.Commit, error) { return c, nil }))
			}()
			d.waiters("%update mailbox%")
			check(t, tx.Commit(t.Context()))
			err = <-got
			if test.want != nil {
				wantErr(t, err, test.want)
			} else {
				check(t, err)
			}
			sound(t, d.direct, load(t, d.direct, n.box))
		})
	}
}
