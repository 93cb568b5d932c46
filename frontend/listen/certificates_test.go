package listen

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// expiry is when the tests' certificates expire.
var expiry = time.Now().Add(24 * time.Hour).Truncate(time.Second)

// made makes a certificate, whose subject is id, with its key, as PEM.
func made(t *testing.T, id string, key crypto.Signer, names ...string) (cert, private []byte) {
	t.Helper()
	if key == nil {
		var err error
		if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			t.Fatal(err)
		}
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: id}, DNSNames: names,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: expiry,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
}

// put writes a certificate into a folder.
func put(t *testing.T, folder, file, id string, names ...string) {
	t.Helper()
	cert, key := made(t, id, nil, names...)
	write(t, filepath.Join(folder, file+".crt"), cert)
	write(t, filepath.Join(folder, file+".key"), key)
}

func write(t *testing.T, file string, text []byte) {
	t.Helper()
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// vault is certificates under test.
type vault struct {
	*Certificates
	t    *testing.T
	reg  *prometheus.Registry
	logs *observer.ObservedLogs
}

func open(t *testing.T, cfg CertificatesConfig) *vault {
	t.Helper()
	v := &vault{t: t, reg: prometheus.NewRegistry()}
	core, logs := observer.New(zapcore.DebugLevel)
	cfg.Metrics, cfg.Log, v.logs = v.reg, zap.New(core), logs
	certificates, err := NewCertificates(cfg)
	if err != nil {
		t.Fatal(err)
	}
	v.Certificates = certificates
	return v
}

// handshake connects a client, and returns both ends.
func (v *vault) handshake(client *tls.Config) (c, s *tls.Conn, err error) {
	v.t.Helper()
	near, far := v.sockets()
	c, s = tls.Client(near, client), tls.Server(far, v.TLSConfig())
	served := make(chan error, 1)
	go func() {
		err := v.Handshake(context.Background(), s)
		if err != nil {
			_ = far.Close()
		}
		served <- err
	}()
	err = c.Handshake()
	if err != nil {
		_ = near.Close()
	}
	return c, s, errors.Join(err, <-served)
}

// sockets are the two ends of a connection.
func (v *vault) sockets() (near, far net.Conn) {
	v.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		v.t.Fatal(err)
	}
	defer l.Close()
	if near, err = net.Dial("tcp", l.Addr().String()); err != nil {
		v.t.Fatal(err)
	}
	if far, err = l.Accept(); err != nil {
		v.t.Fatal(err)
	}
	for _, end := range []net.Conn{near, far} {
		v.t.Cleanup(func() { _ = end.Close() })
		if err := end.SetDeadline(time.Now().Add(time.Minute)); err != nil {
			v.t.Fatal(err)
		}
	}
	return near, far
}

// serves is the subject of the certificate that a client gets that asks for name.
func (v *vault) serves(name string) string {
	v.t.Helper()
	c, _, err := v.handshake(&tls.Config{ServerName: name, InsecureSkipVerify: true})
	if err != nil {
		v.t.Fatal(err)
	}
	return c.ConnectionState().PeerCertificates[0].Subject.CommonName
}

func (v *vault) want(served map[string]string) {
	v.t.Helper()
	for name, want := range served {
		if got := v.serves(name); got != want {
			v.t.Errorf("%q is served %s, want %s", name, got, want)
		}
	}
}

func (v *vault) figure(name, labels string, want float64) {
	v.t.Helper()
	text := fmt.Sprintf("%s{%s} %v\n", name, labels, want)
	if all := string(gathered(v.t, v.reg)); !strings.Contains(all, text) {
		v.t.Errorf("want %sin\n%s", text, all)
	}
}

// The name that a client asks for decides; without one that is known, the default.
func TestCertificateByName(t *testing.T) {
	t.Parallel()
	main, more, secret := t.TempDir(), t.TempDir(), t.TempDir()
	put(t, main, "main", "main", "mail.example.org")
	put(t, more, "b", "exact", "a.example.net", "MiXed.example.net")
	put(t, more, "a", "wild", "*.example.net", "example.net")
	put(t, secret, "tls", "secret", "a.example.com", "xn--bcher-kva.example")
	put(t, secret, "ca", "authority", "a.example.com")
	write(t, filepath.Join(secret, "ca.key"), nil)
	v := open(t, CertificatesConfig{Cert: filepath.Join(main, "main.crt"), Key: filepath.Join(main, "main.key"), Folders: []string{more, secret}})
	v.want(map[string]string{
		"":                      "main",
		"mail.example.org":      "main",
		"a.example.net":         "exact",
		"A.Example.NET":         "exact",
		"mixed.example.net":     "exact",
		"b.example.net":         "wild",
		"example.net":           "wild",
		"x.b.example.net":       "main", // a wildcard stands for one label
		"net":                   "main",
		"a.example.com":         "secret",
		"b.example.com":         "main",
		"xn--bcher-kva.example": "secret",
	})
	first := open(t, CertificatesConfig{Folders: []string{more, secret}})
	first.want(map[string]string{"": "wild", "elsewhere.org": "wild", "a.example.net": "exact"})
	first.figure("starling_tls_certificate_expiry_timestamp_seconds", fmt.Sprintf("certificate=%q", filepath.Join(more, "a.crt")), float64(expiry.Unix()))
	first.figure("starling_tls_certificate_broken", fmt.Sprintf("certificate=%q", filepath.Join(more, "a.crt")), 0)
}

