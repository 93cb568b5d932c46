package chaos

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"starling/metadata/postgres"
)

// session is a connection to PostgreSQL that stays: a server with no connection left has none for psql.
type session struct {
	conn net.Conn
	in   *bufio.Reader
}

// connect opens a session with a server.
func (s *database) connect(ctx context.Context) (*session, error) {
	conn, err := (&net.Dialer{Timeout: commandTime}).DialContext(ctx, "unix", s.Socket())
	if err != nil {
		return nil, err
	}
	const version = 3 << 16
	hello := binary.BigEndian.AppendUint32(nil, version)
	hello = append(hello, "user\x00"+postgres.Superuser+"\x00database\x00postgres\x00\x00"...)
	one := &session{conn, bufio.NewReader(conn)}
	if _, err := one.finish(append(binary.BigEndian.AppendUint32(nil, uint32(4+len(hello))), hello...)); err != nil { //nolint:gosec // short
		one.end()
		return nil, err
	}
	return one, nil
}

func (s *session) end() { _ = s.conn.Close() } // it is to be gone

// query runs SQL, and returns how many rows there are.
func (s *session) query(sql string) (rows int, err error) {
	message := binary.BigEndian.AppendUint32([]byte("Q"), uint32(5+len(sql))) //nolint:gosec // short
	return s.finish(append(message, sql+"\x00"...))
}

// errPostgres is what PostgreSQL says is wrong.
var errPostgres = errors.New("PostgreSQL refuses")

// finish sends a message, and reads until PostgreSQL is ready for the next.
func (s *session) finish(message []byte) (rows int, err error) {
	_ = s.conn.SetDeadline(time.Now().Add(commandTime)) // the next read tells
	if _, err := s.conn.Write(message); err != nil {
		return 0, err
	}
	var refused error
	for {
		var head [5]byte
		if _, err := io.ReadFull(s.in, head[:]); err != nil {
			return rows, errors.Join(refused, err)
		}
		text := make([]byte, max(0, int64(binary.BigEndian.Uint32(head[1:]))-4))
		if _, err := io.ReadFull(s.in, text); err != nil {
			return rows, errors.Join(refused, err)
		}
		switch head[0] {
		case 'E':
			refused = fmt.Errorf("%w: %q", errPostgres, text)
		case 'D':
			rows++
		case 'Z':
			return rows, refused
		}
	}
}

// fill takes all connections that PostgreSQL gives, and keeps them for a while; it breaks those of a node, which has to find new ones.
func (b *breaker) fill(ctx context.Context, f Fault, n *Node) (done bool) {
	ctx, cancel := context.WithTimeout(ctx, commandTime)
	defer cancel()
	var taken []*session
	defer func() {
		for _, one := range taken {
			one.end()
		}
	}()
	var end time.Time // from when on it is full
	for ctx.Err() == nil && (!done || time.Now().Before(end)) {
		one, err := b.cluster.primary.connect(ctx)
		switch {
		case err == nil:
			taken = append(taken, one)
		case !errors.Is(err, errPostgres):
			return done
		case !done:
			done, end = true, time.Now().Add(f.For)
			n.Links.Postgres.Cut(false) // what it gives up we take
		default:
			pause(ctx, 5*time.Millisecond)
		}
	}
	return done
}

// lock holds the rows of the account's mailboxes for a while: whoever writes waits, and each has a connection of its node's few.
func (b *breaker) lock(ctx context.Context, f Fault) (done bool) {
	one, err := b.cluster.primary.connect(ctx)
	if err != nil {
		return false
	}
	defer one.end()
	rows, err := one.query(fmt.Sprintf("begin; select id from mailbox where account_id = %d order by id for update", b.account))
	pause(ctx, f.For)
	return err == nil && rows > 0
}

// cancelWaits cancels each wait of a commit for the standby, for a while: the primary has it then, and says that it alone does.
// It returns how many there were.
func (s *database) cancelWaits(ctx context.Context, d time.Duration) (waits int, err error) {
	one, err := s.connect(ctx)
	if err != nil {
		return 0, err
	}
	defer one.end()
	for end := time.Now().Add(d); time.Now().Before(end); pause(ctx, 5*time.Millisecond) {
		n, err := one.query("select pg_cancel_backend(pid) from pg_stat_activity where wait_event = 'SyncRep'")
		if err != nil {
			return waits, err
		}
		waits += n
	}
	return waits, nil
}

// Losing is how the changes of the last while before a failover are lost.
type Losing struct {
	For time.Duration // 0: nothing is lost
	// Cancelled: commits wait for the standby, which is cut off, and their waits are cancelled; the primary then warns that
	// they may be lost. Else the standby is asynchronous.
	Cancelled bool
}

// lose cuts the standby off for a while, as l says.
func (c *Cluster) lose(ctx context.Context, l Losing, since func()) error {
	if !l.Cancelled {
		if err := c.primary.synchronous(ctx, false); err != nil {
			return err
		}
	}
	since()
	if err := c.caughtUp(ctx); err != nil {
		return err
	}
	c.Replication.Cut(true)
	if !l.Cancelled {
		pause(ctx, l.For)
		return nil
	}
	_, err := c.primary.cancelWaits(ctx, l.For)
	return err
}

// losing is what a fault has PostgreSQL lose.
func (f Fault) losing() Losing {
	d := time.Duration(1+f.Amount) * time.Millisecond
	switch f.Kind {
	case FailOverLagging:
		return Losing{For: d}
	case FailOverCancelled:
		return Losing{For: d, Cancelled: true}
	}
	return Losing{}
}
