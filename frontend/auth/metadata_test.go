package auth

import (
	"testing"

	"go.uber.org/zap"

	"starling/metadata"
	"starling/metadata/metadatatest"
)

// Two authenticators are two nodes: what is changed in the database holds on
// both at once, whatever they remember.
func TestNodesSeeChangesAtOnce(t *testing.T) {
	t.Parallel()
	db := metadatatest.Open(t)
	stored, err := Hash(horse)
	if err != nil {
		t.Fatal(err)
	}
	alice := metadatatest.Account(t, db, "alice@example.org", func(n *metadata.NewAccount) { n.PasswordHash = stored })
	var nodes [2]*fixture
	for i := range nodes {
		clock := &clock{}
		a, err := New(db, Config{FailAfter: -1, now: clock.time, sleep: clock.sleep}, zap.NewNop())
		if err != nil {
			t.Fatal(err)
		}
		nodes[i] = &fixture{Authenticator: a, clock: clock}
	}
	everywhere := func(want error, password string) {
		t.Helper()
		for _, n := range nodes {
			n.want(t, want, "Alice@example.org", password, home)
		}
	}
	everywhere(nil, horse)
	account, err := nodes[0].Login(t.Context(), Attempt{Address: "alice@example.org", Password: horse, Remote: home})
	if err != nil || account.ID != alice.ID || account.Name != alice.Name {
		t.Fatalf("logged in as %+v, %v; want %+v", account, err, alice)
	}
	everywhere(ErrInvalid, "battery")
	nodes[0].want(t, ErrInvalid, "nobody@example.org", horse, home)
	nodes[0].want(t, ErrInvalid, "alice@example.net", horse, home)

	if err := db.SetPassword(t.Context(), alice.Name, "{SSHA}YjOxnlnw8lITpqjG3t+XV9jV7otwZXBwZXI="); err != nil {
		t.Fatal(err)
	}
	everywhere(nil, horse) // the same password under another hash
	if err := db.SetPassword(t.Context(), alice.Name, "{PLAIN}battery"); err != nil {
		t.Fatal(err)
	}
	everywhere(ErrInvalid, horse)
	everywhere(nil, "battery") // which did not match before

	if err := db.SetState(t.Context(), alice.Name, metadata.Suspended); err != nil {
		t.Fatal(err)
	}
	everywhere(ErrSuspended, "battery")
	everywhere(ErrInvalid, horse)
	if err := db.SetState(t.Context(), alice.Name, metadata.Active); err != nil {
		t.Fatal(err)
	}
	everywhere(nil, "battery")

	before := db.Stats().RoundTrips
	everywhere(nil, "battery")
	if n := db.Stats().RoundTrips - before; n != 2 {
		t.Errorf("two logins took %d round trips", n)
	}
	if err := db.DeleteAccount(t.Context(), alice.Name); err != nil {
		t.Fatal(err)
	}
	everywhere(ErrInvalid, "battery")
}