// Of two certificates of a name, a client gets the one that it can work with.
func TestCertificateByKey(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	put(t, folder, "a", "ecdsa", "mail.example.org")
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	cert, private := made(t, "rsa", key, "mail.example.org")
	write(t, filepath.Join(folder, "b.crt"), cert)
	write(t, filepath.Join(folder, "b.key"), private)
	v := open(t, CertificatesConfig{Folders: []string{folder}})
	for want, suite := range map[string]uint16{
		"ecdsa": tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
		"rsa":   tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	} {
		c, _, err := v.handshake(&tls.Config{
			ServerName: "mail.example.org", InsecureSkipVerify: true, CipherSuites: []uint16{suite}, MaxVersion: tls.VersionTLS12,
		})
		if err != nil {
			t.Fatal(err)
		}
		if got := c.ConnectionState().PeerCertificates[0].Subject.CommonName; got != want {
			t.Errorf("%s is served %s", tls.CipherSuiteName(suite), got)
		}
	}
}

// TLS 1.2 is the floor, and there only what Mozilla's intermediate profile has.
func TestProtocolFloor(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	put(t, folder, "tls", "x", "mail.example.org")
	v := open(t, CertificatesConfig{Folders: []string{folder}})
	for i, refused := range []*tls.Config{
		{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11},
		{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, tls.TLS_RSA_WITH_AES_128_GCM_SHA256}},
		{ServerName: "mail.example.org", RootCAs: x509.NewCertPool()}, // the client does not believe it
	} {
		refused.InsecureSkipVerify = refused.RootCAs == nil
		if _, _, err := v.handshake(refused); err == nil {
			t.Errorf("number %d came through", i)
		}
		v.figure("starling_tls_handshakes_total", `result="failed"`, float64(i+1))
	}
	v.serves("")
	v.figure("starling_tls_handshakes_total", `result="ok"`, 1)
}

