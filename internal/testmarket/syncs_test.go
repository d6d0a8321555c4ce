package testmarket_test

import (
	"context"
	"strings"
	"sync"
	"testing"

	"github.com/ipfs/go-datastore"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/internal/testmarket"
)

// syncs counts what is asked to be on stable storage, by the store that asks.
type syncs struct {
	datastore.Batching
	mu sync.Mutex
	n  map[string]int
}

func (s *syncs) Sync(ctx context.Context, k datastore.Key) error {
	s.mu.Lock()
	s.n[strings.SplitN(strings.TrimPrefix(k.String(), "/"), "/", 2)[0]]++
	s.mu.Unlock()
	return s.Batching.Sync(ctx, k)
}

// reset returns what was counted since the last time.
func (s *syncs) reset() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.n
	s.n = map[string]int{}
	return n
}

// TestSyncedWrites: beside its vouchers, a deal syncs when it is opened and when it ends at the client, and when it is accepted and when it
// ends at the provider, and no more. Its lane is synced with the first voucher on it.
func TestSyncedWrites(t *testing.T) {
	m := newPair(t, terms(2, 0, 4096, 0), 10, 1024, func(m *pair) {
		m.c.Book, m.p.Book = true, true
		for _, p := range []*testmarket.Peer{m.c, m.p} {
			p.State = &syncs{Batching: p.State, n: map[string]int{}}
		}
	})
	client, provider := m.c.State.(*syncs), m.p.State.(*syncs)
	client.reset()
	provider.reset()
	m.retrieve()
	m.completed(m.due())
	// The channel of the deal is on stable storage before its proposal leaves, and before its acceptance does.
	require.Equal(t, map[string]int{"client": 2, "datatransfer": 1}, client.reset())
	require.Equal(t, map[string]int{"provider": 2, "datatransfer": 1}, provider.reset())
}
