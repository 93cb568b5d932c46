package imap

import (
	"context"
	"slices"
	"time"

	"starling/frontend/imapwire"
	"starling/metadata"
)

// searchCmd is SEARCH and UID SEARCH (RFC 9051 §6.4.4).
type searchCmd struct {
	by   numbering
	tag  string
	args imapwire.SearchArgs
}

func parseSearch(by numbering) func(*imapwire.Decoder) (command, error) {
	return func(d *imapwire.Decoder) (command, error) {
		c := searchCmd{by: by, tag: d.Tag(), args: d.SearchArgs()}
		return c, d.End()
	}
}

// news holds back what would renumber if the command names messages by number, in
// UID SEARCH too (RFC 9051 §7.5.1, RFC 7162 §3.2.10).
func (c searchCmd) news() news {
	if c.by == bySeq || byNumber(&c.args.Key) {
		return newsKept
	}
	return newsWhole
}

// byNumber says whether sequence numbers are among the keys.
func byNumber(k *imapwire.SearchKey) bool {
	numbers := k.Set
	numbers.Saved = false
	return k.Name == imapwire.KeySet && !numbers.Empty() || slices.ContainsFunc(k.Keys, func(kid imapwire.SearchKey) bool {
		return byNumber(&kid)
	})
}

func (c searchCmd) run(ctx context.Context, s *session) (imapwire.Code, error) {
	plan, uids, err := c.find(ctx, s)
	if c.args.Return.Save {
		s.view.save(c.args.Return, uids, err)
	}
	if err != nil {
		return "", err
	}
	c.respond(s, plan, uids)
	s.told = s.told || plan.modSeq && len(uids) > 0 // the response has a MODSEQ (RFC 7162 §3.1.5)
	return "", nil
}

func (c searchCmd) find(ctx context.Context, s *session) (*searchPlan, []uint32, error) {
	if c.args.Charset != "" && s.has(utf8Accept) && !s.has(rev2) {
		return nil, nil, badf("Strings are UTF-8 now, no CHARSET can be named") // RFC 6855 §3
	}
	plan, err := newSearchPlan(s.view, &c.args, time.Now())
	if err != nil {
		return nil, nil, err
	}
	if plan.modSeq {
		s.enable(condStore) // RFC 7162 §3.1
	}
	r := search{searchPlan: plan, s: s, heard: time.Now()}
	uids, err := r.run(ctx, c.by == bySeq)
	return plan, uids, err
}

// respond writes SEARCH, or ESEARCH to those who know it.
func (c searchCmd) respond(s *session, plan *searchPlan, uids []uint32) {
	ret := c.args.Return
	switch {
	case c.args.Extended:
		if ret.Min || ret.Max || ret.All || ret.Count {
			s.enc.ESearch(c.esearch(plan, uids, ret))
		} // with SAVE alone nothing is told (RFC 5182 §2.1)
	case s.has(rev2): // RFC 9051 §7.3.4
		s.enc.ESearch(c.esearch(plan, uids, imapwire.SearchReturn{All: true}))
	default:
		nums, modSeq := c.tell(plan, uids)
		s.enc.Search(nums, modSeq)
	}
}

// tell is the numbers that the client is told for uids, and the highest modseq
// of the messages if MODSEQ was searched for, else 0.
func (c searchCmd) tell(plan *searchPlan, uids []uint32) (nums imapwire.NumSet, modSeq uint64) {
	if c.by == byUID && !plan.modSeq {
		for _, uid := range uids {
			nums.Add(uid)
		}
		return nums, 0
	}
	for m := range plan.view.messages(metadata.Ranges(uids, 0)) {
		if c.by == byUID {
			nums.Add(m.uid)
		} else {
			nums.Add(m.seq)
		}
		if plan.modSeq {
			modSeq = max(modSeq, uint64(m.slot.ModSeq)) //nolint:gosec // not negative
		}
	}
	return nums, modSeq
}
