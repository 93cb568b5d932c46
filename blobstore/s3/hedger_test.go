package s3

import (
	"testing"
	"time"
)

func TestFewAreSentTwice(t *testing.T) {
	t.Parallel()
	var h hedger
	again := func(n int) (taken int) {
		for range n {
			h.saw(time.Second)
			for h.take() {
				taken++
			}
		}
		return taken
	}
	if got := again(1000); got < 49 || got > 50 {
		t.Errorf("%d of 1000 may be sent again, want 5 in a hundred", got)
	}
	for range 10_000 {
		h.saw(time.Second)
	}
	if got := again(1); got != hedgeBurst {
		t.Errorf("%d may be sent again at once, want %d", got, hedgeBurst)
	}
}

func TestDelayIsThatOfNearlyAllAnswers(t *testing.T) {
	t.Parallel()
	var h hedger
	for range hedgeEvery - 1 {
		h.saw(time.Second)
	}
	if d := h.delay(); d != 0 {
		t.Errorf("after too few answers: %v, want none", d)
	}
	for i := range hedgeSamples + 1 {
		h.saw(time.Duration(i) * time.Millisecond)
	}
	if d := h.delay(); d < 230*time.Millisecond || d > 260*time.Millisecond {
		t.Errorf("of 0 to 256 ms: %v", d)
	}
	for range hedgeSamples {
		h.saw(time.Millisecond)
	}
	if d := h.delay(); d != hedgeFloor {
		t.Errorf("of 1 ms each: %v, want %v", d, hedgeFloor)
	}
}
