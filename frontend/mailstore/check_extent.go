package mailstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"starling/blobstore"
	"starling/blobstore/codec"
	"starling/metadata"
)

// badExtent tells of a message that does not say where its bytes are, because of cause. With Repair it
// finds out from the object itself, and returns what the row says then; the zero Extent, if it says
// nothing that is of use.
func (c *checker) badExtent(ctx context.Context, n *naming, was metadata.MessageObject, cause error) (codec.Extent, error) {
	f := Finding{Damage: BadExtent, Detail: cause.Error()}
	if !c.opts.Repair {
		return codec.Extent{}, c.message(ctx, n, f)
	}
	extent, why, err := c.measure(ctx, n, was.Size)
	if err != nil {
		return codec.Extent{}, err
	}
	if why != nil {
		f.Detail += "; and the object does not tell: " + why.Error()
		return codec.Extent{}, c.message(ctx, n, f)
	}
	version, err := c.db.RepairRow(ctx, c.account.ID, was, extent.Append(nil), nil)
	if errors.Is(err, metadata.ErrConflict) {
		return codec.Extent{}, nil // it is gone, or was mended by another
	}
	if err == nil {
		err = c.store.collected(ctx, metadata.BoxRef{Account: c.account.ID, Mailbox: n.mailbox}, version)
	}
	if err != nil {
		return codec.Extent{}, err
	}
	f.Mended = true
	f.Detail += "; read from the object"
	return extent, c.message(ctx, n, f)
}

// wrongExtent finds out whether it is the row of a message that is damaged, and not the object, which cannot
// be read by it because of cause. If so it is told.
func (c *checker) wrongExtent(ctx context.Context, n *naming, cause error) (bool, error) {
	row, err := c.row(ctx, n)
	if err != nil || row == nil {
		return false, err
	}
	extent, why, err := c.measure(ctx, n, row.Size)
	if err != nil || why != nil || bytes.Equal(extent.Append(nil), row.Extent) {
		return false, err
	}
	_, err = c.badExtent(ctx, n, *row, cause)
	return true, err
}

// measure reads an object from front to back, to find out where in it the message of a row is, which has
// so many octets. why says why that cannot be known; err is none of the object's.
func (c *checker) measure(ctx context.Context, n *naming, size int64) (extent codec.Extent, why, err error) {
	var email int64
	err = c.db.Messages(ctx, c.account.ID, n.mailbox, []metadata.UIDRange{{First: n.uid, Last: n.uid}}, metadata.ColIDs, func(row *metadata.Message) error {
		email = row.EmailID
		return nil
	})
	if err != nil {
		return extent, nil, err
	}
	octets := max(size, scrubLeast)
	if err := c.octets.wait(ctx, time.Duration(float64(octets)/float64(c.opts.ScrubRate)*float64(time.Second))); err != nil {
		return extent, nil, err
	}
	header, extent, err := c.store.codec.Recover(ctx, c.store.blobs, c.key(n), io.Discard)
	switch {
	case err != nil && damageOf(err) == "":
		return extent, nil, err
	case err != nil:
	case header.Account != int64(c.account.ID):
		err = fmt.Errorf("%w: header of account %x", blobstore.ErrCorrupt, header.Account)
	case header.EmailID != 0 && header.EmailID != email:
		err = fmt.Errorf("%w: it is of another message", blobstore.ErrCorrupt)
	case extent.Plain != size:
		err = fmt.Errorf("%w: it has %d octets, the message %d", blobstore.ErrCorrupt, extent.Plain, size)
	}
	return extent, err, nil
}
