package listen

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
)

// CertificatesConfig is which certificates are served. Log, and Cert with Key or
// some of Folders must be given.
type CertificatesConfig struct {
	Cert, Key string // PEM files; for clients that ask for no name, or for one that no certificate has

	// Folders have more certificates: tls.crt and tls.key, as Kubernetes mounts a
	// secret, or NAME.crt and NAME.key. Without Cert the first of them, in the order
	// of their names, stands in for it.
	Folders []string

	Metrics prometheus.Registerer // where the figures are registered; nil: nowhere
	Log     *zap.Logger
}

// pollEvery is how often files are looked at: Kubernetes takes a minute to bring a
// secret to its pods, and some file systems tell of no change.
const pollEvery = 10 * time.Second

// Certificates are the certificates of a node. It is safe for use by several goroutines.
type Certificates struct {
	cfg      CertificatesConfig
	metrics  *tlsMetrics
	config   *tls.Config
	ok, fail prometheus.Counter // handshakes
	refused  prometheus.Counter
	turns    chan struct{} // has an element for each handshake that is being answered
	wait     time.Duration // for a turn

	serving atomic.Pointer[choice]

	mu     sync.Mutex // held while files are read
	known  map[pair]*loaded
	listed map[string][]pair // what a folder had when it could last be read
	broken map[string]string // by file or folder, what was last said of it
}

// suites are those of TLS 1.2 that Mozilla's intermediate profile has and Go
// knows. TLS 1.3 has its own.
var suites = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

// NewCertificates reads the certificates. All of them must be good; the error
// names each file that is not, and says why.
func NewCertificates(cfg CertificatesConfig) (*Certificates, error) {
	c := &Certificates{
		cfg: cfg, metrics: newTLSMetrics(cfg.Metrics),
		known: make(map[pair]*loaded), listed: make(map[string][]pair), broken: make(map[string]string),
	}
	c.ok, c.fail = c.metrics.handshakes.WithLabelValues(resultOK), c.metrics.handshakes.WithLabelValues(resultFailed)
	c.refused = c.metrics.handshakes.WithLabelValues(resultRefused)
	c.turns, c.wait = make(chan struct{}, runtime.GOMAXPROCS(0)), handshakeWait
	c.config = &tls.Config{MinVersion: tls.VersionTLS12, CipherSuites: suites, GetCertificate: c.choose, GetConfigForClient: c.turn}
	c.mu.Lock()
	defer c.mu.Unlock()
	changed, broken := c.read()
	if len(broken) > 0 {
		var errs []error
		for _, name := range slices.Sorted(maps.Keys(broken)) {
			errs = append(errs, broken[name])
		}
		return nil, errors.Join(errs...)
	}
	if len(c.known) == 0 {
		return nil, fmt.Errorf("no certificate in %s", strings.Join(cfg.Folders, ", "))
	}
	c.tell("certificate", changed)
	c.note(broken)
	return c, nil
}

// TLSConfig is with what TLS is served, by every protocol. It is one for the life
// of the node, so that the tickets by which clients resume their sessions outlive a
// change of certificates; other nodes know nothing of them. It must not be changed.
func (c *Certificates) TLSConfig() *tls.Config { return c.config }

// Run looks for changes until ctx is done.
func (c *Certificates) Run(ctx context.Context) {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			c.Reload()
		case <-ctx.Done():
			return
		}
	}
}

// Reload reads again what has changed. Connections that are open stay as they
// are; new ones get the new certificates. Where one cannot be read the old one is
// kept, which log and figures say.
func (c *Certificates) Reload() {
	c.mu.Lock()
	defer c.mu.Unlock()
	changed, broken := c.read()
	c.metrics.reloads.WithLabelValues(resultOK).Add(float64(len(changed)))
	c.tell("certificate changed", changed)
	c.note(broken)
}

// tell logs certificates that were read; mu is held.
func (c *Certificates) tell(message string, pairs []pair) {
	for _, p := range pairs {
		leaf := c.known[p].certificate.Leaf
		c.cfg.Log.Info(message, zap.String("file", p.cert), zap.Strings("names", leaf.DNSNames), zap.Time("expires", leaf.NotAfter))
	}
}

// choice is from what the certificate for a client is chosen.
type choice struct {
	named    map[string][]*tls.Certificate // by name, in lower case; "*.example.org" stands for each name with one label more
	fallback *tls.Certificate
}

func (c *choice) add(certificate *tls.Certificate) {
	for _, name := range certificate.Leaf.DNSNames {
		name = strings.ToLower(name)
		c.named[name] = append(c.named[name], certificate)
	}
	if c.fallback == nil {
		c.fallback = certificate
	}
}

// choose is tls.Config.GetCertificate. Of several with a name it takes the first
// that the client can work with.
func (c *Certificates) choose(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	serving := c.serving.Load()
	name := strings.ToLower(strings.TrimSuffix(hello.ServerName, "."))
	found := serving.named[name]
	if _, parent, ok := strings.Cut(name, "."); ok && len(found) == 0 {
		found = serving.named["*."+parent]
	}
	for _, certificate := range found {
		if hello.SupportsCertificate(certificate) == nil {
			return certificate, nil
		}
	}
	if len(found) > 0 {
		return found[0], nil
	}
	return serving.fallback, nil
}
