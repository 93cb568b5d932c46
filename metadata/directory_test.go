package metadata_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"starling/metadata"
	"starling/metadata/metadatatest"
)

// modes are the ways of sending statements, the first being the usual one.
var modes = []string{"cache_statement", "cache_describe", "exec"}

func inMode(mode string) func(*metadata.Config) {
	return func(c *metadata.Config) { c.QueryMode = mode }
}

// eachMode runs a test in all of them: typed parameters must do without the
// server's description.
func eachMode(t *testing.T, test func(t *testing.T, db *metadata.DB)) {
	t.Helper()
	t.Parallel()
	for _, mode := range modes {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			test(t, metadatatest.Open(t, inMode(mode)))
		})
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got error %v, want %v", err, want)
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	dsn := metadatatest.DSN(t)
	for name, c := range map[string]metadata.Config{
		"describe_exec":   {DSN: dsn, QueryMode: "describe_exec"},
		"simple_protocol": {DSN: dsn, QueryMode: "simple_protocol"},
		"a DSN":           {DSN: "nonsense"},
		"one connection":  {DSN: dsn, MaxConns: 1},
		"commands":        {DSN: dsn, MaxConns: 4, CommandConns: 4},
		"a timeout":       {DSN: dsn, LockTimeout: -1},
	} {
		if db, err := metadata.Open(t.Context(), c); err == nil {
			db.Close()
			t.Errorf("%s was not refused", name)
		}
	}
}

func TestOpenAndMigrate(t *testing.T) {
	t.Parallel()
	dsn := metadatatest.DSN(t)
	check(t, metadata.Migrate(t.Context(), dsn)) // again
	db, err := metadata.Open(t.Context(), metadata.Config{DSN: dsn})
	check(t, err)
	defer db.Close()
	check(t, db.Ping(t.Context()))
	warnings, err := db.Warnings(t.Context())
	check(t, err)
	if len(warnings) == 0 {
		t.Error("no warnings on a server without a standby")
	}
	before := db.Stats().RoundTrips
	check(t, db.Ping(t.Context()))
	if got := db.Stats().RoundTrips - before; got != 1 {
		t.Errorf("a ping took %d round trips", got)
	}
}

func TestTenantsAndDomains(t *testing.T) {
	eachMode(t, func(t *testing.T, db *metadata.DB) {
		ctx := t.Context()
		_, err := db.CreateTenant(ctx, "acme")
		check(t, err)
		_, err = db.CreateTenant(ctx, "acme")
		wantErr(t, err, metadata.ErrExists)
		_, err = db.CreateDomain(ctx, "nobody", "example.org")
		wantErr(t, err, metadata.ErrNotFound)
		d, err := db.CreateDomain(ctx, "acme", "Example.ORG")
		check(t, err)
		if d.Name != "example.org" || d.Created.IsZero() {
			t.Errorf("made %+v", d)
		}
		_, err = db.CreateDomain(ctx, "acme", "example.org")
		wantErr(t, err, metadata.ErrExists)
		wantErr(t, db.DeleteTenant(ctx, "acme"), metadata.ErrHasChildren)
		metadatatest.Account(t, db, "a@example.org")
		wantErr(t, db.DeleteDomain(ctx, "example.org"), metadata.ErrHasChildren)
		_, err = db.CreateDomain(ctx, "acme", "example.net")
		check(t, err)
		for tenant, want := range map[string]int{"": 2, "acme": 2, "other": 0} {
			all, err := db.Domains(ctx, tenant)
			check(t, err)
			if len(all) != want {
				t.Errorf("%d domains of %q, want %d", len(all), tenant, want)
			}
		}
		check(t, db.DeleteDomain(ctx, "example.net"))
		wantErr(t, db.DeleteDomain(ctx, "example.net"), metadata.ErrNotFound)
		wantErr(t, db.DeleteTenant(ctx, "other"), metadata.ErrNotFound)
		check(t, errOf(db.CreateTenant(ctx, "empty")))
		check(t, db.DeleteTenant(ctx, "empty"))
		all, err := db.Tenants(ctx)
		check(t, err)
		names := make([]string, len(all))
		for i, tenant := range all {
			names[i] = tenant.Name
		}
		if !slices.Equal(names, []string{"acme", "example.org"}) {
			t.Errorf("tenants are %q", names)
		}
	})
}

