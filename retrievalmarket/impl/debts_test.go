package retrievalimpl_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/filecoin-project/go-state-types/big"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/stretchr/testify/require"

	dt "github.com/cartage-dev/cartage/datatransfer"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	retrievalimpl "github.com/cartage-dev/cartage/retrievalmarket/impl"
	"github.com/cartage-dev/cartage/retrievalmarket/network"
)

// walkOut makes a deal that takes some bytes, pays for some of them, and leaves.
func (m *market) walkOut(id uint64, bytes uint64, pays int64) {
	m.t.Helper()
	_, err := m.propose(id, func(p *rm.DealProposal) { p.UnsealPrice = big.NewInt(10) })
	require.ErrorIs(m.t, err, dt.ErrPause)
	m.manager.mu.Lock()
	m.manager.queued = bytes
	m.manager.mu.Unlock()
	if pays > 0 {
		_, err = m.pay(id, pays)
		require.True(m.t, err == nil || errors.Is(err, dt.ErrResume), err)
	}
	require.NoError(m.t, m.CancelDeal(rm.ProviderDealIdentifier{Receiver: "client", DealID: rm.DealID(id)}))
	require.Eventually(m.t, func() bool { return m.deal(id).Status == rm.DealStatusCancelled }, time.Minute, time.Millisecond)
}

// TestM32Debts: whoever left three deals without any payment, or many bytes, gets no more deals for a day; also after a restart of
// the provider. Free deals go on.
func TestM32Debts(t *testing.T) {
	for name, tc := range map[string]struct {
		deals int
		bytes uint64
		says  string
	}{
		"three ends": {3, 1000, "3 earlier deals ended without payment"},
		"many bytes": {1, 16<<20 + 1, "16777217 bytes of earlier deals are not paid"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var cfg retrievalimpl.ProviderConfig
				m := newMarket(t, func(c *retrievalimpl.ProviderConfig) { cfg = *c })
				for i := range tc.deals {
					m.walkOut(uint64(i+1), tc.bytes, 0)
				}
				res, err := m.propose(10)
				require.NotErrorIs(t, err, dt.ErrPause)
				require.Equal(t, rm.DealStatusRejected, res.Status)
				require.Contains(t, res.Message, tc.says)

				again, err := retrievalimpl.NewProviderFromConfig(cfg) // over the same store
				require.NoError(t, err)
				require.NoError(t, m.Stop())
				require.NoError(t, again.Start(t.Context()))
				m.Provider = again
				res, err = m.propose(11)
				require.NotErrorIs(t, err, dt.ErrPause)
				require.Contains(t, res.Message, tc.says)

				time.Sleep(24*time.Hour + time.Second)
				_, err = m.propose(12)
				require.ErrorIs(t, err, dt.ErrPause, "a day later")
			})
		})
	}
}

// TestM32PaidIsNoDebt: what was paid for is not owed, and another peer's debts are its own.
func TestM32PaidIsNoDebt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMarket(t)
		for i := range 4 {
			m.walkOut(uint64(i+1), 1000, int64(i+1)*(10+2*1000)) // one lane for all of them
		}
		_, err := m.propose(10)
		require.ErrorIs(t, err, dt.ErrPause)
	})
}

// queryStream is one query and its answer.
type queryStream struct {
	network.RetrievalQueryStream
	query  rm.Query
	answer rm.QueryResponse
}

func (*queryStream) RemotePeer() peer.ID { return "client" }

func (s *queryStream) ReadQuery() (rm.Query, error) { return s.query, nil }
func (s *queryStream) WriteQueryResponse(r rm.QueryResponse) error {
	s.answer = r
	return nil
}
func (s *queryStream) Close() error { return nil }

// TestT28QuoteIsHonoured: a price that rises between the answer to a query and the proposal does not count for a minute (4.1, T28).
func TestT28QuoteIsHonoured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMarket(t)
		dearer := &rm.Ask{PricePerByte: big.NewInt(3), UnsealPrice: big.NewInt(10), PaymentInterval: 1 << 20, PaymentIntervalIncrease: 1 << 20}
		m.SetAsk(dearer)
		res, _ := m.propose(1)
		require.Equal(t, "Price per byte too low", res.Message, "nobody was told the old price")

		m.SetAsk(&rm.Ask{PricePerByte: big.NewInt(2), UnsealPrice: big.NewInt(10), PaymentInterval: 1 << 20, PaymentIntervalIncrease: 1 << 20})
		s := &queryStream{query: rm.Query{PayloadCID: m.payload}}
		m.HandleQueryStream(s)
		require.Equal(t, rm.QueryResponseAvailable, s.answer.Status)
		m.SetAsk(dearer)
		time.Sleep(59 * time.Second)
		_, err := m.propose(2)
		require.ErrorIs(t, err, dt.ErrPause)
		time.Sleep(2 * time.Second)
		res, _ = m.propose(3)
		require.Equal(t, "Price per byte too low", res.Message)
	})
}
