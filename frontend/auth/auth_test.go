package auth

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"starling/metadata"
)

// accounts is a directory in memory.
type accounts struct {
	mu    sync.Mutex
	rows  map[string]metadata.Login
	err   error
	reads int
}

func (d *accounts) Login(_ context.Context, address string) (metadata.Login, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.reads++
	if d.err != nil {
		return metadata.Login{}, d.err
	}
	l, ok := d.rows[address]
	if !ok {
		return metadata.Login{}, metadata.ErrNotFound
	}
	return l, nil
}

func (d *accounts) set(name string, id metadata.AccountID, stored string, state metadata.AccountState) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.rows[name] = metadata.Login{Account: metadata.Account{ID: id, Name: name, State: state}, PasswordHash: stored}
}

// clock is a time that passes only when somebody sleeps.
type clock struct {
	mu    sync.Mutex
	now   time.Time
	slept []time.Duration
}

func (c *clock) time() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) sleep(ctx context.Context, d time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	c.now = c.now.Add(d)
	c.slept = append(c.slept, d)
	return nil
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// total forgets and returns how long was slept since it was last asked.
func (c *clock) total() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	var sum time.Duration
	for _, d := range c.slept {
		sum += d
	}
	c.slept = nil
	return sum
}

type fixture struct {
	*Authenticator
	db    *accounts
	clock *clock
}

