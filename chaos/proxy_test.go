package chaos

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// patience bounds what a test waits for.
const patience = 60 * time.Second

// echo is a backend that says again what it hears.
func echo(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(c, c)
				_ = c.Close()
			}()
		}
	}()
	return l.Addr().String()
}

func proxied(t *testing.T) *Proxy {
	t.Helper()
	others := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, others) })
	p, err := NewProxy()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	p.Backend("tcp", echo(t))
	return p
}

func through(t *testing.T, p *Proxy) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return c
}

// says sends a line and returns what comes back.
func says(c net.Conn, line string) (string, error) {
	if _, err := io.WriteString(c, line+"\n"); err != nil {
		return "", err
	}
	return bufio.NewReader(c).ReadString('\n')
}

func TestProxyPassesAndCuts(t *testing.T) {
	p := proxied(t)
	c := through(t, p)
	if got, err := says(c, "hello"); err != nil || got != "hello\n" {
		t.Fatalf("got %q, %v", got, err)
	}
	p.Cut(true)
	if got, err := says(c, "hello"); err == nil || os.IsTimeout(err) {
		t.Errorf("after the cut: %q, %v", got, err)
	}
	if c, err := net.Dial("tcp", p.Addr()); err == nil { // or the reset came before the dial had ended
		got, err := says(c, "hello")
		if err == nil || os.IsTimeout(err) {
			t.Errorf("while refused: %q, %v", got, err)
		}
		_ = c.Close()
	}
	p.Heal()
	if got, err := says(through(t, p), "hello"); err != nil || got != "hello\n" {
		t.Errorf("after Heal: %q, %v", got, err)
	}
	if p.Cuts() != 1 {
		t.Errorf("%d cuts", p.Cuts())
	}
}

func TestProxyPassesAnEnd(t *testing.T) {
	p := proxied(t)
	c := through(t, p)
	if _, err := io.WriteString(c, "last words"); err != nil {
		t.Fatal(err)
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(c); err != nil || string(got) != "last words" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestProxyHole(t *testing.T) {
	p := proxied(t)
	c := through(t, p)
	p.Set(Down, Toxic{Hole: true})
	if _, err := io.WriteString(c, "lost\n"); err != nil {
		t.Fatal(err)
	}
	if err := c.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 1)); !os.IsTimeout(err) {
		t.Errorf("read %d, %v from a hole", n, err)
	}
	p.Heal()
	_ = c.SetReadDeadline(time.Now().Add(patience))
	if n, err := c.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
		t.Errorf("a connection that lost something goes on: %d, %v", n, err)
	}
}

func TestProxyTruncates(t *testing.T) {
	p := proxied(t)
	p.Set(Down, Toxic{Truncate: 1000})
	c := through(t, p)
	go func() { _, _ = c.Write(bytes.Repeat([]byte("x"), 5000)) }()
	got, err := io.ReadAll(c)
	if len(got) > 1000 || err == nil && len(got) != 1000 {
		t.Errorf("%d octets, %v", len(got), err)
	}
	var op *net.OpError
	if err != nil && !errors.As(err, &op) {
		t.Error(err)
	}
}

func TestProxyDelaysAndLimits(t *testing.T) {
	p := proxied(t)
	c := through(t, p)
	for _, toxic := range []Toxic{{Delay: 100 * time.Millisecond}, {Rate: 100}} {
		p.Set(Up, toxic)
		begun := time.Now()
		if got, err := says(c, "0123456789"); err != nil || got != "0123456789\n" {
			t.Fatalf("got %q, %v", got, err)
		}
		if d := time.Since(begun); d < 100*time.Millisecond {
			t.Errorf("%+v: after %v", toxic, d)
		}
	}
}

func TestProxyRewrites(t *testing.T) {
	p := proxied(t)
	p.Rewrite(Down, func(piece []byte) []byte { return bytes.ReplaceAll(piece, []byte("truth"), []byte("lie")) })
	if got, err := says(through(t, p), "the truth"); err != nil || got != "the lie\n" {
		t.Errorf("got %q, %v", got, err)
	}
}
