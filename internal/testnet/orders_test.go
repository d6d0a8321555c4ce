package testnet_test

import (
	"context"
	"testing"
	"time"

	"github.com/filecoin-project/go-state-types/big"
	"github.com/ipfs/go-cid"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/carstore"
	retrievalimpl "github.com/cartage-dev/cartage/retrievalmarket/impl"
)

// dealOpen tells whether the first deal of a node goes on.
func dealOpen(t *testing.T, w *world, a *api.Node) bool {
	deals, err := a.Deals(w.ctx)
	require.NoError(t, err)
	require.NotEmpty(t, deals)
	return !deals[0].Final
}

// checkAdvance is check for a price of 2, where a provider may have been paid in advance: it quotes the length of the archive, which is longer than
// what is in it.
func (w *world) checkAdvance(t *testing.T, r *api.Retrieval, unseal int64) {
	t.Helper()
	require.True(t, r.OK, "%s %s", r.Status, r.Message)
	due := big.NewInt(int64(2*w.bytes) + unseal)
	mine, theirs := w.vouchered(t, w.client.API()), w.vouchered(t, w.provider.API())
	require.True(t, theirs.GreaterThanEqual(due), "%s of %s", theirs, due)
	require.True(t, theirs.LessThanEqual(mine), "%s accepted of %s", theirs, mine)
	require.True(t, mine.LessThanEqual(big.Add(due, big.NewInt(2*int64(paid.PaymentInterval)))), "%s of %s", mine, due)
	s, err := carstore.OpenRead(r.CarPath)
	require.NoError(t, err)
	require.Equal(t, w.bytes, s.Bytes())
	require.NoError(t, s.Close())
}

// TestNothingPaysUnasked: after the end of its process a retrieval stands still, whatever it was doing: no voucher, no channel, no byte, until
// the same is asked for again. Then it ends with exactly what is due.
func TestNothingPaysUnasked(t *testing.T) {
	for name, unseal := range map[string]string{"no unseal price": "0", "an unseal price": "777"} {
		t.Run(name, func(t *testing.T) {
			ask := paid
			ask.UnsealPrice = unseal
			w := newWorld(t, 8<<20, ask)
			change, reached, open := gate()
			defer open()
			w.serving(t, change)
			require.NoError(t, w.client.Start(w.ctx, nil))
			a := w.client.API()
			_, err := a.Retrieve(w.ctx, w.request())
			require.NoError(t, err)
			<-reached
			w.client.Silence() // as the end of the process does
			killed, cancel := context.WithCancel(w.ctx)
			cancel()
			_ = w.client.Stop(killed)
			open()
			require.NoError(t, w.client.Start(w.ctx, nil))
			a = w.client.API()
			before := w.vouchered(t, a)
			orders, err := a.Orders(w.ctx)
			require.NoError(t, err)
			require.Len(t, orders, 1)
			require.Equal(t, "parked", orders[0].State, orders[0].Reason)
			bytes := orders[0].Bytes
			_, err = w.client.API().Find(w.ctx, w.root, []string{w.provider.Address()}) // the provider can reach it
			require.NoError(t, err)
			time.Sleep(1500 * time.Millisecond) // nothing comes: there is no event to wait for
			orders, err = a.Orders(w.ctx)
			require.NoError(t, err)
			require.Equal(t, bytes, orders[0].Bytes)
			require.Equal(t, before.String(), w.vouchered(t, a).String())

			r, err := w.client.Retrieve(w.ctx, w.request())
			require.NoError(t, err)
			w.checkAdvance(t, r, int64(len(unseal)/3*777))
			require.Equal(t, orders[0].ID, r.Order)
			deals, err := a.Deals(w.ctx)
			require.NoError(t, err)
			require.Len(t, deals, 1, "the deal went on")
		})
	}
}

