package mailstore

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"

	"starling/frontend/message"
	"starling/metadata"
)

// tie says by which message ids a new row is tied to a thread. All of it follows from the
// message: one that is brought back from its object is in the same thread again, and what has no ids
// at all is one under its own number.
func tie(row *metadata.Message, s *message.Summary) {
	refs, rooted := s.References()
	row.ThreadID, row.RootUnknown = row.EmailID, !rooted
	row.References = []int64{0}
	if own := s.MessageID(); own != nil {
		row.References[0] = hashID(own)
	}
	for _, id := range refs {
		if h := hashID(id); !slices.Contains(row.References, h) {
			row.References = append(row.References, h)
		}
	}
}

func hashID(id []byte) int64 {
	sum := sha256.Sum256(id)
	return int64(binary.LittleEndian.Uint64(sum[:]) >> 1) //nolint:gosec // 63 bits
}
