package metadata

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype/zeronull"
)

// AccountState says what may be done with an account.
type AccountState int16

// The states of an account.
const (
	Active    AccountState = 1 // all
	Suspended AccountState = 2 // it takes mail, nobody logs in
	Deleting  AccountState = 3 // nothing; the collector removes it
)

// Tenant is a customer of the operator, with domains of its own.
type Tenant struct {
	ID      TenantID
	Name    string
	Created time.Time
}

// Domain is a mail domain of a tenant.
type Domain struct {
	Name    string
	Tenant  string
	Created time.Time
}

// Account is who has mailboxes.
type Account struct {
	ID          AccountID
	Tenant      TenantID
	Name        string // its login and first address, in lower case
	State       AccountState
	AuthVersion int64 // raised when password or state change
	Hold        bool  // the collector leaves it alone
	Limits      Quota
	TraceUntil  time.Time // until when the protocol of its sessions is logged; zero: not at all
}

// Quota is an amount of mail: limits, where 0 is none, or use.
type Quota struct{ Bytes, Messages int64 }

// Login is an account with what its password is checked against.
type Login struct {
	Account
	PasswordHash string // empty: no password is right
}

// NewAccount is an account to be made.
type NewAccount struct {
	ID           AccountID // that it had when it was lost; 0: a new one
	Name         string    // an address in an existing domain
	PasswordHash string
	Limits       Quota
	Mailboxes    []NewMailbox // beside INBOX, which is always made
}

// NewMailbox is a mailbox to be made with its account.
type NewMailbox struct {
	Name       string
	SpecialUse []string // attributes with their backslash, RFC 6154 §2
	Subscribed bool
}

// DefaultMailboxes are what a new account usually has beside INBOX.
func DefaultMailboxes() []NewMailbox {
	return []NewMailbox{
		{Name: "Drafts", SpecialUse: []string{`\Drafts`}, Subscribed: true},
		{Name: "Sent", SpecialUse: []string{`\Sent`}, Subscribed: true},
		{Name: "Junk", SpecialUse: []string{`\Junk`}, Subscribed: true},
		{Name: "Trash", SpecialUse: []string{`\Trash`}, Subscribed: true},
		{Name: "Archive", SpecialUse: []string{`\Archive`}, Subscribed: true},
	}
}

func (a *Account) into() []any {
	return []any{&a.ID, &a.Tenant, &a.Name, &a.State, &a.AuthVersion, &a.Hold, &a.Limits.Bytes, &a.Limits.Messages, (*zeronull.Timestamptz)(&a.TraceUntil)}
}

// Login reads the account of that name, in any state, in one round trip. The
// error is ErrNotFound if there is none.
func (db *DB) Login(ctx context.Context, address string) (Login, error) {
	var l Login
	err := db.row(ctx, "log in", `
select a.account_id, a.tenant_id, a.name, a.state, a.auth_version, a.hold,
  coalesce(q.max_bytes, 0), coalesce(q.max_messages, 0), a.trace_until, coalesce(c.secret, '')
from account a
left join credential c on c.account_id = a.account_id and c.kind = 'password'
left join quota q on q.account_id = a.account_id
where a.name = $1::text`,
		[]any{strings.ToLower(address)}, append(l.into(), &l.PasswordHash)...)
	return l, notFound(err, "account %q", address)
}

// Recipient reads the account, in any state, that an address or alias belongs
// to, in one round trip. The error is ErrNotFound if there is none.
func (db *DB) Recipient(ctx context.Context, address string) (Account, error) {
	var a Account
	err := db.row(ctx, "find the recipient", `
select a.account_id, a.tenant_id, a.name, a.state, a.auth_version, a.hold,
  coalesce(q.max_bytes, 0), coalesce(q.max_messages, 0), a.trace_until
from address d
join account a on a.account_id = d.account_id
left join quota q on q.account_id = a.account_id
where d.address = $1::text`,
		[]any{strings.ToLower(address)}, a.into()...)
	return a, notFound(err, "address %q", address)
}

// notFound says what was not there.
func notFound(err error, format string, args ...any) error {
	if errors.Is(err, pgx.ErrNoRows) {
		return fmt.Errorf(format+": %w", append(args, ErrNotFound)...)
	}
	return err
}