// TestPark: a parked retrieval has paid for what it verified, asks for nothing and pays nothing; resumed it brings the rest for what is due. With
// an unseal price the deal is kept, so that it is paid once.
func TestPark(t *testing.T) {
	for name, tc := range map[string]struct {
		unseal    string
		transport string
		kept      bool
	}{
		"stream":            {"0", api.TransportStream, false},
		"graphsync":         {"0", api.TransportGraphsync, false},
		"stream, unsealed":  {"777", api.TransportStream, true},
		"graphsync, unseal": {"777", api.TransportGraphsync, true},
	} {
		t.Run(name, func(t *testing.T) {
			ask := paid
			ask.UnsealPrice = tc.unseal
			w := newWorld(t, 8<<20, ask)
			change, reached, open := gate()
			defer open()
			w.serving(t, change)
			require.NoError(t, w.client.Start(w.ctx, nil))
			a := w.client.API()
			req := w.request()
			req.Transport = tc.transport
			r, err := a.Retrieve(w.ctx, req)
			require.NoError(t, err)
			<-reached
			r, err = a.OrderPark(w.ctx, r.Order)
			require.NoError(t, err)
			open()
			require.Equal(t, "parked", r.State)
			require.Equal(t, tc.kept, dealOpen(t, w, a))
			before := w.vouchered(t, a)
			time.Sleep(700 * time.Millisecond) // nothing comes: there is no event to wait for
			require.Equal(t, before.String(), w.vouchered(t, a).String())

			require.NoError(t, w.provider.Stop(w.ctx))
			w.provider.WrapPieces = nil
			require.NoError(t, w.provider.Start(w.ctx, nil))
			r, err = a.OrderResume(w.ctx, api.OrderResume{ID: r.Order, Holder: "me"})
			require.NoError(t, err)
			for !r.Done {
				r, err = a.OrderWatch(w.ctx, api.OrderWatch{Key: r.Key, Holder: "me", Seq: r.Seq})
				require.NoError(t, err)
			}
			unseal := big.MustFromString(tc.unseal)
			w.checkAdvance(t, r, unseal.Int64())
		})
	}
}

// TestBudgetOverAttempts: a budget is that of the order, over deals and providers that are started again; and a provider that says that there is
// less than there is does not make a sufficient one insufficient.
func TestBudgetOverAttempts(t *testing.T) {
	w := newWorld(t, 8<<20, paid)
	change, reached, open := gate()
	defer open()
	w.serving(t, change)
	require.NoError(t, w.client.Start(w.ctx, nil))
	a := w.client.API()
	req := w.request()
	budget := big.NewInt(2 * 5 << 20)
	req.Budget = budget.String()
	r, err := a.Retrieve(w.ctx, req)
	require.NoError(t, err)
	<-reached
	_, err = a.OrderPark(w.ctx, r.Order)
	require.NoError(t, err)
	open()
	r, err = w.client.Retrieve(w.ctx, req)
	require.NoError(t, err)
	require.False(t, r.OK)
	require.Equal(t, "budget-used", r.Reason, r.Message)
	require.Equal(t, api.CodeFunds, r.Code)
	require.Equal(t, "parked", r.State)
	spent := w.vouchered(t, a)
	require.True(t, spent.LessThanEqual(budget), "%s of %s", spent, budget)
	require.Equal(t, spent.String(), r.OrderSpent)
	require.Greater(t, r.Deals, 1)
	r, err = w.client.Retrieve(w.ctx, w.request())
	require.NoError(t, err)
	w.checkAdvance(t, r, 0)
}

// sayingSize quotes another size than there is.
type sayingSize struct {
	retrievalimpl.PieceSource
	size uint64
}

func (s sayingSize) Find(ctx context.Context, root cid.Cid, piece *cid.Cid) (retrievalimpl.Found, error) {
	f, err := s.PieceSource.Find(ctx, root, piece)
	f.Size = s.size
	return f, err
}

// TestQuoteTooLow: the size that a provider quotes is a claim. One that is below the payload's costs another deal, and not the retrieval.
func TestQuoteTooLow(t *testing.T) {
	for name, quoted := range map[string]uint64{"nothing": 0, "a byte": 1, "half": 2 << 20} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 4<<20, paid)
			w.provider.WrapPieces = func(p retrievalimpl.PieceSource) retrievalimpl.PieceSource { return sayingSize{p, quoted} }
			require.NoError(t, w.provider.Stop(w.ctx))
			require.NoError(t, w.provider.Start(w.ctx, nil))
			require.NoError(t, w.client.Start(w.ctx, nil))
			r, err := w.client.Retrieve(w.ctx, w.request())
			require.NoError(t, err)
			w.checkAdvance(t, r, 0)
		})
	}
}
