package auth

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"
)

func TestThrottleDoublesUpToTheMost(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_800_000_000, 0)
	th := &throttle{free: 2, base: time.Second, most: 4 * time.Second, cool: time.Minute, table: newLRU[string, *tally](10, time.Hour)}
	var waits []time.Duration
	for range 8 {
		wait, ok := th.admit("k", now)
		if !ok {
			t.Fatal("refused, though it waits for nobody")
		}
		waits = append(waits, wait)
		now = now.Add(wait)
		th.fail("k", now)
	}
	want := []time.Duration{0, 0, 0, 1e9, 2e9, 4e9, 4e9, 4e9}
	if !slices.Equal(waits, want) {
		t.Errorf("waits are %v, want %v", waits, want)
	}
	if wait, ok := th.admit("other", now); wait != 0 || !ok {
		t.Errorf("another key waits %v, %v", wait, ok)
	}
}

func TestThrottleGivesNothingForParallelAttempts(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_800_000_000, 0)
	th := &throttle{free: 3, base: time.Second, most: 8 * time.Second, cool: time.Minute, table: newLRU[string, *tally](10, time.Hour)}
	var at, refused int
	for range 100 {
		wait, ok := th.admit("k", now)
		switch {
		case !ok:
			refused++
		case wait == 0:
			at++
		}
	}
	if at != 4 || refused != 93 { // at 0 s four, then after 1, 3 and 7 s
		t.Errorf("%d of 100 attempts at once are examined at once, and %d refused", at, refused)
	}
}

func TestThrottleForgets(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_800_000_000, 0)
	th := &throttle{free: 1, base: time.Second, most: time.Second, cool: time.Minute, table: newLRU[string, *tally](10, time.Hour)}
	for range 4 {
		th.admit("k", now)
		th.fail("k", now)
		now = now.Add(time.Second)
	}
	for i, want := range []int{4, 2, 1, 0} {
		n, ok := th.table.get("k", now)
		if !ok {
			t.Fatal("no tally")
		}
		n.forget(th.cool, now)
		if n.failures != want {
			t.Errorf("after %d minutes %d failures are left, want %d", i, n.failures, want)
		}
		now = now.Add(time.Minute)
	}
}

func TestThrottleTableIsBounded(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_800_000_000, 0)
	th := &throttle{free: 1, base: time.Second, most: time.Second, cool: time.Minute, table: newLRU[string, *tally](10, time.Hour)}
	for n := range 1000 {
		th.admit(fmt.Sprint(n), now)
	}
	if n := len(th.table.entries); n != 10 {
		t.Errorf("the table has %d entries, want 10", n)
	}
	if _, ok := th.table.get("999", now); !ok {
		t.Error("the last one is forgotten")
	}
	if _, ok := th.table.get("999", now.Add(time.Hour)); ok {
		t.Error("it lives for ever")
	}
}

func TestNetwork(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"192.0.2.1":            "192.0.2.1/32",
		"::ffff:192.0.2.1":     "192.0.2.1/32",
		"2001:db8:1:2::3":      "2001:db8:1:2::/64",
		"2001:db8:1:2:ffff::3": "2001:db8:1:2::/64",
		"2001:db8:1:3::3":      "2001:db8:1:3::/64",
		"fe80::1%eth0":         "fe80::/64",
	} {
		if got := network(netip.MustParseAddr(in)); got.String() != want {
			t.Errorf("%s counts as %s, want %s", in, got, want)
		}
	}
	if network(netip.Addr{}).IsValid() {
		t.Error("no address counts as one")
	}
}

// guess fails n times with different passwords.
func (f *fixture) guess(t *testing.T, n int, address string, remote netip.Addr) {
	t.Helper()
	for range n {
		f.want(t, ErrInvalid, address, f.clock.time().String()+fmt.Sprint(f.Stats().Failures), remote)
	}
}

