package metadata_test

import (
	"errors"
	"testing"
	"time"

	"starling/metadata"
)

// A database that is given up ends what waits for it, whatever the time for that: a commit that was sent is in doubt, and
// what happened has happened. Nothing begins any more.
func TestAbort(t *testing.T) {
	t.Parallel()
	for _, lost := range []string{"question", "answer"} {
		t.Run(lost, func(t *testing.T) {
			t.Parallel()
			d := newDoubting(t, func(c *metadata.Config) { c.ResolveTimeout, c.StatementTimeout = time.Hour, time.Hour })
			seen := d.n.box.Version.ModSeq
			sent := make(chan struct{})
			d.wire.arm(func(question []byte, p *wirePair) { // which is never answered
				if lost == "answer" {
					_, err := p.server.Write(question)
					check(t, err)
					<-p.answered
				}
				close(sent)
			})
			mine, ended := storeOf(metadata.Seen, 1)(d.n), make(chan error, 1)
			go func() {
				_, err := d.through.Commit(t.Context(), mine)
				ended <- err
			}()
			<-sent
			d.through.Abort()
			d.through.Abort()
			if err := <-ended; !errors.Is(err, metadata.ErrInDoubt) || !errors.Is(err, metadata.ErrUnavailable) {
				t.Errorf("the commit ended with %v", err)
			}
			if err := d.through.Ping(t.Context()); !errors.Is(err, metadata.ErrUnavailable) {
				t.Errorf("after it: %v", err)
			}
			if lost == "answer" {
				seen++
			}
			if after := load(t, d.direct, d.n.box); after.box.ModSeq != seen {
				t.Errorf("the mailbox is at modseq %d, want %d", after.box.ModSeq, seen)
			}
		})
	}
}
