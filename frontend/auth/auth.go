package auth

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"starling/metadata"
)

// The errors of Login and Exchange.Next that callers tell apart with
// errors.Is. Besides them there are a context's errors and those of the
// directory, metadata.ErrUnavailable above all.
var (
	// ErrInvalid says that there is no such account or that the password is wrong; which
	// of the two is not told. [AUTHENTICATIONFAILED] of RFC 5530 §3.
	ErrInvalid = errors.New("invalid address or password")
	// ErrSuspended says that the password is right and the account may not be used.
	// [CONTACTADMIN] of RFC 5530 §3.
	ErrSuspended = errors.New("account is suspended")
	// ErrThrottled says that the attempt was not examined, because too many before it
	// failed or too many wait. It says nothing about the password, so a client should
	// not ask its user for another one: [UNAVAILABLE] of RFC 5530 §3.
	ErrThrottled = errors.New("too many failed logins")
	// ErrAuthorization says that the password is right and that the client asked to act
	// for somebody else, which nobody may. [AUTHORIZATIONFAILED] of RFC 5530 §3.
	ErrAuthorization = errors.New("not allowed to act for another account")
)

// MaxAddress is the longest address in octets that is looked up: 64 for the
// local part, 255 for the domain, and the sign between them (RFC 5321 §4.5.3.1).
const MaxAddress = 64 + 1 + 255

// Config says how an Authenticator behaves. The zero value of a field is the
// default that it names.
type Config struct {
	// Hashers is how many passwords are hashed at the same time. Default: GOMAXPROCS.
	Hashers int
	// HashWait is how long an attempt waits for its turn to be hashed before it is
	// refused with ErrThrottled. Default 10 s.
	HashWait time.Duration

	// CacheSize is how many verified passwords are remembered, at about 200 octets each,
	// and CacheTTL for how long. Defaults: 100,000, 1 h. As many wrong ones, too.
	CacheSize int
	CacheTTL  time.Duration

	// AccountFree is how many different wrong passwords for one account cost nothing,
	// RemoteFree how many from one remote address, of IPv6 a /64. Defaults: 5, 50.
	AccountFree int
	RemoteFree  int
	// Delay is what the next one costs; it doubles up to MaxDelay. Defaults: 500 ms, 15 s.
	Delay    time.Duration
	MaxDelay time.Duration
	// Cool is the time without a failure after which half of them are forgotten. Default 2 min.
	Cool time.Duration
	// FailAfter is the time from the beginning of an attempt before which no failure is
	// told, so that the time does not tell why it failed. Default 500 ms, negative: none.
	FailAfter time.Duration
	// TableSize bounds each of the tables of failures. Default 100,000.
	TableSize int
	// Trusted are the networks that many people log in from, such as those of webmail
	// servers, which are not slowed down by remote address. Default: none.
	Trusted []netip.Prefix

	// Metrics is where the figures are registered; nil: nowhere.
	Metrics prometheus.Registerer

	now   func() time.Time
	sleep func(context.Context, time.Duration) error
}

func (c Config) withDefaults() Config {
	orInt := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	orTime := func(v *time.Duration, d time.Duration) {
		if *v == 0 {
			*v = d
		}
	}
	orInt(&c.Hashers, runtime.GOMAXPROCS(0))
	orTime(&c.HashWait, 10*time.Second)
	orInt(&c.CacheSize, 100_000)
	orTime(&c.CacheTTL, time.Hour)
	orInt(&c.AccountFree, 5)
	orInt(&c.RemoteFree, 50)
	orTime(&c.Delay, 500*time.Millisecond)
	orTime(&c.MaxDelay, 15*time.Second)
	orTime(&c.Cool, 2*time.Minute)
	orTime(&c.FailAfter, 500*time.Millisecond)
	orInt(&c.TableSize, 100_000)
	if c.now == nil {
		c.now = time.Now
	}
	if c.sleep == nil {
		c.sleep = sleep
	}
	return c
}

// directory is where accounts are found: metadata.DB, or what a test needs.
type directory interface {
	Login(ctx context.Context, address string) (metadata.Login, error)
}

// An Attempt is what somebody says who wants to log in.
type Attempt struct {
	Address  string // the account's name, in any case
	Password string // as the client sent it, not prepared
	Remote   netip.Addr
}

// Stats counts what an Authenticator did since it was made.
type Stats struct {
	Logins    int64 // that went well
	Failures  int64 // with ErrInvalid
	Throttled int64 // with ErrThrottled
	Hashes    int64 // passwords that were hashed; the others were remembered
}

// An Authenticator tells who somebody is. It is safe for use by several
// goroutines, and nothing needs to be closed.
type Authenticator struct {
	db       directory
	config   Config
	logger   *zap.Logger
	refusals *zap.Logger // the same, bounded
	metrics  *metrics
	key      [32]byte      // of the tags; lives and dies with the process
	dummy    string        // what an unknown account's password is compared with
	slots    chan struct{} // one for each password that is being hashed

	accounts *throttle
	remotes  *throttle

	mu       sync.Mutex
	matched  *lru[tag, struct{}] // passwords that matched their stored hash
	wrong    *lru[tag, struct{}] // and those that did not
	flights  map[tag]*flight
	familiar *lru[origin, struct{}] // where accounts have logged in from
}

