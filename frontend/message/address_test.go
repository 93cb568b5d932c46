package message

import (
	"bytes"
	"net/mail"
	"path/filepath"
	"strings"
	"testing"
)

func TestAddresses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ in, want string }{
		{"", `NIL`},
		{" ,, ", `NIL`},
		{"joe@example.org", `((NIL NIL "joe" "example.org"))`},
		{"Joe Q. Public <john.q.public@example.com>", `(("Joe Q. Public" NIL "john.q.public" "example.com"))`},
		{`"Joe \"Q\" Public" <joe@example.com>`, `(("Joe \"Q\" Public" NIL "joe" "example.com"))`},
		{`"Giant; \"Big\" Box" <sysservices@example.net>, jdoe@test.org`, `(("Giant; \"Big\" Box" NIL "sysservices" "example.net")(NIL NIL "jdoe" "test.org"))`},
		{"A Group:Ed Jones <joe@where.test>,john@jdoe.one.test;", `((NIL NIL "A Group" NIL)("Ed Jones" NIL "joe" "where.test")(NIL NIL "john" "jdoe.one.test")(NIL NIL NIL NIL))`},
		{"Undisclosed recipients:;", `((NIL NIL "Undisclosed recipients" NIL)(NIL NIL NIL NIL))`},
		{"undisclosed-recipients: ;, a@b", `((NIL NIL "undisclosed-recipients" NIL)(NIL NIL NIL NIL)(NIL NIL "a" "b"))`},
		{`"Quoted: group":a@b`, `((NIL NIL "Quoted: group" NIL)(NIL NIL "a" "b")(NIL NIL NIL NIL))`},
		{"Pete(A nice \\) chap) <pete(his account)@silly.test(his host)>", `(("Pete" NIL "pete" "silly.test"))`},
		{"jdoe@machine.example (John Doe)", `(("John Doe" NIL "jdoe" "machine.example"))`},
		{"<jdoe@machine.example> (John (the) Doe)", `(("John (the) Doe" NIL "jdoe" "machine.example"))`},
		{"John <@a.test,@b.test:john@c.test>", `(("John" "@a.test,@b.test" "john" "c.test"))`},
		{"<@a.test:john@c.test>", `((NIL "@a.test" "john" "c.test"))`},
		{`"joe doe"@example.org`, `((NIL NIL "joe doe" "example.org"))`},
		{`<"joe@home"@example.org>`, `((NIL NIL "joe@home" "example.org"))`},
		{"joe @ example . org", `((NIL NIL "joe" "example.org"))`},
		{"Mary Smith <@machine.tld:mary@example.net>, , jdoe@test   . example", `(("Mary Smith" "@machine.tld" "mary" "example.net")(NIL NIL "jdoe" "test.example"))`}, // RFC 5322 A.6.1
		{"<joe@example . (a comment) org>", `((NIL NIL "joe" "example.org"))`},
		{"joe@[IPv6:::1]", `((NIL NIL "joe" "[IPv6:::1]"))`},
		{"joe\r\n <joe@\r\n example.org>", `(("joe" NIL "joe" "example.org"))`},
		{"=?utf-8?Q?J=C3=B6e?= <joe@example.org>", `(("=?utf-8?Q?J=C3=B6e?=" NIL "joe" "example.org"))`},
		{"=?utf-8?Q?a,b:c?= <joe@example.org>", `(("=?utf-8?Q?a,b:c?=" NIL "joe" "example.org"))`},
		{"Jöe <joe@exämple.org>", `(("Jöe" NIL "joe" "exämple.org"))`},
		{"joe@[a\r\n b\x00]", `((NIL NIL "joe" "[a b ]"))`},
		// Broken ones: no text may be lost.
		{"root", `((NIL NIL "root" "MISSING_DOMAIN"))`},
		{"John Doe", `(("John Doe" NIL "MISSING_MAILBOX" "MISSING_DOMAIN"))`},
		{`"John"`, `(("John" NIL "MISSING_MAILBOX" "MISSING_DOMAIN"))`},
		{`"" <a@b>`, `((NIL NIL "a" "b"))`},
		{"(only a comment)", `(("only a comment" NIL "MISSING_MAILBOX" "MISSING_DOMAIN"))`},
		{"<>", `((NIL NIL "MISSING_MAILBOX" "MISSING_DOMAIN"))`},
		{"Bounce <>", `(("Bounce" NIL "MISSING_MAILBOX" "MISSING_DOMAIN"))`},
		{"<root>", `((NIL NIL "root" "MISSING_DOMAIN"))`},
		{"@example.org", `((NIL NIL "MISSING_MAILBOX" "example.org"))`},
		{"joe@", `((NIL NIL "joe" "MISSING_DOMAIN"))`},
		{"John Doe john@example.org", `(("John Doe" NIL "john" "example.org"))`},
		{"John <john@example.org", `(("John" NIL "john" "example.org"))`},
		{"<john@example.org, jane@example.org", `((NIL NIL "john" "example.org")(NIL NIL "jane" "example.org"))`},
		{"<a@b> <c@d>", `((NIL NIL "a" "b")(NIL NIL "c" "d"))`},
		{"<a@b> John", `(("John" NIL "a" "b"))`},
		{"Jane <a@b> Doe", `(("Jane Doe" NIL "a" "b"))`},
		{"a@b; c@d", `((NIL NIL "a" "b")(NIL NIL "c" "d"))`},
		{"a@b@c", `((NIL NIL "a@b" "c"))`},
		{`"unclosed <a@b>`, `(("unclosed <a@b>" NIL "MISSING_MAILBOX" "MISSING_DOMAIN"))`},
		{"(unclosed <a@b>", `(("unclosed <a@b>" NIL "MISSING_MAILBOX" "MISSING_DOMAIN"))`},
		{"mailto:joe@example.org", `((NIL NIL "mailto" NIL)(NIL NIL "joe" "example.org")(NIL NIL NIL NIL))`},
		{"a\x00b@c", `(("a" NIL "b" "c"))`},
		{"list:; (a comment)", `((NIL NIL "list" NIL)(NIL NIL NIL NIL))`},
		{";", `NIL`},
		{"group:a:b@c;", `((NIL NIL "group" NIL)(NIL NIL "a:b" "c")(NIL NIL NIL NIL))`},
	} {
		if got := dumpAddresses(AppendAddresses(nil, []byte(tt.in))); got != tt.want {
			t.Errorf("%q:\n got %s\nwant %s", tt.in, got, tt.want)
		}
	}
}