func errOf[T any](_ T, err error) error { return err }

func TestAccounts(t *testing.T) {
	eachMode(t, func(t *testing.T, db *metadata.DB) {
		ctx := t.Context()
		a := metadatatest.Account(t, db, "Alice@example.org", func(n *metadata.NewAccount) {
			n.PasswordHash = "hash"
			n.Limits = metadata.Quota{Bytes: 1000, Messages: 10}
			n.Mailboxes = metadata.DefaultMailboxes()
		})
		before := db.Stats().RoundTrips
		l, err := db.Login(ctx, "alice@EXAMPLE.org")
		check(t, err)
		if got := db.Stats().RoundTrips - before; got != 1 {
			t.Errorf("a login took %d round trips", got)
		}
		if l.Account != a || l.PasswordHash != "hash" || l.State != metadata.Active || l.Limits.Bytes != 1000 {
			t.Errorf("login read %+v, made was %+v", l, a)
		}
		wantErr(t, errOf(db.Login(ctx, "bob@example.org")), metadata.ErrNotFound)
		_, err = db.CreateAccount(ctx, metadata.NewAccount{Name: "alice@example.org"})
		wantErr(t, err, metadata.ErrExists)
		_, err = db.CreateAccount(ctx, metadata.NewAccount{Name: "alice@example.com"})
		wantErr(t, err, metadata.ErrNotFound)

		check(t, db.SetPassword(ctx, "alice@example.org", "other"))
		check(t, db.SetState(ctx, "alice@example.org", metadata.Suspended))
		l, err = db.Login(ctx, "alice@example.org")
		check(t, err)
		if l.PasswordHash != "other" || l.State != metadata.Suspended || l.AuthVersion != a.AuthVersion+2 {
			t.Errorf("after a new password and a suspension: %+v", l)
		}
		check(t, db.SetPassword(ctx, "alice@example.org", ""))
		l, err = db.Login(ctx, "alice@example.org")
		check(t, err)
		if l.PasswordHash != "" {
			t.Errorf("the removed hash is %q", l.PasswordHash)
		}
		check(t, db.DeleteAccount(ctx, "alice@example.org"))
		wantErr(t, db.SetState(ctx, "alice@example.org", metadata.Active), metadata.ErrNotFound)
		r, err := db.Recipient(ctx, "alice@example.org")
		check(t, err)
		if r.State != metadata.Deleting {
			t.Errorf("a deleted account is in state %d", r.State)
		}
		check(t, db.SetHold(ctx, "alice@example.org", "a lawsuit"))
		for _, err := range []error{
			db.SetPassword(ctx, "no@example.org", "x"), db.SetState(ctx, "no@example.org", metadata.Active),
			db.DeleteAccount(ctx, "no@example.org"), db.SetLimits(ctx, "no@example.org", metadata.Quota{Bytes: 1}),
			db.SetHold(ctx, "no@example.org", "a lawsuit"),
		} {
			wantErr(t, err, metadata.ErrNotFound)
		}
	})
}

