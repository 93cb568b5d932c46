package mailstore_test

import (
	"slices"
	"strings"
	"testing"

	"starling/frontend/mailstore"
	"starling/metadata"
)

// What is listed of a message to bring back is for people, on a terminal.
func TestHeadings(t *testing.T) {
	t.Parallel()
	s := newSite(t, metadata.Quota{})
	a, box := s.open(s.store(), "INBOX", func() {})
	for _, header := range []string{
		"From: =?utf-8?Q?J=C3=BCrgen?= <j@example.org>, b@example.org\r\nSubject: =?utf-8?B?R3LDvMOfZQ==?=\r\n =?utf-8?Q?_aus_K=C3=B6ln?=\r\n",
		"From: \"x\x1b[2Jy\" <x\x07@example.org>\r\nSubject: =?utf-8?Q?a=1B]0;b=0Ac=E2=80=AEd?= \xff\r\n",
		"From: friends: ;\r\n",
		"Subject: " + strings.Repeat("lo ng", 100) + "\r\n",
		"",
	} {
		if _, err := deliver(t.Context(), a, "INBOX", header+"\r\nhello\r\n", mailstore.FlagSet{}); err != nil {
			t.Fatal(err)
		}
	}
	s.expunge(box, 1, 5)
	s.exec(`update message set summary = '\x01' where account_id = $account and uid = 5`)
	want := []mailstore.Heading{
		{From: "Jürgen <j@example.org>", Subject: "Grüße aus Köln"},
		{From: "x [2Jy <x @example.org>", Subject: "a ]0;b c d \ufffd"},
		{From: "friends"},
		{Subject: strings.Repeat("lo ng", 20) + "…"},
		{Subject: "(not known: the summary is damaged)"},
	}
	var got []mailstore.Heading
	err := box.Headings(t.Context(), []uint32{1, 2, 3, 4, 5}, func(uid uint32, h mailstore.Heading) {
		if got = append(got, h); len(got) != int(uid) {
			t.Errorf("message %d is the %d-th", uid, len(got))
		}
	})
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%v: got\n%q, want\n%q", err, got, want)
	}
}
