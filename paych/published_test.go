package paych_test

import (
	"testing"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/stretchr/testify/require"

	rm "github.com/cartage-dev/cartage/retrievalmarket"
	"github.com/cartage-dev/cartage/retrievalmarket/marketnode"
)

// TestPublishedFunds: what the published node interface calls available, a voucher of any of its lanes may add, and not more; what a
// deal by name has reserved is not in it.
func TestPublishedFunds(t *testing.T) {
	_, payer, payee := two(t)
	node := marketnode.Client{Manager: payer.Manager}
	add := func(amount int64) address.Address {
		t.Helper()
		ch, msg, err := node.GetOrCreatePaymentChannel(t.Context(), payer.addr, payee.addr, big.NewInt(amount), nil)
		require.NoError(t, err)
		if msg.Defined() {
			ch, err = node.WaitForPaymentChannelReady(t.Context(), msg)
			require.NoError(t, err)
		}
		return ch
	}
	ch := add(100)
	one, err := node.AllocateLane(t.Context(), ch)
	require.NoError(t, err)
	_, named := payer.fund("by name", payee.addr, 60)
	two, err := node.AllocateLane(t.Context(), ch)
	require.NoError(t, err)
	promised := map[uint64]int64{}
	spends := func(lane uint64) {
		t.Helper()
		f, err := node.CheckAvailableFunds(t.Context(), ch)
		require.NoError(t, err)
		left := big.Sub(f.ConfirmedAmt, f.VoucherReedeemedAmt).Int64()
		_, err = node.CreatePaymentVoucher(t.Context(), ch, big.NewInt(promised[lane]+left+1), lane, nil)
		var short rm.ShortfallError
		require.ErrorAs(t, err, &short)
		require.EqualValues(t, 1, short.Shortfall().Int64())
		promised[lane] += left - left/3
		_, err = node.CreatePaymentVoucher(t.Context(), ch, big.NewInt(promised[lane]), lane, nil)
		require.NoError(t, err)
	}
	spends(one)
	spends(two)
	add(1000)
	spends(one) // a lane that is there already sees funds that were added
	spends(two)
	payer.pay("by name", ch, named, 60)
	spends(one)
	require.LessOrEqual(t, promised[one]+promised[two]+60, int64(1160))
}
