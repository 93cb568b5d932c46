package imap

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
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
		*p.steps = 0
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
			err := q.run(newListTree(listOf(exampleList...)), func(e *listEntry, l *imapwire.Listing) {
				if e.name != l.Name {
					t.Errorf("entry %q is listed as %q", e.name, l.Name)
				}
				got = append(got, show(l))
			})
			if err != nil || !slices.Equal(got, c.want) {
				t.Errorf("got  %q, error %v\nwant %q", got, err, c.want)
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
		err := newListTree(listOf(exampleList...)).lsub(newListPattern(c.reference, c.pattern), func(l *imapwire.Listing) {
			got = append(got, show(l))
		})
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("LSUB %q %q: got %q, error %v, want %q", c.reference, c.pattern, got, err, c.want)
		}
	}
}

// A level stands right before what is below it, also where another name sorts between by bytes.
func TestListOrder(t *testing.T) {
	t.Parallel()
	var got []string
	for e := range newListTree(listOf("a-b", "a", "a/b", "a b", "a/b/c", "a/b-c")).entries {
		got = append(got, e.name)
	}
	if want := []string{"a", "a/b", "a/b/c", "a/b-c", "a b", "a-b"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// The names of a tree, and what stands below each, against a map of all levels.
func TestListTreeAgainstDefinition(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		var names []string
		for range random.IntN(12) {
			var levels []string
			for range 1 + random.IntN(4) {
				levels = append(levels, []string{"a", "b", "a-", "a b", "-"}[random.IntN(5)])
			}
			if name := strings.Join(levels, "/"); !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
		mailboxes, subs := make(map[string]bool), make(map[string]bool)
		for i, name := range names {
			switch random.IntN(3) {
			case 0:
				names[i], subs[name] = "!"+name, true
			case 1:
				names[i], subs[name], mailboxes[name] = "+"+name, true, true
			default:
				mailboxes[name] = true
			}
		}
		below := func(all map[string]bool, above string) bool {
			for name := range all {
				if strings.HasPrefix(name, above+"/") {
					return true
				}
			}
			return false
		}
		tree, got := newListTree(listOf(names...)), make(map[string]bool)
		tree.mark(func(e *listEntry) bool { return e.subscribed })
		for e := range tree.entries {
			if got[e.name] {
				t.Fatalf("%q: %q comes twice", names, e.name)
			}
			got[e.name] = true
			if (e.row != nil) != mailboxes[e.name] || e.subscribed != subs[e.name] || e.children != below(mailboxes, e.name) || e.below != below(subs, e.name) {
				t.Fatalf("%q: entry %+v", names, *e)
			}
		}
		for _, name := range names {
			for name = strings.TrimLeft(name, "!+"); name != ""; name = name[:max(strings.LastIndexByte(name, '/'), 0)] {
				if !got[name] {
					t.Fatalf("%q: %q is missing", names, name)
				}
			}
		}
	}
}

// The levels above ten thousand mailboxes, of which there may be twenty times as many, are not held.
func TestListOfDeepNames(t *testing.T) { //nolint:paralleltest // it measures what the process allocates
	var names []string
	for i := range 10_000 {
		names = append(names, strings.Repeat(fmt.Sprintf("%04d/", i), 19)+"x")
	}
	list := listOf(names...)
	q := newListQuery(&imapwire.ListArgs{Patterns: []string{"*x%"}})
	n := 0
	var was, is runtime.MemStats
	runtime.ReadMemStats(&was)
	tree := newListTree(list)
	err := q.run(tree, func(*listEntry, *imapwire.Listing) { n++ })
	runtime.ReadMemStats(&is)
	if err != nil || n != 10_000 {
		t.Errorf("%d names, error %v", n, err)
	}
	if took := is.TotalAlloc - was.TotalAlloc; took > 8<<20 {
		t.Errorf("it took %d octets", took)
	}
}

// Names and patterns that take too many steps to compare are refused.
func TestListSteps(t *testing.T) {
	t.Parallel()
	var names []string
	for i := range 1000 {
		names = append(names, strings.Repeat("a", 900)+strconv.Itoa(i))
	}
	list := listOf(names...)
	list.Subscriptions = names
	pattern := "*" + strings.Repeat("a", 450) + "b"
	q := newListQuery(&imapwire.ListArgs{Patterns: []string{pattern}})
	var status *StatusError
	for _, err := range []error{
		q.run(newListTree(list), func(*listEntry, *imapwire.Listing) {}),
		newListTree(list).lsub(newListPattern("", pattern), func(*imapwire.Listing) {}),
	} {
		if !errors.As(err, &status) || status.Code != imapwire.CodeLimit {
			t.Errorf("error is %v", err)
		}
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
