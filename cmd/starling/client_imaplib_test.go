package main_test

import "testing"

// Python's imaplib does what testdata/with_imaplib.py says, on two nodes.
func TestImaplib(t *testing.T) {
	t.Parallel()
	needClient(t, "python3")
	c := newCluster(t)
	out := runTool(t, "", nil, "python3", "testdata/with_imaplib.py", c.cert, testUser, testPassword,
		c.nodes[0].port(c.nodes[0].imaps), c.nodes[1].port(c.nodes[1].imap))
	if out != "well\n" {
		t.Errorf("it says %q", out)
	}
}
