package metadata_test

import (
	"slices"
	"testing"

	"starling/metadata"
)

func TestRanges(t *testing.T) {
	t.Parallel()
	uids := []uint32{1, 2, 3, 5, 9, 10, 4294967295}
	for gap, want := range map[uint32][]metadata.UIDRange{
		0: {{First: 1, Last: 3}, {First: 5, Last: 5}, {First: 9, Last: 10}, {First: 4294967295, Last: 4294967295}},
		1: {{First: 1, Last: 5}, {First: 9, Last: 10}, {First: 4294967295, Last: 4294967295}},
		4: {{First: 1, Last: 10}, {First: 4294967295, Last: 4294967295}},
	} {
		if got := metadata.Ranges(uids, gap); !slices.Equal(got, want) {
			t.Errorf("gap %d: %v, want %v", gap, got, want)
		}
	}
	if got := metadata.Ranges(nil, 4); got != nil {
		t.Errorf("nothing became %v", got)
	}
}
