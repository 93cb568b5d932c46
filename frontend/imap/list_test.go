package imap

import (
	"slices"
	"strings"
	"testing"

	"starling/frontend/imapwire"
	"starling/frontend/mailstore"
	"starling/metadata"
)

func TestListPattern(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"*", "a/b/c", true},
		{"%", "a", true},
		{"%", "a/b", false},
		{"%/%", "a/b", true},
		{"%/%", "a", false},
		{"%/%", "a/b/c", false},
		{"a*", "a", true},
		{"a*", "a/b", true},
		{"a*c", "a/b/c", true},
		{"a%c", "a/b/c", false},
		{"a%c", "abc", true},
		{"*%", "a/b", true},
		{"%*", "a/b", true},
		{"*/%c", "a/b/xc", true},
		{"*a%b", "a/ab", true},
		{"*a%b", "aa/b", false},
		{"", "a", false},
		{"inbox", "INBOX", true},
		{"InBoX/x", "INBOX/x", true},
		{"inbox/X", "INBOX/x", false},
		{"i%x", "INBOX", true},
		{"inboxes", "INBOXES", false},
		{"a", "A", false},
		{"Ärger%", "Ärger", true},
	} {
		if got := newListPattern("", c.pattern).matches(c.name); got != c.want {
			t.Errorf("%q matches %q: %t, want %t", c.pattern, c.name, got, c.want)
		}
	}
}

// A pattern that makes naive matchers take exponential time.
func TestListPatternCostsLittle(t *testing.T) {
	t.Parallel()
	name := strings.Repeat("a", 1000)
	for _, wildcard := range []string{"*", "%", "*%", "%*"} {
		if newListPattern("", strings.Repeat(wildcard+"a", 450)+"b").matches(name) {
			t.Errorf("%sa…b matches only a", wildcard)
		}
	}
}

// naiveMatch says the same as listPattern.matches, by definition.
func naiveMatch(pattern, name string) bool {
	if pattern == "" {
		return name == ""
	}
	if c := pattern[0]; c == '*' || c == '%' {
		if naiveMatch(pattern[1:], name) {
			return true
		}
		return name != "" && (c == '*' || name[0] != '/') && naiveMatch(pattern, name[1:])
	}
	return name != "" && pattern[0] == name[0] && naiveMatch(pattern[1:], name[1:])
}

func FuzzListPattern(f *testing.F) {
	f.Add("a%b*c", "aab/c")
	f.Add("*a%b/%c*", "xa/ab/c/d")
	f.Fuzz(func(t *testing.T, pattern, name string) {
		if len(pattern) > 12 || len(name) > 16 || foldedPrefix(name) > 0 {
			t.Skip()
		}
		if got, want := newListPattern("", pattern).matches(name), naiveMatch(pattern, name); got != want {
			t.Errorf("%q matches %q: %t, want %t", pattern, name, got, want)
		}
	})
}

// Every pattern and name of a few characters.
func TestListPatternAgainstDefinition(t *testing.T) {
	t.Parallel()
	words := func(alphabet string, length int) []string {
		all, last := []string{""}, []string{""}
		for range length {
			var next []string
			for _, w := range last {
				for i := range len(alphabet) {
					next = append(next, w+alphabet[i:i+1])
				}
			}
			all, last = append(all, next...), next
		}
		return all
	}
	names := words("ab/", 5)
	for _, pattern := range words("ab/%*", 5) {
		p := newListPattern("", pattern)
		for _, name := range names {
			if got, want := p.matches(name), naiveMatch(pattern, name); got != want {
				t.Fatalf("%q matches %q: %t, want %t", pattern, name, got, want)
			}
		}
	}
}

func BenchmarkListPattern(b *testing.B) {
	p := newListPattern("", "*Archive%2024*")
	for b.Loop() {
		p.matches("Projects/Starling/Archive of 2024/Correspondence")
	}
}