func TestFailuresSlowAnAccountDown(t *testing.T) {
	t.Parallel()
	f := newFixture(t, Config{AccountFree: 3, Delay: time.Second, MaxDelay: 8 * time.Second})
	f.guess(t, 4, "alice@example.org", home)
	if d := f.clock.total(); d != 0 {
		t.Errorf("the first four waited %v", d)
	}
	for _, seconds := range []int{1, 2, 4, 8, 8} {
		want := time.Duration(seconds) * time.Second
		f.guess(t, 1, "alice@example.org", away)
		if d := f.clock.total(); d != want {
			t.Errorf("waited %v, want %v", d, want)
		}
	}
	f.want(t, nil, "bob@example.org", "battery", home)
	if d := f.clock.total(); d != 0 {
		t.Errorf("another account waited %v", d)
	}
	// The right password waits like a guess, or memory would tell guesses apart; but
	// then it is let in, and counts for nothing.
	f.want(t, nil, "alice@example.org", horse, home)
	if d := f.clock.total(); d != 8*time.Second {
		t.Errorf("the right password waited %v", d)
	}
	f.want(t, nil, "alice@example.org", horse, home)
	f.want(t, nil, "alice@example.org", horse, away)
	if d := f.clock.total(); d != 0 {
		t.Errorf("after a login that went well the next waited %v", d)
	}
}

func TestOwnerIsNotKeptOutFromWhereHeWasBefore(t *testing.T) {
	t.Parallel()
	f := newFixture(t, Config{AccountFree: 1, Delay: time.Second, MaxDelay: time.Minute})
	f.want(t, nil, "alice@example.org", horse, home6)
	f.guess(t, 6, "alice@example.org", away)
	f.clock.total()
	f.want(t, nil, "alice@example.org", horse, home6.Next())
	if d := f.clock.total(); d != 0 {
		t.Errorf("the owner waited %v at home", d)
	}
	// A network of many people does not make its guesses familiar.
	g := newFixture(t, Config{AccountFree: 1, Delay: time.Second, Trusted: []netip.Prefix{netip.PrefixFrom(home, 24).Masked()}})
	g.want(t, nil, "alice@example.org", horse, home)
	g.guess(t, 3, "alice@example.org", home)
	if d := g.clock.total(); d == 0 {
		t.Error("guesses from a trusted network waited for nothing")
	}
}

func TestFailuresSlowARemoteDown(t *testing.T) {
	t.Parallel()
	f := newFixture(t, Config{RemoteFree: 10, Delay: time.Second})
	for n := range 13 {
		f.guess(t, 1, fmt.Sprintf("user%d@example.org", n), home)
	}
	if d := f.clock.total(); d != 3*time.Second {
		t.Errorf("13 guesses waited %v", d)
	}
	f.want(t, nil, "alice@example.org", horse, away)
	if d := f.clock.total(); d != 0 {
		t.Errorf("another remote waited %v", d)
	}
	g := newFixture(t, Config{RemoteFree: 10, Delay: time.Second, Trusted: []netip.Prefix{netip.PrefixFrom(home, 32)}})
	for n := range 50 {
		g.guess(t, 1, fmt.Sprintf("user%d@example.org", n), home)
	}
	if d := g.clock.total(); d != 0 {
		t.Errorf("a trusted remote waited %v", d)
	}
}

func TestTheSameWrongPasswordIsNoGuess(t *testing.T) {
	t.Parallel()
	f := newFixture(t, Config{AccountFree: 2, RemoteFree: 2, Delay: time.Second})
	for range 50 {
		f.want(t, ErrInvalid, "alice@example.org", "old password", home)
	}
	f.want(t, nil, "alice@example.org", horse, home)
	if d := f.clock.total(); d != 0 {
		t.Errorf("waited %v", d)
	}
}

// Who waits for a turn holds no hashing slot, and a queue that is too long is
// refused without a look at the password.
func TestWaitingHoldsNoSlot(t *testing.T) {
	t.Parallel()
	f := newFixture(t, Config{Hashers: 1, AccountFree: 1, Delay: time.Second, MaxDelay: time.Second})
	waiting, goOn := make(chan struct{}), make(chan struct{})
	f.config.sleep = func(ctx context.Context, d time.Duration) error {
		waiting <- struct{}{}
		<-goOn
		return f.clock.sleep(ctx, d)
	}
	f.guess(t, 2, "alice@example.org", home)
	errs := make(chan error)
	for n := range 2 { // at 1 s and at 2 s: the second is over the most
		go func() {
			_, err := f.Login(t.Context(), Attempt{Address: "alice@example.org", Password: fmt.Sprint(n), Remote: home})
			errs <- err
		}()
	}
	<-waiting
	f.want(t, nil, "bob@example.org", "battery", home)
	if err := <-errs; err == nil {
		t.Error("a guess went well")
	}
	close(goOn)
	if err := <-errs; err == nil {
		t.Error("a guess went well")
	}
	if f.Stats().Throttled != 1 || f.Stats().Failures != 3 {
		t.Errorf("stats are %+v", f.Stats())
	}
}
