package clientstates_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/fsm"
	"github.com/cartage-dev/cartage/internal/reason"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	"github.com/cartage-dev/cartage/retrievalmarket/impl/clientstates"
)

// TestEveryEndHasAReason: whatever ends a deal, or makes it stand still, leaves a reason; the words of the provider change nothing of it.
func TestEveryEndHasAReason(t *testing.T) {
	table, err := fsm.Compile(clientstates.Spec(clientstates.Deadlines(0, 0, 0, 0)))
	require.NoError(t, err)
	for name, tc := range map[string]struct {
		from  rm.DealStatus
		event rm.ClientEvent
		args  []any
		want  reason.Reason
	}{
		"refused":                {rm.DealStatusWaitForAcceptance, rm.ClientEventDealRejected, []any{"the peer owes, nothing happened, timed out"}, reason.PeerRefused},
		"refused without a word": {rm.DealStatusWaitForAcceptance, rm.ClientEventDealRejected, []any{""}, reason.PeerRefused},
		"lost":                   {rm.DealStatusOngoing, rm.ClientEventDealRejected, []any{""}, reason.DealLost},
		"lost, words":            {rm.DealStatusOngoing, rm.ClientEventDealRejected, []any{"rejected for unknown reasons"}, reason.PeerRefused},
		"not found":              {rm.DealStatusWaitForAcceptance, rm.ClientEventDealNotFound, []any{""}, reason.RootUnknown},
		"ended long ago":         {rm.DealStatusOngoing, rm.ClientEventUnknownResponseReceived, []any{rm.DealStatusErrored, ""}, reason.DealLost},
		"errored":                {rm.DealStatusOngoing, rm.ClientEventUnknownResponseReceived, []any{rm.DealStatusErrored, "is not reachable"}, reason.PeerFailed},
		"cancelled by provider":  {rm.DealStatusOngoing, rm.ClientEventProviderCancelled, nil, reason.PeerCancelled},
		"cancelled":              {rm.DealStatusOngoing, rm.ClientEventCancel, nil, reason.Cancelled},
		"ledger":                 {rm.DealStatusAccepted, rm.ClientEventPaymentChannelErrored, []any{errors.New("x")}, reason.LedgerRefused},
		"ledger away":            {rm.DealStatusAccepted, rm.ClientEventPaymentChannelErrored, []any{reason.LedgerAway.Errorf("x")}, reason.LedgerAway},
		"overasked":              {rm.DealStatusFundsNeeded, rm.ClientEventBadPaymentRequested, []any{"x"}, reason.Overasked},
		"budget":                 {rm.DealStatusSendFunds, rm.ClientEventFundsExpended, []any{big.NewInt(7)}, reason.BudgetUsed},
		"channel short":          {rm.DealStatusCheckFunds, rm.ClientEventFundsExpended, []any{big.NewInt(7)}, reason.WalletShort},
		"less than all":          {rm.DealStatusCheckComplete, rm.ClientEventEarlyTermination, nil, reason.DataMissing},
		"a block is wrong":       {rm.DealStatusOngoing, rm.ClientEventDataTransferError, []any{fmt.Errorf("deal data transfer failed: %w", reason.HashMismatch.Errorf("x"))}, reason.HashMismatch},
		"its words":              {rm.DealStatusOngoing, rm.ClientEventDataTransferError, []any{errors.New("data failed verification")}, reason.PeerFailed},
		"too large":              {rm.DealStatusOngoing, clientstates.TooLarge, []any{uint64(7)}, reason.PeerClaims},
	} {
		t.Run(name, func(t *testing.T) {
			d := rm.ClientDealState{Status: tc.from, VoucherShortfall: big.Zero()}
			_, err := table.Apply(&d, tc.event, tc.args...)
			require.NoError(t, err)
			require.Equal(t, tc.want, clientstates.ReasonOf(&d), d.Message)
			// What fails while it ends does not change why it ends.
			if d.Status == rm.DealStatusFailing {
				_, _ = table.Apply(&d, rm.ClientEventDataTransferError, reason.PeerSilent.Errorf("later"))
				require.Equal(t, tc.want, clientstates.ReasonOf(&d))
			}
		})
	}
}

// TestReasonIsStored: the record of a deal has the reason; one without reads as before, byte for byte.
func TestReasonIsStored(t *testing.T) {
	d := rm.ClientDealState{DealProposal: rm.DealProposal{PayloadCID: *sentinel(t, "x"), Params: rm.NewParamsV0(big.Zero(), 0, 0)}, ClientWallet: addr(t), MinerWallet: addr(t),
		TotalFunds: big.Zero(), PaymentRequested: big.Zero(), FundsSpent: big.Zero(), UnsealFundsPaid: big.Zero(), VoucherShortfall: big.Zero()}
	var plain, told bytes.Buffer
	require.NoError(t, d.MarshalCBOR(&plain))
	require.NotContains(t, plain.String(), "Reason")
	d.Reason = reason.PeerDebt.String()
	require.NoError(t, d.MarshalCBOR(&told))
	for _, data := range [][]byte{plain.Bytes(), told.Bytes()} {
		var back rm.ClientDealState
		require.NoError(t, back.UnmarshalCBOR(bytes.NewReader(data)))
		if len(data) == told.Len() {
			require.Equal(t, reason.PeerDebt, clientstates.ReasonOf(&back))
		} else {
			require.Equal(t, reason.None, clientstates.ReasonOf(&back))
		}
	}
}

func addr(t *testing.T) address.Address {
	a, err := address.NewIDAddress(7)
	require.NoError(t, err)
	return a
}
