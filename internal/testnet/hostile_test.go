package testnet_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/filecoin-project/go-state-types/big"
	"github.com/ipfs/go-cid"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/blob"
	"github.com/cartage-dev/cartage/carstore"
	retrievalimpl "github.com/cartage-dev/cartage/retrievalmarket/impl"
)

// seam is a piece source whose blocks pass through change.
type seam struct {
	retrievalimpl.PieceSource
	change func(n int, c cid.Cid, data []byte) []byte

	mu sync.Mutex
	n  int
}

type seamReader struct {
	retrievalimpl.Reader
	s *seam
}

func (s *seam) Acquire(ctx context.Context, piece cid.Cid) (retrievalimpl.Reader, error) {
	r, err := s.PieceSource.Acquire(ctx, piece)
	return seamReader{r, s}, err
}

func (r seamReader) Get(c cid.Cid) ([]byte, error) {
	data, err := r.Reader.Get(c)
	if err != nil {
		return nil, err
	}
	r.s.mu.Lock()
	r.s.n++
	n := r.s.n
	r.s.mu.Unlock()
	return r.s.change(n, c, data), nil
}

// serving starts the provider again with a change of what it serves.
func (w *world) serving(t *testing.T, change func(n int, c cid.Cid, data []byte) []byte) {
	require.NoError(t, w.provider.Stop(w.ctx))
	w.provider.WrapPieces = func(p retrievalimpl.PieceSource) retrievalimpl.PieceSource {
		return &seam{PieceSource: p, change: change}
	}
	require.NoError(t, w.provider.Start(w.ctx, nil))
}

// amounts are the sums that a peer's book holds and has seen redeemed.
func (w *world) vouchered(t *testing.T, a *api.Node) big.Int {
	list, err := a.PayChannels(w.ctx)
	require.NoError(t, err)
	sum := big.Zero()
	for _, c := range list {
		n, err := big.FromString(c.Vouchered)
		require.NoError(t, err)
		sum = big.Add(sum, n)
	}
	return sum
}

// TestScenario38T50WrongBlock: a provider that serves a wrong block is cut off; the block is neither stored nor paid, and the user reads
// that the data failed verification.
func TestScenario38T50WrongBlock(t *testing.T) {
	w := newWorld(t, 4<<20, paid)
	const bad = 4
	w.serving(t, func(n int, _ cid.Cid, data []byte) []byte {
		if n < bad {
			return data
		}
		wrong := append([]byte(nil), data...)
		wrong[len(wrong)/2] ^= 1
		return wrong
	})
	require.NoError(t, w.client.Start(w.ctx, nil))
	r, err := w.client.Retrieve(w.ctx, w.request())
	require.NoError(t, err)
	require.False(t, r.OK)
	require.Equal(t, api.CodeVerification, r.Code, "%s %s", r.Status, r.Message)
	require.Contains(t, r.Message, "verification")
	require.NoError(t, w.client.Stop(w.ctx))

	root, err := cid.Decode(w.root)
	require.NoError(t, err)
	s, err := carstore.Open(blob.OS{}, r.CarPath, root)
	require.NoError(t, err)
	defer s.Close()
	require.Less(t, s.Len(), bad+1, "blocks before the wrong one")
	require.NoError(t, w.client.Start(w.ctx, nil))
	spent := w.vouchered(t, w.client.API())
	require.True(t, spent.LessThanEqual(big.NewInt(int64(2*s.Bytes()))), "paid %s for %d bytes", spent, s.Bytes())
}

// half returns a change that tells when half of the blocks have been read, and then serves slowly.
func half() (func(int, cid.Cid, []byte) []byte, chan struct{}) {
	reached := make(chan struct{})
	return func(n int, _ cid.Cid, data []byte) []byte {
		if n == 4 {
			close(reached)
		}
		if n >= 4 {
			time.Sleep(20 * time.Millisecond) // the blocks that are read ahead must not be all
		}
		return data
	}, reached
}

// gate holds the deal in its middle until open is called.
func gate() (change func(int, cid.Cid, []byte) []byte, reached chan struct{}, open func()) {
	reached, opened := make(chan struct{}), make(chan struct{})
	return func(n int, _ cid.Cid, data []byte) []byte {
		if n == 4 {
			close(reached)
		}
		if n >= 4 {
			<-opened
		}
		return data
	}, reached, sync.OnceFunc(func() { close(opened) })
}

