package metadata

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"slices"
)

// maxReferences bounds how many of a message's references are looked up: the
// first, which is the thread's root, and the last ones.
const maxReferences = 32

// threadOf is the thread that a message id, by its hash, begins in an account. It can be
// computed again by whoever knows the message id, so that nothing has to be kept of a message
// whose thread is that of its own id. Accounts have different threads for the same id.
func threadOf(account AccountID, hash int64) int64 {
	var b [16]byte
	binary.LittleEndian.PutUint64(b[:8], uint64(account)) //nolint:gosec // the same bits
	binary.LittleEndian.PutUint64(b[8:], uint64(hash))    //nolint:gosec // the same bits
	sum := sha256.Sum256(b[:])
	return max(int64(binary.LittleEndian.Uint64(sum[:])>>1), 1) //nolint:gosec // 63 bits
}

// lookups are the references by which threads may be known, by group.
type lookups struct {
	group []int32
	hash  []int64
}

// threadRefs are what may have to be remembered of new messages: their own ids, and the
// roots that they refer to. What belongs to the thread that follows from the id itself is not.
type threadRefs struct {
	hash    []int64
	group   []int32
	thread  []int64 // that is proposed for the group
	derived []int64 // that follows from the id; 0: it is remembered in any case
}

// threads sorts messages that are inserted together into groups, of which each
// is one thread: that of the oldest reference that is known, else the one that
// follows from the first id of the group's first message. Messages that know each other only by
// what is inserted with them are thus treated as if they came one by one.
func threads(account AccountID, messages []*Message) (groups []int32, proposed []int64, look lookups, refs threadRefs) {
	groups, proposed = make([]int32, len(messages)), make([]int64, len(messages))
	look = lookups{group: []int32{}, hash: []int64{}}
	known := make(map[int64]int32)
	loose := make(map[int64]bool)
	for i, m := range messages {
		group := int32(i) //nolint:gosec // as many as fit a statement
		hashes := references(m)
		for _, h := range hashes {
			if g, ok := known[h]; ok {
				group = g
				break
			}
		}
		groups[i], proposed[i] = group, m.ThreadID
		switch {
		case int(group) < i:
			proposed[i] = proposed[group]
		case len(hashes) > 0:
			proposed[i] = threadOf(account, hashes[0])
		}
		for _, h := range hashes {
			look.group = append(look.group, group)
			look.hash = append(look.hash, h)
		}
		for _, h := range m.References[:min(2, len(m.References))] { // itself and its root
			if _, ok := known[h]; !ok && h != 0 {
				known[h] = group
			}
		}
		if m.RootUnknown && len(m.References) > 1 {
			loose[m.References[1]] = true
		}
	}
	refs.hash = make([]int64, 0, len(known))
	for h := range known {
		refs.hash = append(refs.hash, h)
	}
	slices.SortFunc(refs.hash, cmp.Compare[int64]) // the order of locking
	n := len(refs.hash)
	refs.group, refs.thread, refs.derived = make([]int32, n), make([]int64, n), make([]int64, n)
	for i, h := range refs.hash {
		refs.group[i], refs.thread[i] = known[h], proposed[known[h]]
		if !loose[h] {
			refs.derived[i] = threadOf(account, h)
		}
	}
	return groups, proposed, look, refs
}

// references are what a message refers to, the root first, and last itself.
func references(m *Message) []int64 {
	if len(m.References) == 0 {
		return nil
	}
	own, refs := m.References[0], m.References[1:]
	all := make([]int64, 0, maxReferences)
	if len(refs) >= maxReferences {
		all = append(all, refs[0])
		refs = refs[len(refs)-(maxReferences-2):]
	}
	all = append(append(all, refs...), own)
	return slices.DeleteFunc(all, func(h int64) bool { return h == 0 })
}