// CreateTenant makes a tenant. The error is ErrExists if the name is taken, ErrName if it cannot be one.
func (db *DB) CreateTenant(ctx context.Context, name string) (Tenant, error) {
	if err := checkName(name); err != nil {
		return Tenant{}, fmt.Errorf("create tenant: %w", err)
	}
	t := Tenant{ID: TenantID(random63()), Name: name}
	err := db.writeRow(ctx, fmt.Sprintf("create tenant %q", name), `
insert into tenant (id, name)
values ($1::bigint, $2::text)
returning created`,
		[]any{t.ID, name}, &t.Created)
	return t, err
}

// Tenants lists all tenants by name.
func (db *DB) Tenants(ctx context.Context) ([]Tenant, error) {
	var all []Tenant
	err := db.rows(ctx, "list tenants", `
select id, name, created
from tenant
order by name`, nil, func(rows pgx.Rows) error {
		var t Tenant
		all = append(all, t)
		last := &all[len(all)-1]
		return rows.Scan(&last.ID, &last.Name, &last.Created)
	})
	return all, err
}

// DeleteTenant removes a tenant. The error is ErrNotFound, or ErrHasChildren
// while it has domains.
func (db *DB) DeleteTenant(ctx context.Context, name string) error {
	what := fmt.Sprintf("delete tenant %q", name)
	var found, used bool
	err := db.writeRow(ctx, what, `
with gone as (
  delete from tenant t
  where t.name = $1::text
    and not exists (select 1 from domain d where d.tenant_id = t.id)
  returning t.id)
select exists (select 1 from tenant where name = $1::text), not exists (select 1 from gone)`,
		[]any{name}, &found, &used)
	return refusal(what, err, found, used)
}

func refusal(what string, err error, found, used bool) error {
	switch {
	case err != nil:
		return err
	case !found:
		return fmt.Errorf("%s: %w", what, ErrNotFound)
	case used:
		return fmt.Errorf("%s: %w", what, ErrHasChildren)
	}
	return nil
}

// CreateDomain gives a tenant a mail domain. The error is ErrNotFound if there
// is no such tenant, ErrExists if somebody has the domain, ErrName if it is none.
func (db *DB) CreateDomain(ctx context.Context, tenant, domain string) (Domain, error) {
	if err := checkDomain(domain); err != nil {
		return Domain{}, fmt.Errorf("create domain: %w", err)
	}
	d := Domain{Name: strings.ToLower(domain), Tenant: tenant}
	err := db.writeRow(ctx, fmt.Sprintf("create domain %q", domain), `
insert into domain (name, tenant_id)
select $2::text, id
from tenant
where name = $1::text
returning created`,
		[]any{tenant, d.Name}, &d.Created)
	return d, notFound(err, "tenant %q", tenant)
}

// Domains lists the domains of a tenant, or all if tenant is empty, by name.
func (db *DB) Domains(ctx context.Context, tenant string) ([]Domain, error) {
	var all []Domain
	err := db.rows(ctx, "list domains", `
select d.name, t.name, d.created
from domain d
join tenant t on t.id = d.tenant_id
where $1::text in ('', t.name)
order by d.name`, []any{tenant}, func(rows pgx.Rows) error {
		var d Domain
		if err := rows.Scan(&d.Name, &d.Tenant, &d.Created); err != nil {
			return err
		}
		all = append(all, d)
		return nil
	})
	return all, err
}

// DeleteDomain removes a domain. The error is ErrNotFound, or ErrHasChildren
// while it has accounts or aliases.
func (db *DB) DeleteDomain(ctx context.Context, domain string) error {
	what := fmt.Sprintf("delete domain %q", domain)
	var found, used bool
	err := db.writeRow(ctx, what, `
with gone as (
  delete from domain d
  where d.name = $1::text
    and not exists (select 1 from account a where a.domain = d.name)
    and not exists (select 1 from address a where split_part(a.address, '@', -1) = d.name)
  returning d.name)
select exists (select 1 from domain where name = $1::text), not exists (select 1 from gone)`,
		[]any{strings.ToLower(domain)}, &found, &used)
	return refusal(what, err, found, used)
}