// TestCancel: either side can end a deal in its middle; both ends say so, what was paid is what was received, and retrieving
// again pays the rest only.
func TestCancel(t *testing.T) {
	for _, who := range []string{"client", "provider"} {
		t.Run(who, func(t *testing.T) {
			w := newWorld(t, 8<<20, paid)
			change, reached, open := gate()
			defer open()
			w.serving(t, change)
			require.NoError(t, w.client.Start(w.ctx, nil))
			a := w.client.API()
			r, err := a.Retrieve(w.ctx, w.request())
			require.NoError(t, err)
			<-reached
			side := map[string]*api.Node{"client": a, "provider": w.provider.API()}[who]
			deals, err := side.Deals(w.ctx)
			require.NoError(t, err)
			require.Len(t, deals, 1)
			require.NoError(t, side.CancelDeal(w.ctx, deals[0].ID))
			open()
			deals, err = side.Deals(w.ctx)
			require.NoError(t, err)
			require.True(t, deals[0].Final, "a cancel that returned has happened")
			for !r.Done {
				r, err = a.Retrieval(w.ctx, r.Key)
				require.NoError(t, err)
			}
			require.False(t, r.OK)
			w.ended(t, w.provider.API(), "Cancelled")
			w.ended(t, a, "Cancelled")
			mine, theirs := w.vouchered(t, a), w.vouchered(t, w.provider.API())
			require.True(t, theirs.LessThanEqual(mine), "%s signed, %s accepted", mine, theirs)
			require.True(t, mine.LessThanEqual(big.NewInt(int64(2*r.Received))), "%s for %d bytes", mine, r.Received)

			w.serving(t, func(_ int, _ cid.Cid, data []byte) []byte { return data })
			again, err := w.client.Retrieve(w.ctx, w.request())
			require.NoError(t, err)
			require.True(t, again.OK, "%s %s", again.Status, again.Message)
			total := w.vouchered(t, a)
			due, owed := big.NewInt(int64(2*w.bytes)), big.Zero()
			deals, err = a.Deals(w.ctx)
			require.NoError(t, err)
			for _, d := range deals {
				n, err := big.FromString(d.Owed)
				require.NoError(t, err)
				owed = big.Add(owed, n)
			}
			require.True(t, owed.LessThanEqual(due), "%s owed in two deals for %s", owed, due)
			// Who left with bytes unpaid gets no credit for the second deal, and pays in advance: up to the size that was quoted, that of an archive.
			offers, err := a.Find(w.ctx, w.root, []string{w.provider.Address()})
			require.NoError(t, err)
			quoted := big.NewInt(int64(2 * offers[0].Size))
			require.True(t, total.LessThanEqual(quoted), "%s paid in two deals for %s", total, quoted)
			require.True(t, big.Sub(due, total).LessThanEqual(big.NewInt(2*3<<20)), "at most what was under way was free: %s of %s", total, due)
		})
	}
}

// ended waits until the first deal of a node has ended and compares its status.
func (w *world) ended(t *testing.T, a *api.Node, status string) {
	t.Helper()
	for {
		deals, err := a.Deals(w.ctx)
		require.NoError(t, err)
		require.NotEmpty(t, deals)
		if deals[0].Final {
			require.Equal(t, status, deals[0].Status, deals[0].Message)
			return
		}
		require.NoError(t, w.ctx.Err(), "deal is %s", deals[0].Status)
		time.Sleep(5 * time.Millisecond)
	}
}

// TestProviderGone: a provider that goes away for good ends the deal within its limits, not with a hang, and what was
// received stays.
func TestProviderGone(t *testing.T) {
	w := newWorld(t, 8<<20, paid)
	change, reached, open := gate()
	defer open()
	w.serving(t, change)
	w.client.Config.Transfer.MaxRestarts = 2
	require.NoError(t, w.client.Start(w.ctx, nil))
	a := w.client.API()
	r, err := a.Retrieve(w.ctx, w.request())
	require.NoError(t, err)
	<-reached
	w.provider.Silence()
	open()
	require.NoError(t, w.provider.Stop(w.ctx))
	for !r.Done {
		r, err = a.Retrieval(w.ctx, r.Key)
		require.NoError(t, err)
	}
	require.False(t, r.OK)
	require.Equal(t, api.CodeUnreachable, r.Code, "%s %s", r.Status, r.Message)

	w.provider.WrapPieces = nil
	require.NoError(t, w.provider.Start(w.ctx, nil))
	again, err := w.client.Retrieve(w.ctx, w.request())
	require.NoError(t, err)
	require.True(t, again.OK, "%s %s", again.Status, again.Message)
	require.Less(t, again.Received, w.bytes, "what was there is not fetched again")
}

// TestManyShareOnePiece: several clients retrieve one piece at once; each pays for itself.
func TestManyShareOnePiece(t *testing.T) {
	w := newWorld(t, 2<<20, paid)
	const n = 6
	var wg sync.WaitGroup
	results := make([]*api.Retrieval, n)
	for i := range n {
		c, err := w.net.Peer(w.ctx, string(rune('a'+i)), false)
		require.NoError(t, err)
		require.NoError(t, c.Start(w.ctx, nil))
		defer func() { require.NoError(t, c.Stop(context.WithoutCancel(w.ctx))) }()
		wg.Go(func() {
			r, err := c.Retrieve(w.ctx, w.request())
			if err != nil {
				t.Error(err)
			}
			results[i] = r
		})
	}
	wg.Wait()
	for _, r := range results {
		require.True(t, r.OK, "%s %s", r.Status, r.Message)
	}
	require.Equal(t, big.NewInt(int64(n*2*w.bytes)), w.vouchered(t, w.provider.API()))
}