func TestAliases(t *testing.T) {
	eachMode(t, func(t *testing.T, db *metadata.DB) {
		ctx := t.Context()
		a := metadatatest.Account(t, db, "alice@example.org")
		metadatatest.Account(t, db, "bob@example.org")
		metadatatest.Account(t, db, "carol@example.com")
		check(t, db.AddAlias(ctx, "alice@example.org", "Info@example.org"))
		wantErr(t, db.AddAlias(ctx, "alice@example.org", "bob@example.org"), metadata.ErrExists)
		wantErr(t, db.AddAlias(ctx, "alice@example.org", "info@example.com"), metadata.ErrNotFound) // another tenant's
		wantErr(t, db.AddAlias(ctx, "dora@example.org", "dee@example.org"), metadata.ErrNotFound)
		r, err := db.Recipient(ctx, "INFO@example.org")
		check(t, err)
		if r != a {
			t.Errorf("the alias leads to %+v", r)
		}
		wantErr(t, errOf(db.Login(ctx, "info@example.org")), metadata.ErrNotFound)
		all, err := db.Aliases(ctx, "alice@example.org")
		check(t, err)
		if !slices.Equal(all, []string{"info@example.org"}) {
			t.Errorf("aliases are %q", all)
		}
		wantErr(t, db.RemoveAlias(ctx, "bob@example.org", "info@example.org"), metadata.ErrNotFound)
		wantErr(t, db.RemoveAlias(ctx, "alice@example.org", "alice@example.org"), metadata.ErrNotFound)
		check(t, db.RemoveAlias(ctx, "alice@example.org", "info@example.org"))
		wantErr(t, errOf(db.Recipient(ctx, "info@example.org")), metadata.ErrNotFound)
	})
}

func TestAccountsArePaged(t *testing.T) {
	t.Parallel()
	db := metadatatest.Open(t)
	for _, name := range []string{"c@b.org", "a@b.org", "b@b.org", "a@c.org"} {
		metadatatest.Account(t, db, name)
	}
	for _, test := range []struct {
		domain, after string
		limit         int
		want          []string
	}{
		{"", "", 10, []string{"a@b.org", "a@c.org", "b@b.org", "c@b.org"}},
		{"b.org", "", 2, []string{"a@b.org", "b@b.org"}},
		{"b.org", "b@b.org", 2, []string{"c@b.org"}},
		{"d.org", "", 2, nil},
	} {
		all, err := db.Accounts(t.Context(), test.domain, test.after, test.limit)
		check(t, err)
		var names []string
		for _, a := range all {
			names = append(names, a.Name)
		}
		if !slices.Equal(names, test.want) {
			t.Errorf("accounts of %q after %q: %q, want %q", test.domain, test.after, names, test.want)
		}
	}
}

// A trace of the protocol ends nobody's session: the account's auth version stays.
func TestSetTrace(t *testing.T) {
	eachMode(t, func(t *testing.T, db *metadata.DB) {
		ctx := t.Context()
		a := metadatatest.Account(t, db, "alice@example.org")
		until := time.Now().Add(time.Hour).Truncate(time.Microsecond)
		for _, want := range []time.Time{until, {}} {
			set, err := db.SetTrace(ctx, a.ID, want)
			check(t, err)
			pulses, err := db.AccountPulses(ctx, []metadata.AccountID{a.ID})
			check(t, err)
			login, err := db.Login(ctx, a.Name)
			check(t, err)
			recipient, err := db.Recipient(ctx, a.Name)
			check(t, err)
			listed, err := db.Accounts(ctx, "", "", 10)
			check(t, err)
			for where, got := range map[string]time.Time{
				"the answer": set.TraceUntil, "the pulse": pulses[0].TraceUntil, "the login": login.TraceUntil,
				"the recipient": recipient.TraceUntil, "the list": listed[0].TraceUntil,
			} {
				if !got.Equal(want) || got.IsZero() != want.IsZero() {
					t.Errorf("%s says %v, want %v", where, got, want)
				}
			}
			if set.Account != a.ID || set.AuthVersion != a.AuthVersion || set.State != metadata.Active || set.ListSeq != pulses[0].ListSeq {
				t.Errorf("the answer is %+v", set)
			}
		}
		_, err := db.SetTrace(ctx, 4711, until)
		wantErr(t, err, metadata.ErrNotFound)
	})
}
