package metadata

import (
	"slices"
	"testing"
)

func TestThreadsTogether(t *testing.T) {
	t.Parallel()
	messages := []*Message{
		{ThreadID: 100, References: []int64{1}},
		{ThreadID: 200, References: []int64{2, 1}},
		{ThreadID: 300, References: []int64{3}},
		{ThreadID: 400, References: []int64{0, 9, 2}, RootUnknown: true},
		{ThreadID: 500},
		{ThreadID: 600, References: []int64{0}},
	}
	root, other := threadOf(7, 1), threadOf(7, 3)
	groups, proposed, look, refs := threads(7, messages)
	if want := []int32{0, 0, 2, 0, 4, 5}; !slices.Equal(groups, want) {
		t.Errorf("groups %d, want %d", groups, want)
	}
	if want := []int64{root, root, other, root, 500, 600}; !slices.Equal(proposed, want) {
		t.Errorf("proposed %d, want %d", proposed, want)
	}
	if want := []int64{1, 1, 2, 3, 9, 2}; !slices.Equal(look.hash, want) {
		t.Errorf("looked up %d, want %d", look.hash, want)
	}
	if want := []int64{1, 2, 3, 9}; !slices.Equal(refs.hash, want) || !slices.Equal(refs.thread, []int64{root, root, other, root}) {
		t.Errorf("remembered %d as %d", refs.hash, refs.thread)
	}
	if want := []int64{root, threadOf(7, 2), other, 0}; !slices.Equal(refs.derived, want) {
		t.Errorf("what follows from the ids is %d, want %d", refs.derived, want)
	}
}

func TestReferencesAreBounded(t *testing.T) {
	t.Parallel()
	m := &Message{References: []int64{1}}
	for i := range int64(1000) {
		m.References = append(m.References, 1000+i)
	}
	got := references(m)
	if len(got) != maxReferences || got[0] != 1000 || got[1] != 1970 || got[len(got)-2] != 1999 || got[len(got)-1] != 1 {
		t.Errorf("%d references: %d", len(got), got)
	}
}

// The thread of a message id is the same whenever it is asked for, and another in each account.
func TestThreadOf(t *testing.T) {
	t.Parallel()
	seen := map[int64]bool{}
	for account := range AccountID(10) {
		for hash := range int64(10) {
			id := threadOf(account, hash)
			if id <= 0 || id != threadOf(account, hash) || seen[id] {
				t.Errorf("account %d, hash %d: thread %d", account, hash, id)
			}
			seen[id] = true
		}
	}
}
