package chaos

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"starling/metadata"
	"starling/metadata/postgres"
)

// standbyName is what synchronous_standby_names calls a standby.
const standbyName = "standby"

// databases are PostgreSQL's servers. Which of them is the primary changes; where nodes reach it stays, as with a
// Service of Kubernetes.
type databases struct {
	primary, standby *database // standby may be nil
	// Replication is how the standby reaches the primary.
	Replication *Proxy

	own   *Proxy // our way to the primary
	disks *disks
	made  int // so many data directories
}

type database struct {
	*postgres.Server
	config postgres.Config
}

// newDatabase starts one more server: the first, or the standby of the primary. It writes to disk at commit, so that it can be
// killed, but does not wait for the disk.
func (d *databases) newDatabase(ctx context.Context) (*database, error) {
	d.made++
	dir, err := d.disks.folder("pg"+strconv.Itoa(d.made), "384m")
	if err != nil {
		return nil, err
	}
	config := postgres.Config{Dir: dir, StartTimeout: startTime, Settings: map[string]string{
		"fsync": "off", "full_page_writes": "off", "max_connections": "60", "shared_buffers": "64MB",
		"min_wal_size": "32MB", "max_wal_size": "64MB", "wal_retrieve_retry_interval": "100ms",
	}}
	if d.primary != nil {
		host, port, err := net.SplitHostPort(d.Replication.Addr())
		if err != nil {
			return nil, err
		}
		config.Origin = &postgres.Origin{Host: host, Port: port, Slot: "slot" + strconv.Itoa(d.made), Name: standbyName}
	}
	s, err := postgres.Start(ctx, config)
	return &database{s, config}, err
}

// startPostgres starts PostgreSQL.
func (c *Cluster) startPostgres(ctx context.Context) error {
	var err error
	if c.primary, err = c.newDatabase(ctx); err != nil {
		return err
	}
	c.closers = append(c.closers, c.stopDatabases)
	if err := metadata.Migrate(ctx, c.primary.DSN("postgres")); err != nil {
		return err
	}
	for _, p := range []**Proxy{&c.own, &c.Replication} {
		made, err := c.proxy("unix", c.primary.Socket())
		if err != nil {
			return err
		}
		*p = made
		c.closers = append(c.closers, func() error { made.Close(); return nil })
	}
	if c.DB, err = metadata.Open(ctx, metadata.Config{DSN: dsn(c.own)}); err != nil {
		return err
	}
	c.closers = append(c.closers, func() error { c.DB.Close(); return nil })
	return nil
}

