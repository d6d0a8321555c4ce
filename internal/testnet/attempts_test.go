package testnet_test

import (
	"context"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/api"
	retrievalimpl "github.com/cartage-dev/cartage/retrievalmarket/impl"
)

// missingLeaf serves a piece whose index knows a block that its file does not have.
type missingLeaf struct {
	retrievalimpl.PieceSource
	after int
}

type missingLeafReader struct {
	retrievalimpl.Reader
	left *int
}

func (m missingLeaf) Acquire(ctx context.Context, piece cid.Cid) (retrievalimpl.Reader, error) {
	r, err := m.PieceSource.Acquire(ctx, piece)
	left := m.after
	return missingLeafReader{r, &left}, err
}

func (r missingLeafReader) Get(c cid.Cid) ([]byte, error) {
	if *r.left--; *r.left < 0 {
		return nil, errNoLeaf
	}
	return r.Reader.Get(c)
}

type noLeaf struct{}

func (noLeaf) Error() string { return "nothing happened: rejected for unknown reasons" } // words that once decided

var errNoLeaf error = noLeaf{}

// TestW3ProviderFaultIsNotRepeated: what the provider does not have it does not have at a second attempt. One command makes one deal, and
// names whose fault it was.
func TestW3ProviderFaultIsNotRepeated(t *testing.T) {
	for _, transport := range []string{api.TransportStream, api.TransportGraphsync} {
		t.Run(transport, func(t *testing.T) {
			w := newWorld(t, 4<<20, paid)
			require.NoError(t, w.provider.Stop(w.ctx))
			w.provider.WrapPieces = func(p retrievalimpl.PieceSource) retrievalimpl.PieceSource { return missingLeaf{p, 3} }
			require.NoError(t, w.provider.Start(w.ctx, nil))
			require.NoError(t, w.client.Start(w.ctx, nil))
			req := w.request()
			req.Transport = transport
			r, err := w.client.Retrieve(w.ctx, req)
			require.NoError(t, err)
			require.False(t, r.OK)
			deals, err := w.client.Client.ListDeals()
			require.NoError(t, err)
			require.Len(t, deals, 1, "%s: %s", r.Reason, r.Message)
			require.Equal(t, "theirs", r.Blame, "%s: %s", r.Reason, r.Message)
			require.Equal(t, api.CodeRejected, r.Code, "%s: %s", r.Reason, r.Message)
		})
	}
}

// TestDefaultsTrade: a client and a provider as they come buy and sell any size. The client proposes what it risks at most, whatever
// interval and increase are offered.
func TestDefaultsTrade(t *testing.T) {
	for name, tc := range map[string]struct {
		ask      api.Ask
		exposure uint64
	}{
		"as they come":      {api.Ask{PricePerByte: "2", UnsealPrice: "0", PaymentInterval: 1 << 20}, 0},
		"a growing ask":     {api.Ask{PricePerByte: "2", UnsealPrice: "0", PaymentInterval: 1 << 20, PaymentIntervalIncrease: 1 << 20}, 0},
		"a large ask":       {api.Ask{PricePerByte: "2", UnsealPrice: "0", PaymentInterval: 1 << 30, PaymentIntervalIncrease: 1 << 30}, 0},
		"a careful client":  {api.Ask{PricePerByte: "2", UnsealPrice: "0", PaymentInterval: 8 << 20, PaymentIntervalIncrease: 1 << 20}, 64 << 10},
		"an unlimited one":  {api.Ask{PricePerByte: "2", UnsealPrice: "0", PaymentInterval: 1 << 20, PaymentIntervalIncrease: 1 << 20}, 1 << 40},
		"a tiny ask":        {api.Ask{PricePerByte: "2", UnsealPrice: "0", PaymentInterval: 4 << 10, PaymentIntervalIncrease: 1 << 20}, 0},
		"a tiny ask, bound": {api.Ask{PricePerByte: "2", UnsealPrice: "0", PaymentInterval: 4 << 10, PaymentIntervalIncrease: 1 << 20}, 8 << 10},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 40<<20, tc.ask)
			require.NoError(t, w.client.Start(w.ctx, nil))
			req := w.request()
			req.MaxExposure = tc.exposure
			r, err := w.client.Retrieve(w.ctx, req)
			require.NoError(t, err)
			w.check(t, r, 2, 0)
			deals, err := w.client.Client.ListDeals()
			require.NoError(t, err)
			for _, d := range deals {
				require.Zero(t, d.PaymentIntervalIncrease)
				if tc.exposure > 0 {
					require.LessOrEqual(t, d.PaymentInterval, tc.exposure)
				} else {
					require.LessOrEqual(t, d.PaymentInterval, uint64(8<<20))
				}
			}
		})
	}
}
