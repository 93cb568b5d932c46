package chaos

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// How many of each there are beside the clients that a run asks for.
const (
	idlers = 2
	namers = 2
	mtas   = 2
)

// crowd is all that use the cluster in a run.
type crowd struct {
	clients []*client // on the shared mailboxes; the last of them only wait in IDLE
	ringer  *client   // makes the last changes
	namers  []*namer
	mtas    []*mta
}

func (c *Cluster) crowd(user string, o Options) *crowd {
	var imap, lmtp []string
	for _, n := range c.Nodes {
		imap, lmtp = append(imap, n.Links.Clients.Addr()), append(lmtp, n.Links.LMTP.Addr())
	}
	conns, begin, no := new(atomic.Int64), time.Now(), 0
	random := func() *rand.Rand {
		no++
		return rand.New(rand.NewPCG(o.Seed, uint64(no))) //nolint:gosec // to be repeated
	}
	client := func() client {
		r := random()
		return client{no: no, user: user, nodes: imap, random: r, conns: conns, begin: begin, qresync: no%2 == 1}
	}
	all := &crowd{}
	for range o.Clients {
		one := client()
		one.late = one.no%3 == 0
		all.clients = append(all.clients, &one)
	}
	ringer := client()
	all.ringer = &ringer
	for range idlers {
		one := client()
		one.idler = true
		all.clients = append(all.clients, &one)
	}
	for range namers {
		all.namers = append(all.namers, &namer{client: client()})
	}
	for range mtas {
		r := random()
		all.mtas = append(all.mtas, &mta{no: no, user: user, nodes: lmtp, random: r, begin: begin})
	}
	return all
}

func (all *crowd) runners() []interface{ run(ctx context.Context) } {
	var each []interface{ run(ctx context.Context) }
	for _, one := range all.clients {
		each = append(each, one)
	}
	for _, one := range all.namers {
		each = append(each, one)
	}
	for _, one := range all.mtas {
		each = append(each, one)
	}
	return each
}

// finish has those finish that still had something to do when all was mended.
func (all *crowd) finish() error {
	errs := make([]error, len(all.namers)+len(all.mtas))
	var finishing sync.WaitGroup
	for i, one := range all.namers {
		finishing.Go(func() { errs[i] = one.last() })
	}
	for i, one := range all.mtas {
		finishing.Go(func() { errs[len(all.namers)+i] = one.last() })
	}
	finishing.Wait()
	return errors.Join(errs...)
}

// gather takes what they wrote down, and ends them.
func (all *crowd) gather(r *Run, f *Figures) {
	for _, one := range append(all.clients, all.ringer) {
		r.Ops = append(r.Ops, one.ops...)
		f.Refused += one.refused
		one.drop()
	}
	for _, one := range all.namers {
		r.Ops = append(r.Ops, one.ops...)
		f.Refused += one.refused
		one.drop()
	}
	for _, one := range all.mtas {
		r.Ops = append(r.Ops, one.ops...)
		f.Refused += one.refused
	}
}
