package interop

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/stretchr/testify/require"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/testutil"
)

// policy is how a responder behaves.
type policy struct {
	reject bool
	every  uint64 // bytes after which a voucher is asked for
	last   bool   // a last voucher is asked for at the end
}

// snapshot is what both implementations tell of a channel.
type snapshot struct {
	chid               dt.ChannelID
	status             string
	message            string
	queued, received   uint64
	vouchers, results  int
	initiatorIsPaused  bool
	responderIsPaused  bool
	receivedCids, sent int64
}

// side is one implementation of data transfer.
type side interface {
	host() host.Host
	store() *testutil.MemStore
	accept(t *testing.T, p policy)
	open(ctx context.Context, pull bool, to peer.ID, root cid.Cid) (dt.ChannelID, error)
	pay(ctx context.Context, chid dt.ChannelID, data string) error
	pause(ctx context.Context, chid dt.ChannelID) error
	resume(ctx context.Context, chid dt.ChannelID) error
	restart(ctx context.Context, chid dt.ChannelID) error
	end(ctx context.Context, chid dt.ChannelID) error
	state(ctx context.Context, chid dt.ChannelID) (snapshot, error)
	follow(f func(event string, s snapshot))
}

// journal notes the events of a side.
type journal struct {
	mu     sync.Mutex
	events []string
	last   snapshot
	more   chan struct{}
}

func follow(s side) *journal {
	j := &journal{more: make(chan struct{})}
	s.follow(func(event string, snap snapshot) {
		j.mu.Lock()
		defer j.mu.Unlock()
		j.events, j.last = append(j.events, event), snap
		close(j.more)
		j.more = make(chan struct{})
	})
	return j
}

// await waits until ok holds for the events and the last state.
func (j *journal) await(t *testing.T, what string, ok func(events []string, last snapshot) bool) snapshot {
	t.Helper()
	deadline := time.After(8 * time.Second)
	for {
		j.mu.Lock()
		good, more, last, events := ok(j.events, j.last), j.more, j.last, j.lifecycle()
		j.mu.Unlock()
		if good {
			return last
		}
		select {
		case <-more:
		case <-deadline:
			require.FailNow(t, "waited in vain for "+what, "events %v, status %s %s", events, last.status, last.message)
		}
	}
}

func (j *journal) lifecycle() (out []string) {
	for _, e := range j.events {
		switch e {
		case "DataQueued", "DataQueuedProgress", "DataSent", "DataSentProgress", "DataReceived", "DataReceivedProgress":
		default:
			out = append(out, e)
		}
	}
	return out
}

func (j *journal) ended(t *testing.T) snapshot {
	t.Helper()
	return j.await(t, "the end of the channel", func(_ []string, s snapshot) bool {
		return s.status == "Completed" || s.status == "Failed" || s.status == "Cancelled"
	})
}

func (j *journal) saw(t *testing.T, event string) {
	t.Helper()
	j.await(t, event, func(events []string, _ snapshot) bool { return count(events, event) > 0 })
}

func count(events []string, event string) (n int) {
	for _, e := range events {
		if e == event {
			n++
		}
	}
	return n
}

// gate stops the reader of a store at a block until it may go on.
type gate struct {
	mu    sync.Mutex
	n, at int
	more  chan struct{}
}

func newGate(s *testutil.MemStore, at int) *gate {
	g := &gate{at: at, more: make(chan struct{})}
	s.OnRead(func(cid.Cid) {
		g.mu.Lock()
		g.n++
		g.wake()
		for g.n >= g.at {
			more := g.more
			g.mu.Unlock()
			<-more
			g.mu.Lock()
		}
		g.mu.Unlock()
	})
	return g
}

func (g *gate) wake() {
	close(g.more)
	g.more = make(chan struct{})
}

// reached waits until the reader stands at the gate.
func (g *gate) reached() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.n < g.at {
		more := g.more
		g.mu.Unlock()
		<-more
		g.mu.Lock()
	}
}

// move lets the reader go on for some blocks.
func (g *gate) move(blocks int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.at += blocks
	g.wake()
}
