package mailstore

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"starling/blobstore"
	"starling/blobstore/codec"
	"starling/metadata"
)

const (
	// checkRows is how many rows of messages are read at a time.
	checkRows = 5000
	// partRows is how many messages are compared with objects at a time, about: an
	// account with more is looked through in parts, by the first bits of the objects.
	partRows = 1 << 20
	// partBits is how many different first bits of objects are told apart.
	partBits = 1 << 16
	// scrubbers is how many objects are read at the same time.
	scrubbers = 4
	// scrubWhole is the size up to which an object is read with one request; a larger one
	// takes another for its header.
	scrubWhole = 1 << 20
	// scrubLeast is what an object takes of CheckOptions.ScrubRate at least, so that it
	// bounds requests too.
	scrubLeast = 64 << 10
)

// naming is a row that names an object.
type naming struct {
	object  metadata.ObjectID
	mailbox metadata.MailboxID
	uid     uint32
	suspect bool   // the object does not seem to be there, or not all of it
	end     int64  // how many octets the object has at least
	extent  string // only for a scrub
}

func (n *naming) bits() int { return int(n.object[0])<<8 | int(n.object[1]) }

// objects compares what rows name with what is there.
func (c *checker) objects(ctx context.Context) error {
	now, err := c.db.Now(ctx)
	if err != nil {
		return err
	}
	old := now.Add(-c.store.cfg.OrphanGrace) // as for the collector
	parts := min(int(c.most/partRows)+1, partBits)
	for i := range parts {
		if err := c.part(ctx, i*partBits/parts, (i+1)*partBits/parts, old); err != nil {
			return err
		}
	}
	return nil
}

// part does so with the objects whose first bits are from first up to, and without, end.
func (c *checker) part(ctx context.Context, first, end int, old time.Time) error {
	rows, err := c.named(ctx, first, end)
	if err != nil {
		return err
	}
	// What is stored after this is named by rows that were not read; so what is named is
	// listed, or it was collected since.
	if err := c.compare(ctx, rows, first, end, old); err != nil {
		return err
	}
	for i := range rows {
		if rows[i].suspect {
			if err := c.missing(ctx, &rows[i]); err != nil {
				return err
			}
		}
	}
	if c.opts.Scrub {
		return c.scrub(ctx, rows)
	}
	return nil
}

// named reads the rows that name such objects, and sorts them by object.
func (c *checker) named(ctx context.Context, first, end int) ([]naming, error) {
	var rows []naming
	var last metadata.MessageObject
	for {
		page, err := c.db.MessageObjects(ctx, c.account.ID, last.Mailbox, last.UID, checkRows)
		if err != nil {
			return nil, err
		}
		before := len(rows)
		for i := range page {
			n := naming{object: page[i].Object, mailbox: page[i].Mailbox, uid: page[i].UID}
			if n.bits() < first || n.bits() >= end {
				continue
			}
			c.report.Messages++
			extent, err := codec.ParseExtent(page[i].Extent)
			if err == nil && extent.Plain != page[i].Size {
				err = fmt.Errorf("%w: it has %d octets, the message %d", blobstore.ErrCorrupt, extent.Plain, page[i].Size)
			}
			if err != nil {
				if extent, err = c.badExtent(ctx, &n, page[i], err); err != nil {
					return nil, err
				}
				if extent.Length == 0 {
					continue
				}
			}
			n.end = extent.Offset + extent.Length
			if c.opts.Scrub {
				n.extent = string(extent.Append(nil))
			}
			rows = append(rows, n)
		}
		if c.opts.Scrub {
			if err := c.summaries(ctx, rows[before:]); err != nil {
				return nil, err
			}
		}
		if err := c.paceRows(ctx, len(page)); err != nil {
			return nil, err
		}
		if len(page) < checkRows {
			break
		}
		last = page[len(page)-1]
	}
	slices.SortFunc(rows, func(a, b naming) int {
		return cmp.Or(bytes.Compare(a.object[:], b.object[:]), cmp.Compare(a.extent, b.extent))
	})
	return rows, nil
}

