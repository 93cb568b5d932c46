package deploy_test

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"starling/blobstore/s3/s3test"
	"starling/events/nats/natsserver"
	"starling/metadata/metadatatest"
)

const (
	account  = "ann@example.org"
	password = "correct horse"
)

// cluster is two nodes, over PostgreSQL, S3 and NATS, with HAProxy before them.
type cluster struct {
	dir     string // that everybody can reach
	cert    string // PEM file of the certificate of both nodes
	nodes   [2]*node
	haproxy *process

	imap, imaps, lmtp, metrics string // addresses of HAProxy
}

// node is a run of starling serve.
type node struct {
	*process
	at map[string]string // addresses, by IMAP, IMAPS, LMTP and HTTP
}

// newCluster installs what compose.yaml and the runbook describe, on loopback.
func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{dir: publicDir(t)}
	cert, key := certificate(t, c.dir)
	c.cert = cert
	broker, err := natsserver.Start(natsserver.Config{Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Shutdown)
	bucket := s3test.New(t)
	env := []string{
		"STARLING_POSTGRES_DSN=" + metadatatest.DSN(t), "STARLING_NATS_URLS=" + broker.URL(),
		"STARLING_BLOBS_S3_ENDPOINT=" + bucket.Endpoint, "STARLING_BLOBS_S3_REGION=" + bucket.Region, "STARLING_BLOBS_S3_BUCKET=" + bucket.Bucket,
		"STARLING_BLOBS_S3_ACCESS_KEY=" + bucket.AccessKey, "STARLING_BLOBS_S3_SECRET_KEY=" + bucket.SecretKey,
	}
	for _, args := range [][]string{
		{"migrate"},
		{"tenant", "add", "acme"},
		{"domain", "add", "example.org", "--tenant", "acme"},
		{"account", "add", account, "--quota-bytes", "10G"},
	} {
		if out, err := command(t, env, password+"\n", program(t), args...); err != nil {
			t.Fatalf("starling %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	env = append(env,
		"STARLING_HOSTNAME=localhost", "STARLING_TLS_CERT="+cert, "STARLING_TLS_KEY="+key,
		"STARLING_IMAP_LISTEN=127.0.0.1:0", "STARLING_IMAP_LISTEN_TLS=127.0.0.1:0", "STARLING_LMTP_LISTEN=127.0.0.1:0", "STARLING_ADMIN_LISTEN=127.0.0.1:0",
		"STARLING_IMAP_PROXY_NETWORKS=127.0.0.1/32", "STARLING_LMTP_PROXY_NETWORKS=127.0.0.1/32",
		// As in the examples, but for the time that tests have: longer than HAProxy takes to see it.
		"STARLING_SHUTDOWN_DELAY=7s", "STARLING_SHUTDOWN_GRACE=5s",
	)
	for i := range c.nodes {
		c.nodes[i] = serve(t, append(env, fmt.Sprintf("STARLING_BLOBS_CACHE_DIR=%s/cache%d", c.dir, i+1)))
	}
	c.startHAProxy(t)
	return c
}

// serve starts a node, and waits until it listens.
func serve(t *testing.T, env []string) *node {
	t.Helper()
	cmd := exec.Command(program(t), "serve")
	cmd.Env = environment(env)
	n := &node{process: start(t, cmd)}
	for _, what := range []string{"HTTP", "IMAP", "IMAPS", "LMTP"} {
		n.await(`"msg":"listening","for":"` + what + `"`)
	}
	n.at = make(map[string]string)
	lines := bufio.NewScanner(strings.NewReader(n.output()))
	for lines.Scan() {
		var entry struct{ Msg, For, Address string }
		if json.Unmarshal(lines.Bytes(), &entry) == nil && entry.Msg == "listening" {
			n.at[entry.For] = entry.Address
		}
	}
	return n
}

func (n *node) admin(path string) string { return "http://" + n.at["HTTP"] + path }

// startHAProxy starts HAProxy with the example, in which only addresses are others.
func (c *cluster) startHAProxy(t *testing.T) {
	t.Helper()
	config := replace(t, read(t, "haproxy/haproxy.cfg"), "maxconn 100000", "maxconn 1000") // those who are not root may have few
	cmd := exec.Command(need(t, "haproxy"))
	// HAProxy takes over sockets that are open, so that no port is fixed.
	for _, bind := range []struct {
		port    string
		address *string
	}{{"143", &c.imap}, {"993", &c.imaps}, {"24", &c.lmtp}, {"8404", &c.metrics}} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		*bind.address = l.Addr().String()
		socket, err := l.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _, _ = socket.Close(), l.Close() }() // HAProxy has its own
		cmd.ExtraFiles = append(cmd.ExtraFiles, socket)
		config = replace(t, config, "bind :"+bind.port+"\n", fmt.Sprintf("bind fd@%d\n", 2+len(cmd.ExtraFiles)))
	}
	for i, n := range c.nodes {
		name := fmt.Sprintf("node%d", i+1)
		_, health, err := net.SplitHostPort(n.at["HTTP"])
		if err != nil {
			t.Fatal(err)
		}
		for port, what := range map[string]string{"143": "IMAP", "993": "IMAPS", "24": "LMTP"} {
			config = replace(t, config, fmt.Sprintf("server %s %s:%s\n", name, name, port), fmt.Sprintf("server %s %s port %s\n", name, n.at[what], health))
		}
	}
	file := put(t, filepath.Join(c.dir, "haproxy.cfg"), config)
	cmd.Args = append(cmd.Args, "-W", "-db", "-f", file)
	c.haproxy = start(t, cmd)
	eventually(t, "HAProxy has found both nodes", func() bool { return c.up("imap", "node1") && c.up("imap", "node2") })
}

// up reports whether HAProxy sends new connections to a node.
func (c *cluster) up(proxy, node string) bool {
	return strings.Contains(c.haproxyMetrics(), fmt.Sprintf(`haproxy_server_status{proxy=%q,server=%q,state="UP"} 1`, proxy, node))
}

func (c *cluster) haproxyMetrics() string {
	cmd := exec.Command("curl", "--silent", "http://"+c.metrics+"/metrics")
	out, err := cmd.Output()
	if err != nil {
		return ""
	}
	return string(out)
}

// publicDir is a folder that other users can read, unlike a test's own.
func publicDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "starling-walk-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// certificate makes a certificate for localhost that vouches for itself.
func certificate(t *testing.T, dir string) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(30 * 24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind string, content []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: content}))
	}
	return put(t, filepath.Join(dir, "tls.crt"), block("CERTIFICATE", der)), put(t, filepath.Join(dir, "tls.key"), block("PRIVATE KEY", pkcs8))
}