// listOf is a list with the names given; "!" before one says that it is only subscribed, "+" that it
// is both; "=\Use" behind one is its special use.
func listOf(names ...string) *metadata.List {
	var l metadata.List
	for _, name := range names {
		name, use, _ := strings.Cut(name, "=")
		kind := name[:1]
		if kind == "!" || kind == "+" {
			name = name[1:]
			l.Subscriptions = append(l.Subscriptions, name)
		}
		if kind == "!" {
			continue
		}
		row := metadata.Mailbox{Name: name}
		if use != "" {
			row.SpecialUse = []string{use}
		}
		l.Mailboxes = append(l.Mailboxes, row)
	}
	return &l
}

// show is a listing as its response says it.
func show(l *imapwire.Listing) string {
	out := "(" + strings.Join(l.Attrs, " ") + ") " + l.Name
	if l.ChildInfo != nil {
		out += " CHILDINFO " + strings.Join(l.ChildInfo, " ")
	}
	return out
}

// exampleList is that of RFC 5258 §4, as far as one server can have it: no mailbox
// Fruit/Peach and no Vegetable any more.
var exampleList = []string{
	"+INBOX", "Fruit", "Fruit/Apple", "+Fruit/Banana", "!Fruit/Peach", "Tofu",
	"+Vegetable/Broccoli", "Vegetable/Corn", "Sent=\\Sent", "Old/Sent=\\Archive",
}

func TestList(t *testing.T) {
	t.Parallel()
	subscribed := imapwire.ListSelect{Subscribed: true}
	recursive := imapwire.ListSelect{Subscribed: true, RecursiveMatch: true}
	for _, c := range []struct {
		name string
		args imapwire.ListArgs
		want []string
	}{
		{"basic, all", imapwire.ListArgs{Patterns: []string{"*"}}, []string{
			`(\HasChildren) Fruit`, `(\HasNoChildren) Fruit/Apple`, `(\HasNoChildren) Fruit/Banana`,
			`(\HasNoChildren) INBOX`, `(\HasNoChildren \Archive) Old/Sent`, `(\HasNoChildren \Sent) Sent`,
			`(\HasNoChildren) Tofu`, `(\HasNoChildren) Vegetable/Broccoli`, `(\HasNoChildren) Vegetable/Corn`,
		}},
		{"basic, missing levels", imapwire.ListArgs{Patterns: []string{"%"}}, []string{
			`(\HasChildren) Fruit`, `(\HasNoChildren) INBOX`, `(\NonExistent \Noselect \HasChildren) Old`,
			`(\HasNoChildren \Sent) Sent`, `(\HasNoChildren) Tofu`, `(\NonExistent \Noselect \HasChildren) Vegetable`,
		}},
		{"reference", imapwire.ListArgs{Reference: "Fruit/", Patterns: []string{"%"}}, []string{
			`(\HasNoChildren) Fruit/Apple`, `(\HasNoChildren) Fruit/Banana`,
		}},
		{"several patterns, each name once", imapwire.ListArgs{Extended: true, Patterns: []string{"INBOX", "T*", "*u", "Fruit/%"}}, []string{
			`() Fruit/Apple`, `() Fruit/Banana`, `() INBOX`, `() Tofu`,
		}},
		{"missing levels, extended", imapwire.ListArgs{Extended: true, Patterns: []string{"V%"}, Return: imapwire.ListReturn{Children: true}}, []string{
			`(\NonExistent \HasChildren) Vegetable`,
		}},
		{"subscribed", imapwire.ListArgs{Extended: true, Select: subscribed, Patterns: []string{"*"}}, []string{
			`(\Subscribed) Fruit/Banana`, `(\NonExistent \Subscribed) Fruit/Peach`, `(\Subscribed) INBOX`,
			`(\Subscribed) Vegetable/Broccoli`,
		}},
		{"subscribed, one level", imapwire.ListArgs{Extended: true, Select: subscribed, Patterns: []string{"%"}}, []string{
			`(\Subscribed) INBOX`,
		}},
		{"return subscribed", imapwire.ListArgs{Extended: true, Patterns: []string{"Fruit/*"}, Return: imapwire.ListReturn{Subscribed: true}}, []string{
			`() Fruit/Apple`, `(\Subscribed) Fruit/Banana`,
		}},
		{"recursive", imapwire.ListArgs{Extended: true, Select: recursive, Patterns: []string{"%"}}, []string{
			`() Fruit CHILDINFO SUBSCRIBED`, `(\Subscribed) INBOX`, `(\NonExistent) Vegetable CHILDINFO SUBSCRIBED`,
		}},
		{"recursive with children", imapwire.ListArgs{Extended: true, Select: recursive, Patterns: []string{"F%"}, Return: imapwire.ListReturn{Children: true}}, []string{
			`(\HasChildren) Fruit CHILDINFO SUBSCRIBED`,
		}},
		{"recursive, all", imapwire.ListArgs{Extended: true, Select: recursive, Patterns: []string{"Fruit*"}}, []string{
			`(\Subscribed) Fruit/Banana`, `(\NonExistent \Subscribed) Fruit/Peach`, // which say more than CHILDINFO above them
		}},
		{"special use", imapwire.ListArgs{Extended: true, Select: imapwire.ListSelect{SpecialUse: true}, Patterns: []string{"*"}}, []string{
			`(\Archive) Old/Sent`, `(\Sent) Sent`,
		}},
		{"special use, recursive", imapwire.ListArgs{Extended: true, Select: imapwire.ListSelect{SpecialUse: true, RecursiveMatch: true}, Patterns: []string{"%"}}, []string{
			`(\NonExistent) Old CHILDINFO SPECIAL-USE`, `(\Sent) Sent`,
		}},
		{"both options", imapwire.ListArgs{Extended: true, Select: imapwire.ListSelect{SpecialUse: true, Subscribed: true}, Patterns: []string{"*"}}, nil},
		{"remote", imapwire.ListArgs{Extended: true, Select: imapwire.ListSelect{Remote: true}, Patterns: []string{"T*"}}, []string{`() Tofu`}},
		{"no match", imapwire.ListArgs{Patterns: []string{"Fruit/"}}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			q := newListQuery(&c.args)
			var got []string
			q.run(newListTree(listOf(exampleList...)), func(e *listEntry, l *imapwire.Listing) {
				if e.name != l.Name {
					t.Errorf("entry %q is listed as %q", e.name, l.Name)
				}
				got = append(got, show(l))
			})
			if !slices.Equal(got, c.want) {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
		})
	}
}

