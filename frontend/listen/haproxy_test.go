package listen

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// HAProxy's headers are understood, in both versions, and its health checks, which
// come with LOCAL, are served.
func TestHAProxy(t *testing.T) {
	t.Parallel()
	program, err := exec.LookPath("haproxy")
	if err != nil {
		t.Skip("HAProxy is not installed; deploy/setup installs it")
	}
	s := newStage(t, Config{ProxyNetworks: loopback})
	folder := t.TempDir()
	var sockets [2]*os.File // HAProxy gets them open, so that nobody else takes their ports
	var fronts [2]string
	for i := range sockets {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		fronts[i] = l.Addr().String()
		if sockets[i], err = l.(*net.TCPListener).File(); err != nil {
			t.Fatal(err)
		}
		defer sockets[i].Close()
	}
	config := filepath.Join(folder, "haproxy.cfg")
	write(t, config, fmt.Appendf(nil, `
defaults
  mode tcp
  timeout connect 5s
  timeout client 60s
  timeout server 60s
listen one
  bind fd@3
  server node %[1]s send-proxy check inter 100ms check-send-proxy
listen two
  bind fd@4
  server node %[1]s send-proxy-v2 check inter 100ms check-send-proxy
`, s.l.Addr()))
	haproxy := exec.Command(program, "-db", "-f", config)
	haproxy.ExtraFiles = sockets[:]
	haproxy.Stderr = os.Stderr
	if err := haproxy.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = haproxy.Process.Signal(syscall.SIGTERM)
		_ = haproxy.Wait()
	}()
	for _, front := range fronts {
		c := s.to(front, nil)
		c.want("* OK " + c.LocalAddr().String()) // the client's own address, not HAProxy's
		c.echo()
	}
	s.figure("starling_listener_refused_total", `listener="imap",reason="proxy"`, 0)
}