func domainOf(address string) string { return address[strings.LastIndexByte(address, '@')+1:] }

// CreateAccount makes an account with its mailboxes, all or nothing. The error
// is ErrNotFound if there is no such domain, ErrExists if the address, or the id,
// is taken, ErrName if it is no address.
func (db *DB) CreateAccount(ctx context.Context, n NewAccount) (Account, error) {
	if err := checkAddress(n.Name); err != nil {
		return Account{}, fmt.Errorf("create account: %w", err)
	}
	a := Account{ID: cmp.Or(n.ID, AccountID(random63())), Name: strings.ToLower(n.Name), State: Active, AuthVersion: 1, Limits: n.Limits}
	boxes := append([]NewMailbox{{Name: "INBOX", Subscribed: true}}, n.Mailboxes...)
	names, uses, subscribed, stamps := make([]string, len(boxes)), make([]string, len(boxes)), make([]bool, len(boxes)), make([]int64, len(boxes))
	for i, b := range boxes {
		names[i], uses[i], subscribed[i], stamps[i] = b.Name, strings.Join(b.SpecialUse, " "), b.Subscribed, random63()
	}
	err := db.writeRow(ctx, fmt.Sprintf("create account %q", n.Name), `
with d as materialized (
  select tenant_id, extract(epoch from now())::bigint as second
  from domain
  where name = $3::text),
b as materialized (
  select n, name, string_to_array(nullif(use, ''), ' ') as special_use, subscribed, stamp
  from unnest($7::text[], $8::text[], $9::boolean[], $10::bigint[]) with ordinality u(name, use, subscribed, stamp, n)),
a as (
  insert into account (account_id, tenant_id, name, domain, next_mailbox, last_uidvalidity)
  select $1::bigint, d.tenant_id, $2::text, $3::text, 1 + (select count(*) from b), d.second + (select count(*) from b)
  from d),
ad as (
  insert into address (address, account_id)
  select $2::text, $1::bigint
  from d),
c as (
  insert into credential (account_id, kind, secret)
  select $1::bigint, 'password', $4::text
  from d
  where $4::text <> ''),
q as (
  insert into quota (account_id, bytes, messages, max_bytes, max_messages)
  select $1::bigint, 0, 0, $5::bigint, $6::bigint
  from d
  where $5::bigint > 0 or $6::bigint > 0),
m as (
  insert into mailbox (account_id, id, uidvalidity, stamp, epoch, listseq, name, special_use)
  select $1::bigint, b.n, d.second + b.n, b.stamp, epoch(), 1, b.name, coalesce(b.special_use, '{}')
  from d, b),
s as (
  insert into subscription (account_id, name, subscribed, listseq)
  select $1::bigint, b.name, true, 1
  from d, b
  where b.subscribed)
select tenant_id
from d`,
		[]any{a.ID, a.Name, domainOf(a.Name), n.PasswordHash, n.Limits.Bytes, n.Limits.Messages, names, uses, subscribed, stamps},
		&a.Tenant)
	return a, notFound(err, "domain of %q", n.Name)
}

// Accounts lists accounts by name: those of a domain, or all if it is empty;
// those behind the name after; at most limit.
func (db *DB) Accounts(ctx context.Context, domain, after string, limit int) ([]Account, error) {
	var all []Account
	err := db.rows(ctx, "list accounts", `
select a.account_id, a.tenant_id, a.name, a.state, a.auth_version, a.hold,
  coalesce(q.max_bytes, 0), coalesce(q.max_messages, 0), a.trace_until
from account a
left join quota q on q.account_id = a.account_id
where $1::text in ('', a.domain)
  and a.name > $2::text
order by a.name
limit $3::bigint`,
		[]any{strings.ToLower(domain), strings.ToLower(after), int64(limit)}, func(rows pgx.Rows) error {
			var a Account
			if err := rows.Scan(a.into()...); err != nil {
				return err
			}
			all = append(all, a)
			return nil
		})
	return all, err
}

