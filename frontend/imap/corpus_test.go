package imap

import (
	"bytes"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"starling/metadata"
)

// Every mail of the corpus that is appended on one node is read on another byte
// for byte, and another implementation's client understands what is told of its
// envelope and its structure, in IMAP4rev1 and in IMAP4rev2.
func TestCorpusAcrossNodes(t *testing.T) {
	t.Parallel()
	files := corpus(t)
	c := newCluster(t, 2, clusterOptions{})
	user := c.account(t, "corpus@nodes2.example", metadata.Quota{}).Name
	mails := appendAll(t, c.nodes[0].imap, user, files)

	for name, ext := range map[string]imap.Cap{"rev1": "", "rev2": imap.CapIMAP4rev2} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			readAll(t, c.nodes[1].imap, user, ext, mails)
		})
	}
}

// dialClient logs in with another implementation's client.
func dialClient(t *testing.T, address, user string) *imapclient.Client {
	t.Helper()
	client, err := imapclient.DialInsecure(address, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	if err := client.Login(user, testPassword).Wait(); err != nil {
		t.Fatal(err)
	}
	return client
}

// corpusConnections is how many append at the same time.
const corpusConnections = 4

// appendAll appends files to INBOX, and returns which file each UID has.
func appendAll(t *testing.T, address, user string, files []string) map[imap.UID]string {
	t.Helper()
	var mu sync.Mutex
	mails := make(map[imap.UID]string, len(files))
	var appending sync.WaitGroup
	for i := range corpusConnections {
		client := dialClient(t, address, user)
		appending.Go(func() {
			for j := i; j < len(files); j += corpusConnections {
				uid, err := appendFile(client, files[j])
				if err != nil {
					t.Errorf("%s: %v", files[j], err)
					return
				}
				mu.Lock()
				mails[uid] = files[j]
				mu.Unlock()
			}
		})
	}
	appending.Wait()
	if len(mails) != len(files) {
		t.Fatalf("%d UIDs for %d files", len(mails), len(files))
	}
	return mails
}

func appendFile(client *imapclient.Client, file string) (imap.UID, error) {
	message, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	cmd := client.Append("INBOX", int64(len(message)), nil)
	if _, err := cmd.Write(message); err != nil {
		return 0, err
	}
	if err := cmd.Close(); err != nil {
		return 0, err
	}
	done, err := cmd.Wait()
	if err != nil {
		return 0, err
	}
	return done.UID, nil
}

// readAll fetches all messages, and compares them with the files.
func readAll(t *testing.T, address, user string, enable imap.Cap, mails map[imap.UID]string) {
	t.Helper()
	client := dialClient(t, address, user)
	if enable != "" {
		if _, err := client.Enable(enable).Wait(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := client.Select("INBOX", &imap.SelectOptions{ReadOnly: true}).Wait(); err != nil {
		t.Fatal(err)
	}
	whole := &imap.FetchItemBodySection{Peek: true}
	fetch := client.Fetch(imap.UIDSet{{Start: 1, Stop: 0}}, &imap.FetchOptions{
		UID: true, Envelope: true, RFC822Size: true,
		BodyStructure: &imap.FetchItemBodyStructure{Extended: true}, BodySection: []*imap.FetchItemBodySection{whole},
	})
	seen := 0
	for message := fetch.Next(); message != nil; message = fetch.Next() {
		got, err := message.Collect()
		if err != nil {
			t.Fatalf("message %d: %v", message.SeqNum, err)
		}
		seen++
		name := filepath.Base(mails[got.UID])
		want, err := os.ReadFile(mails[got.UID])
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case !bytes.Equal(got.FindBodySection(whole), want):
			t.Errorf("%s: other bytes than were appended", name)
		case got.RFC822Size != int64(len(want)):
			t.Errorf("%s: RFC822.SIZE is %d, not %d", name, got.RFC822Size, len(want))
		case got.Envelope == nil:
			t.Errorf("%s: no envelope", name)
		case got.BodyStructure == nil:
			t.Errorf("%s: no structure", name)
		}
	}
	if err := fetch.Close(); err != nil {
		t.Errorf("after %d messages: %v", seen, err)
	}
	if seen != len(mails) {
		t.Errorf("%d messages of %d", seen, len(mails))
	}
}
