package nats_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"starling/events/nats"
	"starling/events/nats/natsserver"
)

// authority signs certificates in a folder of the test's.
type authority struct {
	folder string
	cert   *x509.Certificate
	key    *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{folder: t.TempDir()}
	a.cert, a.key = a.sign(t, "ca", &x509.Certificate{
		Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	})
	return a
}

func (a *authority) file(name string) string { return filepath.Join(a.folder, name) }

// sign writes name.pem and name.key.
func (a *authority) sign(t *testing.T, name string, template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, parentKey := a.cert, a.key
	if parent == nil {
		parent, parentKey = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, parentKey)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	writePEM(t, a.file(name+".pem"), "CERTIFICATE", der)
	writePEM(t, a.file(name+".key"), "PRIVATE KEY", keyDER)
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

func writePEM(t *testing.T, file, typ string, der []byte) {
	t.Helper()
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

// serverTLS is a server's side that asks clients for a certificate.
func (a *authority) serverTLS(t *testing.T) *tls.Config {
	t.Helper()
	a.sign(t, "server", &x509.Certificate{
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	cert, err := tls.LoadX509KeyPair(a.file("server.pem"), a.file("server.key"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return &tls.Config{
		MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool,
	}
}

func TestTLSAndPassword(t *testing.T) {
	t.Parallel()
	ours, foreign := newAuthority(t), newAuthority(t)
	s := startServer(t, natsserver.Config{TLS: ours.serverTLS(t), User: "starling", Password: "right"})
	ours.sign(t, "client", &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	good := nats.Config{
		URLs: []string{s.URL()}, User: "starling", Password: "right",
		CA: ours.file("ca.pem"), Cert: ours.file("client.pem"), Key: ours.file("client.key"),
	}
	a, b := open(t, good), open(t, good)
	follow(t, b, account).awaitFlow(t, a, account)

	wrongPassword, wrongCA, noCert := good, good, good
	wrongPassword.Password = "wrong"
	wrongCA.CA = foreign.file("ca.pem")
	noCert.Cert, noCert.Key = "", ""
	for name, c := range map[string]nats.Config{"wrong password": wrongPassword, "wrong CA": wrongCA, "no certificate": noCert} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := follow(t, open(t, c), account)
			l.await(t, "the word that nothing is connected", func() bool { return !l.connected })
		})
	}
}

// A login that is refused is tried again for ever: the password may be put right on the server.
func TestRefusedLoginIsTriedAgain(t *testing.T) {
	t.Parallel()
	r := startRestartable(t)
	r.server.Shutdown()
	r.config = natsserver.Config{User: "starling", Password: "old"}
	r.again(t)
	core, logged := observer.New(zap.WarnLevel)
	c := nats.Config{URLs: []string{r.server.URL()}, User: "starling", Password: "new"}
	a := open(t, c)
	refused := make(chan struct{})
	c.Options.Log = zap.New(core, zap.Hooks(func(e zapcore.Entry) error {
		if e.Message == "NATS is not reached" {
			close(refused) // once: the reason stays the same
		}
		return nil
	}))
	b := open(t, c)
	l := follow(t, b, account)
	l.await(t, "the word that nothing is connected", func() bool { return !l.connected })
	<-refused
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second) // for some attempts more: two refusals alike must not be the end
	defer cancel()
	var err error
	for err == nil {
		err = l.take(ctx)
	}
	if !errors.Is(err, context.DeadlineExceeded) || l.connected {
		t.Errorf("Next returned %v, connected %t while the login is refused", err, l.connected)
	}
	if reason := logged.FilterMessage("NATS is not reached").All()[0].ContextMap()["error"]; !strings.Contains(fmt.Sprint(reason), "Authorization") {
		t.Errorf("logged reason %q", reason)
	}
	r.server.Shutdown()
	r.config.Password = "new"
	r.again(t)
	l.awaitFlow(t, a, account)
}

func TestToken(t *testing.T) {
	t.Parallel()
	url := startRaw(t, &server.Options{Authorization: "secret"})
	a, b := open(t, nats.Config{URLs: []string{url}, Token: "secret"}), open(t, nats.Config{URLs: []string{url}, Token: "secret"})
	follow(t, b, account).awaitFlow(t, a, account)
}

func TestNkey(t *testing.T) {
	t.Parallel()
	user := newKey(t, nkeys.CreateUser)
	url := startRaw(t, &server.Options{Nkeys: []*server.NkeyUser{{Nkey: user.public}}})
	file := filepath.Join(t.TempDir(), "user.nk")
	if err := os.WriteFile(file, user.seed, 0o600); err != nil {
		t.Fatal(err)
	}
	c := nats.Config{URLs: []string{url}, Nkey: file}
	a, b := open(t, c), open(t, c)
	follow(t, b, account).awaitFlow(t, a, account)
}

func TestCredentials(t *testing.T) {
	t.Parallel()
	operator, tenant, user := newKey(t, nkeys.CreateOperator), newKey(t, nkeys.CreateAccount), newKey(t, nkeys.CreateUser)
	accountJWT, err := jwt.NewAccountClaims(tenant.public).Encode(operator.pair)
	if err != nil {
		t.Fatal(err)
	}
	userJWT, err := jwt.NewUserClaims(user.public).Encode(tenant.pair)
	if err != nil {
		t.Fatal(err)
	}
	resolver := new(server.MemAccResolver)
	if err := resolver.Store(tenant.public, accountJWT); err != nil {
		t.Fatal(err)
	}
	url := startRaw(t, &server.Options{TrustedKeys: []string{operator.public}, AccountResolver: resolver})
	credentials, err := jwt.FormatUserConfig(userJWT, user.seed)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "user.creds")
	if err := os.WriteFile(file, credentials, 0o600); err != nil {
		t.Fatal(err)
	}
	c := nats.Config{URLs: []string{url}, Credentials: file}
	a, b := open(t, c), open(t, c)
	follow(t, b, account).awaitFlow(t, a, account)
}

type key struct {
	pair   nkeys.KeyPair
	public string
	seed   []byte
}

func newKey(t *testing.T, create func() (nkeys.KeyPair, error)) key {
	t.Helper()
	pair, err := create()
	if err != nil {
		t.Fatal(err)
	}
	public, err := pair.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	seed, err := pair.Seed()
	if err != nil {
		t.Fatal(err)
	}
	return key{pair, public, seed}
}

// startRaw starts a server with settings that package natsserver does not have, and returns its URL.
func startRaw(t *testing.T, o *server.Options) string {
	t.Helper()
	o.Host, o.Port, o.NoLog, o.NoSigs = "127.0.0.1", server.RANDOM_PORT, true, true
	s, err := server.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("the server does not listen")
	}
	return s.ClientURL()
}

func TestSettings(t *testing.T) {
	t.Parallel()
	const url = "nats://127.0.0.1:1"
	missing := filepath.Join(t.TempDir(), "missing")
	tests := []struct {
		name   string
		config nats.Config
		says   string // in the error of Open
	}{
		{"no server", nats.Config{}, "no URL"},
		{"an empty URL", nats.Config{URLs: []string{url, " "}}, "not the URL of one server"},
		{"two URLs in one", nats.Config{URLs: []string{url + "," + url}}, "not the URL of one server"},
		{"a wild prefix", nats.Config{URLs: []string{url}, Prefix: "a.*"}, "prefix"},
		{"an empty word in the prefix", nats.Config{URLs: []string{url}, Prefix: "a..b"}, "prefix"},
		{"two logins", nats.Config{URLs: []string{url}, User: "u", Token: "t"}, "more than one of"},
		{"a password alone", nats.Config{URLs: []string{url}, Password: "p"}, "password without a user"},
		{"a certificate alone", nats.Config{URLs: []string{url}, Cert: "c"}, "both cert and key"},
		{"no such nkey", nats.Config{URLs: []string{url}, Nkey: missing}, missing},
		{"no such CA", nats.Config{URLs: []string{url}, CA: missing}, missing},
		{"no such certificate", nats.Config{URLs: []string{url}, Cert: missing, Key: missing}, missing},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			node, err := nats.Open(test.config)
			if err == nil {
				t.Fatal("opened", node.Close())
			}
			if !strings.Contains(err.Error(), test.says) {
				t.Errorf("error %q does not say %q", err, test.says)
			}
		})
	}
}
