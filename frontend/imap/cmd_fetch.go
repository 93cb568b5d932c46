package imap

import (
	"context"
	"errors"

	"go.uber.org/zap"

	"starling/blobstore"
	"starling/frontend/imapwire"
	"starling/frontend/mailstore"
	mail "starling/frontend/message"
	"starling/metadata"
)

// fetchCmd is FETCH and UID FETCH (RFC 9051 §6.4.5).
type fetchCmd struct {
	by   numbering
	nums imapwire.NumSet
	args imapwire.FetchArgs
}

func parseFetch(by numbering) func(*imapwire.Decoder) (command, error) {
	return func(d *imapwire.Decoder) (command, error) {
		c := fetchCmd{by: by}
		d.SP()
		c.nums = d.NumSet()
		d.SP()
		c.args = d.FetchArgs()
		return c, d.End()
	}
}

func (c fetchCmd) run(ctx context.Context, s *session) (imapwire.Code, error) {
	if err := c.checkVanished(s); err != nil {
		return "", err
	}
	uids, err := s.view.ranges(c.nums, c.by)
	if err != nil {
		return "", err
	}
	f := newFetch(s, c)
	if c.args.HasChangedSince {
		since := int64(min(c.args.ChangedSince, 1<<62)) //nolint:gosec // bounded
		if c.args.Vanished {
			c.tellVanished(s, since)
		}
		uids = s.view.changedSince(uids, since)
	}
	if f.needs == 0 {
		f.fromView(uids)
		return "", nil
	}
	f.fromRows(ctx, uids)
	return "", f.failure
}

// fetch is a FETCH under way.
type fetch struct {
	s        *session
	by       numbering
	items    []asked
	needs    metadata.Columns
	bytes    bool // some items may need the message itself
	marks    bool // sets \Seen
	partial  bool // asks for a slice of something
	uid      bool // UID is asked for, or implied
	flags    bool // FLAGS is asked for
	modSeq   bool // MODSEQ is asked for, or implied
	envelope bool // ENVELOPE is asked for

	rowBatch          // which is answered
	other    rowBatch // the next one, or the one before
	reserved int64    // octets of memory for rows, and what they hold
	part     []byte   // of a binary part, to find out how it has to be written
	text     []byte   // fields of a header, while they are written

	ahead  *runAhead
	marked bool // \Seen was set on the batch

	m       *fetched // the message being answered
	begun   bool     // its response has begun
	next    int      // the first item not yet answered
	failure error    // the first thing that went wrong, which the command ends with
}

// newFetch makes the items of c ready. Asking for modseqs enables CONDSTORE, and
// CHANGEDSINCE implies that they are asked for (RFC 7162 §3.1.4.1).
func newFetch(s *session, c fetchCmd) *fetch {
	f := &fetch{s: s, by: c.by, items: make([]asked, 0, len(c.args.Items)+1)}
	simple := make(map[string]bool, len(c.args.Items))
	add := func(item imapwire.FetchItem) {
		a := ask(item)
		if a.write != nil {
			if simple[a.Name] {
				return
			}
			simple[a.Name] = true
		}
		s.enable(a.enables)
		f.needs |= a.needs
		f.bytes = f.bytes || a.locate != nil
		f.marks = f.marks || a.marks()
		f.partial = f.partial || a.HasPartial
		f.items = append(f.items, a)
	}
	simple[imapwire.ItemUID] = c.by == byUID // it comes first then
	for _, item := range c.args.Items {
		add(item)
	}
	if c.args.HasChangedSince {
		add(imapwire.FetchItem{Name: imapwire.ItemModSeq})
	}
	f.uid, f.flags, f.modSeq = simple[imapwire.ItemUID], simple[imapwire.ItemFlags], simple[imapwire.ItemModSeq]
	f.envelope = simple[imapwire.ItemEnvelope]
	f.marks = f.marks && !s.view.readOnly
	return f
}

