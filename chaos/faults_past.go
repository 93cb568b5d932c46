package chaos

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"time"

	"starling/metadata"
)

// errPast says that somebody believed a primary that was failed over.
var errPast = errors.New("the old primary was written to, after its node had seen the new one")

// LeadBack fails over to a synchronous standby and lets the old primary live on, as one that waits for no standby any more. When a
// node has seen the new primary, it is led back to the old one for a while: with all its connections, or with one now and then.
func (c *Cluster) LeadBack(ctx context.Context, account metadata.AccountID, begin time.Time, n *Node, d time.Duration, now bool) (f Failover, err error) {
	if c.standby == nil {
		return f, errNoStandby
	}
	ctx = context.WithoutCancel(ctx)
	f.Sync = true
	old := c.primary
	defer func() { err = errors.Join(err, old.kill(), c.disks.free(old.config.Dir)) }()
	if err := c.promote(ctx, account, begin, &f); err != nil {
		return f, err
	}
	if err := old.synchronous(ctx, false); err != nil {
		return f, err
	}
	epoch, err := c.DB.Epoch(ctx)
	if err != nil {
		return f, err
	}
	if err := n.knows(ctx, epoch); err != nil {
		return f, err
	}
	before, err := old.versions(ctx)
	if err != nil {
		return f, err
	}
	const breath = 50 * time.Millisecond
	for end := time.Now().Add(d); time.Now().Before(end); pause(ctx, breath) {
		n.Links.Postgres.Backend("unix", old.Socket())
		n.Links.Postgres.Cut(false)
		if now {
			pause(ctx, breath)
			n.Links.Postgres.Backend("unix", c.primary.Socket())
		}
	}
	after, err := old.versions(ctx)
	if err != nil {
		return f, err
	}
	n.Links.Postgres.Backend("unix", c.primary.Socket())
	n.Links.Postgres.Cut(false)
	if !reflect.DeepEqual(before, after) {
		return f, fmt.Errorf("node %d: %w", n.No, errPast)
	}
	return f, nil
}

// versions are those of all mailboxes and accounts.
func (s *database) versions(ctx context.Context) ([][]string, error) {
	return s.Exec(ctx, `
select 'mailbox', id, modseq, stamp, uidnext, name
from mailbox
union all
select 'account', account_id, listseq, auth_version, last_uidvalidity, null
from account
order by 1, 2, 3`)
}

// knows waits until the node has seen an epoch. There is no event to wait for.
func (n *Node) knows(ctx context.Context, epoch int64) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	for {
		seen, err := n.Figure(ctx, "starling_postgres_epoch")
		if err == nil && int64(seen) >= epoch {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("node %d is of epoch %.0f and not %d: %w", n.No, seen, epoch, err)
		}
		pause(ctx, 20*time.Millisecond)
	}
}

// Figure is one of the node's metrics, one that has no labels.
func (n *Node) Figure(ctx context.Context, name string) (float64, error) {
	n.mu.Lock()
	admin := n.process.admin
	n.mu.Unlock()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+admin+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close() //nolint:errcheck // it is read
	for lines := bufio.NewScanner(res.Body); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			return strconv.ParseFloat(value, 64)
		}
	}
	return 0, fmt.Errorf("node %d has no %s", n.No, name)
}