func newFixture(t *testing.T, config Config) *fixture {
	t.Helper()
	db := &accounts{rows: make(map[string]metadata.Login)}
	db.set("alice@example.org", 1, "{PLAIN}"+horse, metadata.Active)
	db.set("bob@example.org", 2, "{PLAIN}battery", metadata.Active)
	clock := &clock{now: time.Unix(1_800_000_000, 0)}
	config.now, config.sleep = clock.time, clock.sleep
	if config.FailAfter == 0 {
		config.FailAfter = -1
	}
	a, err := New(db, config, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	return &fixture{a, db, clock}
}

var (
	home  = netip.MustParseAddr("192.0.2.1")
	away  = netip.MustParseAddr("198.51.100.7")
	home6 = netip.MustParseAddr("2001:db8:1:2::3")
)

// want logs in and compares the error.
func (f *fixture) want(t *testing.T, want error, address, password string, remote netip.Addr) {
	t.Helper()
	account, err := f.Login(t.Context(), Attempt{Address: address, Password: password, Remote: remote})
	if !errors.Is(err, want) {
		t.Fatalf("login of %.30q from %s: %v, want %v", address, remote, err, want)
	}
	if (err == nil) != (account.ID != 0) {
		t.Fatalf("login of %.30q: account %v with error %v", address, account, err)
	}
}

func TestLogin(t *testing.T) {
	t.Parallel()
	f := newFixture(t, Config{})
	f.db.set("carol@example.org", 3, "{PLAIN}"+horse, metadata.Suspended)
	f.db.set("dave@example.org", 4, "{PLAIN}"+horse, metadata.Deleting)
	f.db.set("erin@example.org", 5, "", metadata.Active)
	f.db.set("frank@example.org", 6, "{NONSENSE}x", metadata.Active)
	f.want(t, nil, "alice@example.org", horse, home)
	f.want(t, nil, "Alice@Example.ORG", horse, home)
	f.want(t, ErrInvalid, "alice@example.org", "wrong", home)
	f.want(t, ErrInvalid, "alice@example.org", "", home)
	f.want(t, ErrInvalid, "alice@example.org", strings.Repeat("x", 5000), home)
	f.want(t, ErrInvalid, "nobody@example.org", horse, home)
	f.want(t, ErrInvalid, "", horse, home)
	f.want(t, ErrInvalid, "a\x00b", horse, home)
	f.want(t, ErrInvalid, strings.Repeat("x", 5000), horse, home)
	f.want(t, ErrSuspended, "carol@example.org", horse, home)
	f.want(t, ErrInvalid, "carol@example.org", "wrong", home)
	f.want(t, ErrInvalid, "dave@example.org", horse, home)
	f.want(t, ErrInvalid, "erin@example.org", "", home)
	f.want(t, ErrInvalid, "frank@example.org", "x", home)
	f.want(t, nil, "alice@example.org", horse, netip.Addr{})
	if got := f.Stats(); got.Logins != 3 || got.Failures != 11 || got.Throttled != 0 {
		t.Errorf("stats are %+v", got)
	}
}

func TestLoginPassesErrorsOfTheDirectory(t *testing.T) {
	t.Parallel()
	f := newFixture(t, Config{})
	f.want(t, nil, "alice@example.org", horse, home)
	f.db.err = fmt.Errorf("dial: %w", metadata.ErrUnavailable)
	f.want(t, metadata.ErrUnavailable, "alice@example.org", horse, home)
	f.db.err = nil
	f.want(t, nil, "alice@example.org", horse, home)
}

func TestLoginRemembersWhatMatched(t *testing.T) {
	t.Parallel()
	f := newFixture(t, Config{CacheTTL: time.Hour})
	for range 10 {
		f.want(t, nil, "alice@example.org", horse, home)
		f.want(t, ErrInvalid, "alice@example.org", "wrong", home)
	}
	if n := f.Stats().Hashes; n != 2 {
		t.Errorf("hashed %d times, want 2", n)
	}
	if f.db.reads != 20 {
		t.Errorf("the row was read %d times in 20 logins", f.db.reads)
	}
	f.clock.pass(time.Hour)
	f.want(t, nil, "alice@example.org", horse, home)
	if n := f.Stats().Hashes; n != 3 {
		t.Errorf("hashed %d times after the cache's time, want 3", n)
	}
}

func TestNewPasswordAndSuspensionHoldAtOnce(t *testing.T) {
	t.Parallel()
	f := newFixture(t, Config{})
	f.want(t, nil, "alice@example.org", horse, home)
	f.want(t, ErrInvalid, "alice@example.org", "staple", home)
	f.db.set("alice@example.org", 1, "{PLAIN}staple", metadata.Active)
	f.want(t, ErrInvalid, "alice@example.org", horse, home)
	f.want(t, nil, "alice@example.org", "staple", home)
	f.db.set("alice@example.org", 1, "{PLAIN}staple", metadata.Suspended)
	f.want(t, ErrSuspended, "alice@example.org", "staple", home)
	f.db.set("alice@example.org", 1, "{PLAIN}staple", metadata.Active)
	f.want(t, nil, "alice@example.org", "staple", home)
	f.db.set("alice@example.org", 1, "{PLAIN}"+horse, metadata.Active)
	f.want(t, ErrInvalid, "alice@example.org", "staple", home)
	f.want(t, nil, "alice@example.org", horse, home)
}

// Two accounts with the same stored hash, and parts that could be cut
// elsewhere, have tags of their own.
func TestTagsDoNotMix(t *testing.T) {
	t.Parallel()
	f := newFixture(t, Config{})
	seen := make(map[tag][3]string)
	for _, parts := range [][3]string{{"a", "b", "c"}, {"ab", "", "c"}, {"a", "bc", ""}, {"", "ab", "c"}, {"b", "b", "c"}} {
		tag := f.tag(parts[0], parts[1], parts[2])
		if other, ok := seen[tag]; ok {
			t.Errorf("%q and %q share a tag", parts, other)
		}
		seen[tag] = parts
	}
	if f.tag("a", "b", "c") == newFixture(t, Config{}).tag("a", "b", "c") {
		t.Error("two processes share a key")
	}
}

func TestPasswordsMatchPreparedAndAsSent(t *testing.T) {
	t.Parallel()
	f := newFixture(t, Config{})
	const composed, decomposed = "Am\u00e9lie", "Ame\u0301lie"
	f.db.set("new@example.org", 7, "{PLAIN}"+Prepare(decomposed), metadata.Active)
	f.want(t, nil, "new@example.org", composed, home)
	f.want(t, nil, "new@example.org", decomposed, home)
	f.db.set("old@example.org", 8, "{PLAIN}"+decomposed, metadata.Active)
	f.want(t, nil, "old@example.org", decomposed, home)
	f.want(t, ErrInvalid, "old@example.org", composed, home)
}

func TestUnknownAccountCostsTheSame(t *testing.T) {
	t.Parallel()
	f, g := newFixture(t, Config{FailAfter: 500 * time.Millisecond}), newFixture(t, Config{FailAfter: 500 * time.Millisecond})
	var longest time.Duration
	for n := range 16 {
		f.want(t, ErrInvalid, "alice@example.org", fmt.Sprint(n), home)
		g.want(t, ErrInvalid, "nobody@example.org", fmt.Sprint(n), home)
		known, unknown := f.clock.total(), g.clock.total()
		if known != unknown || known < 500*time.Millisecond {
			t.Fatalf("attempt %d: %v for a known account, %v for an unknown one", n, known, unknown)
		}
		longest = max(longest, known)
	}
	if f.Stats() != g.Stats() || f.Stats().Hashes != 16 {
		t.Errorf("a known account: %+v, an unknown one: %+v", f.Stats(), g.Stats())
	}
	if longest < 10*time.Second {
		t.Errorf("16 guesses waited at most %v each", longest)
	}
}

// The dummy is as costly to compare with as what Hash makes.
func TestDummyIsLikeAHash(t *testing.T) {
	t.Parallel()
	dummy, err := unmatchable()
	if err != nil {
		t.Fatal(err)
	}
	real, err := Hash(horse)
	if err != nil {
		t.Fatal(err)
	}
	cut := func(s string) string { return s[:strings.LastIndex(s[:strings.LastIndex(s, "$")], "$")] }
	if cut(dummy) != cut(real) || len(dummy) != len(real) {
		t.Errorf("the dummy is %q, a hash %q", dummy, real)
	}
	if ok, err := Verify(dummy, horse); ok || err != nil {
		t.Errorf("compare with the dummy: %v, %v", ok, err)
	}
}

func TestEqualLoginsAtOnceAreHashedOnce(t *testing.T) {
	t.Parallel()
	f := newFixture(t, Config{Hashers: 1})
	f.slots <- struct{}{} // nobody can hash yet
	const clients = 20
	errs := make(chan error, clients)
	for range clients {
		go func() {
			_, err := f.Login(t.Context(), Attempt{Address: "alice@example.org", Password: horse, Remote: home})
			errs <- err
		}()
	}
	<-f.slots
	for range clients {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if n := f.Stats().Hashes; n != 1 {
		t.Errorf("%d equal logins were hashed %d times", clients, n)
	}
	if n := len(f.accounts.table.entries) + len(f.remotes.table.entries); n != 0 {
		t.Errorf("%d tallies are left of logins that went well", n)
	}
}

// Who leads a comparison and hangs up does not take the others along.
func TestCancelledLeaderIsFollowed(t *testing.T) {
	t.Parallel()
	f := newFixture(t, Config{Hashers: 1})
	f.slots <- struct{}{}
	leading, cancel := context.WithCancel(t.Context())
	led, followed := make(chan error), make(chan error)
	login := func(ctx context.Context, to chan error) {
		_, err := f.Login(ctx, Attempt{Address: "alice@example.org", Password: horse, Remote: home})
		to <- err
	}
	go login(leading, led)
	for f.inFlight() == 0 { // the leader has its flight
		runtime.Gosched()
		if t.Context().Err() != nil {
			t.Fatal("no flight")
		}
	}
	go login(t.Context(), followed)
	cancel()
	if err := <-led; !errors.Is(err, context.Canceled) {
		t.Errorf("the leader: %v", err)
	}
	<-f.slots
	if err := <-followed; err != nil {
		t.Errorf("the follower: %v", err)
	}
}

func (f *fixture) inFlight() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.flights)
}

