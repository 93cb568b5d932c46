package imap

import (
	"sync"

	"starling/frontend/imapwire"
	"starling/metadata"
)

// logins is how many sessions of each account and of each tenant are logged in on
// this node.
type logins struct {
	perAccount, perTenant int // the most; 0: no limit

	mu       sync.Mutex
	accounts map[metadata.AccountID]int
	tenants  map[metadata.TenantID]int
}

func newLogins(perAccount, perTenant int) *logins {
	return &logins{
		perAccount: perAccount, perTenant: perTenant,
		accounts: make(map[metadata.AccountID]int), tenants: make(map[metadata.TenantID]int),
	}
}

// admit counts a session of the account in, unless that would be over a limit. leave
// counts it out.
func (l *logins) admit(account *metadata.Account) (over refusal, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.perAccount > 0 && l.accounts[account.ID] >= l.perAccount:
		return overAccount, false
	case l.perTenant > 0 && l.tenants[account.Tenant] >= l.perTenant:
		return overTenant, false
	}
	l.accounts[account.ID]++
	l.tenants[account.Tenant]++
	return 0, true
}

func (l *logins) leave(account *metadata.Account) {
	l.mu.Lock()
	defer l.mu.Unlock()
	countOut(l.accounts, account.ID)
	countOut(l.tenants, account.Tenant)
}

func countOut[K comparable](counts map[K]int, key K) {
	if counts[key]--; counts[key] <= 0 {
		delete(counts, key)
	}
}

// errTooManySessions is what a login over a limit is answered with (RFC 9051 §7.1,
// LIMIT). The connection stays, for another try.
var errTooManySessions = nof(imapwire.CodeLimit, "Too many connections are logged in here, close some of them")