// SetPassword replaces the stored hash and raises AuthVersion; an empty hash
// removes it. The error is ErrNotFound if there is no such account.
func (db *DB) SetPassword(ctx context.Context, name, hash string) error {
	var id AccountID
	err := db.writeRow(ctx, fmt.Sprintf("set the password of %q", name), `
with a as (
  update account
  set auth_version = auth_version + 1
  where name = $1::text
  returning account_id),
gone as (
  delete from credential c
  using a
  where c.account_id = a.account_id and c.kind = 'password' and $2::text = ''),
c as (
  insert into credential (account_id, kind, secret)
  select account_id, 'password', $2::text
  from a
  where $2::text <> ''
  on conflict (account_id, kind) do update set secret = excluded.secret)
select account_id
from a`,
		[]any{strings.ToLower(name), hash}, &id)
	return notFound(err, "account %q", name)
}

// SetState suspends an account or makes it active again, and raises
// AuthVersion. An account that is being deleted stays so: ErrNotFound.
func (db *DB) SetState(ctx context.Context, name string, state AccountState) error {
	var id AccountID
	err := db.writeRow(ctx, fmt.Sprintf("set the state of %q", name), `
update account
set state = $2::smallint, state_since = now(), auth_version = auth_version + 1
where name = $1::text and state <> 3
returning account_id`,
		[]any{strings.ToLower(name), int16(state)}, &id)
	return notFound(err, "account %q", name)
}

// DeleteAccount marks an account as being deleted: from now on logins and
// deliveries refuse it, and the collector removes it. Its name stays taken
// until then. The error is ErrNotFound if there is no such account.
func (db *DB) DeleteAccount(ctx context.Context, name string) error {
	return db.SetState(ctx, name, Deleting)
}

// SetTrace has the protocol of an account's sessions logged until then, or with the zero
// time no longer. It returns what sessions have to notice; AuthVersion stays as it is. The
// error is ErrNotFound if there is no such account.
func (db *DB) SetTrace(ctx context.Context, account AccountID, until time.Time) (AccountPulse, error) {
	var p AccountPulse
	err := db.writeRow(ctx, "set the trace of an account", `
update account
set trace_until = $2::timestamptz
where account_id = $1::bigint
returning account_id, listseq, auth_version, state, trace_until`,
		[]any{account, zeronull.Timestamptz(until)}, p.into()...)
	return p, notFound(err, "account %x", int64(account))
}

// AddAlias gives an account a further address. The error is ErrNotFound if
// there is no such account or the address's domain is not of its tenant,
// ErrExists if the address is taken, ErrName if it is none.
func (db *DB) AddAlias(ctx context.Context, name, alias string) error {
	if err := checkAddress(alias); err != nil {
		return fmt.Errorf("add alias: %w", err)
	}
	var id AccountID
	alias = strings.ToLower(alias)
	err := db.writeRow(ctx, fmt.Sprintf("add alias %q", alias), `
insert into address (address, account_id)
select $2::text, a.account_id
from account a
join domain d on d.tenant_id = a.tenant_id and d.name = $3::text
where a.name = $1::text
returning account_id`,
		[]any{strings.ToLower(name), alias, domainOf(alias)}, &id)
	return notFound(err, "account %q and domain of %q", name, alias)
}

// RemoveAlias takes an address, but not its name, from an account. The error
// is ErrNotFound if it has no such alias.
func (db *DB) RemoveAlias(ctx context.Context, name, alias string) error {
	var id AccountID
	err := db.writeRow(ctx, fmt.Sprintf("remove alias %q", alias), `
delete from address d
using account a
where a.name = $1::text
  and d.account_id = a.account_id
  and d.address = $2::text
  and d.address <> a.name
returning d.account_id`,
		[]any{strings.ToLower(name), strings.ToLower(alias)}, &id)
	return notFound(err, "alias %q", alias)
}

// Aliases lists the addresses of an account beside its name.
func (db *DB) Aliases(ctx context.Context, name string) ([]string, error) {
	var all []string
	err := db.rows(ctx, "list aliases", `
select d.address
from account a
join address d on d.account_id = a.account_id
where a.name = $1::text
  and d.address <> a.name
order by d.address`,
		[]any{strings.ToLower(name)}, func(rows pgx.Rows) error {
			var alias string
			all = append(all, alias)
			return rows.Scan(&all[len(all)-1])
		})
	return all, err
}
