package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"starling/metadata"
)

func copied(t testing.TB, text string, quoted bool, buffer int) string {
	t.Helper()
	var out bytes.Buffer
	if err := copyMail(&out, bufio.NewReaderSize(strings.NewReader(text), buffer), quoted); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestCopyMail(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 100)
	for _, test := range []struct{ in, want, quoted string }{
		{"", "", ""},
		{"A: b\n\nc\n", "A: b\r\n\r\nc\r\n", "A: b\r\n\r\nc\r\n"},
		{"A: b\r\n\r\nc\nd\r\n", "A: b\r\n\r\nc\nd\r\n", "A: b\r\n\r\nc\nd\r\n"}, // bytes are bytes
		{"A: b\n\r\nc", "A: b\r\n\r\nc", "A: b\r\n\r\nc"},
		{"A: b\n\n>From c\n>>From d\n>from e\n> From f\nx>From g\n", "A: b\r\n\r\n>From c\r\n>>From d\r\n>from e\r\n> From f\r\nx>From g\r\n", "A: b\r\n\r\nFrom c\r\n>From d\r\n>from e\r\n> From f\r\nx>From g\r\n"},
		{long + "\n" + long + ">From x\n", long + "\r\n" + long + ">From x\r\n", long + "\r\n" + long + ">From x\r\n"},
		{long[:15] + "\r\n" + long[:16] + "\n\r", long[:15] + "\r\n" + long[:16] + "\n\r", long[:15] + "\r\n" + long[:16] + "\n\r"},
		{"no end", "no end", "no end"},
		{"a\rb\rc\n", "a\rb\rc\r\n", "a\rb\rc\r\n"},
	} {
		for _, buffer := range []int{16, 4096} {
			if got := copied(t, test.in, false, buffer); got != test.want {
				t.Errorf("%q with a buffer of %d becomes %q", test.in, buffer, got)
			}
			if got := copied(t, test.in, true, buffer); got != test.quoted {
				t.Errorf("%q quoted, with a buffer of %d, becomes %q", test.in, buffer, got)
			}
		}
	}
}

// Whatever the buffer's borders cut, the outcome is the same; and what came out
// does not change again.
func FuzzCopyMail(f *testing.F) {
	f.Add("A: b\n\n>From c\n")
	f.Add("A: b\r\n\r\nc\nd")
	f.Add(strings.Repeat("y", 15) + "\r\n>From z\n")
	f.Fuzz(func(t *testing.T, text string) {
		want := copied(t, text, false, 1<<20)
		if got := copied(t, text, false, 16); got != want {
			t.Fatalf("%q becomes %q, or %q with a small buffer", text, want, got)
		}
		if got := copied(t, want, false, 16); got != want {
			t.Fatalf("%q, copied from %q, becomes %q", want, text, got)
		}
		if strings.ReplaceAll(want, "\r", "") != strings.ReplaceAll(text, "\r", "") {
			t.Fatalf("%q becomes %q", text, want)
		}
	})
}

func mboxTexts(t testing.TB, text string) (messages, from []string, err error) {
	t.Helper()
	err = splitMbox(strings.NewReader(text), func(e mboxEntry) error {
		messages = append(messages, text[e.start:e.end])
		from = append(from, e.from)
		return nil
	})
	return messages, from, err
}

func TestSplitMbox(t *testing.T) {
	t.Parallel()
	const line = "From a@b Mon Feb  2 03:04:05 2026\n"
	long := "Subject: " + strings.Repeat("x", 2*importBuffer) + "\n"
	for _, test := range []struct {
		in   string
		want []string
	}{
		{"", nil},
		{line, []string{""}},
		{line + "A: b\n\nc\n", []string{"A: b\n\nc\n"}},
		{line + "A: b\n\nc\n\n", []string{"A: b\n\nc\n"}},
		{line + "A: b\n\nc\n\n\n", []string{"A: b\n\nc\n\n"}},
		{line + "A: b\n\nc\n\n" + line + "D: e\n\n", []string{"A: b\n\nc\n", "D: e\n"}},
		{line + "A: b\n\nc\n" + line + "D: e\n\n", []string{"A: b\n\nc\n" + line + "D: e\n"}}, // not behind an empty line
		{line + "A: b\n\nFrom here on it is fine.\n", []string{"A: b\n\nFrom here on it is fine.\n"}},
		{strings.ReplaceAll(line+"A: b\n\nc\n\n"+line+"D: e\n", "\n", "\r\n"), []string{"A: b\r\n\r\nc\r\n", "D: e\r\n"}},
		{line + "\n" + line + "\n", []string{"", ""}},
		{line + long + "\n" + line + "A: b", []string{long, "A: b"}},
		{strings.TrimSuffix(line, "\n") + strings.Repeat(" ", 2*importBuffer) + "\nA: b\n", []string{"A: b\n"}},
	} {
		got, _, err := mboxTexts(t, test.in)
		if err != nil || !slices.Equal(got, test.want) {
			t.Errorf("%.200q has %.200q, %v", test.in, got, err)
		}
	}
	for _, text := range []string{"\n" + line, "A: b\n", "From me to you\n"} {
		if got, _, err := mboxTexts(t, text); !errors.Is(err, errNoMbox) || got != nil {
			t.Errorf("%q has %q, %v", text, got, err)
		}
	}
	stop := errors.New("stop")
	if err := splitMbox(strings.NewReader(line+"\n"+line), func(mboxEntry) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("error is %v", err)
	}
}