// What net/mail can read must be read alike.
func TestAddressesAsNetMail(t *testing.T) {
	t.Parallel()
	n := 0
	for _, path := range corpus(t) {
		s := parse(readFile(t, path))
		for name, value := range Fields(s.Header) {
			if !equalFold(name, "from") && !equalFold(name, "to") && !equalFold(name, "cc") || bytes.Contains(value, []byte("=?")) {
				continue
			}
			want, err := mail.ParseAddressList(string(value))
			if err != nil {
				continue
			}
			var got []Address
			for _, a := range AppendAddresses(nil, value) {
				if a.Host != nil {
					got = append(got, a)
				}
			}
			if len(got) != len(want) {
				t.Errorf("%s: %q: %s, net/mail has %d", filepath.Base(path), value, dumpAddresses(got), len(want))
				continue
			}
			for i := range want {
				n++
				if a := string(got[i].Mailbox) + "@" + string(got[i].Host); a != want[i].Address && `"`+string(got[i].Mailbox)+`"@`+string(got[i].Host) != want[i].Address ||
					strings.TrimSpace(want[i].Name) != strings.TrimSpace(string(got[i].Name)) {
					t.Errorf("%s: %q: %s, net/mail has %q %q", filepath.Base(path), value, dumpAddresses(got[i:i+1]), want[i].Name, want[i].Address)
				}
			}
		}
	}
	if n < 1000 {
		t.Errorf("compared %d addresses only", n)
	}
}
