package clientstates_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/ipfs/go-cid"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/fsm"
	"github.com/cartage-dev/cartage/internal/reason"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	"github.com/cartage-dev/cartage/retrievalmarket/impl/clientstates"
	"github.com/cartage-dev/cartage/shared"
)

// GetOrCreatePaymentChannel implements retrievalmarket.RetrievalClientNode.
func (e *fakeEnv) GetOrCreatePaymentChannel(context.Context, address.Address, address.Address, abi.TokenAmount, shared.TipSetToken) (address.Address, cid.Cid, error) {
	return payCh, cid.Undef, e.ledger()
}

// AllocateLane implements retrievalmarket.RetrievalClientNode.
func (e *fakeEnv) AllocateLane(context.Context, address.Address) (uint64, error) {
	return 1, e.ledger()
}

// ledger is what a call gets that needs the ledger.
func (e *fakeEnv) ledger() error {
	if time.Now().Before(e.away) {
		return reason.LedgerAway.Errorf("the chain is away")
	}
	return nil
}

// TestALedgerThatIsAwayIsWaitedFor: no deal fails because the ledger cannot be reached, in none of the states that need it.
func TestALedgerThatIsAwayIsWaitedFor(t *testing.T) {
	for name, in := range map[string]rm.DealStatus{
		"to make a channel":  rm.DealStatusAccepted,
		"for a message":      rm.DealStatusPaymentChannelCreating,
		"to take a lane":     rm.DealStatusPaymentChannelAllocatingLane,
		"to look for money":  rm.DealStatusCheckFunds,
		"to sign a voucher":  rm.DealStatusSendFunds,
		"to pay what is due": rm.DealStatusCheckComplete,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := start(t, in, 1000, 0, 2, 0, func(d *rm.ClientDealState, e *fakeEnv) {
					e.away = time.Now().Add(5 * time.Minute)
					e.funds = []rm.ChannelAvailableFunds{{ConfirmedAmt: big.NewInt(1 << 40), PendingAmt: big.Zero(), QueuedAmt: big.Zero(), VoucherReedeemedAmt: big.Zero()}}
					d.WaitMsgCID = sentinel(t, "message")
					if in == rm.DealStatusCheckFunds {
						d.WaitMsgCID = nil
					}
					d.TotalReceived, d.PaymentRequested, d.AllBlocksReceived = 1000, big.NewInt(2000), in == rm.DealStatusCheckComplete
				})
				require.NoError(t, r.Reenter())
				time.Sleep(4 * time.Minute)
				d, _ := r.State()
				require.Equal(t, in, d.Status, d.Message)
				time.Sleep(2 * time.Minute)
				d = r.settle()
				require.Equal(t, []int64{2000}, r.env.vouchers, d.Message)
				require.Empty(t, d.Message)
			})
		})
	}
}

// TestACancelEndsTheWaitForALedger: and the deal is cancelled, not failed.
func TestACancelEndsTheWaitForALedger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, rm.DealStatusPaymentChannelAllocatingLane, 1000, 0, 2, 0, func(_ *rm.ClientDealState, e *fakeEnv) { e.away = time.Now().Add(time.Hour) })
		require.NoError(t, r.Reenter())
		time.Sleep(time.Minute)
		require.Equal(t, rm.DealStatusCancelled, r.send(rm.ClientEventCancel).Status)
	})
}

// ReplenishDeal implements retrievalmarket.ClientReplenisher for replenishing.
func (e *replenishing) ReplenishDeal(_ context.Context, deal string, _, _ address.Address, total abi.TokenAmount) (bool, error) {
	added := e.missing
	e.missing = false
	e.asked = append(e.asked, deal+" "+total.String())
	if added {
		e.short = nil
	}
	return added, e.refused
}

// replenishing is a node that finds money again for a deal.
type replenishing struct {
	*fakeEnv
	missing bool
	refused error
	asked   []string
}

func (e *replenishing) Node() rm.RetrievalClientNode { return e }

// TestMoneyOfADealIsFoundAgain: a deal whose payment channel has too little for it, within what it may spend, gets the rest; one that has all that it
// may spend waits for its user.
func TestMoneyOfADealIsFoundAgain(t *testing.T) {
	for name, tc := range map[string]struct {
		missing bool
		refused error
		status  rm.DealStatus
	}{
		"with another deal":    {true, nil, rm.DealStatusOngoing},
		"nothing is missing":   {false, nil, rm.DealStatusInsufficientFunds},
		"the wallet is empty":  {false, errors.New("no money"), rm.DealStatusInsufficientFunds},
		"nobody asks for it":   {false, reason.ParkedAsked.Errorf("parked"), rm.DealStatusCheckFunds},
		"the ledger is closed": {false, reason.LedgerRefused.Errorf("closed"), rm.DealStatusInsufficientFunds},
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t, rm.DealStatusOngoing, 1000, 0, 2, 0)
			none := rm.ChannelAvailableFunds{ConfirmedAmt: big.Zero(), PendingAmt: big.Zero(), QueuedAmt: big.Zero(), VoucherReedeemedAmt: big.Zero()}
			r.env.funds, r.env.short = []rm.ChannelAvailableFunds{none}, []int64{2000}
			env := &replenishing{fakeEnv: r.env, missing: tc.missing, refused: tc.refused}
			d, _ := r.State()
			table, err := fsm.Compile(clientstates.Spec(clientstates.Deadlines(0, 0, 0, 0)))
			require.NoError(t, err)
			r.Machine = fsm.NewMachine[rm.ClientDealState](t.Context(), table, d, clientstates.ClientDealEnvironment(env), fsm.Hooks[rm.ClientDealState]{})
			r.blocks(1000)
			require.Equal(t, tc.status, r.asked(2000).Status)
			require.Equal(t, []string{clientstates.DealKey(d.ID) + " " + d.TotalFunds.String()}, env.asked)
			if tc.missing {
				require.Equal(t, []int64{2000}, r.env.vouchers)
			}
		})
	}
}