// fromView answers what the view itself knows: flags, modseqs and UIDs.
func (f *fetch) fromView(uids []metadata.UIDRange) {
	e := f.s.enc
	var row fetchRow
	m := fetched{fetchRow: &row}
	for v := range f.s.view.messages(uids) {
		row.seq, row.uid, row.slot = v.seq, v.uid, v.slot
		f.begin(&m)
		for i := range f.items {
			f.items[i].write(f, &m)
		}
		e.FetchEnd()
		if e.Err() != nil {
			return
		}
	}
}

func (f *fetch) begin(m *fetched) {
	f.s.enc.FetchBegin(m.seq)
	if f.by == byUID {
		f.s.enc.FetchUID(m.uid)
	}
}

// respond answers one message. Where its bytes cannot be had from the start it is
// left out; when that shows later, only what is missing is.
func (f *fetch) respond(ctx context.Context, m *fetched) {
	f.m, f.begun, f.next = m, false, 0
	switch {
	case !m.found:
		f.fail(mailstore.ErrExpunged)
		return
	case m.err != nil:
		f.fail(m.err)
		return
	}
	for i := range f.items {
		if f.items[i].answer == nil {
			continue
		}
		if err := f.items[i].answer(ctx, f, i); err != nil {
			f.fail(err)
			if !f.begun && !errors.Is(err, mail.ErrUnknownEncoding) {
				return
			}
		}
	}
	f.upTo(ctx, len(f.items))
	if !f.begun {
		return // all that was asked for could not be decoded
	}
	if m.changed {
		f.tellChanged()
	}
	f.s.enc.FetchEnd()
}

// upTo writes the items before the i-th that need no bytes and are not yet
// written, and so begins the response if there is anything to write.
func (f *fetch) upTo(ctx context.Context, i int) {
	if !f.begun && (i < len(f.items) || f.by == byUID || f.hasSimple()) {
		if f.marks && !f.marked {
			f.markSeen(ctx)
		}
		f.begun = true
		f.begin(f.m)
	}
	for ; f.next < i; f.next++ {
		if write := f.items[f.next].write; write != nil {
			write(f, f.m)
		}
	}
}

func (f *fetch) hasSimple() bool {
	for i := range f.items {
		if f.items[i].write != nil {
			return true
		}
	}
	return false
}

// tellChanged appends the flags that the command changed, unless they were asked
// for (RFC 9051 §6.4.5), and the modseq of that with the UID (RFC 7162 §3.2.4).
func (f *fetch) tellChanged() {
	m := f.m
	if !f.uid && f.s.has(condStore) {
		f.s.enc.FetchUID(m.uid)
	}
	if !f.flags {
		f.s.writeFlags(m.uid, m.slot)
	}
	if !f.modSeq {
		f.s.writeModSeq(m.slot)
	}
	m.changed = false
}

// errCut ends a command whose connection is being cut off.
var errCut = nof(imapwire.CodeUnavailable, "The connection ends")

// fail notes that the current message could not be answered, or not wholly. The
// others are; the command ends with the first failure.
func (f *fetch) fail(err error) {
	log := func(message string) {
		id := int64(f.s.view.mailbox.ID())
		f.s.log().Error(message, zap.Int64("mailbox", id), zap.Uint32("uid", f.m.uid), zap.Error(err))
	}
	var status *StatusError
	switch {
	case errors.As(err, &status):
	case errors.Is(err, mail.ErrUnknownEncoding):
		err = nof(imapwire.CodeUnknownCTE, "A part has an encoding that is not known here")
	case errors.Is(err, context.Canceled):
		err = errCut
	case errors.Is(err, mailstore.ErrExpunged), errors.Is(err, blobstore.ErrUnavailable), errors.Is(err, metadata.ErrUnavailable):
	case errors.Is(err, blobstore.ErrNotFound), errors.Is(err, blobstore.ErrCorrupt), errors.Is(err, blobstore.ErrRange):
		log("message is missing or damaged")
		f.s.view.mailbox.Forget(f.m.uid)
		err = nof(imapwire.CodeCorruption, "Some of the messages are damaged, the others are sent")
	default:
		log("message not fetched")
		f.s.view.mailbox.Forget(f.m.uid)
		err = nof(imapwire.CodeServerBug, "Some of the messages cannot be sent, noted in the server's log")
	}
	if f.failure == nil {
		f.failure = err
	}
}
