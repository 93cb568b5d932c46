package main_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// curl lists, fetches, appends, searches and deletes, each on the other node
// than the command before, with TLS from the start or by STARTTLS.
func TestCurl(t *testing.T) {
	t.Parallel()
	needClient(t, "curl")
	c := newCluster(t)
	turn := 0
	curl := func(path string, args ...string) string {
		t.Helper()
		turn++
		n := c.nodes[turn%2]
		url := "imaps://localhost:" + n.port(n.imaps) + path
		if turn%4 < 2 {
			url = "imap://localhost:" + n.port(n.imap) + path
		}
		return runTool(t, "", nil, "curl", append([]string{
			"--silent", "--show-error", "--ssl-reqd", "--cacert", c.cert, "--ipv4",
			"--user", testUser + ":" + testPassword, "--url", url,
		}, args...)...)
	}
	has := func(got string, want ...string) {
		t.Helper()
		for _, w := range want {
			if !strings.Contains(got, w) {
				t.Errorf("got %q, without %q", got, w)
			}
		}
	}
	has(curl("/"), `* LIST (`, `"/" INBOX`, `"/" Archive`)
	curl("", "--request", "CREATE Work/Orders")
	has(curl("/Work"), `Orders`)
	mail := numberedMail(25)
	file := filepath.Join(t.TempDir(), "mail.eml")
	if err := os.WriteFile(file, []byte(mail), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		curl("/Work%2FOrders", "--upload-file", file)
	}
	c.deliver(0, testUser, numberedMail(7))
	has(curl("/INBOX;UID=1;SECTION=TEXT"), "Text of message 7.\r\n")
	if got := curl("/Work%2FOrders;UID=2"); got != mail {
		t.Errorf("fetched %q", got)
	}
	has(curl("/Work%2FOrders?SUBJECT%20%22Message%2025%22"), "* SEARCH 1 2 3\r\n")
	has(curl("/Work%2FOrders", "--request", `STORE 2 +FLAGS (\Deleted)`), `* 2 FETCH (`, `\Deleted`)
	has(curl("/Work%2FOrders", "--request", "EXPUNGE"), "* 2 EXPUNGE")
	has(curl("/Work%2FOrders", "--request", "UID SEARCH ALL"), "* SEARCH 1 3\r\n")
	has(curl("", "--request", "STATUS Work/Orders (MESSAGES UIDNEXT)"), "MESSAGES 2", "UIDNEXT 4")
	has(curl("/INBOX", "--request", "FETCH 1 (FLAGS ENVELOPE BODYSTRUCTURE)"), `"Message 7"`, `"text" "plain"`)
	curl("", "--request", "DELETE Work/Orders")
	if got := curl("/", "--request", `LIST "" *`); strings.Contains(got, "Orders") {
		t.Errorf("still listed: %q", got)
	}
}