func TestLSub(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		reference, pattern string
		want               []string
	}{
		{"", "*", []string{"() Fruit/Banana", "() Fruit/Peach", "() INBOX", "() Vegetable/Broccoli"}},
		{"", "%", []string{`(\Noselect) Fruit`, "() INBOX", `(\Noselect) Vegetable`}},
		{"Fruit/", "%", []string{"() Fruit/Banana", "() Fruit/Peach"}},
		{"", "", nil},
	} {
		var got []string
		newListTree(listOf(exampleList...)).lsub(newListPattern(c.reference, c.pattern), func(l *imapwire.Listing) {
			got = append(got, show(l))
		})
		if !slices.Equal(got, c.want) {
			t.Errorf("LSUB %q %q: got %q, want %q", c.reference, c.pattern, got, c.want)
		}
	}
}

// A level stands right before what is below it, also where another name sorts between by bytes.
func TestListOrder(t *testing.T) {
	t.Parallel()
	var got []string
	for _, e := range newListTree(listOf("a-b", "a", "a/b", "a b", "a/b/c", "a/b-c")).sorted() {
		got = append(got, e.name)
	}
	if want := []string{"a", "a/b", "a/b/c", "a/b-c", "a b", "a-b"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestNewName(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"a/b/": "a/b", "inbox/": mailstore.Inbox, "Inbox/x": "INBOX/x", "a": "a", "/": "", "a//": "", "//a": "", "a\x01": "",
	} {
		got, err := newName(name)
		if err == nil && got != want || err != nil && want != "" {
			t.Errorf("%q became %q, %v; want %q", name, got, err, want)
		}
	}
}

func TestSpecialUses(t *testing.T) {
	t.Parallel()
	if got, err := specialUses([]string{`\sent`, `\SENT`, `\Important`}); err != nil || !slices.Equal(got, []string{`\Sent`, `\Important`}) {
		t.Errorf("got %q, %v", got, err)
	}
	for _, use := range []string{`\All`, `\Flagged`, `\Whatever`} {
		if _, err := specialUses([]string{use}); err == nil {
			t.Errorf("%s is accepted", use)
		}
	}
}
