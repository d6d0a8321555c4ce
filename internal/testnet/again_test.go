package testnet_test

import (
	"context"
	"testing"
	"time"

	"github.com/filecoin-project/go-state-types/big"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/api"
)

// TestBudgetUsedUp: a budget that is too small for the whole ends the run with the exit code of money and both numbers; the
// same command with more goes on where it stopped, and nothing is paid twice.
func TestBudgetUsedUp(t *testing.T) {
	w := newWorld(t, 4<<20, paid)
	require.NoError(t, w.client.Start(w.ctx, nil))
	req := w.request()
	req.Budget = big.NewInt(2 * (5 << 19)).String() // two intervals and a half
	r, err := w.client.Retrieve(w.ctx, req)
	require.NoError(t, err)
	require.False(t, r.OK)
	require.Equal(t, api.CodeFunds, r.Code, r.Message)
	require.Contains(t, r.Message, req.Budget)
	require.Contains(t, r.Message, "--budget")
	spent := w.vouchered(t, w.client.API())
	require.True(t, spent.LessThanEqual(big.NewInt(2*(5<<19))))

	r, err = w.client.Retrieve(w.ctx, w.request())
	require.NoError(t, err)
	require.True(t, r.OK, "%s %s", r.Status, r.Message)
	deals, err := w.client.API().Deals(w.ctx)
	require.NoError(t, err)
	require.Len(t, deals, 1, "the deal went on: what was there is not fetched again")
	w.checkAdvance(t, r, 0)
}

// TestT68AnotherProvider: a deal whose provider is gone does not stand in the way of one who has the data, and nobody is paid for what
// another was paid for: together they get the price of the whole, and at most one interval more.
func TestT68AnotherProvider(t *testing.T) {
	w := newWorld(t, 8<<20, paid)
	other, err := w.net.Peer(w.ctx, "other", true)
	require.NoError(t, err)
	require.NoError(t, other.Start(w.ctx, nil))
	defer func() { require.NoError(t, other.Stop(context.WithoutCancel(w.ctx))) }()
	p, err := other.API().Provide(w.ctx, w.file)
	require.NoError(t, err)
	require.Equal(t, w.root, p.Root)
	_, err = other.API().SetAsk(w.ctx, paid)
	require.NoError(t, err)

	change, reached, open := gate()
	defer open()
	w.serving(t, change)
	require.NoError(t, w.client.Start(w.ctx, nil))
	_, err = w.client.API().Retrieve(w.ctx, w.request())
	require.NoError(t, err)
	<-reached
	require.NoError(t, w.client.Stop(w.ctx))
	open()
	require.NoError(t, w.provider.Stop(w.ctx))
	require.NoError(t, w.client.Start(w.ctx, nil))
	req := w.requestFrom(other.Address())
	r, err := w.client.Retrieve(w.ctx, req)
	require.NoError(t, err)
	require.True(t, r.OK, "%s %s", r.Status, r.Message)
	spent := w.vouchered(t, w.client.API())
	require.True(t, spent.GreaterThanEqual(big.NewInt(int64(2*w.bytes))), "%s for %d bytes", spent, w.bytes)
	require.True(t, spent.LessThanEqual(big.NewInt(int64(2*(w.bytes+paid.PaymentInterval)))), "%s for %d bytes", spent, w.bytes)
	w.provider.WrapPieces = nil
	require.NoError(t, w.provider.Start(w.ctx, nil))
}

// TestProviderStops: a provider that is stopped in the middle of a deal refuses nothing meanwhile: the deal goes on at its next start.
func TestProviderStops(t *testing.T) {
	for name, tc := range map[string]struct {
		transport string
		ask       api.Ask
		price     int64
	}{
		"free, stream":    {api.TransportStream, api.Ask{PricePerByte: "0", UnsealPrice: "0"}, 0},
		"free, graphsync": {api.TransportGraphsync, api.Ask{PricePerByte: "0", UnsealPrice: "0"}, 0},
		"paid, stream":    {api.TransportStream, paid, 2},
		"paid, graphsync": {api.TransportGraphsync, paid, 2},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 8<<20, tc.ask)
			change, reached := half()
			w.serving(t, change)
			require.NoError(t, w.client.Start(w.ctx, nil))
			req := w.request()
			req.Transport = tc.transport
			r, err := w.client.API().Retrieve(w.ctx, req)
			require.NoError(t, err)
			<-reached
			require.NoError(t, w.provider.Provider.Stop())
			time.Sleep(200 * time.Millisecond) // the rest of the node goes on a little longer
			require.NoError(t, w.provider.Stop(w.ctx))
			w.provider.WrapPieces = nil
			require.NoError(t, w.provider.Start(w.ctx, nil))
			for !r.Done {
				r, err = w.client.API().Retrieval(w.ctx, r.Key)
				require.NoError(t, err)
			}
			w.check(t, r, tc.price, 0)
			deals, err := w.client.Client.ListDeals()
			require.NoError(t, err)
			require.Len(t, deals, 1)
		})
	}
}
