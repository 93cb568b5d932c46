package natsserver

import (
	"strings"
	"testing"
)

func TestStart(t *testing.T) {
	t.Parallel()
	first, err := Start(Config{Addr: "127.0.0.1:0", Cluster: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer first.Shutdown()
	if first.URL() != "nats://"+first.Addr() || first.ClusterAddr() == "" {
		t.Errorf("it listens on %q, %q, %q", first.URL(), first.Addr(), first.ClusterAddr())
	}
	if _, err := Start(Config{Addr: first.Addr()}); err == nil || !strings.Contains(err.Error(), first.Addr()) {
		t.Errorf("a second server on the same address: %v", err)
	}
	for _, c := range []Config{{}, {Addr: "127.0.0.1"}, {Addr: "127.0.0.1:x"}, {Addr: "127.0.0.1:0", Cluster: "x"}} {
		if _, err := Start(c); err == nil {
			t.Errorf("started with %+v", c)
		}
	}
	first.Shutdown()
	first.Shutdown() // again
	third, err := Start(Config{Addr: first.Addr()})
	if err != nil {
		t.Fatalf("the address is not free after Shutdown: %v", err)
	}
	third.Shutdown()
}
