package lmtp

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"starling/frontend/listen"
)

// certificates are of one for mx.example.org, as a node serves it.
func certificates(t *testing.T) *listen.Certificates {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"mx.example.org"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	for file, block := range map[string]*pem.Block{
		"tls.crt": {Type: "CERTIFICATE", Bytes: der}, "tls.key": {Type: "PRIVATE KEY", Bytes: private},
	} {
		if err := os.WriteFile(filepath.Join(folder, file), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, err := listen.NewCertificates(listen.CertificatesConfig{Folders: []string{folder}, Log: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Behind a load balancer the address in the log is the agent's, with STARTTLS by the
// node's certificates too; over the limit an agent is told to come again.
func TestBehindALoadBalancer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if err := w.stop[0](); err != nil {
		t.Fatal(err)
	}
	core, logs := observer.New(zapcore.InfoLevel)
	cfg := w.servers[0].cfg
	cfg.Log, cfg.TLS = zap.New(core), certificates(t).TLSConfig()
	srv := NewServer(cfg)
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := listen.New(inner, listen.Config{
		Name: "lmtp", Limits: listen.NewLimits(listen.LimitsConfig{Connections: 1}), Refusal: "421 4.7.0 Too many\r\n",
		ProxyNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Log: zap.NewNop(),
	})
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := srv.Serve(l); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		if err := errors.Join(srv.Shutdown(t.Context()), l.Close()); err != nil && !errors.Is(err, t.Context().Err()) {
			t.Error(err)
		}
		serving.Wait()
	})
	connect := func() *agent {
		conn, err := net.Dial("tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		a := &agent{t: t, conn: conn, in: bufio.NewReader(conn)}
		a.write("PROXY TCP4 192.0.2.25 192.0.2.1 4000 24\r\n")
		return a
	}
	a := connect()
	a.want("220")
	connect().want("421")
	a.say("LHLO client.example.net", "250")
	a.say("STARTTLS", "220")
	a.conn = tls.Client(a.conn, &tls.Config{ServerName: "mx.example.org", InsecureSkipVerify: true})
	a.in = bufio.NewReader(a.conn)
	a.say("LHLO client.example.net", "250")
	a.send(letter, []string{"a@example.org"}, "250")
	a.say("QUIT", "221")
	lines := logs.FilterMessage("delivery").All()
	if len(lines) != 1 || !strings.HasPrefix(lines[0].ContextMap()["remote"].(string), "192.0.2.25:") {
		t.Errorf("the log has %v", lines)
	}
}