// Any text, quoted as mboxrd has it and put into an mbox beside others, comes out as it went in.
func FuzzMbox(f *testing.F) {
	f.Add("Subject: x\n\nFrom here 10:00\n>From there\n\n", "y")
	f.Add("", "\n\n")
	f.Add("a\r\nb", ">>From ")
	f.Fuzz(func(t *testing.T, a, b string) {
		var box strings.Builder
		for _, text := range []string{a, b} {
			box.WriteString("From x Mon Feb  2 03:04:05 2026\n")
			for line := range strings.SplitAfterSeq(text, "\n") {
				if strings.HasPrefix(strings.TrimLeft(line, ">"), "From ") {
					box.WriteByte('>')
				}
				box.WriteString(line)
			}
			if !strings.HasSuffix(text, "\n") {
				box.WriteByte('\n')
			}
			box.WriteByte('\n')
		}
		got, _, err := mboxTexts(t, box.String())
		if err != nil || len(got) != 2 {
			t.Fatalf("%q has %q, %v", box.String(), got, err)
		}
		for i, text := range []string{a, b} {
			if !strings.HasSuffix(text, "\n") {
				text += "\n"
			}
			if want := copied(t, text, false, 64); copied(t, got[i], true, 64) != want {
				t.Fatalf("message %d of %q is %q, want %q", i, box.String(), got[i], want)
			}
		}
	})
}

// Nothing in a file makes the reader go wrong: messages are in it, one behind the other.
func FuzzSplitMbox(f *testing.F) {
	f.Add("From x 1:00\n\nFrom y 2:00\n")
	f.Add("From \n\n\n")
	f.Fuzz(func(t *testing.T, text string) {
		var at int64
		err := splitMbox(strings.NewReader(text), func(e mboxEntry) error {
			if e.start < at || e.end < e.start || e.end > int64(len(text)) {
				return fmt.Errorf("message at %d to %d, behind %d", e.start, e.end, at)
			}
			at = e.end
			return nil
		})
		if err != nil && !errors.Is(err, errNoMbox) {
			t.Fatal(err)
		}
	})
}

func TestFromDate(t *testing.T) {
	t.Parallel()
	want := time.Date(2026, 2, 2, 3, 4, 5, 0, time.UTC)
	for _, line := range []string{
		"From a@b Mon Feb  2 03:04:05 2026", "From a@b  Mon Feb 2 03:04:05 2026", "From - Mon Feb 02 03:04:05 2026",
		"From 123@xxx Mon Feb 02 04:04:05 +0100 2026", "From a@b Mon Feb  2 04:04:05 2026 +0100",
		"From x y z Mon, 02 Feb 2026 03:04:05 +0000",
	} {
		if got := fromDate(line); !got.Equal(want) {
			t.Errorf("%q is of %v", line, got)
		}
	}
	for _, line := range []string{"From a@b", "From a@b 10:00", ""} {
		if got := fromDate(line); !got.IsZero() {
			t.Errorf("%q is of %v", line, got)
		}
	}
}

func TestMaildirFlags(t *testing.T) {
	t.Parallel()
	keywords := map[byte]string{'a': "work", 'b': "$Label1"}
	for name, want := range map[string]string{
		"1.2.host":            "0 []",
		"1.2.host:2,":         "0 []",
		"1.2.host,S=5:2,FRS":  fmt.Sprint(int(metadata.Flagged|metadata.Answered|metadata.Seen), " []"),
		"1.2.host:2,DT":       fmt.Sprint(int(metadata.Draft|metadata.Deleted), " []"),
		"1.2.host:2,Pab":      "0 [$Forwarded work $Label1]",
		"1.2.host:2,Saz!9,xS": fmt.Sprint(int(metadata.Seen), " [work]"),
		"1.2.host:1,FRS":      "0 []",
	} {
		got := maildirFlags(name, keywords)
		if text := fmt.Sprint(int(got.System), " ", got.Keywords); text != want {
			t.Errorf("%s has %s, want %s", name, text, want)
		}
	}
	for name, want := range map[string]bool{"work": true, "$Label1": true, "": false, `\Seen`: false, "a b": false, "é": false, "a]": false} {
		if isKeyword(name) != want {
			t.Errorf("isKeyword(%q) is %v", name, !want)
		}
	}
}

func FuzzMaildirFlags(f *testing.F) {
	f.Add("1:2,FRSab")
	f.Fuzz(func(t *testing.T, name string) {
		got := maildirFlags(name, map[byte]string{'a': "k", 'P': "other"})
		if got.System&^metadata.SystemFlags != 0 || len(got.Keywords) > 2 {
			t.Errorf("%q has %+v", name, got)
		}
	})
}
