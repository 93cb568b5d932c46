package imap

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"net"
	"runtime"
	"strings"
	"testing"

	"starling/metadata"
)

// idleSessions is how many connections the memory of one is measured by.
const idleSessions = 500

// BenchmarkIdleMemory tells what a connection costs that is logged in, has INBOX
// selected and is in IDLE. The heap of "tls" has both ends of TLS in it, since the
// clients are in this process too.
func BenchmarkIdleMemory(b *testing.B) {
	for _, secure := range []bool{false, true} {
		b.Run(map[bool]string{false: "plain", true: "tls"}[secure], func(b *testing.B) {
			c := newCluster(b, 1, clusterOptions{parks: true})
			c.account(b, "ann@example.org", metadata.Quota{})
			beginIdle(b, c, secure) // what the first costs is no part of it
			for b.Loop() {
				c.logs.TakeAll()
				before := memoryNow()
				for range idleSessions {
					beginIdle(b, c, secure)
				}
				c.logs.TakeAll()
				after := memoryNow()
				b.ReportMetric(float64(after.HeapInuse-before.HeapInuse)/idleSessions, "heap-B/session")
				b.ReportMetric(float64(after.StackInuse-before.StackInuse)/idleSessions, "stack-B/session")
			}
		})
	}
}

func memoryNow() (m runtime.MemStats) {
	runtime.GC() // twice: the first shrinks stacks, the second frees them
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m
}

// beginIdle opens a connection and brings it into IDLE, until the benchmark ends.
func beginIdle(b *testing.B, c *cluster, secure bool) {
	b.Helper()
	var conn net.Conn
	var err error
	if secure {
		conn, err = tls.Dial("tcp", c.nodes[0].imaps, c.roots)
	} else {
		conn, err = net.Dial("tcp", c.nodes[0].imap)
	}
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = conn.Close() })
	_, _ = fmt.Fprintf(conn, "a LOGIN ann@example.org %s\r\nb SELECT INBOX\r\nc IDLE\r\n", testPassword) // or the next read fails
	lines := bufio.NewReaderSize(conn, 512)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			b.Fatal(err)
		}
		if strings.HasPrefix(line, "+ ") {
			return
		}
	}
}
