package testmarket_test

import (
	"testing"
	"time"

	"github.com/filecoin-project/go-state-types/big"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/internal/accounting"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	retrievalimpl "github.com/cartage-dev/cartage/retrievalmarket/impl"
	"github.com/cartage-dev/cartage/retrievalmarket/impl/clientstates"
)

// withoutCredit is a provider that lends nobody anything, and a client that pays so many bytes in advance.
func withoutCredit(advance uint64) func(*pair) {
	return func(m *pair) {
		m.p.Stream, m.c.Stream = true, true // a stream holds a block back until it is paid
		m.p.Config = func(c *retrievalimpl.ProviderConfig) {
			c.Credit = &accounting.CreditLimits{Memory: time.Hour}
			c.SupportsPrepaid = func(peer.ID) bool { return true }
		}
		m.c.ClientConfig = func(c *retrievalimpl.ClientConfig) {
			payAhead(c)
			c.Advances = accounting.AdvanceLimits{Bytes: advance, Memory: time.Hour}
		}
	}
}

// TestPrepaid: a client that gets no credit pays one interval in advance, whatever is sent is paid before, and the provider has no more than one
// interval that it did not send for.
func TestPrepaid(t *testing.T) {
	for name, asks := range map[string]bool{"offer known": true, "offer not known": false} {
		t.Run(name, func(t *testing.T) {
			m := newPair(t, terms(2, 7, 4096, 0), 30, 1024, withoutCredit(4096))
			if asks {
				offer, err := m.c.Client.Query(m.ctx, m.p.As(), m.root, rm.QueryParams{})
				require.NoError(t, err)
				require.Equal(t, "7", offer.UnsealPrice.String(), "who pays in advance owes no deposit")
			}
			m.funds = big.Add(m.funds, big.NewInt(2*4096))
			id := m.retrieve()
			require.Equal(t, rm.DealStatusCompleted, m.tc.ended(t), m.tc.text)
			require.Equal(t, rm.DealStatusCompleted, m.tp.ended(t))
			d, err := m.c.Client.GetDeal(id)
			require.NoError(t, err)
			excess := big.Sub(d.FundsSpent, clientstates.Terms(&d).Due(d.TotalReceived))
			require.True(t, excess.Sign() >= 0 && excess.LessThanEqual(big.NewInt(2*4096)), "%s", excess)
			var p rm.ProviderDealState
			require.Eventually(t, func() bool { // its last voucher may come when the deal has ended, and is booked then
				p = m.p.Provider.ListDeals()[rm.ProviderDealIdentifier{Receiver: m.c.Host.ID(), DealID: id}]
				return p.FundsReceived.Equals(d.FundsSpent)
			}, 20*time.Second, 5*time.Millisecond, "%s of %s", p.FundsReceived, d.FundsSpent)
			require.Equal(t, d.TotalReceived, p.TotalSent)
		})
	}
}

// TestPrepaidBlockByBlock: a block of a deal in advance leaves only when it is paid whole, also one that is larger than an interval, and a budget
// below the price buys what it pays for.
func TestPrepaidBlockByBlock(t *testing.T) {
	m := newPair(t, terms(2, 7, 4096, 0), 30, 1024, withoutCredit(4096))
	m.funds = big.NewInt(7 + 2*4096)
	id := m.retrieve()
	key := rm.ProviderDealIdentifier{Receiver: m.c.Host.ID(), DealID: id}
	require.Eventually(t, func() bool {
		d, err := m.c.Client.GetDeal(id)
		return err == nil && d.Status == rm.DealStatusInsufficientFunds
	}, 20*time.Second, 5*time.Millisecond)
	p := m.p.Provider.ListDeals()[key]
	require.NotZero(t, p.TotalSent)
	require.LessOrEqual(t, p.TotalSent, uint64(4096), "more left than was paid for")
	require.NoError(t, m.c.Client.CancelDeal(id))

	large := newPair(t, terms(2, 7, 700, 0), 30, 1024, withoutCredit(4096))
	large.funds = big.Add(large.funds, big.NewInt(2*4096))
	large.retrieve()
	require.Equal(t, rm.DealStatusCompleted, large.tc.ended(t), large.tc.text)
	require.Equal(t, rm.DealStatusCompleted, large.tp.ended(t))
}

// TestPrepaidAboveLimit: a client does not pay in advance more than it allows itself, and has spent nothing.
func TestPrepaidAboveLimit(t *testing.T) {
	m := newPair(t, terms(2, 0, 4096, 0), 30, 1024, withoutCredit(4095))
	m.retrieve()
	require.Equal(t, rm.DealStatusErrored, m.tc.ended(t))
	made, _ := m.bank.Totals()
	require.Zero(t, made.Int64())
}

// TestPrepaidOfUnknownBlocks: a transport that does not know the size of a block before it has left sends all the same when everything is paid: no
// block is larger than what is left of the payload.
func TestPrepaidOfUnknownBlocks(t *testing.T) {
	m := newPair(t, terms(2, 0, 1<<20, 0), 30, 1024, withoutCredit(1<<20), func(m *pair) { m.p.Stream, m.c.Stream = false, false })
	_, err := m.c.Client.Query(m.ctx, m.p.As(), m.root, rm.QueryParams{})
	require.NoError(t, err)
	id := m.retrieve()
	require.Equal(t, rm.DealStatusCompleted, m.tc.ended(t), "%s: %s", m.tc, m.tc.text)
	require.Equal(t, rm.DealStatusCompleted, m.tp.ended(t))
	d, err := m.c.Client.GetDeal(id)
	require.NoError(t, err)
	require.Equal(t, m.due().String(), d.FundsSpent.String())
}
