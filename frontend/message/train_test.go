package message

import (
	"flag"
	"os"
	"path/filepath"
	"testing"
)

var samples = flag.String("samples", "", "folder to write the payloads of the corpus to, for training a dictionary")

// TestWriteSamples makes what a dictionary is trained on. A dictionary that summaries were stored with never changes and is never removed;
// a new one gets a new number and file:
//
//	go test ./frontend/message -run WriteSamples -samples /tmp/samples
//	zstd --train-cover=d=8,steps=40 /tmp/samples/* --maxdict=65536 --dictID=2 -o frontend/message/summary-2.dict
func TestWriteSamples(t *testing.T) {
	if *samples == "" {
		t.Skip("no -samples given")
	}
	for _, path := range corpus(t) {
		payload := parse(readFile(t, path)).appendPayload(nil)
		if err := os.WriteFile(filepath.Join(*samples, filepath.Base(path)), payload, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
