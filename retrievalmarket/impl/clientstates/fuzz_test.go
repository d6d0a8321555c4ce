package clientstates_test

import (
	"errors"
	"testing"

	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/stretchr/testify/require"

	dt "github.com/cartage-dev/cartage/datatransfer"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	"github.com/cartage-dev/cartage/retrievalmarket/impl/clientstates"
)

// amounts that a provider may ask for.
func owed(n byte) abi.TokenAmount {
	switch n % 8 {
	case 0:
		return big.Zero()
	case 1:
		return big.NewInt(-1)
	case 2:
		return abi.TokenAmount{}
	case 3:
		return big.Lsh(big.NewInt(1), 200)
	}
	return big.NewInt(int64(n) * 16)
}

// said sends what a provider, a transfer or a user can cause.
func said(r *run, what, n byte) error {
	switch what % 14 {
	case 0:
		return r.Send(rm.ClientEventDealAccepted)
	case 1:
		return r.Send(rm.ClientEventDealRejected, "no")
	case 2:
		return r.Send(rm.ClientEventUnsealPaymentRequested, owed(n))
	case 3:
		return r.Send(rm.ClientEventUnknownResponseReceived, rm.DealStatus(n), "what")
	case 4:
		return r.Send(rm.ClientEventProviderCancelled)
	case 5, 6:
		return r.Send(rm.ClientEventPaymentRequested, owed(n))
	case 7:
		return r.Send(rm.ClientEventLastPaymentRequested, owed(n))
	case 8, 9, 10:
		return r.Send(rm.ClientEventBlocksReceived, uint64(n)*16)
	case 11:
		return r.Send(rm.ClientEventAllBlocksReceived)
	case 12:
		return r.Send(rm.ClientEventComplete)
	}
	if n%2 == 0 {
		return r.Send(rm.ClientEventDataTransferError, errors.New("broken"))
	}
	return r.Send(rm.ClientEventCancel)
}

// FuzzEvents feeds what the other side may say into a deal, in any order and with any amounts (T56, T66): the machine comes to rest
// after each, never pays more than is due for what was received nor more than its budget, and never less than before.
func FuzzEvents(f *testing.F) {
	f.Add([]byte{0, 0, 8, 4, 5, 8, 8, 8, 5, 8, 11, 0, 7, 8, 12, 0})
	f.Add([]byte{2, 4, 5, 4, 8, 255, 7, 255, 11, 0, 12, 0})
	f.Add([]byte{5, 3, 7, 3, 11, 0, 12, 0, 13, 1, 5, 9})
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 64 {
			return
		}
		const budget = 3000
		r := start(t, rm.DealStatusNew, 100, 10, 2, 5, func(d *rm.ClientDealState, _ *fakeEnv) {
			d.TotalFunds, d.PaymentInfo, d.ChannelID = big.NewInt(budget), nil, dt.ChannelID{}
		})
		_ = r.Send(rm.ClientEventOpen)
		last := r.settle()
		for i := 0; i+1 < len(data); i += 2 {
			_ = said(r, data[i], data[i+1])
			d := r.settle()
			require.GreaterOrEqual(t, d.TotalReceived, last.TotalReceived)
			require.True(t, d.FundsSpent.GreaterThanEqual(last.FundsSpent), "%s after %s", d.FundsSpent, last.FundsSpent)
			require.True(t, d.FundsSpent.LessThanEqual(clientstates.Terms(&d).Due(d.TotalReceived)), "%s for %d bytes", d.FundsSpent, d.TotalReceived)
			require.True(t, d.FundsSpent.LessThanEqual(big.NewInt(budget)))
			if clientstates.IsFinal(last.Status) {
				require.Equal(t, last.Status, d.Status)
			}
			last = d
		}
		r.env.mu.Lock()
		defer r.env.mu.Unlock()
		for i := 1; i < len(r.env.vouchers); i++ {
			require.GreaterOrEqual(t, r.env.vouchers[i], r.env.vouchers[i-1])
		}
	})
}
