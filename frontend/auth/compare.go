package auth

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"go.uber.org/zap"

	"starling/metadata"
)

// A comparison is one password against one stored hash, and who asks.
type comparison struct {
	tag      tag
	stored   string
	password string
	account  metadata.AccountID // 0: unknown
	name     string             // the key of the account's failures
	remote   netip.Prefix       // the zero Prefix: not known
}

// compare says whether the password matches, from memory where the same
// comparison was made before. Those who ask the same at the same time share
// one answer. The same wrong password again is no guess, and not counted: a
// telephone with an old password must not lock out its owner.
func (a *Authenticator) compare(ctx context.Context, c *comparison) (bool, error) {
	for {
		a.mu.Lock()
		if _, ok := a.wrong.get(c.tag, a.config.now()); ok {
			a.mu.Unlock()
			return false, nil
		}
		f, ok := a.flights[c.tag]
		if !ok {
			f = &flight{done: make(chan struct{})}
			a.flights[c.tag] = f
			a.mu.Unlock()
			a.fly(ctx, c, f)
			return f.matched, f.err
		}
		a.mu.Unlock()
		select {
		case <-f.done:
		case <-ctx.Done():
			return false, fmt.Errorf("wait for the same login: %w", ctx.Err())
		}
		if f.err == nil || errors.Is(f.err, ErrThrottled) {
			return f.matched, f.err
		}
		// The one who led was cancelled: somebody else must lead.
	}
}

// fly finds the verdict for all who wait on f.
func (a *Authenticator) fly(ctx context.Context, c *comparison, f *flight) {
	f.err = errors.New("comparison ended early") // if what follows panics
	defer func() {
		a.mu.Lock()
		delete(a.flights, c.tag)
		a.mu.Unlock()
		close(f.done)
	}()
	lanes := a.lanes(c)
	if f.err = a.admit(ctx, lanes); f.err != nil {
		return
	}
	f.matched, f.err = a.verdict(ctx, c)
	now := a.config.now()
	if f.matched || f.err != nil {
		pardon(lanes, now)
		return
	}
	for _, l := range lanes {
		l.throttle.fail(l.key, now)
	}
}

// A lane is a key under which an attempt waits its turn.
type lane struct {
	throttle *throttle
	key      string
}

func (a *Authenticator) lanes(c *comparison) []lane {
	var lanes []lane
	if c.remote.IsValid() && !a.trusts(c.remote) {
		lanes = append(lanes, lane{a.remotes, c.remote.String()})
	}
	if !a.knows(c) {
		lanes = append(lanes, lane{a.accounts, c.name})
	}
	return lanes
}

// admit waits until the attempt may be examined. It comes before memory is
// asked, for otherwise memory would answer guesses without delay.
func (a *Authenticator) admit(ctx context.Context, lanes []lane) error {
	now := a.config.now()
	var wait time.Duration
	for i, l := range lanes {
		w, ok := l.throttle.admit(l.key, now)
		if !ok {
			pardon(lanes[:i], now)
			return ErrThrottled
		}
		wait = max(wait, w)
	}
	if wait == 0 {
		return nil
	}
	if err := a.config.sleep(ctx, wait); err != nil {
		pardon(lanes, a.config.now()) // its guess was not examined
		return fmt.Errorf("wait after failed logins: %w", err)
	}
	return nil
}

func pardon(lanes []lane, now time.Time) {
	for _, l := range lanes {
		l.throttle.pardon(l.key, now)
	}
}

func (a *Authenticator) trusts(remote netip.Prefix) bool {
	for _, p := range a.config.Trusted {
		if p.Contains(remote.Addr()) {
			return true
		}
	}
	return false
}

// knows reports whether the account has logged in from there before: others
// who guess its password must not keep it out.
func (a *Authenticator) knows(c *comparison) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, ok := a.familiar.get(origin{c.account, c.remote}, a.config.now())
	return ok && c.account != 0 && c.remote.IsValid()
}

// verdict answers from memory, or else hashes, and remembers.
func (a *Authenticator) verdict(ctx context.Context, c *comparison) (matched bool, err error) {
	a.mu.Lock()
	_, matched = a.matched.get(c.tag, a.config.now())
	a.mu.Unlock()
	if !matched {
		if matched, err = a.hash(ctx, c); err != nil {
			return false, err
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.config.now()
	if !matched {
		a.wrong.put(c.tag, struct{}{}, now)
		return false, nil
	}
	if _, ok := a.matched.get(c.tag, now); !ok {
		a.matched.put(c.tag, struct{}{}, now)
	}
	// What many people share says nothing about one of them.
	if c.remote.IsValid() && !a.trusts(c.remote) {
		a.familiar.put(origin{c.account, c.remote}, struct{}{}, now)
	}
	return true, nil
}

// hash compares in one of the slots. The password is tried as Prepare makes
// it and, where that is another, as it was sent: hashes that came from other
// servers were made of what their clients sent.
func (a *Authenticator) hash(ctx context.Context, c *comparison) (bool, error) {
	if err := a.queue(ctx); err != nil {
		return false, fmt.Errorf("wait to check a password: %w", err)
	}
	defer func() { <-a.slots }()
	a.metrics.hashes.Add(1)
	prepared := Prepare(c.password)
	matched, err := Verify(c.stored, prepared)
	if err == nil && !matched && prepared != c.password {
		matched, err = Verify(c.stored, c.password)
	}
	if err != nil {
		// The client must not learn that this account exists, and cannot help it.
		a.logger.Error("stored password cannot be checked", zap.Int64("account", int64(c.account)), zap.Error(err))
		return false, nil
	}
	return matched, nil
}

// queue waits for a slot, which the caller gives back.
func (a *Authenticator) queue(ctx context.Context) error {
	began := time.Now()
	defer func() { a.metrics.hashWait.Observe(time.Since(began).Seconds()) }()
	select {
	case a.slots <- struct{}{}: // a free slot is taken, however short the wait may be
		return nil
	default:
	}
	waiting, cancel := context.WithTimeout(ctx, a.config.HashWait)
	defer cancel()
	select {
	case a.slots <- struct{}{}:
		return nil
	case <-waiting.Done():
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return ErrThrottled
}
