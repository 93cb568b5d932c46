package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"

	"starling/blobstore"
	"starling/events"
	"starling/frontend/admin"
	"starling/frontend/imap"
	"starling/frontend/listen"
	"starling/frontend/lmtp"
	"starling/frontend/mailstore"
	"starling/metadata"
)

// node is a frontend. Its parts are opened in this order, and closed in the
// opposite one: the admin listener comes first and goes last.
type node struct {
	cfg     Config
	log     *zap.Logger
	figures *prometheus.Registry
	traces  trace.TracerProvider // nil: no traces

	health  *admin.Health
	admin   *admin.Server
	adminAt []net.Listener

	certs *listen.Certificates // nil: no TLS
	db    *metadata.DB
	bus   *events.Node
	blobs blobstore.Store
	store *mailstore.Store
	imap  *imap.Server
	lmtp  *lmtp.Server

	listeners []listener
	closers   []func()    // the last first
	abort     *time.Timer // gives up what waits for PostgreSQL, once the node drains
	failed    chan error  // has what ended a part of it
}

// newNode builds a node and opens its listeners, as soon as the schema of the
// database is right. If anything of it cannot be had, nothing is left open.
func newNode(ctx context.Context, cfg Config, log *zap.Logger) (*node, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	n := makeNode(cfg, log)
	if err := n.open(ctx); err != nil {
		n.close()
		return nil, err
	}
	return n, nil
}

// makeNode is a node that has nothing open.
func makeNode(cfg Config, log *zap.Logger) *node {
	return &node{cfg: cfg, log: log, figures: prometheus.NewRegistry(), failed: make(chan error, 1)}
}

func (n *node) open(ctx context.Context) error {
	if n.cfg.Hostname == "" {
		name, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("hostname: %w", err)
		}
		n.cfg.Hostname = name
	}
	if err := n.openAdmin(ctx); err != nil {
		return err
	}
	if err := n.openTraces(ctx); err != nil {
		return err
	}
	if err := n.openCertificates(ctx); err != nil {
		return err
	}
	if err := n.openStores(ctx); err != nil {
		return err
	}
	if err := n.openFrontends(); err != nil {
		return err
	}
	return n.listen(ctx)
}

// run serves until ctx is done, then drains the node and closes it.
func (n *node) run(ctx context.Context) error {
	storeCtx, stopStore := context.WithCancel(context.WithoutCancel(ctx))
	defer stopStore()
	var store, servers sync.WaitGroup
	store.Go(func() { n.fail(n.store.Run(storeCtx)) })
	store.Go(func() { returnMemory(storeCtx) })
	for _, l := range n.listeners {
		n.logListening(l.what, l.Addr())
		servers.Go(func() { n.fail(l.serve(l)) })
	}
	n.health.Serve()
	n.admin.Attach(admin.Parts{
		Store: n.store, Sessions: n.imapSessions, Deliveries: n.lmtpSessions, Bus: n.heard,
	})
	var err error
	select {
	case <-ctx.Done():
	case err = <-n.failed:
	}
	err = errors.Join(err, n.drain(context.WithoutCancel(ctx), err == nil))
	servers.Wait()
	stopStore()
	store.Wait()
	select {
	case late := <-n.failed:
		err = errors.Join(err, late)
	default:
	}
	n.close()
	n.abort.Stop()
	n.log.Info("stopped")
	return err
}

// fail notes that a part of the node has ended by an error, which ends the node.
func (n *node) fail(err error) {
	if err == nil {
		return
	}
	select {
	case n.failed <- err:
	default: // it ends already
	}
}

// lastMoment is how much longer than for shutdown_grace what is asked of PostgreSQL may go on: clients are cut
// off then, and a commit that is under way comes to its end if it can.
const lastMoment = time.Second

// drain ends what the node serves: for shutdown_delay it only says that it is not
// ready, so that load balancers take it out. Then nobody comes in, those that wait are
// told to go, one after the other, and running commands finish, all of it within
// shutdown_grace.
func (n *node) drain(ctx context.Context, delay bool) error {
	n.health.Drain()
	var err error
	if delay && n.cfg.ShutdownDelay > 0 {
		n.log.Info("draining", zap.Duration("delay", n.cfg.ShutdownDelay))
		select {
		case <-time.After(n.cfg.ShutdownDelay):
		case err = <-n.failed: // nothing is left to wait for
		}
	}
	n.log.Info("stopping")
	n.abort = time.AfterFunc(n.cfg.ShutdownGrace+lastMoment, n.db.Abort)
	ctx, cancel := context.WithTimeout(ctx, n.cfg.ShutdownGrace)
	defer cancel()
	var stopping sync.WaitGroup
	var imapErr, lmtpErr error
	stopping.Go(func() { imapErr = n.imap.Shutdown(ctx) })
	stopping.Go(func() { lmtpErr = n.lmtp.Shutdown(ctx) })
	n.closeListeners()
	stopping.Wait()
	return errors.Join(err, imapErr, lmtpErr)
}

func (n *node) closeListeners() {
	for _, l := range n.listeners {
		if err := l.Close(); err != nil {
			n.log.Warn("listener not closed", zap.Error(err))
		}
	}
}

// onClose has do called when the node is closed, before what was opened before.
func (n *node) onClose(do func()) { n.closers = append(n.closers, do) }

// close lets go of everything that was opened.
func (n *node) close() {
	n.closeListeners()
	for _, c := range slices.Backward(n.closers) {
		c()
	}
	n.closers = nil
}

// tls is the configuration for TLS; nil if there is none.
func (n *node) tls() *tls.Config {
	if n.certs == nil {
		return nil
	}
	return n.certs.TLSConfig()
}
