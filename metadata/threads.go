package metadata

import (
	"cmp"
	"slices"
)

// maxReferences bounds how many of a message's references are looked up: the
// first, which is the thread's root, and the last ones.
const maxReferences = 32

// lookups are the references by which threads may be known, by group.
type lookups struct {
	group []int32
	hash  []int64
}

// threadRefs are what is remembered of new messages: their own ids, and the
// roots that they refer to.
type threadRefs struct {
	hash   []int64
	group  []int32
	thread []int64
}

// threads sorts messages that are inserted together into groups, of which each
// is one thread: that of the oldest reference that is known, else the one that
// the group's first message proposes. Messages that know each other only by
// what is inserted with them are thus treated as if they came one by one.
func threads(messages []*Message) (groups []int32, proposed []int64, look lookups, refs threadRefs) {
	groups, proposed = make([]int32, len(messages)), make([]int64, len(messages))
	look = lookups{group: []int32{}, hash: []int64{}}
	known := make(map[int64]int32)
	for i, m := range messages {
		group := int32(i) //nolint:gosec // as many as fit a statement
		hashes := references(m)
		for _, h := range hashes {
			if g, ok := known[h]; ok {
				group = g
				break
			}
		}
		groups[i], proposed[i] = group, messages[group].ThreadID
		for _, h := range hashes {
			look.group = append(look.group, group)
			look.hash = append(look.hash, h)
		}
		for _, h := range m.References[:min(2, len(m.References))] { // itself and its root
			if _, ok := known[h]; !ok && h != 0 {
				known[h] = group
			}
		}
	}
	hashes := make([]int64, 0, len(known))
	for h := range known {
		hashes = append(hashes, h)
	}
	slices.SortFunc(hashes, cmp.Compare[int64]) // the order of locking
	refs = threadRefs{hash: hashes, group: make([]int32, len(hashes)), thread: make([]int64, len(hashes))}
	for i, h := range hashes {
		refs.group[i], refs.thread[i] = known[h], messages[known[h]].ThreadID
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
