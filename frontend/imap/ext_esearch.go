package imap

import "starling/frontend/imapwire"

// esearch is the response that says of uids what ret asks for (RFC 4731 §3.1, RFC 9051 §7.3.4).
func (c searchCmd) esearch(plan *searchPlan, uids []uint32, ret imapwire.SearchReturn) *imapwire.ESearch {
	out := &imapwire.ESearch{Tag: c.tag, UID: c.by == byUID}
	if ret.Count {
		out.HasCount, out.Count = true, len(uids)
	}
	if len(uids) == 0 {
		return out
	}
	told := uids
	if !ret.All && !ret.Count {
		told = ends(uids, ret)
	}
	nums, modSeq := c.tell(plan, told)
	out.ModSeq = modSeq // of what is told of, RFC 7162 §3.1.10
	if ret.All {
		out.All = nums
	}
	if ret.Min {
		out.Min = nums.Ranges()[0].Lo
	}
	if ret.Max {
		out.Max = nums.Highest()
	}
	return out
}

// ends is the first of uids if MIN is asked for, and the last if MAX is; uids is not empty.
func ends(uids []uint32, ret imapwire.SearchReturn) []uint32 {
	first, last := uids[:1], uids[len(uids)-1:]
	switch {
	case ret.Min && ret.Max && len(uids) > 1:
		return []uint32{first[0], last[0]}
	case ret.Min:
		return first
	default:
		return last
	}
}
