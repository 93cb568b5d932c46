package imap

import (
	"errors"

	"starling/frontend/imapwire"
)

// save makes what a SEARCH with SAVE found what "$" stands for (RFC 5182 §2.1):
// all, but with MIN or MAX and neither ALL nor COUNT only what these tell. After a search
// that failed nothing is in it, except that BAD leaves it as it was.
func (v *view) save(ret imapwire.SearchReturn, uids []uint32, err error) {
	var status *StatusError
	if errors.As(err, &status) && status.Status == imapwire.BAD {
		return
	}
	if err != nil {
		uids = nil
	}
	if (ret.Min || ret.Max) && !ret.All && !ret.Count && len(uids) > 0 {
		uids = ends(uids, ret)
	}
	v.saved = imapwire.NumSetOf(uids...)
}