func TestHashingIsBounded(t *testing.T) {
	t.Parallel()
	f := newFixture(t, Config{Hashers: 1, HashWait: time.Millisecond})
	f.slots <- struct{}{}
	f.want(t, ErrThrottled, "alice@example.org", horse, home)
	<-f.slots
	f.want(t, nil, "alice@example.org", horse, home)
}

func TestLoginsSideBySide(t *testing.T) {
	t.Parallel()
	f := newFixture(t, Config{RemoteFree: 1 << 20, AccountFree: 1 << 20})
	var wg sync.WaitGroup
	for n := range 200 {
		wg.Go(func() {
			address, password, want := "alice@example.org", horse, error(nil)
			switch n % 4 {
			case 1:
				address, password = "bob@example.org", "battery"
			case 2:
				password, want = fmt.Sprint(n), ErrInvalid
			case 3:
				address, want = fmt.Sprint(n%7), ErrInvalid
			}
			if _, err := f.Login(t.Context(), Attempt{Address: address, Password: password, Remote: home}); !errors.Is(err, want) {
				t.Errorf("login %d: %v, want %v", n, err, want)
			}
		})
	}
	wg.Wait()
	if got := f.Stats(); got.Logins != 100 || got.Failures != 100 {
		t.Errorf("stats are %+v", got)
	}
	if f.inFlight() != 0 || len(f.slots) != 0 {
		t.Errorf("%d flights and %d slots are left", f.inFlight(), len(f.slots))
	}
}

func BenchmarkLoginRemembered(b *testing.B) {
	db := &accounts{rows: make(map[string]metadata.Login)}
	db.set("alice@example.org", 1, "{PLAIN}"+horse, metadata.Active)
	a, err := New(db, Config{}, zap.NewNop())
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := a.Login(b.Context(), Attempt{Address: "alice@example.org", Password: horse, Remote: home}); err != nil {
			b.Fatal(err)
		}
	}
}