// What changed is served to new connections; those that are open, and the tickets of
// those that come again, stay good.
func TestReload(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	put(t, folder, "tls", "old", "mail.example.org")
	v := open(t, CertificatesConfig{Folders: []string{folder}})
	client := &tls.Config{ServerName: "mail.example.org", InsecureSkipVerify: true, ClientSessionCache: tls.NewLRUClientSessionCache(1)}
	c, s, err := v.handshake(client)
	if err != nil {
		t.Fatal(err)
	}
	talk := func() {
		t.Helper()
		if _, err := s.Write([]byte("* OK\n")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
	}
	talk() // with which the ticket comes
	put(t, folder, "tls", "new", "mail.example.org")
	put(t, folder, "more", "more", "more.example.org")
	v.Reload()
	v.want(map[string]string{"mail.example.org": "new", "more.example.org": "more"})
	v.figure("starling_tls_reloads_total", `result="ok"`, 2)
	talk()
	if c, _, err = v.handshake(client); err != nil || !c.ConnectionState().DidResume {
		t.Fatalf("a ticket from before the change was not taken: %v", err)
	}
	v.Reload()
	v.figure("starling_tls_reloads_total", `result="ok"`, 2)

	for _, file := range []string{"more.crt", "more.key"} {
		if err := os.Remove(filepath.Join(folder, file)); err != nil {
			t.Fatal(err)
		}
	}
	v.Reload()
	v.want(map[string]string{"more.example.org": "new"})
	if all := string(gathered(t, v.reg)); strings.Contains(all, "more.crt") {
		t.Errorf("figures of what is gone: %s", all)
	}
}

// A secret that Kubernetes mounts is replaced by renaming a link.
func TestReloadOfASecret(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	version := func(name, id string) {
		t.Helper()
		if err := os.Mkdir(filepath.Join(folder, name), 0o700); err != nil {
			t.Fatal(err)
		}
		put(t, filepath.Join(folder, name), "tls", id, "mail.example.org")
		link := filepath.Join(folder, "..data_tmp")
		if err := errors.Join(os.Symlink(name, link), os.Rename(link, filepath.Join(folder, "..data"))); err != nil {
			t.Fatal(err)
		}
	}
	version("..2026_01", "old")
	for _, file := range []string{"tls.crt", "tls.key"} {
		if err := os.Symlink(filepath.Join("..data", file), filepath.Join(folder, file)); err != nil {
			t.Fatal(err)
		}
	}
	v := open(t, CertificatesConfig{Folders: []string{folder}})
	v.want(map[string]string{"": "old"})
	version("..2026_02", "new")
	v.Reload()
	v.want(map[string]string{"": "new"})
}

// A change that cannot be read keeps what was there, and is told of once.
func TestBrokenReload(t *testing.T) {
	t.Parallel()
	good := t.TempDir()
	put(t, good, "tls", "other", "mail.example.org")
	otherKey, err := os.ReadFile(filepath.Join(good, "tls.key"))
	if err != nil {
		t.Fatal(err)
	}
	for name, breaks := range map[string]func(folder string) error{
		"certificate gone":  func(folder string) error { return os.Remove(filepath.Join(folder, "tls.crt")) },
		"key gone":          func(folder string) error { return os.Remove(filepath.Join(folder, "tls.key")) },
		"folder gone":       os.RemoveAll,
		"certificate empty": func(folder string) error { return os.WriteFile(filepath.Join(folder, "tls.crt"), nil, 0o600) },
		"key of another":    func(folder string) error { return os.WriteFile(filepath.Join(folder, "tls.key"), otherKey, 0o600) },
		"certificate garbage": func(folder string) error {
			return os.WriteFile(filepath.Join(folder, "tls.crt"), []byte("-----BEGIN"), 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			folder := filepath.Join(t.TempDir(), "certificates")
			if err := os.Mkdir(folder, 0o700); err != nil {
				t.Fatal(err)
			}
			put(t, folder, "tls", "first", "mail.example.org")
			put(t, folder, "more", "more", "more.example.org")
			v := open(t, CertificatesConfig{Folders: []string{folder}})
			if err := breaks(folder); err != nil {
				t.Fatal(err)
			}
			for range 3 {
				v.Reload()
			}
			v.want(map[string]string{"mail.example.org": "first", "more.example.org": "more"})
			broken := fmt.Sprintf("certificate=%q", filepath.Join(folder, "tls.crt"))
			if name == "folder gone" {
				broken = fmt.Sprintf("certificate=%q", folder)
			}
			v.figure("starling_tls_certificate_broken", broken, 1)
			if name != "folder gone" {
				v.figure("starling_tls_reloads_total", `result="failed"`, 1)
				told := v.logs.FilterMessage("certificate cannot be read; the one before it is kept").All()
				if len(told) != 1 || told[0].ContextMap()["file"] != filepath.Join(folder, "tls.crt") {
					t.Errorf("the log has %v", told)
				}
			}
			if err := os.MkdirAll(folder, 0o700); err != nil {
				t.Fatal(err)
			}
			put(t, folder, "tls", "second", "mail.example.org")
			put(t, folder, "more", "more", "more.example.org")
			v.Reload()
			v.want(map[string]string{"mail.example.org": "second"})
			v.figure("starling_tls_certificate_broken", fmt.Sprintf("certificate=%q", filepath.Join(folder, "tls.crt")), 0)
			if all := string(gathered(t, v.reg)); strings.Contains(all, fmt.Sprintf("broken{certificate=%q} 1", folder)) {
				t.Error("the folder is still broken")
			}
		})
	}
}

// At the start everything must be good, and the error says what is not.
func TestBrokenStart(t *testing.T) {
	t.Parallel()
	folder, empty := t.TempDir(), t.TempDir()
	put(t, folder, "good", "good", "mail.example.org")
	cert, key := filepath.Join(folder, "good.crt"), filepath.Join(folder, "good.key")
	other, _ := made(t, "other", nil)
	write(t, filepath.Join(folder, "other.pem"), other)
	lone := t.TempDir()
	write(t, filepath.Join(lone, "x.crt"), other)
	for want, cfg := range map[string]CertificatesConfig{
		"no/such.crt":                 {Cert: "no/such.crt", Key: key},
		"private key does not match":  {Cert: filepath.Join(folder, "other.pem"), Key: key},
		"no PEM data":                 {Cert: cert, Key: os.DevNull},
		filepath.Join(lone, "x.key"):  {Cert: cert, Key: key, Folders: []string{lone}},
		filepath.Join(folder, "gone"): {Cert: cert, Key: key, Folders: []string{filepath.Join(folder, "gone")}},
		"no certificate in " + empty:  {Folders: []string{empty}},
	} {
		cfg.Log = zap.NewNop()
		if _, err := NewCertificates(cfg); err == nil || !strings.Contains(strings.ReplaceAll(err.Error(), "any PEM", "no PEM"), want) {
			t.Errorf("want %q in %v", want, err)
		}
	}
	both := CertificatesConfig{Cert: "one.crt", Key: "one.key", Folders: []string{lone}, Log: zap.NewNop()}
	_, err := NewCertificates(both)
	if err == nil || !slices.ContainsFunc(strings.Split(err.Error(), "\n"), func(line string) bool { return strings.Contains(line, "x.key") }) ||
		!strings.Contains(err.Error(), "one.crt") {
		t.Errorf("not all that is wrong is in %v", err)
	}
}

// Run ends when it is told to.
func TestRun(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	put(t, folder, "tls", "x", "mail.example.org")
	v := open(t, CertificatesConfig{Folders: []string{folder}})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		v.Run(ctx)
	}()
	cancel()
	<-ended
}
