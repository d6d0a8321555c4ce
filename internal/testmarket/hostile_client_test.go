package testmarket_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/builtin/v8/paych"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/internal/testmarket"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	retrievalimpl "github.com/cartage-dev/cartage/retrievalmarket/impl"
	"github.com/cartage-dev/cartage/retrievalmarket/impl/clientstates"
	"github.com/cartage-dev/cartage/shared"
)

// TestT01T02T23HostileClient: rows T01, T02 and T23: a client that does not pay gets one interval and a block, and then nothing more
// without paying in advance.
func TestT01T02T23HostileClient(t *testing.T) {
	m := newPair(t, terms(2, 0, 4096, 0), 30, 1024, func(m *pair) {
		m.c.ClientConfig = func(c *retrievalimpl.ClientConfig) { c.Node = forgetful{testmarket.Client{SimulatedBank: m.bank}} }
		m.p.Idle = 1500 * time.Millisecond
	})
	{
		id := m.retrieve()
		key := rm.ProviderDealIdentifier{Receiver: m.c.Host.ID(), DealID: id}
		require.Eventually(t, func() bool { return clientstates.IsFinal(m.p.Provider.ListDeals()[key].Status) }, 20*time.Second, 10*time.Millisecond)
		d := m.p.Provider.ListDeals()[key]
		require.Equal(t, rm.DealStatusErrored, d.Status, d.Message)
		require.LessOrEqual(t, d.TotalSent, uint64(4096+1024), "more than one interval and a block")
		_ = m.c.Client.CancelDeal(id)
		require.Eventually(t, func() bool {
			s, err := m.c.Client.GetDeal(id)
			return err == nil && clientstates.IsFinal(s.Status)
		}, 20*time.Second, 10*time.Millisecond)
		root, _, err := m.p.Store.BuildDAG(30, 1024, 100) // what came is here already
		require.NoError(t, err)
		m.root = root
	}
	id := m.retrieve()
	require.Eventually(t, func() bool {
		s, err := m.c.Client.GetDeal(id)
		return err == nil && s.Status == rm.DealStatusRejected && strings.Contains(s.Message, "bytes of earlier deals are not paid")
	}, 20*time.Second, 10*time.Millisecond)
}

// unfinished is a client's node that never signs the last voucher.
type unfinished struct {
	testmarket.Client
	last *atomic.Int64
}

func (u unfinished) CreatePaymentVoucher(ctx context.Context, ch address.Address, amount abi.TokenAmount, lane uint64, tok shared.TipSetToken) (*paych.SignedVoucher, error) {
	if amount.Int64() >= u.last.Load() {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return u.Client.CreatePaymentVoucher(ctx, ch, amount, lane, tok)
}

// TestScenario31 of payments.md 6: a client that pays up to the last boundary and never the rest leaves the provider short by no more
// than the last interval and a block; the deal ends as a failure, and the peer is remembered.
func TestScenario31(t *testing.T) {
	const leaf = 1024
	var last atomic.Int64
	last.Store(1 << 60)
	m := newPair(t, terms(2, 0, 4096, 0), 30, leaf, func(m *pair) {
		m.c.ClientConfig = func(c *retrievalimpl.ClientConfig) {
			c.Node = unfinished{testmarket.Client{SimulatedBank: m.bank}, &last}
		}
		m.p.Idle = 1500 * time.Millisecond
	})
	last.Store(2 * int64(m.total))
	id := m.retrieve()
	key := rm.ProviderDealIdentifier{Receiver: m.c.Host.ID(), DealID: id}
	require.Eventually(t, func() bool { return clientstates.IsFinal(m.p.Provider.ListDeals()[key].Status) }, 20*time.Second, 10*time.Millisecond)
	d := m.p.Provider.ListDeals()[key]
	require.Equal(t, rm.DealStatusErrored, d.Status, d.Message)
	paid := d.FundsReceived.Int64() / 2
	require.NotZero(t, paid)
	require.EqualValues(t, m.total, d.TotalSent, "all of it was sent")
	require.LessOrEqual(t, int64(d.TotalSent)-paid, int64(4096+leaf))
	_ = m.c.Client.CancelDeal(id)
}

// TestM07T54Limit: a deal stops at the bytes that the caller wants at most, and pays for no more than came.
func TestM07T54Limit(t *testing.T) {
	m := newPair(t, terms(2, 0, 4096, 0), 30, 1024, func(m *pair) {
		m.c.ClientConfig = func(c *retrievalimpl.ClientConfig) { c.MaxBytes = func(rm.ClientDealState) uint64 { return 10_000 } }
	})
	id := m.retrieve()
	require.Equal(t, rm.DealStatusErrored, m.tc.ended(t), "%s", m.tc)
	d, err := m.c.Client.GetDeal(id)
	require.NoError(t, err)
	require.Contains(t, d.Message, "the payload is larger than the limit of 10000 bytes")
	require.LessOrEqual(t, d.FundsSpent.Int64(), int64(d.TotalReceived)*2)
}
