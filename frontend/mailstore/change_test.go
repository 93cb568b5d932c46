package mailstore

import (
	"errors"
	"testing"

	"starling/metadata"
	"starling/metadata/metadatatest"
)

// A commit that lost has given out UIDs which others have now: their sizes must
// not be taken for those of what lost.
func TestSizesOfLostCommitsAreForgotten(t *testing.T) {
	t.Parallel()
	c := newCluster(t, metadata.Quota{Bytes: 1 << 20})
	x, y := c.node(), c.node()
	y.faults.Mute(true)
	mine := c.enter(x, Inbox)
	c.append(y, Inbox, mail("a rather long subject, to have another size"))
	c.append(x, Inbox, mail("short")) // does not know of the other yet, at first
	c.check(Inbox)
	mine.store(all(mine.Snapshot()), AddFlags, "deleted")
	c.check(Inbox)
	if _, err := mine.Expunge(t.Context(), mine.Snapshot(), nil); err != nil {
		t.Fatal(err)
	}
	if s := c.check(Inbox); s.row.Counters != (metadata.Counters{}) {
		t.Errorf("counters of the empty mailbox: %+v", s.row.Counters)
	}
	if used, err := x.Usage(t.Context()); err != nil || used != (metadata.Quota{}) {
		t.Errorf("usage of the empty account: %+v, %v", used, err)
	}
}

// Sizes that are not known are read outside of the lock: inside, every connection
// could wait for another one.
func TestSizesAreReadOutsideTheLock(t *testing.T) {
	t.Parallel()
	c := newCluster(t, metadata.Quota{})
	c.append(c.node(), Inbox, mail("1"))
	x := c.node(func(cfg *Config) {
		db, err := metadata.Open(t.Context(), metadata.Config{DSN: c.dsn, MaxConns: 2, CommandConns: 1})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(db.Close)
		cfg.DB = db
	})
	mine := c.enter(x, Inbox)
	mine.box.contested()
	conn := x.Store.db.Background() // holds the other connection as long as it reads
	err := conn.Messages(t.Context(), c.account.ID, mine.ID(), one(1), 0, func(*metadata.Message) error {
		mine.store(one(1), AddFlags, "deleted")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if s := c.check(Inbox); s.row.Deleted != 1 {
		t.Errorf("%d messages deleted", s.row.Deleted)
	}
}

// A live message without a row is a broken database, which must not keep the
// node busy for ever.
func TestMessageWithoutRow(t *testing.T) {
	t.Parallel()
	c := newCluster(t, metadata.Quota{})
	x := c.node()
	c.append(x, Inbox, mail("1"))
	mine := c.enter(x, Inbox)
	base := mine.Snapshot()
	edit := base.chunk(0).Edit()
	edit.Set(2, base.Slot(1))
	row := base.row
	row.UIDNext++
	mine.box.current.Store(base.with(row, []*metadata.Chunk{edit.Chunk()}))
	_, err := mine.Store(t.Context(), StoreFlags{View: mine.Snapshot(), UIDs: one(2), Mode: AddFlags, Flags: flagSet("deleted")})
	if err == nil {
		t.Fatal("a message without size was counted")
	}
	if done := mine.store(one(1), AddFlags, "seen"); len(done.Changed) != 1 {
		t.Errorf("changed %v", done.Changed)
	}
}

// A UID that a message has already is damage, and not a name that is taken.
func TestUIDGivenOutTwice(t *testing.T) {
	t.Parallel()
	c := newCluster(t, metadata.Quota{})
	c.append(c.still(), Inbox, mail("1"))
	metadatatest.Exec(t, c.dsn, "update mailbox set uidnext = 1 where name = 'INBOX'")
	_, err := upload(t.Context(), c.still().Account, Incoming{Mailbox: Inbox}, mail("2"), nil)
	if err == nil || errors.Is(err, metadata.ErrExists) || errors.Is(err, metadata.ErrUnavailable) {
		t.Errorf("append: %v", err)
	}
}
