package main_test

import (
	"os"
	"path/filepath"
	"testing"
)

// imapflow does what testdata/with_imapflow.mjs says, on two nodes.
func TestImapflow(t *testing.T) {
	t.Parallel()
	needClient(t, "node")
	library := filepath.Join(root(t), "deploy", "tools", "imapflow", "node_modules", "imapflow")
	if _, err := os.Stat(library); err != nil {
		missingClient(t, "imapflow")
	}
	c := newCluster(t)
	out := runTool(t, "", nil, "node", "testdata/with_imapflow.mjs", library, c.cert, testUser, testPassword,
		c.nodes[0].port(c.nodes[0].imaps), c.nodes[1].port(c.nodes[1].imaps))
	if out != "well\n" {
		t.Errorf("it says %q", out)
	}
}
