package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"go.uber.org/zap"

	"starling/frontend/auth"
	"starling/frontend/imap"
	"starling/frontend/listen"
	"starling/frontend/lmtp"
)

// listener is a socket for a protocol, and who answers there.
type listener struct {
	*listen.Listener
	what  string
	serve func(net.Listener) error
}

// openCertificates reads the certificates, and has them read again when they have
// changed.
func (n *node) openCertificates(ctx context.Context) error {
	c := n.cfg.TLS
	if c.Cert == "" && len(c.Folders) == 0 {
		return nil
	}
	var err error
	n.certs, err = listen.NewCertificates(listen.CertificatesConfig{
		Cert: c.Cert, Key: c.Key, Folders: c.Folders, Metrics: n.figures, Log: n.log,
	})
	if err != nil {
		return usageError{fmt.Errorf("tls: %w", err)}
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	var watching sync.WaitGroup
	watching.Go(func() { n.certs.Run(ctx) })
	n.onClose(func() {
		stop()
		watching.Wait()
	})
	return nil
}

// reloadOn has the certificates looked at, if there are any, whenever hangups says so,
// until the node is closed.
func (n *node) reloadOn(hangups <-chan os.Signal) {
	closed := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		for {
			select {
			case <-hangups:
				if n.certs != nil {
					n.certs.Reload()
				}
			case <-closed:
				return
			}
		}
	})
	n.onClose(func() {
		close(closed)
		watching.Wait()
	})
}

// openFrontends builds the servers of the protocols.
func (n *node) openFrontends() error {
	trusted, err := networks("auth.trusted", n.cfg.Auth.Trusted)
	if err != nil {
		return err
	}
	authenticator, err := auth.New(n.db, auth.Config{Hashers: n.cfg.Auth.Hashers, Trusted: trusted, Metrics: n.figures}, n.log)
	if err != nil {
		return err
	}
	c := n.cfg.IMAP
	imapConfig := imap.Config{
		Store: n.store, Auth: authenticator, Log: n.log, Metrics: n.figures, Traces: n.traces,
		TLS: n.tls(), PlaintextLogin: c.PlaintextLogin, Version: version(),
		MaxPerAccount: c.MaxPerAccount, MaxPerTenant: c.MaxPerTenant,
		IdleTimeout: c.IdleTimeout, KeepAlive: c.KeepAlive,
	}
	if n.certs != nil {
		imapConfig.Handshake = n.certs.Handshake
	}
	n.imap = imap.NewServer(imapConfig)
	n.lmtp = lmtp.NewServer(lmtp.Config{
		Store: n.store, Log: n.log, Hostname: n.cfg.Hostname, TLS: n.tls(), Metrics: n.figures, Traces: n.traces,
		MaxRecipients: n.cfg.LMTP.MaxRecipients, TempDir: n.cfg.Mail.TempDir,
	})
	return nil
}

// networks are the networks of a setting.
func networks(key string, of []string) ([]netip.Prefix, error) {
	var all []netip.Prefix
	for _, network := range of {
		prefix, err := netip.ParsePrefix(network)
		if err != nil {
			return nil, usageError{fmt.Errorf("%s: %w", key, err)}
		}
		all = append(all, prefix)
	}
	return all, nil
}

// What is said to whom there is no room for.
const (
	imapRefusal = "* BYE [UNAVAILABLE] Too many connections, try again\r\n"
	lmtpRefusal = "421 4.3.2 Too many connections, try again\r\n"
)

// listen opens the listeners of the protocols.
func (n *node) listen(ctx context.Context) error {
	trusted, err := networks("auth.trusted", n.cfg.Auth.Trusted)
	if err != nil {
		return err
	}
	imapProxies, err := networks("imap.proxy_networks", n.cfg.IMAP.ProxyNetworks)
	if err != nil {
		return err
	}
	lmtpProxies, err := networks("lmtp.proxy_networks", n.cfg.LMTP.ProxyNetworks)
	if err != nil {
		return err
	}
	imapLimits := listen.NewLimits(listen.LimitsConfig{
		Connections: n.cfg.IMAP.MaxConnections, PerAddress: n.cfg.IMAP.MaxPerAddress, Exempt: trusted,
	})
	lmtpLimits := listen.NewLimits(listen.LimitsConfig{Connections: n.cfg.LMTP.MaxConnections})
	for _, l := range []struct {
		what, key string
		addresses []string
		config    listen.Config
		serve     func(net.Listener) error
	}{
		{
			"IMAP", "imap.listen", n.cfg.IMAP.Listen,
			listen.Config{Name: "imap", Limits: imapLimits, Refusal: imapRefusal, ProxyNetworks: imapProxies},
			func(l net.Listener) error { return n.imap.Serve(l, false) },
		},
		{
			"IMAPS", "imap.listen_tls", n.cfg.IMAP.ListenTLS,
			listen.Config{Name: "imaps", Limits: imapLimits, ProxyNetworks: imapProxies},
			func(l net.Listener) error { return n.imap.Serve(l, true) },
		},
		{
			"LMTP", "lmtp.listen", n.cfg.LMTP.Listen,
			listen.Config{Name: "lmtp", Limits: lmtpLimits, Refusal: lmtpRefusal, ProxyNetworks: lmtpProxies},
			n.lmtp.Serve,
		},
	} {
		l.config.Metrics, l.config.Log = n.figures, n.log
		for _, address := range l.addresses {
			socket, err := openSocket(ctx, l.key, address)
			if err != nil {
				return err
			}
			n.listeners = append(n.listeners, listener{listen.New(socket, l.config), l.what, l.serve})
		}
	}
	return nil
}

// keepAlive finds peers that are gone without a word, and wakes no telephone in
// IDLE more often than IMAP's own signs of life do.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 2 * time.Minute, Interval: 30 * time.Second, Count: 4}

func openSocket(ctx context.Context, key, address string) (net.Listener, error) {
	config := net.ListenConfig{KeepAliveConfig: keepAlive}
	socket, err := config.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	return socket, nil
}

// logListening says where something listens.
func (n *node) logListening(what string, at net.Addr) {
	n.log.Info("listening", zap.String("for", what), zap.Stringer("address", at))
}