// compare goes through the account's objects beside the rows, both in order, and marks the
// rows of which something seems to be missing.
func (c *checker) compare(ctx context.Context, rows []naming, first, end int, old time.Time) error {
	after := ""
	if first > 0 {
		o := blobstore.Object(bytes.Repeat([]byte{0xff}, 16))
		o[0], o[1] = byte((first-1)>>8), byte(first-1)
		after = string(o.Key(int64(c.account.ID)))
	}
	var unnamed, young []metadata.ObjectID
	listed := 0
	for info, err := range c.store.blobs.List(ctx, blobstore.AccountPrefix(int64(c.account.ID)), after) {
		if err != nil {
			return err
		}
		object, ok := info.Key.Object()
		if !ok {
			continue
		}
		there := naming{object: metadata.ObjectID(object)}
		if there.bits() >= end {
			break
		}
		c.report.Objects++
		for len(rows) > 0 && bytes.Compare(rows[0].object[:], object[:]) < 0 {
			rows[0].suspect = true
			rows = rows[1:]
		}
		owned := false
		for len(rows) > 0 && rows[0].object == there.object {
			rows[0].suspect = rows[0].end > info.Size
			rows, owned = rows[1:], true
		}
		_, ownerless := c.ownerless[there.object]
		switch {
		case owned:
		case ownerless:
			c.unnamed++
		case info.Modified.Before(old):
			unnamed = append(unnamed, there.object)
		default:
			young = append(young, there.object)
		}
		if listed++; listed%1000 == 0 {
			if err := c.paceRows(ctx, 1000); err != nil {
				return err
			}
		}
		for _, full := range []struct {
			objects *[]metadata.ObjectID
			count   *int64
		}{{&unnamed, &c.report.Orphans}, {&young, &c.report.Young}} {
			if len(*full.objects) == scanPage {
				if err := c.unnamedObjects(ctx, *full.objects, full.count); err != nil {
					return err
				}
				*full.objects = (*full.objects)[:0]
			}
		}
	}
	for i := range rows {
		rows[i].suspect = true
	}
	return errors.Join(c.unnamedObjects(ctx, young, &c.report.Young), c.unnamedObjects(ctx, unnamed, &c.report.Orphans))
}

// unnamedObjects adds to count how many of the objects really no message names. What is doomed is an
// orphan, however old.
func (c *checker) unnamedObjects(ctx context.Context, objects []metadata.ObjectID, count *int64) error {
	if len(objects) == 0 {
		return nil
	}
	named, err := c.db.Named(ctx, c.account.ID, objects)
	if err != nil {
		return err
	}
	free, _ := split(objects, named)
	if len(free) == 0 {
		return nil
	}
	doomed := make(map[metadata.ObjectID]struct{})
	for after := (metadata.ObjectID{}); ; {
		page, err := c.db.Doomed(ctx, c.account.ID, 0, after, scanPage)
		if err != nil {
			return err
		}
		for _, o := range page {
			doomed[o] = struct{}{}
		}
		if len(page) < scanPage {
			break
		}
		after = page[len(page)-1]
	}
	unknown, known := split(free, doomed)
	*count += int64(len(unknown))
	c.report.Orphans += int64(len(known))
	c.report.Doomed += int64(len(known))
	c.unnamed += int64(len(unknown))
	return nil
}

// missing looks for the end of a row's object.
func (c *checker) missing(ctx context.Context, n *naming) error {
	r, err := c.store.blobs.Get(ctx, c.key(n), n.end-1, 1)
	if err == nil {
		n.suspect = false
		return r.Close()
	}
	d := damageOf(err)
	if d == "" {
		return err
	}
	if d == ShortObject {
		if told, err := c.wrongExtent(ctx, n, err); told || err != nil {
			return err
		}
	}
	return c.message(ctx, n, Finding{Damage: d})
}

func (c *checker) key(n *naming) blobstore.Key {
	return blobstore.Object(n.object).Key(int64(c.account.ID))
}

// damageOf is what an error of reading an object says of it; "" if it is none of the object's.
func damageOf(err error) Damage {
	switch {
	case errors.Is(err, blobstore.ErrUnavailable):
		return ""
	case errors.Is(err, blobstore.ErrNotFound):
		return MissingObject
	case errors.Is(err, blobstore.ErrRange), errors.Is(err, io.ErrUnexpectedEOF):
		return ShortObject
	case errors.Is(err, blobstore.ErrCorrupt):
		return CorruptObject
	}
	return ""
}

// message tells what was found of a message, if it is still there. Rows go before their
// objects, and no object's name is used again: what was missing before the row was
// seen is missing.
func (c *checker) message(ctx context.Context, n *naming, f Finding) error {
	row, err := c.row(ctx, n)
	if err != nil || row == nil {
		return err
	}
	f.UID, f.Object = n.uid, blobstore.Object(n.object).String()
	name, ok := c.names[n.mailbox]
	if !ok {
		name = fmt.Sprintf("deleted mailbox %d", n.mailbox)
	}
	f.Mailbox = name
	if f.Expunged, err = c.expunged(ctx, n.mailbox, n.uid); err != nil {
		return err
	}
	return c.tell(ctx, f)
}

// row is the row as it is now; nil if it is gone.
func (c *checker) row(ctx context.Context, n *naming) (*metadata.MessageObject, error) {
	row, err := c.db.MessageObjects(ctx, c.account.ID, n.mailbox, n.uid-1, 1)
	if err != nil || len(row) == 0 || row[0].Mailbox != n.mailbox || row[0].UID != n.uid || row[0].Object != n.object {
		return nil, err
	}
	return &row[0], nil
}

