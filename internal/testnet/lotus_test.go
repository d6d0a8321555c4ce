package testnet_test

import (
	"context"
	"testing"
	"time"

	"github.com/filecoin-project/go-state-types/big"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/internal/config"
	"github.com/cartage-dev/cartage/internal/testnet"
	"github.com/cartage-dev/cartage/paych/paychtest"
)

// TestLotus: a paid retrieval with the channel on a simulated Filecoin chain, with a reorganisation in the middle, ends with the same
// amounts as on the embedded ledger; redeemed and collected, nothing was made or lost. While the chain is away the deal goes on.
func TestLotus(t *testing.T) {
	ask := api.Ask{PricePerByte: "2", UnsealPrice: "777", PaymentInterval: 100_000, PaymentIntervalIncrease: 0}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	net := testnet.NewLotus(t.TempDir())
	net.Lotus.Advance(20)
	w := newWorldOn(t, ctx, net, 2_000_000, ask)
	w.client.Config.Ledger.Watch = config.Auto(time.Hour) // it pushes no message of its own at the end
	require.NoError(t, w.client.Start(ctx, nil))
	payer, payee := w.client.Wallet.List()[0], w.provider.Wallet.List()[0]
	before := big.Add(net.Lotus.Balance(payer), net.Lotus.Balance(payee))

	type result struct {
		r   *api.Retrieval
		err error
	}
	got := make(chan result, 1)
	go func() {
		r, err := w.client.Retrieve(ctx, w.request())
		got <- result{r, err}
	}()
	require.Eventually(t, func() bool { return net.Lotus.Pool() == 1 }, 10*time.Second, time.Millisecond, "the channel is created")
	net.Lotus.Advance(4)
	net.Lotus.Reorganise(4, false)
	net.Lotus.Advance(4)
	net.Lotus.Reorganise(2, false) // this one does not reach the create
	net.Lotus.Advance(6)
	require.Eventually(t, func() bool {
		for _, d := range deals(t, w.client) {
			if d.Vouchers > 2 {
				return true
			}
		}
		return false
	}, 10*time.Second, time.Millisecond)
	net.Lotus.Away(true) // the chain is down: the deal goes on
	r := <-got
	require.NoError(t, r.err)
	w.check(t, r.r, 2, 777)
	net.Lotus.Away(false)

	stop := net.Lotus.Mine(5 * time.Millisecond)
	defer stop()
	list, err := w.provider.API().PayChannels(ctx)
	require.NoError(t, err)
	require.Len(t, list, 1)
	require.Eventually(t, func() bool { return w.provider.API().SettlePayCh(ctx, list[0].Channel) == nil }, 20*time.Second, 20*time.Millisecond)
	net.Lotus.Advance(paychtest.SettleDelay)
	require.NoError(t, w.provider.API().CollectPayCh(ctx, list[0].Channel))
	due := big.Add(big.Mul(big.NewInt(2), big.NewIntUnsigned(w.bytes)), big.NewInt(777))
	require.Equal(t, big.Add(big.NewInt(1_000_000_000_000), due).String(), net.Lotus.Balance(payee).String())
	require.Equal(t, before.String(), big.Add(net.Lotus.Balance(payer), net.Lotus.Balance(payee)).String())
	require.Equal(t, 1, creates(net))
}

func deals(t *testing.T, p *testnet.Peer) []api.Deal {
	t.Helper()
	list, err := p.API().Deals(t.Context())
	require.NoError(t, err)
	return list
}

// creates is how many messages were pushed before the redeem, the settle and the collect.
func creates(net *testnet.Net) int { return net.Lotus.Requests("MpoolPushMessage") - 3 }
