package events

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// next returns the news that there are.
func next(t *testing.T, s Subscription) News {
	t.Helper()
	news, err := s.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return news
}

func TestReconnectIsSuspicious(t *testing.T) {
	t.Parallel()
	n, in := alone(t)
	s, err := n.Subscribe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s.Follow(5)
	next(t, s) // joined
	before := n.Counters().Suspects
	in.Connected(false)
	if news := next(t, s); news.Connected || len(news.Suspect) > 0 {
		t.Errorf("news %+v when the connection is lost", news)
	}
	in.Connected(true)
	if news := next(t, s); !news.Connected || !slices.Equal(news.Suspect, []Shard{5}) {
		t.Errorf("news %+v when it is back", news)
	}
	if c := n.Counters(); c.Suspects-before != 1 || c.Reconnects != 1 {
		t.Errorf("counters %+v, want one more suspect than %d", c, before)
	}
}

func TestPatience(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n, in := alone(t)
		silences := func(after time.Duration, want uint64) {
			t.Helper()
			<-time.After(after)
			synctest.Wait()
			if got := n.Counters().Silences; got != want {
				t.Errorf("%d silences, want %d", got, want)
			}
		}
		in.Receive(appendBeat(nil, beat{incarnation: n.incarnation + 1, patience: 20_000, last: []lastNumber{{3, 7}}}))
		silences(19*time.Second, 0) // though this node's own patience is 7 s
		in.Connected(false)
		silences(time.Hour, 0) // nobody can be heard
		in.Connected(true)
		silences(19*time.Second, 0)
		silences(2*time.Second, 1)
		if c := n.Counters(); c.Lost != 0 {
			t.Errorf("counters %+v: nothing is followed, so nothing was lost", c)
		}
	})
}

func TestShardsAreLeftAtTheSecondLook(t *testing.T) {
	t.Parallel()
	s := shards{wake: make(chan struct{}, 1)}
	s.want(7)
	if got := s.toJoin(); !slices.Equal(got, []Shard{7}) {
		t.Fatalf("joins %v", got)
	}
	s.unwant(7)
	if got := s.toLeave(); len(got) > 0 {
		t.Errorf("leaves %v at the first look", got)
	}
	s.want(7)
	s.toLeave()
	s.unwant(7)
	if got := s.toLeave(); len(got) > 0 {
		t.Errorf("leaves %v though it was wanted in between", got)
	}
	if w := s.watched(); !w.has(7) {
		t.Error("not watched while joined")
	}
	if got := s.toLeave(); !slices.Equal(got, []Shard{7}) {
		t.Errorf("leaves %v", got)
	}
	if w := s.watched(); w.has(7) {
		t.Error("watched though left")
	}
}

// recorder counts what is sent.
type recorder struct {
	nowhere
	mu       sync.Mutex
	hints    int
	goodbyes []int         // hints before it
	entered  chan struct{} // has a token when Hint was called
	gate     <-chan struct{}
}

func (r *recorder) Hint(int64, []byte) error {
	signal(r.entered)
	<-r.gate
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hints++
	return nil
}

func (r *recorder) Beat(frame []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if b, err := decodeBeat(frame); err != nil || b.goodbye {
		r.goodbyes = append(r.goodbyes, r.hints)
	}
	return nil
}

func TestWhatWaitsIsSentBeforeTheGoodbye(t *testing.T) {
	t.Parallel()
	for range 100 {
		gate := make(chan struct{})
		r := &recorder{entered: make(chan struct{}, 1), gate: gate}
		n, err := Start(Options{}, func(*Inlet) (Transport, error) { return r, nil })
		if err != nil {
			t.Fatal(err)
		}
		publish := func(account int64) {
			if err := n.Publish(Event{Account: account, Mailbox: 1, Kind: Changed, ModSeq: 1}); err != nil {
				t.Error(err)
			}
		}
		publish(1)
		<-r.entered
		publish(2) // waits behind the first
		var closing sync.WaitGroup
		closing.Go(func() {
			if err := n.Close(); err != nil {
				t.Error(err)
			}
		})
		<-n.done
		close(gate)
		closing.Wait()
		if !slices.Equal(r.goodbyes, []int{2}) {
			t.Fatalf("goodbyes after %v hints, want one after 2", r.goodbyes)
		}
	}
}
