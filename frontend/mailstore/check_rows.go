package mailstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"starling/blobstore"
	"starling/blobstore/codec"
	"starling/frontend/message"
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
	extent, why, err := c.measure(ctx, n, was.Size, io.Discard)
	if err != nil {
		return codec.Extent{}, err
	}
	if why == nil {
		if f.Mended, err = c.mendRow(ctx, n, was, extent.Append(nil), nil); err != nil || !f.Mended {
			return codec.Extent{}, err
		}
	}
	f.Detail += fromObject(why)
	return extent, c.message(ctx, n, f)
}

// badSummary tells of a message whose summary cannot be read, because of cause. With Repair it is made anew.
func (c *checker) badSummary(ctx context.Context, n *naming, cause error) error {
	f := Finding{Damage: BadSummary, Detail: cause.Error()}
	if !c.opts.Repair {
		return c.message(ctx, n, f)
	}
	was, err := c.row(ctx, n)
	if err != nil || was == nil {
		return err
	}
	parser := message.NewParser()
	_, why, err := c.measure(ctx, n, was.Size, parser)
	summary := parser.Close()
	if err != nil {
		return err
	}
	if why == nil {
		packed, err := summary.AppendBinary(nil)
		if err != nil {
			return fmt.Errorf("pack summary: %w", err)
		}
		if f.Mended, err = c.mendRow(ctx, n, *was, was.Extent, packed); err != nil || !f.Mended {
			return err
		}
	}
	f.Detail += fromObject(why)
	return c.message(ctx, n, f)
}

// fromObject says what came of reading an object; why is why it is of no use.
func fromObject(why error) string {
	if why != nil {
		return "; and the object does not tell: " + why.Error()
	}
	return "; read from the object"
}

// mendRow commits what a row has to say, and tells the nodes; false, if the row is gone, or was mended by
// another.
func (c *checker) mendRow(ctx context.Context, n *naming, was metadata.MessageObject, extent, summary []byte) (bool, error) {
	version, err := c.db.RepairRow(ctx, c.account.ID, was, extent, summary)
	if errors.Is(err, metadata.ErrConflict) {
		return false, nil
	}
	if err == nil {
		err = c.store.collected(ctx, metadata.BoxRef{Account: c.account.ID, Mailbox: n.mailbox}, version)
	}
	return err == nil, err
}

// summaries looks whether the summaries of messages can be read, which are those of one page of rows.
func (c *checker) summaries(ctx context.Context, rows []naming) error {
	var summary message.Summary
	for len(rows) > 0 {
		n := 1
		for n < len(rows) && rows[n].mailbox == rows[0].mailbox {
			n++
		}
		same := rows[:n]
		rows = rows[n:]
		uids, bad := make([]uint32, n), make(map[uint32]error)
		for i := range same {
			uids[i] = same[i].uid
		}
		err := c.db.Messages(ctx, c.account.ID, same[0].mailbox, metadata.Ranges(uids, rowGap), metadata.ColSummary, func(row *metadata.Message) error {
			if err := summary.Unmarshal(row.Summary); err != nil {
				bad[row.UID] = err
			}
			return nil
		})
		if err != nil {
			return err
		}
		for i := range same {
			if cause := bad[same[i].uid]; cause != nil {
				if err := c.badSummary(ctx, &same[i], cause); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// wrongExtent finds out whether it is the row of a message that is damaged, and not the object, which cannot
// be read by it because of cause. If so it is told.
func (c *checker) wrongExtent(ctx context.Context, n *naming, cause error) (bool, error) {
	row, err := c.row(ctx, n)
	if err != nil || row == nil {
		return false, err
	}
	extent, why, err := c.measure(ctx, n, row.Size, io.Discard)
	if err != nil || why != nil || bytes.Equal(extent.Append(nil), row.Extent) {
		return false, err
	}
	_, err = c.badExtent(ctx, n, *row, cause)
	return true, err
}

// measure reads an object from front to back, to find out where in it the message of a row is, which has
// so many octets, and writes that to w. why says why that cannot be known; err is none of the object's.
func (c *checker) measure(ctx context.Context, n *naming, size int64, w io.Writer) (extent codec.Extent, why, err error) {
	var email int64
	err = c.db.Messages(ctx, c.account.ID, n.mailbox, []metadata.UIDRange{{First: n.uid, Last: n.uid}}, metadata.ColIDs, func(row *metadata.Message) error {
		email = row.EmailID
		return nil
	})
	if err != nil {
		return extent, nil, err
	}
	if err := c.paceObject(ctx, size); err != nil {
		return extent, nil, err
	}
	header, extent, err := c.store.codec.Recover(ctx, c.store.blobs, c.key(n), w)
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
