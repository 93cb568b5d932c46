package main

import "testing"

func TestMemoryReturn(t *testing.T) {
	t.Parallel()
	const mega = 1 << 20
	var m memoryReturn
	for i, look := range []struct {
		allocated, held uint64 // in MB
		want            bool
	}{
		{30, 5, false},    // busy
		{31, 5, false},    // quiet, after little
		{500, 200, false}, // busy
		{505, 200, true},  // over
		{506, 200, false}, // nothing happened since
		{700, 200, false}, // busy
		{701, 200, false}, // less than what is held
		{704, 200, false},
		{706, 200, true},
		{720, 10, false}, // busy
		{730, 10, false}, // little
		{740, 10, true},
	} {
		if got := m.due(look.allocated*mega, look.held*mega); got != look.want {
			t.Errorf("look %d, %d MB allocated: due is %v", i, look.allocated, got)
		}
	}
}
