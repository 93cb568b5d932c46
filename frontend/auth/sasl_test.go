package auth

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"starling/metadata"
)

// A turn is one response of the client (nil: none) and what it gets.
type turn struct {
	response  []byte
	challenge string // "-": none
	err       error
}

func said(s string) []byte { return []byte(s) }

func TestExchanges(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", maxPlain+1)
	const right = "\x00alice@example.org\x00" + horse
	for name, c := range map[string]struct {
		mechanism string
		turns     []turn
	}{
		"plain, initial response":    {"PLAIN", []turn{{said(right), "-", nil}}},
		"plain, name in small":       {"plain", []turn{{said(right), "-", nil}}},
		"plain, challenge":           {"PLAIN", []turn{{nil, "", nil}, {said(right), "-", nil}}},
		"plain, same authzid":        {"PLAIN", []turn{{said("Alice@example.org" + right), "-", nil}}},
		"plain, other authzid":       {"PLAIN", []turn{{said("bob@example.org" + right), "-", ErrAuthorization}}},
		"plain, other authzid, both": {"PLAIN", []turn{{said("bob@example.org\x00alice@example.org\x00wrong"), "-", ErrInvalid}}},
		"plain, wrong":               {"PLAIN", []turn{{said(right + "r"), "-", ErrInvalid}, {said(right), "-", ErrSyntax}}},
		"plain, empty":               {"PLAIN", []turn{{said(""), "-", ErrSyntax}}},
		"plain, no response":         {"PLAIN", []turn{{nil, "", nil}, {nil, "-", ErrSyntax}}},
		"plain, one NUL":             {"PLAIN", []turn{{said("alice@example.org\x00" + horse), "-", ErrSyntax}}},
		"plain, three NULs":          {"PLAIN", []turn{{said(right + "\x00"), "-", ErrSyntax}}},
		"plain, no name":             {"PLAIN", []turn{{said("\x00\x00" + horse), "-", ErrSyntax}}},
		"plain, no password":         {"PLAIN", []turn{{said("\x00alice@example.org\x00"), "-", ErrSyntax}}},
		"plain, not UTF-8":           {"PLAIN", []turn{{said(right + "\xff"), "-", ErrSyntax}}},
		"plain, too long":            {"PLAIN", []turn{{said("\x00a\x00" + long), "-", ErrSyntax}}},
		"plain, 255 octets":          {"PLAIN", []turn{{said(long[:255] + "\x00" + long[:255] + "\x00" + long[:255]), "-", ErrInvalid}}},
		"plain, after the end":       {"PLAIN", []turn{{said(right), "-", nil}, {said(right), "-", ErrSyntax}}},

		"login":                 {"LOGIN", []turn{{nil, "Username:", nil}, {said("alice@example.org"), "Password:", nil}, {said(horse), "-", nil}}},
		"login, empty initial":  {"LOGIN", []turn{{said(""), "Username:", nil}, {said("alice@example.org"), "Password:", nil}, {said(horse), "-", nil}}},
		"login, initial name":   {"LOGIN", []turn{{said("alice@example.org"), "Password:", nil}, {said(horse), "-", nil}}},
		"login, wrong":          {"LOGIN", []turn{{said("alice@example.org"), "Password:", nil}, {said("x"), "-", ErrInvalid}, {said(horse), "-", ErrSyntax}}},
		"login, no name":        {"LOGIN", []turn{{nil, "Username:", nil}, {said(""), "-", ErrSyntax}, {said(horse), "-", ErrSyntax}}},
		"login, long name":      {"LOGIN", []turn{{said(long), "-", ErrSyntax}}},
		"login, empty password": {"LOGIN", []turn{{said("alice@example.org"), "Password:", nil}, {said(""), "-", ErrInvalid}}},
		"login, not UTF-8":      {"LOGIN", []turn{{said("\xff\xfe"), "Password:", nil}, {said("\xff"), "-", ErrInvalid}}},
		"login, after the end":  {"LOGIN", []turn{{said("alice@example.org"), "Password:", nil}, {said(horse), "-", nil}, {said(horse), "-", ErrSyntax}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x, err := newFixture(t, Config{}).Start(c.mechanism, home)
			if err != nil {
				t.Fatal(err)
			}
			for i, turn := range c.turns {
				challenge, done, account, err := x.Next(t.Context(), turn.response)
				wantDone := turn.challenge == "-" && turn.err == nil
				switch {
				case !errors.Is(err, turn.err):
					t.Fatalf("turn %d: error %v, want %v", i, err, turn.err)
				case done != wantDone || (account.ID == 1) != wantDone:
					t.Fatalf("turn %d: done is %v with account %v", i, done, account)
				case turn.challenge == "-" && challenge != nil, turn.challenge != "-" && (challenge == nil || string(challenge) != turn.challenge):
					t.Fatalf("turn %d: challenge %q, want %q", i, challenge, turn.challenge)
				}
			}
		})
	}
}

func TestMechanisms(t *testing.T) {
	t.Parallel()
	var names []string
	for _, m := range Mechanisms() {
		names = append(names, m.Name)
		if !m.Plaintext {
			t.Errorf("%s is not known to send the password", m.Name)
		}
	}
	if !slices.Equal(names, []string{"PLAIN", "LOGIN"}) {
		t.Errorf("mechanisms are %v", names)
	}
	if _, err := newFixture(t, Config{}).Start("CRAM-MD5", home); !errors.Is(err, ErrMechanism) {
		t.Errorf("CRAM-MD5: %v", err)
	}
}

func TestExchangePassesErrors(t *testing.T) {
	t.Parallel()
	f := newFixture(t, Config{})
	f.db.err = metadata.ErrUnavailable
	x, err := f.Start("PLAIN", home)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := x.Next(t.Context(), []byte("\x00alice@example.org\x00x")); !errors.Is(err, metadata.ErrUnavailable) {
		t.Errorf("error is %v", err)
	}
}

func FuzzParsePlain(f *testing.F) {
	f.Add([]byte("\x00alice@example.org\x00secret"))
	f.Add([]byte("a\x00b\x00c"))
	f.Add([]byte("\x00\x00"))
	f.Fuzz(func(t *testing.T, message []byte) {
		authzid, authcid, password, err := parsePlain(message)
		if err == nil && authzid+"\x00"+authcid+"\x00"+password != string(message) {
			t.Errorf("%q is %q, %q, %q", message, authzid, authcid, password)
		}
		if err == nil && (authcid == "" || password == "") {
			t.Errorf("%q has an empty part", message)
		}
	})
}
