package chaos

import (
	"context"
	"fmt"
	"net"
	"strings"
	"time"
)

// RestartBroker ends a NATS server, and starts it again after a while.
func (c *Cluster) RestartBroker(ctx context.Context, i int, after time.Duration) error {
	c.brokers[i].Shutdown()
	pause(ctx, after)
	return c.startBroker(i)
}

// slowConsumer makes a node read so slowly from its NATS server, for a while, that this cuts it off: much is sent to all nodes that
// they take for damaged.
func (c *Cluster) slowConsumer(ctx context.Context, i int, d time.Duration) (done bool, err error) {
	const pieces, piece = 200, 64 << 10 // more than the system takes in for a connection, and natsPending
	before := c.brokers[i].SlowConsumers()
	link := c.Nodes[i].Links.NATS
	link.Set(Down, Toxic{Rate: 1000})
	defer link.Heal()
	conn, err := (&net.Dialer{Timeout: commandTime}).DialContext(ctx, "tcp", c.brokers[i].Addr())
	if err != nil {
		return false, nil //nolint:nilerr // it is being restarted
	}
	defer conn.Close() //nolint:errcheck // nothing depends on its end
	_ = conn.SetDeadline(time.Now().Add(commandTime))
	text := fmt.Sprintf("PUB starling.beat %d\r\n%s\r\n", piece, strings.Repeat("x", piece))
	_, err = conn.Write([]byte("CONNECT {\"verbose\":false}\r\n"))
	for n := 0; n < pieces && err == nil; n++ {
		_, err = conn.Write([]byte(text))
	}
	pause(ctx, d)
	return c.brokers[i].SlowConsumers() > before, nil
}
