package clientstates_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/filecoin-project/go-state-types/big"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/fsm"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	"github.com/cartage-dev/cartage/retrievalmarket/impl/clientstates"
)

// TestLastBlockInEveryOrder: the end of a free transfer and the provider's completion cross each other. The event of the last
// block may come before, while and after the deal decides to wait for it; the deal is Completed each time.
func TestLastBlockInEveryOrder(t *testing.T) {
	table, err := fsm.Compile(clientstates.Spec(clientstates.Deadlines(0, 0, 0, 0)))
	require.NoError(t, err)
	for name, events := range map[string][]rm.ClientEvent{
		"before":  {rm.ClientEventAllBlocksReceived, rm.ClientEventComplete},
		"between": {rm.ClientEventComplete, rm.ClientEventAllBlocksReceived},
		"while":   {rm.ClientEventComplete, rm.ClientEventWaitForLastBlocks, rm.ClientEventAllBlocksReceived},
		"crossed": {rm.ClientEventComplete, rm.ClientEventAllBlocksReceived, rm.ClientEventWaitForLastBlocks},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				deal := rm.ClientDealState{Status: rm.DealStatusOngoing}
				deal.PricePerByte, deal.PaymentRequested = big.Zero(), big.Zero()
				m := fsm.NewMachine[rm.ClientDealState](t.Context(), table, deal, clientstates.ClientDealEnvironment(nil), fsm.Hooks[rm.ClientDealState]{})
				for _, e := range events {
					require.NoError(t, m.Send(e))
				}
				time.Sleep(time.Second)
				synctest.Wait()
				rec, _ := m.State()
				require.Equal(t, rm.DealStatusCompleted, rec.Status, rec.Status.String())
			})
		})
	}
}

// TestEverythingWasHere: what is here already is proposed to nobody: the unseal price is not due.
func TestEverythingWasHere(t *testing.T) {
	r := start(t, rm.DealStatusWaitForAcceptance, 1000, 0, 2, 700, func(d *rm.ClientDealState, _ *fakeEnv) { d.PaymentInfo = nil })
	r.send(rm.ClientEventAllBlocksReceived)
	d := r.send(rm.ClientEventComplete)
	require.Equal(t, rm.DealStatusCompleted, d.Status, d.Message)
	require.Empty(t, r.env.vouchers)
}
