package listen

import (
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.uber.org/zap"
)

// pair is the files of a certificate.
type pair struct{ cert, key string }

// loaded is a certificate that was read.
type loaded struct {
	digest      [sha256.Size]byte // of both files
	certificate *tls.Certificate
}

// read brings what is served up to what the files have. It returns what is new or
// has changed, and what is wrong, by file or folder; mu is held.
func (c *Certificates) read() (changed []pair, broken map[string]error) {
	broken = make(map[string]error)
	known := make(map[pair]*loaded)
	serving := &choice{named: make(map[string][]*tls.Certificate)}
	for _, p := range c.pairs(broken) {
		before := c.known[p]
		now, err := load(p, before)
		if err != nil { // both files may have been replaced between the reads
			now, err = load(p, before)
		}
		if err != nil {
			broken[p.cert], now = err, before
		}
		if now == nil {
			continue
		}
		if now != before {
			changed = append(changed, p)
		}
		known[p] = now
		serving.add(now.certificate)
	}
	if len(known) > 0 { // the last that there was stays
		c.measure(known)
		c.known = known
		c.serving.Store(serving)
	}
	return changed, broken
}

// pairs are the certificates that the settings name, in order, the default first.
// A folder that cannot be read has what it had.
func (c *Certificates) pairs(broken map[string]error) []pair {
	var all []pair
	if c.cfg.Cert != "" {
		all = append(all, pair{c.cfg.Cert, c.cfg.Key})
	}
	for _, folder := range c.cfg.Folders {
		in, err := pairsIn(folder)
		if err != nil {
			broken[folder] = err
			in = c.listed[folder]
		}
		c.listed[folder] = in
		for _, p := range in {
			if !slices.Contains(all, p) {
				all = append(all, p)
			}
		}
	}
	return all
}

// pairsIn are the certificates in a folder. A secret's ca.crt is none of
// them, and what begins with a dot is how Kubernetes replaces all files at once.
func pairsIn(folder string) ([]pair, error) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil, fmt.Errorf("certificates: %w", err)
	}
	names := make(map[string]bool)
	for _, e := range entries {
		file := e.Name()
		extension := filepath.Ext(file)
		if (extension == ".crt" || extension == ".key") && file != "ca"+extension && !strings.HasPrefix(file, ".") {
			names[strings.TrimSuffix(file, extension)] = true
		}
	}
	var pairs []pair
	for _, name := range slices.Sorted(maps.Keys(names)) {
		path := filepath.Join(folder, name)
		pairs = append(pairs, pair{path + ".crt", path + ".key"})
	}
	return pairs, nil
}

// load reads a certificate; it is before if nothing has changed.
func load(p pair, before *loaded) (*loaded, error) {
	certPEM, err := os.ReadFile(p.cert)
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	keyPEM, err := os.ReadFile(p.key)
	if err != nil {
		return nil, fmt.Errorf("certificate %s: its key: %w", p.cert, err)
	}
	digest := sha256.Sum256(slices.Concat(certPEM, []byte{0}, keyPEM))
	if before != nil && before.digest == digest {
		return before, nil
	}
	certificate, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("certificate %s with key %s: %w", p.cert, p.key, err)
	}
	return &loaded{digest: digest, certificate: &certificate}, nil
}

// measure puts when certificates expire into the figures; mu is held.
func (c *Certificates) measure(now map[pair]*loaded) {
	for p := range c.known {
		if now[p] == nil {
			c.metrics.expiry.DeleteLabelValues(p.cert)
			c.metrics.broken.DeleteLabelValues(p.cert)
			c.cfg.Log.Info("certificate is gone", zap.String("file", p.cert))
		}
	}
	for p, l := range now {
		c.metrics.expiry.WithLabelValues(p.cert).Set(float64(l.certificate.Leaf.NotAfter.Unix()))
	}
}

// note says what is wrong, once for each time that it is something else; mu is held.
func (c *Certificates) note(now map[string]error) {
	for name := range c.broken {
		if now[name] == nil {
			delete(c.broken, name)
			c.metrics.broken.DeleteLabelValues(name)
			c.cfg.Log.Info("certificate can be read again", zap.String("file", name))
		}
	}
	for p := range c.known {
		c.metrics.broken.WithLabelValues(p.cert).Set(0)
	}
	for name, err := range now {
		c.metrics.broken.WithLabelValues(name).Set(1)
		if c.broken[name] != err.Error() {
			c.broken[name] = err.Error()
			c.metrics.reloads.WithLabelValues(resultFailed).Inc()
			c.cfg.Log.Error("certificate cannot be read; the one before it is kept", zap.String("file", name), zap.Error(err))
		}
	}
}