func (c *Cluster) stopDatabases() error {
	ctx, cancel := context.WithTimeout(context.Background(), startTime)
	defer cancel()
	var errs []error
	for _, s := range []*database{c.standby, c.primary} { // the primary last: its end is sent to the standby
		if s == nil {
			continue
		}
		if err := s.Stop(ctx); err != nil && ctx.Err() != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// kill ends a server as a crash does.
func (s *database) kill() error {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Stop(ctx); err != nil && !errors.Is(err, context.Canceled) {
		select {
		case <-s.Done(): // it had ended before
		default:
			return err
		}
	}
	return nil
}

// again starts a server that has ended.
func (s *database) again(ctx context.Context) error {
	server, err := postgres.Start(context.WithoutCancel(ctx), s.config)
	if err != nil {
		return err
	}
	s.Server = server
	return nil
}

// reach leads everybody to the primary.
func (c *Cluster) reach() {
	for _, p := range c.ways() {
		p.Backend("unix", c.primary.Socket())
	}
}

// ways are those to the primary.
func (c *Cluster) ways() []*Proxy {
	ways := []*Proxy{c.own, c.Replication}
	for _, n := range c.Nodes {
		ways = append(ways, n.Links.Postgres)
	}
	return ways
}

// RestartPostgres ends PostgreSQL, with hard as a crash does, and starts it again after a while.
func (c *Cluster) RestartPostgres(ctx context.Context, hard bool, after time.Duration) error {
	if hard {
		if err := c.primary.kill(); err != nil {
			return err
		}
	} else {
		stopping, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := c.primary.Stop(stopping); err != nil && stopping.Err() == nil {
			return err
		}
	}
	pause(ctx, after)
	if err := c.primary.again(ctx); err != nil {
		return err
	}
	c.reach()
	return nil
}

// AddStandby makes a standby, and has commits wait for it from now on. While they have none to wait for they wait.
func (c *Cluster) AddStandby(ctx context.Context) error {
	if err := c.primary.synchronous(ctx, true); err != nil {
		return err
	}
	c.Replication.Heal()
	var err error
	if c.standby, err = c.newDatabase(ctx); err != nil {
		c.standby = nil
		return fmt.Errorf("make a standby: %w", err)
	}
	return c.caughtUp(ctx)
}

// RestartStandby ends the standby as a crash does, and starts it again after a while; commits wait meanwhile.
func (c *Cluster) RestartStandby(ctx context.Context, after time.Duration) error {
	if c.standby == nil {
		return nil
	}
	if err := c.standby.kill(); err != nil {
		return err
	}
	pause(ctx, after)
	return c.standby.again(ctx)
}

// synchronous says whether commits wait for the standby.
func (s *database) synchronous(ctx context.Context, on bool) error {
	name := ""
	if on {
		name = standbyName
	}
	_, err := s.Exec(ctx, fmt.Sprintf("alter system set synchronous_standby_names = '%s'; select pg_reload_conf()", name))
	return err
}

// caughtUp waits until the standby follows, and has all that the primary had when it was asked first.
func (c *Cluster) caughtUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	rows, err := c.primary.Exec(ctx, "select pg_current_wal_flush_lsn()")
	if err != nil {
		return err
	}
	question := fmt.Sprintf("select count(*) from pg_stat_replication where application_name = '%s' and state = 'streaming' and flush_lsn >= '%s'",
		standbyName, rows[0][0])
	for {
		switch rows, err := c.primary.Exec(ctx, question); {
		case err != nil:
			return fmt.Errorf("wait for the standby: %w", err)
		case rows[0][0] == "1":
			return nil
		}
		pause(ctx, 20*time.Millisecond)
	}
}

// errNoStandby says that there is nobody to fail over to.
var errNoStandby = errors.New("there is no standby")

// Failover has the primary's machine crash, makes the standby the primary, and makes a new standby. It returns what the new
// primary had, by the time since begin, and before anybody could reach it.
func (c *Cluster) Failover(ctx context.Context, account metadata.AccountID, begin time.Time, l Losing) (Failover, error) {
	if c.standby == nil {
		return Failover{}, errNoStandby
	}
	ctx = context.WithoutCancel(ctx)
	f := Failover{Sync: l.For == 0 || l.Cancelled, Lossy: l.For > 0}
	if f.Lossy {
		if err := c.lose(ctx, l, func() { f.Since = time.Since(begin) }); err != nil {
			return f, err
		}
	}
	old := c.primary
	if err := old.kill(); err != nil {
		return f, err
	}
	return f, errors.Join(c.promote(ctx, account, begin, &f), c.disks.free(old.config.Dir))
}

// promote makes the standby the primary that everybody reaches, and makes a new standby. What the old primary's processes still
// say is said to nobody.
func (c *Cluster) promote(ctx context.Context, account metadata.AccountID, begin time.Time, f *Failover) error {
	for _, p := range c.ways() {
		p.Backend("", "")
		p.Cut(false)
	}
	f.Until = time.Since(begin)
	if err := c.standby.Promote(ctx); err != nil {
		return err
	}
	c.primary, c.standby = c.standby, nil
	var err error
	if f.Boxes, err = c.primary.look(ctx, account); err != nil {
		return fmt.Errorf("look at what the new primary has: %w", err)
	}
	c.reach()
	return c.AddStandby(ctx)
}

// look reads an account's mailboxes past all nodes, and leaves them as they are.
func (s *database) look(ctx context.Context, account metadata.AccountID) (map[string]Kept, error) {
	boxes, err := s.Exec(ctx, fmt.Sprintf(`
select id, name, uidnext, modseq, array_to_string(keywords, ' '), (epoch() >> 24) - (epoch >> 24)
from mailbox
where account_id = %d and not dropped`, account))
	if err != nil {
		return nil, err
	}
	kept := make(map[string]Kept)
	for _, row := range boxes {
		uidnext, err := strconv.ParseUint(row[2], 10, 32)
		if err != nil {
			return nil, err
		}
		modseq, err := strconv.ParseUint(row[3], 10, 64)
		if err != nil {
			return nil, err
		}
		epochs, err := strconv.ParseUint(row[5], 10, 64)
		if err != nil {
			return nil, err
		}
		chunks, err := s.Exec(ctx, fmt.Sprintf(`
select chunk, encode(slots, 'hex')
from flags
where account_id = %d and mailbox_id = %s`, account, row[0]))
		if err != nil {
			return nil, err
		}
		k := Kept{UIDNext: uint32(uidnext), ModSeq: modseq, Epochs: epochs, Flags: make(map[uint32][]string)}
		for _, chunk := range chunks {
			if err := k.take(chunk[0], chunk[1], strings.Fields(row[4])); err != nil {
				return nil, err
			}
		}
		kept[row[1]] = k
	}
	return kept, nil
}

// take takes in the flags of the messages of a chunk.
func (k *Kept) take(number, slots string, keywords []string) error {
	no, err := strconv.ParseInt(number, 10, 32)
	if err != nil {
		return err
	}
	stored, err := hex.DecodeString(slots)
	if err != nil {
		return err
	}
	chunk, err := metadata.ParseChunk(int32(no), stored)
	if err != nil {
		return err
	}
	system := map[metadata.Flags]string{
		metadata.Seen: `\seen`, metadata.Answered: `\answered`, metadata.Flagged: `\flagged`, metadata.Deleted: `\deleted`, metadata.Draft: `\draft`,
	}
	for i := range chunk.Len() {
		slot := chunk.Slot(i)
		if !slot.Live() {
			continue
		}
		flags := []string{}
		for _, bit := range slices.Sorted(maps.Keys(system)) {
			if slot.Flags&bit != 0 {
				flags = append(flags, system[bit])
			}
		}
		for i := range slot.Flags.Keywords {
			if i < len(keywords) {
				flags = append(flags, strings.ToLower(keywords[i]))
			}
		}
		k.Flags[chunk.First()+uint32(i)] = flags //nolint:gosec // 128 at most
	}
	return nil
}
