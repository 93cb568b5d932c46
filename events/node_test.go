package events

import (
	"errors"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// nowhere is a transport to nobody.
type nowhere struct{}

func (nowhere) Hint(int64, []byte) error { return nil }
func (nowhere) Beat([]byte) error        { return nil }
func (nowhere) Join([]Shard) error       { return nil }
func (nowhere) Leave([]Shard) error      { return nil }
func (nowhere) Close() error             { return nil }

// alone starts a node whose inlet the test holds.
func alone(t *testing.T) (*Node, *Inlet) {
	t.Helper()
	var inlet *Inlet
	n, err := Start(Options{}, func(in *Inlet) (Transport, error) {
		inlet = in
		in.Connected(true)
		return nowhere{}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n, inlet
}

func TestWhatCannotBeReadIsIgnoredAndCounted(t *testing.T) {
	t.Parallel()
	n, in := alone(t)
	in.Receive([]byte{2, 1, 2, 3})
	in.Receive([]byte{1, 9, 0, 0, 0, 0, 0, 0, 0, 1, 1})
	in.Receive([]byte{1, 1, 0})
	in.Receive([]byte{1, 2, 0, 0, 0, 0, 0, 0, 0, 1})
	in.Receive(nil)
	in.Receive(appendHints(nil, n.incarnation, 1, someHints))
	in.Receive(appendHints(nil, n.incarnation+1, 1, someHints))
	c := n.Counters()
	if c.Unknown != 2 || c.Malformed != 3 || c.Own != 1 || c.Received != 1 || c.Peers != 1 {
		t.Errorf("counters %+v", c)
	}
}

func TestMorePeersThanAreWatched(t *testing.T) {
	t.Parallel()
	n, in := alone(t)
	s, err := n.Subscribe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s.Follow(1)
	for i := range uint64(maxPeers + 10) {
		in.Receive(appendHints(nil, n.incarnation+1+i, 1, []Event{{Account: 1, Mailbox: int64(i) + 1, Kind: Changed, ModSeq: 1}}))
	}
	in.Receive(appendBeat(nil, beat{incarnation: n.incarnation - 1, last: []lastNumber{{1, 1}}}))
	if got := n.Counters().Peers; got != maxPeers {
		t.Errorf("%d peers, want %d", got, maxPeers)
	}
	for got := 0; got < maxPeers+10; {
		news, err := s.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		got += len(news.Events)
	}
}

func TestStartReturnsTheErrorOfDial(t *testing.T) {
	t.Parallel()
	want := errors.New("no transport")
	if _, err := Start(Options{}, func(*Inlet) (Transport, error) { return nil, want }); !errors.Is(err, want) {
		t.Errorf("error %v, want %v", err, want)
	}
}
