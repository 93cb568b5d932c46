package main

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.uber.org/zap"

	"starling/frontend/admin"
	"starling/metadata"
)

// The dependencies of a node, as health and figures call them.
const (
	depPostgres = "postgres"
	depSchema   = "schema"
	depNATS     = "nats"
	depS3       = "s3"
)

const (
	// postgresPatience is how long PostgreSQL may be away from a node that serves before
	// that is not ready: all of them lose it at once, and connections that are open stay.
	postgresPatience = 20 * time.Second
	// askS3Every is how often S3 is asked, which costs something at some providers.
	askS3Every = 30 * time.Second
	// adminGrace is how long the last answers of the admin listener may take.
	adminGrace = 2 * time.Second
)

// openAdmin opens the admin listener, on which the node says from then on what it
// waits for.
func (n *node) openAdmin(ctx context.Context) error {
	n.health = admin.NewHealth(n.log)
	n.onClose(n.health.Close)
	n.admin = admin.New(admin.Config{
		Hostname: n.cfg.Hostname, Version: version(), Health: n.health, Metrics: n.figures, Log: n.log, PProf: n.cfg.Admin.PProf,
	})
	var serving sync.WaitGroup
	n.onClose(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), adminGrace)
		defer cancel()
		if err := n.admin.Close(ctx); err != nil {
			n.log.Warn("admin listener not closed", zap.Error(err))
		}
		serving.Wait()
	})
	for _, address := range n.cfg.Admin.Listen {
		socket, err := openSocket(ctx, "admin.listen", address)
		if err != nil {
			return err
		}
		n.adminAt = append(n.adminAt, socket)
		n.logListening("HTTP", socket.Addr())
		serving.Go(func() { n.fail(n.admin.Serve(socket)) })
	}
	return nil
}

// watch asks for a dependency from now on, and no more once the node closes: what was
// opened before is closed after that.
func (n *node) watch(d admin.Dependency) {
	n.health.Watch(d)
	n.onClose(n.health.Close)
}

// watchPostgres asks PostgreSQL from now on, and whether its schema is right.
func (n *node) watchPostgres() {
	n.watch(admin.Dependency{Name: depPostgres, Required: true, Patience: postgresPatience, Ask: n.db.Ping})
	n.watch(admin.Dependency{Name: depSchema, Required: true, Ask: func(ctx context.Context) error {
		err := n.db.CheckSchema(ctx)
		if errors.Is(err, metadata.ErrUnavailable) {
			return admin.ErrUnknown
		}
		return err
	}})
}

// watchNATS asks from now on whether hints arrive. The node serves without.
func (n *node) watchNATS() {
	n.watch(admin.Dependency{Name: depNATS, Ask: func(context.Context) error {
		if !n.bus.Counters().Connected {
			return errors.New("hints of other nodes may not arrive; IDLE waits for the sweep")
		}
		return nil
	}})
}

// watchS3 asks S3 from now on. The node serves without, but for bodies.
func (n *node) watchS3(bucket func(context.Context) error) {
	n.watch(admin.Dependency{Name: depS3, Ask: bucket, Every: askS3Every})
}

// heard is how the node hears of others.
func (n *node) heard() admin.Bus {
	c := n.bus.Counters()
	return admin.Bus{Connected: c.Connected, Peers: c.Peers}
}

func (n *node) imapSessions() map[string]int { return n.gauge("starling_imap_sessions") }

func (n *node) lmtpSessions() int { return n.gauge("starling_lmtp_sessions")[""] }

// gauge reads a figure of the node, by the value of its one label or "".
func (n *node) gauge(name string) map[string]int {
	found := make(map[string]int)
	families, err := n.figures.Gather()
	if err != nil {
		n.log.Warn("figures not collected", zap.Error(err))
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			label := ""
			for _, pair := range m.GetLabel() {
				label = pair.GetValue()
			}
			found[label] = int(m.GetGauge().GetValue())
		}
	}
	return found
}