// A tag stands for a password together with the stored hash that it was
// compared with. Another stored hash is another tag, so a new password
// forgets by itself what was known about the old one.
type tag [sha256.Size]byte

type origin struct {
	account metadata.AccountID
	network netip.Prefix
}

// A flight is a comparison under way; the same one is not made twice at once.
type flight struct {
	done    chan struct{}
	matched bool
	err     error // no verdict
}

// New returns an Authenticator over a directory, usually a *metadata.DB.
func New(db directory, config Config, logger *zap.Logger) (*Authenticator, error) {
	config = config.withDefaults()
	dummy, err := unmatchable()
	if err != nil {
		return nil, err
	}
	limits := func(free int) *throttle {
		// A tally of long ago says nothing: it has been halved to nothing.
		life := 16 * config.Cool
		return &throttle{
			free: free, base: config.Delay, most: config.MaxDelay, cool: config.Cool,
			table: newLRU[string, *tally](config.TableSize, life),
		}
	}
	a := &Authenticator{
		db: db, config: config, logger: logger, refusals: bounded(logger), metrics: newMetrics(config.Metrics), dummy: dummy,
		slots:    make(chan struct{}, config.Hashers),
		accounts: limits(config.AccountFree),
		remotes:  limits(config.RemoteFree),
		matched:  newLRU[tag, struct{}](config.CacheSize, config.CacheTTL),
		wrong:    newLRU[tag, struct{}](config.CacheSize, config.CacheTTL),
		flights:  make(map[tag]*flight),
		familiar: newLRU[origin, struct{}](config.TableSize, 30*24*time.Hour),
	}
	if _, err := rand.Read(a.key[:]); err != nil {
		return nil, fmt.Errorf("make the key of the login cache: %w", err)
	}
	return a, nil
}

// Login returns the account whose address and password these are. It always
// reads the account's row. It takes its time: a failure is told after
// Config.FailAfter at the earliest, and an attempt that follows others that
// failed waits its turn first, without holding anything but its goroutine.
//
// Errors are ErrInvalid, ErrSuspended, ErrThrottled, those of ctx, and
// metadata.ErrUnavailable.
func (a *Authenticator) Login(ctx context.Context, t Attempt) (metadata.Account, error) {
	began := a.config.now()
	account, err := a.login(ctx, t)
	r := resultOf(ctx, err)
	if r == resultNone {
		return account, err
	}
	a.metrics.logins[r].Add(1)
	if err != nil {
		a.tell(t, r, err)
	}
	if r == resultInvalid {
		if rest := a.config.FailAfter - a.config.now().Sub(began); rest > 0 {
			if err := a.config.sleep(ctx, rest); err != nil {
				return metadata.Account{}, fmt.Errorf("log in: %w", err)
			}
		}
	}
	return account, err
}

// Stats returns the counts so far.
func (a *Authenticator) Stats() Stats {
	return Stats{
		Logins: a.metrics.logins[resultOK].Load(), Failures: a.metrics.logins[resultInvalid].Load(),
		Throttled: a.metrics.logins[resultThrottled].Load(), Hashes: a.metrics.hashes.Load(),
	}
}

func (a *Authenticator) login(ctx context.Context, t Attempt) (metadata.Account, error) {
	found, known, err := a.find(ctx, t.Address)
	if err != nil {
		return metadata.Account{}, err
	}
	stored, name := found.PasswordHash, "id:"+strconv.FormatInt(int64(found.ID), 16)
	if !known || stored == "" || t.Password == "" || len(t.Password) > MaxPassword {
		// The same work as for a wrong password, with the same counting.
		stored, known = a.dummy, false
		name = "name:" + strings.ToLower(t.Address[:min(len(t.Address), MaxAddress)])
	}
	c := &comparison{
		tag:    a.tag(name, stored, t.Password),
		stored: stored, password: t.Password[:min(len(t.Password), MaxPassword)],
		account: found.ID, name: name, remote: network(t.Remote),
	}
	matched, err := a.compare(ctx, c)
	switch {
	case err != nil:
		return metadata.Account{}, err
	case !matched || !known:
		return metadata.Account{}, ErrInvalid
	}
	switch found.State {
	case metadata.Active:
		return found.Account, nil
	case metadata.Suspended:
		return metadata.Account{}, ErrSuspended
	}
	return metadata.Account{}, ErrInvalid // it is being deleted
}

// find reads the account's row. What cannot be an address is not looked up.
func (a *Authenticator) find(ctx context.Context, address string) (login metadata.Login, known bool, err error) {
	if address == "" || len(address) > MaxAddress || !utf8.ValidString(address) || strings.ContainsFunc(address, unicode.IsControl) {
		return metadata.Login{}, false, nil
	}
	login, err = a.db.Login(ctx, strings.ToLower(address))
	switch {
	case errors.Is(err, metadata.ErrNotFound):
		return metadata.Login{}, false, nil
	case err != nil:
		return metadata.Login{}, false, fmt.Errorf("read the account: %w", err)
	}
	return login, true, nil
}

func (a *Authenticator) tag(name, stored, password string) tag {
	mac := hmac.New(sha256.New, a.key[:])
	for _, part := range [...]string{name, stored, password} {
		var size [8]byte
		binary.BigEndian.PutUint64(size[:], uint64(len(part)))
		_, _ = mac.Write(size[:]) // a hash never fails
		_, _ = mac.Write([]byte(part))
	}
	return tag(mac.Sum(nil))
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
