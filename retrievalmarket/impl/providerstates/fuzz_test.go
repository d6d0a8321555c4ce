package providerstates_test

import (
	"errors"
	"testing"

	"github.com/filecoin-project/go-state-types/big"
	"github.com/stretchr/testify/require"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/fsm"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	"github.com/cartage-dev/cartage/retrievalmarket/impl/providerstates"
)

func args(e rm.ProviderEvent, n byte) []any {
	switch e {
	case rm.ProviderEventDealAccepted:
		return []any{dt.ChannelID{Initiator: "c", Responder: "p", ID: dt.TransferID(n)}}
	case rm.ProviderEventPaymentRequested, rm.ProviderEventBlockSent:
		return []any{uint64(n)}
	case rm.ProviderEventPartialPaymentReceived, rm.ProviderEventPaymentReceived:
		return []any{big.NewInt(int64(n))}
	case rm.ProviderEventUnsealError, rm.ProviderEventSaveVoucherFailed, rm.ProviderEventDataTransferError, rm.ProviderEventMultiStoreError:
		return []any{errors.New("broken")}
	}
	return nil
}

// FuzzEvents feeds sequences of events into the provider's table: nothing panics, what was sent and what was paid only grow, a deal
// that has ended stays as it is, and a failure passes through a state that cleans up (M-12).
func FuzzEvents(f *testing.F) {
	f.Add([]byte{0, 0, 1, 1, 8, 0, 9, 40, 2, 50, 12, 100, 10, 0})
	f.Add([]byte{2, 0, 1, 1, 12, 9, 7, 0, 13, 0})
	table, err := fsm.Compile(providerstates.Spec(providerstates.Deadlines(0, 0, 0, 0)))
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, data []byte) {
		d := rm.ProviderDealState{FundsReceived: big.Zero(), DealProposal: rm.DealProposal{Params: rm.Params{PricePerByte: big.NewInt(2), PaymentInterval: 10, PaymentIntervalIncrease: 5, UnsealPrice: big.NewInt(1)}}}
		for i := 0; i+1 < len(data); i += 2 {
			e := rm.ProviderEvent(data[i] % 20)
			before := d
			if _, err := table.Apply(&d, e, args(e, data[i+1])...); err != nil {
				require.Equal(t, before.Status, d.Status)
				continue
			}
			require.False(t, table.Final(before.Status), "%s left %s", e, before.Status)
			if e != rm.ProviderEventOpen { // which is the first
				require.GreaterOrEqual(t, d.TotalSent, before.TotalSent)
				require.True(t, d.FundsReceived.GreaterThanEqual(before.FundsReceived))
			}
			if table.Final(d.Status) {
				require.Contains(t, []rm.DealStatus{rm.DealStatusFailing, rm.DealStatusCancelling, rm.DealStatusCompleting}, before.Status)
			}
		}
	})
}