// expunged reports whether clients do not see a message. It reads each mailbox once.
func (c *checker) expunged(ctx context.Context, mailbox metadata.MailboxID, uid uint32) (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	chunks := c.slots[mailbox]
	if chunks == nil {
		chunks = make(map[int32]*metadata.Chunk)
		l, err := c.db.Load(ctx, c.account.ID, mailbox, metadata.Version{})
		switch {
		case err == nil:
			for _, chunk := range l.Chunks {
				chunks[chunk.No()] = chunk
			}
		case ctx.Err() != nil, errors.Is(err, metadata.ErrUnavailable):
			return false, err
		}
		c.slots[mailbox] = chunks
	}
	chunk := chunks[metadata.ChunkOf(uid)]
	return chunk == nil || !chunk.Slot(int(uid%metadata.ChunkSlots)).Live(), nil
}

// scrub reads each object once, and what is wrong for a second time.
func (c *checker) scrub(ctx context.Context, rows []naming) error {
	group, reading := errgroup.WithContext(ctx)
	group.SetLimit(scrubbers)
	for len(rows) > 0 && reading.Err() == nil {
		n := 1
		for n < len(rows) && rows[n].object == rows[0].object && rows[n].extent == rows[0].extent {
			n++
		}
		same := rows[:n]
		rows = rows[n:]
		c.step(float64(n * scrubWeight))
		if same[0].suspect { // it was told
			continue
		}
		if c.paceObject(reading, same[0].end) != nil {
			break
		}
		group.Go(func() error { return c.scrubOne(reading, same) })
	}
	return cmp.Or(group.Wait(), ctx.Err())
}

// scrubOne reads an object and tells of all messages that name it.
func (c *checker) scrubOne(ctx context.Context, same []naming) error {
	octets, d, err := c.read(ctx, &same[0])
	if d != "" {
		if f, ok := c.store.blobs.(blobstore.Forgetter); ok {
			f.Forget(c.key(&same[0]))
		}
		octets, d, err = c.read(ctx, &same[0])
	}
	if d == "" {
		if err == nil {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.report.Scrubbed++
			c.report.Octets += octets
		}
		return err
	}
	for i := range same {
		if d == CorruptObject || d == ShortObject {
			if told, err := c.wrongExtent(ctx, &same[i], err); err != nil {
				return err
			} else if told {
				continue
			}
		}
		if err := c.message(ctx, &same[i], Finding{Damage: d, Detail: err.Error()}); err != nil {
			return err
		}
	}
	return nil
}

// read reads an object and verifies its header and its checksums. With damage, the error
// says what it is; without, it says that nothing is known.
func (c *checker) read(ctx context.Context, n *naming) (octets int64, d Damage, err error) {
	extent, err := codec.ParseExtent([]byte(n.extent))
	if err != nil {
		return 0, BadExtent, err
	}
	length := extent.Length
	if length > scrubWhole {
		length = int64(extent.Header)
	}
	object, err := c.get(ctx, n, extent.Offset, length)
	if err != nil {
		return 0, damageOf(err), err
	}
	store := c.store.blobs
	if length == extent.Length {
		store = readObject{object: object, offset: extent.Offset}
	}
	body := c.store.codec.Open(store, c.key(n), extent)
	defer body.Close()
	if err := body.ReadRange(ctx, io.Discard, 0, body.Size()); err != nil {
		return 0, damageOf(err), err
	}
	header, size, err := codec.ParseHeader(object)
	switch {
	case err != nil:
	case size != extent.Header:
		err = fmt.Errorf("%w: header of %d octets instead of %d", blobstore.ErrCorrupt, size, extent.Header)
	case header.Account != int64(c.account.ID):
		err = fmt.Errorf("%w: header of account %x", blobstore.ErrCorrupt, header.Account)
	default:
		return extent.Length, "", nil
	}
	return 0, CorruptHeader, err
}

func (c *checker) get(ctx context.Context, n *naming, offset, length int64) ([]byte, error) {
	r, err := c.store.blobs.Get(ctx, c.key(n), offset, length)
	if err != nil {
		return nil, err
	}
	b := make([]byte, length)
	_, err = io.ReadFull(r, b)
	return b, errors.Join(err, r.Close())
}

// readObject is a Store of a part of one object, which was read.
type readObject struct {
	blobstore.Store
	object []byte
	offset int64
}

// Get reads from the part.
func (r readObject) Get(_ context.Context, _ blobstore.Key, offset, length int64) (io.ReadCloser, error) {
	return io.NopCloser(io.NewSectionReader(bytes.NewReader(r.object), offset-r.offset, length)), nil
}
