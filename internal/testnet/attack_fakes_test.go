package testnet_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/filecoin-project/go-state-types/big"
	"github.com/ipfs/go-cid"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/internal/testnet"
	retrievalimpl "github.com/cartage-dev/cartage/retrievalmarket/impl"
)

// silent is a piece source that never serves a block: what is paid in advance for is not sent.
type silent struct {
	retrievalimpl.PieceSource
	end chan struct{}
}

type silentReader struct {
	retrievalimpl.Reader
	end chan struct{}
}

func (s silent) Acquire(ctx context.Context, piece cid.Cid) (retrievalimpl.Reader, error) {
	r, err := s.PieceSource.Acquire(ctx, piece)
	return silentReader{r, s.end}, err
}

// Get waits for the end of the provider.
func (r silentReader) Get(cid.Cid) ([]byte, error) {
	<-r.end
	return nil, context.Canceled
}

// fakes are providers that lend nothing, take what is paid in advance, and send nothing.
type fakes struct {
	ctx    context.Context
	client *testnet.Peer
	roots  []string
	list   []*testnet.Peer
}

func newFakes(t *testing.T, n int) *fakes {
	ctx := t.Context()
	net, err := testnet.New(ctx, t.TempDir())
	require.NoError(t, err)
	f := &fakes{ctx: ctx}
	end := make(chan struct{})
	release := sync.OnceFunc(func() { close(end) })
	t.Cleanup(func() {
		release()
		for _, p := range append(f.list, f.client) {
			require.NoError(t, p.Stop(context.Background()))
		}
		require.NoError(t, net.Close())
	})
	f.client, err = net.Peer(ctx, "client", false)
	require.NoError(t, err)
	f.client.Config.Transfer.MaxRestarts = 1
	require.NoError(t, f.client.Start(ctx, nil))
	dir := t.TempDir()
	for i := range n {
		data := make([]byte, 3<<20)
		data[0], data[1<<20], data[2<<20] = byte(i), byte(i+1), byte(i+2)
		require.NoError(t, os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), data, 0o600))
	}
	for i := range n {
		p, err := net.Peer(ctx, fmt.Sprint("fake", i), true)
		require.NoError(t, err)
		p.Config.Credit.Strangers = 0
		p.WrapPieces = func(s retrievalimpl.PieceSource) retrievalimpl.PieceSource { return silent{s, end} }
		require.NoError(t, p.Start(ctx, nil))
		f.list = append(f.list, p)
		var root string
		for _, k := range []int{0, i} { // what all of them have, and one of its own
			piece, err := p.API().Provide(ctx, filepath.Join(dir, fmt.Sprint(k)))
			require.NoError(t, err)
			root = piece.Root
		}
		f.roots = append(f.roots, root)
		_, err = p.API().SetAsk(ctx, asked(1<<20))
		require.NoError(t, err)
	}
	return f
}

// tries asks a fake provider for a payload, and gives up: it brings nothing.
func (f *fakes) tries(t *testing.T, p *testnet.Peer, root string) {
	t.Helper()
	r, err := f.client.Retrieve(f.ctx, api.RetrieveRequest{CID: root, Provider: p.Address(), Budget: "100000000000", StallSeconds: 1})
	if err == nil {
		require.False(t, r.OK)
		require.Zero(t, r.Received)
	}
}

// lost is what the client has vouchered, in bytes: it got nothing.
func (f *fakes) lost(t *testing.T) uint64 {
	list, err := f.client.API().PayChannels(f.ctx)
	require.NoError(t, err)
	sum := big.Zero()
	for _, c := range list {
		sum = big.Add(sum, big.MustFromString(c.Vouchered))
	}
	return big.Div(sum, big.NewInt(price)).Uint64()
}

// fakeProviders take prepayment against one order: no more than one interval of it is lost.
func fakeProviders(t *testing.T) result {
	f := newFakes(t, scaled(4, 100))
	for _, p := range f.list {
		f.tries(t, p, f.roots[0])
	}
	return result{taken: f.lost(t), bound: 1 << 20, least: 1 << 20, paid: 0}
}

// fakeProvidersEach take prepayment against an order each: no more than the exposure of a day is lost.
func fakeProvidersEach(t *testing.T) result {
	f := newFakes(t, scaled(4, 100))
	require.NoError(t, f.client.Stop(f.ctx))
	f.client.Config.Retrieval.MaxExposure = 2 << 20
	require.NoError(t, f.client.Start(f.ctx, nil))
	for i, p := range f.list {
		f.tries(t, p, f.roots[i])
	}
	return result{taken: f.lost(t), bound: 2 << 20, least: 2 << 20, paid: 0}
}
