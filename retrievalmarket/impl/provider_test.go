package retrievalimpl_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/filecoin-project/go-state-types/builtin/v8/paych"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	mh "github.com/multiformats/go-multihash"
	"github.com/stretchr/testify/require"
	cbg "github.com/whyrusleeping/cbor-gen"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/internal/limits"
	pay "github.com/cartage-dev/cartage/paych"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	retrievalimpl "github.com/cartage-dev/cartage/retrievalmarket/impl"
	"github.com/cartage-dev/cartage/retrievalmarket/impl/providerstates"
	"github.com/cartage-dev/cartage/shared"
)

// TestValidation: the rows of 4.6, in their order, with their words.
func TestValidation(t *testing.T) {
	piece, err := cid.V1Builder{Codec: cid.Raw, MhType: mh.SHA2_256}.Sum([]byte("other"))
	require.NoError(t, err)
	for name, tc := range map[string]struct {
		change func(*rm.DealProposal)
		status rm.DealStatus
		says   string
	}{
		"M-01 no price":            {func(p *rm.DealProposal) { p.PricePerByte = abi.TokenAmount{} }, rm.DealStatusRejected, "invalid deal parameters"},
		"M-01 negative unseal":     {func(p *rm.DealProposal) { p.UnsealPrice = big.NewInt(-1) }, rm.DealStatusRejected, "invalid deal parameters"},
		"M-03 no interval":         {func(p *rm.DealProposal) { p.PaymentInterval = 0 }, rm.DealStatusRejected, "Payment interval too small"},
		"M-03 tiny interval":       {func(p *rm.DealProposal) { p.PaymentInterval = 64<<10 - 1 }, rm.DealStatusRejected, "Payment interval too small"},
		"M-03 huge interval":       {func(p *rm.DealProposal) { p.PaymentInterval = 1 << 63 }, rm.DealStatusRejected, "invalid deal parameters"},
		"T27 S34 interval 2^63":    {func(p *rm.DealProposal) { p.PaymentInterval = 1 << 63 }, rm.DealStatusRejected, "invalid deal parameters"},
		"T17 S34 increase 2^63":    {func(p *rm.DealProposal) { p.PaymentIntervalIncrease = 1 << 63 }, rm.DealStatusRejected, "invalid deal parameters"},
		"T27 S34 price 0":          {func(p *rm.DealProposal) { p.PricePerByte = big.Zero() }, rm.DealStatusRejected, "Price per byte too low"},
		"price too low":            {func(p *rm.DealProposal) { p.PricePerByte = big.NewInt(1) }, rm.DealStatusRejected, "Price per byte too low"},
		"interval too large":       {func(p *rm.DealProposal) { p.PaymentInterval = 1<<20 + 1 }, rm.DealStatusRejected, "Payment interval too large"},
		"increase too large":       {func(p *rm.DealProposal) { p.PaymentIntervalIncrease = 1<<20 + 1 }, rm.DealStatusRejected, "Payment interval increase too large"},
		"unseal price too small":   {func(p *rm.DealProposal) { p.UnsealPrice = big.NewInt(9) }, rm.DealStatusRejected, "Unseal price too small"},
		"M-09 payload is not here": {func(p *rm.DealProposal) { p.PayloadCID = piece }, rm.DealStatusDealNotFound, "not found"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMarket(t)
			res, err := m.propose(1, tc.change)
			require.Error(t, err)
			require.NotErrorIs(t, err, dt.ErrPause)
			require.Equal(t, tc.status, res.Status)
			require.Contains(t, res.Message, tc.says)
			require.Empty(t, m.ListDeals(), "nothing is kept of a refused proposal")
		})
	}
	m := newMarket(t)
	p := m.proposal(1)
	_, err = m.hub.ValidatePull(false, channel(1), "client", p, piece, shared.AllSelector())
	require.ErrorContains(t, err, "incorrect CID for this proposal")
	_, err = m.hub.ValidatePull(false, channel(1), "client", p, m.payload, nil)
	require.ErrorContains(t, err, "incorrect selector for this proposal")
	_, err = m.hub.ValidatePush(false, channel(1), "client", p, m.payload, nil)
	require.EqualError(t, err, "No pushes accepted")
	_, err = m.hub.ValidatePull(true, channel(1), "client", p, m.payload, shared.AllSelector())
	require.ErrorIs(t, err, rm.ErrNotFound, "a restart needs a deal")

	res, err := m.propose(1)
	require.ErrorIs(t, err, dt.ErrPause)
	require.Equal(t, rm.DealStatusFundsNeededUnseal, res.Status)
	require.Equal(t, big.NewInt(10), res.PaymentOwed)
	res, err = m.propose(1)
	require.ErrorContains(t, err, "already exists")
	require.Nil(t, res, "a duplicate is answered with no result, so that it cannot touch the deal")
}

// TestDecider: its refusal has its words; of its failure others learn a reason and a number, and nothing of the error.
func TestDecider(t *testing.T) {
	for name, tc := range map[string]struct {
		decide retrievalimpl.DealDecider
		status rm.DealStatus
		says   string
	}{
		"refused": {func(context.Context, rm.ProviderDealState) (bool, string, error) { return false, "not to you", nil }, rm.DealStatusRejected, "^not to you$"},
		"failed": {func(context.Context, rm.ProviderDealState) (bool, string, error) {
			return false, "", errors.New("decider down")
		}, rm.DealStatusErrored, `^failed to begin the deal: .* \(unknown, reference [A-Z2-7]{8}\)$`},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMarket(t, func(c *retrievalimpl.ProviderConfig) { c.Decide = tc.decide })
			res, err := m.propose(1)
			require.Error(t, err)
			require.Equal(t, tc.status, res.Status)
			require.Regexp(t, tc.says, res.Message)
		})
	}
}

// TestSuspendedDealsHoldNoPlace: deals whose clients went away keep nobody out after a minute.
func TestSuspendedDealsHoldNoPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMarket(t, func(c *retrievalimpl.ProviderConfig) { c.MaxDeals = 2 })
		for id := range uint64(2) {
			_, err := m.propose(id)
			require.ErrorIs(t, err, dt.ErrPause)
		}
		_, err := m.propose(2)
		require.NotErrorIs(t, err, dt.ErrPause)
		time.Sleep(61 * time.Second)
		_, err = m.propose(3)
		require.ErrorIs(t, err, dt.ErrPause)
	})
}

// TestFreeOnly: a provider that cannot take money says so and takes free deals only.
func TestFreeOnly(t *testing.T) {
	m := newMarket(t, func(c *retrievalimpl.ProviderConfig) { c.FreeOnly = true })
	res, err := m.propose(1)
	require.Error(t, err)
	require.Equal(t, rm.DealStatusRejected, res.Status)
	require.Contains(t, res.Message, "has no ledger")
}

// TestM19Limits: a peer, and all peers together, have so many deals and no more.
func TestM19Limits(t *testing.T) {
	m := newMarket(t, func(c *retrievalimpl.ProviderConfig) { c.MaxDealsPerPeer = 2 })
	for id := range uint64(2) {
		_, err := m.propose(id)
		require.ErrorIs(t, err, dt.ErrPause)
	}
	res, err := m.propose(2)
	require.Error(t, err)
	require.Equal(t, rm.DealStatusRejected, res.Status)
	require.Contains(t, res.Message, "2 deals in progress")
	require.NoError(t, m.CancelDeal(rm.ProviderDealIdentifier{Receiver: "client", DealID: 0}))
	require.Eventually(t, func() bool { return m.deal(0).Status == rm.DealStatusCancelled && m.Active() == 1 }, waitFor, tick)
	require.Equal(t, "Provider cancelled retrieval", m.deal(0).Message)
	_, err = m.propose(2)
	require.ErrorIs(t, err, dt.ErrPause)
}

// TestSelectorAtLimit: a proposal may have a selector of 16 KiB, and not of a byte more: that is refused, and told of once.
func TestSelectorAtLimit(t *testing.T) {
	over := 0
	m := newMarket(t, func(c *retrievalimpl.ProviderConfig) { c.SelectorOver = func() { over++ } })
	for size, told := range map[int]int{limits.MaxSelector: 0, limits.MaxSelector + 1: 1} {
		over = 0
		_, err := m.propose(1, func(p *rm.DealProposal) { p.Selector = &cbg.Deferred{Raw: make([]byte, size)} })
		require.Error(t, err)
		require.Equal(t, told, over, "%d bytes: %v", size, err)
	}
}

// started is a deal whose unseal price is paid and whose data flows.
func started(t *testing.T, m *market) {
	t.Helper()
	_, err := m.propose(1)
	require.ErrorIs(t, err, dt.ErrPause)
	_, err = m.pay(1, 10)
	require.NoError(t, err)
	require.Eventually(t, func() bool { return m.deal(1).Status == rm.DealStatusUnsealed }, waitFor, tick)
}

// TestM33Credit: what is paid above what was sent stays credit, whatever the arithmetic of the payer; asked is never less
// than nothing and never more than is due.
func TestM33Credit(t *testing.T) {
	m := newMarket(t)
	started(t, m)
	m.manager.queued = 1 << 20
	_, res, err := m.hub.OnPullDataSent(channel(1), 1<<20)
	require.ErrorIs(t, err, dt.ErrPause)
	require.EqualValues(t, 2<<20, res.(*rm.DealResponse).PaymentOwed.Int64())
	got, err := m.pay(1, 10+2*5<<20)
	require.ErrorIs(t, err, dt.ErrResume)
	require.Nil(t, got)
	require.EqualValues(t, 1<<20, m.manager.queued, "the count of what was sent is what was sent")
	limit, limited := m.hub.Limit(channel(1))
	require.True(t, limited)
	require.Greater(t, limit, uint64(5<<20))
	m.manager.queued = 3 << 20
	handled, last, err := m.hub.OnComplete(channel(1))
	require.True(t, handled)
	require.NoError(t, err, "nothing is owed at the end")
	require.Equal(t, rm.DealStatusCompleted, last.(*rm.DealResponse).Status)
}

// TestM05PartialPayment: too little is kept and the rest is asked for.
func TestM05PartialPayment(t *testing.T) {
	t.Run("all of the money is missing", func(t *testing.T) { partialPayment(t) })
	t.Run("T07 S32 one unit less each time", func(t *testing.T) {
		m := newMarket(t)
		started(t, m)
		total, granted := int64(10), uint64(1<<20)
		for range 3 {
			m.manager.queued = granted
			_, _, err := m.hub.OnPullDataSent(channel(1), granted)
			require.ErrorIs(t, err, dt.ErrPause)
			total += 2<<20 - 1
			_, _ = m.pay(1, total)
			limit, limited := m.hub.Limit(channel(1))
			require.True(t, limited)
			state := m.deal(1)
			paid := uint64(total-10) / 2
			require.Eventually(t, func() bool {
				state = m.deal(1)
				return providerstates.Terms(&state).PaidBytes(state.FundsReceived) == paid
			}, waitFor, tick)
			require.LessOrEqual(t, limit-paid, state.PaymentInterval+2*state.PaymentIntervalIncrease, "what is missing is not granted")
			granted = limit
		}
	})
}

func partialPayment(t *testing.T) {
	m := newMarket(t)
	started(t, m)
	m.manager.queued = 1 << 20
	res, err := m.pay(1, 10)
	require.ErrorIs(t, err, dt.ErrPause, "nothing new: still the same is owed")
	require.Equal(t, rm.DealStatusFundsNeeded, res.Status)
	require.EqualValues(t, 2<<20, res.PaymentOwed.Int64())
}

// TestM05LateVoucher: a voucher that is looked at while the last block leaves does not end a deal that is not paid.
func TestM05LateVoucher(t *testing.T) {
	const size = 1000
	m := newMarket(t)
	started(t, m)
	m.manager.counted = func() {
		m.manager.queued = size
		_, res, err := m.hub.OnComplete(channel(1))
		require.ErrorIs(t, err, dt.ErrPause)
		require.EqualValues(t, 2*size, res.(*rm.DealResponse).PaymentOwed.Int64())
	}
	res, err := m.pay(1, 10) // the same again
	require.ErrorIs(t, err, dt.ErrPause)
	require.Equal(t, rm.DealStatusFundsNeededLastPayment, res.Status)
	require.EqualValues(t, 2*size, res.PaymentOwed.Int64())
	res, err = m.pay(1, 10+2*size)
	require.ErrorIs(t, err, dt.ErrResume)
	require.Equal(t, rm.DealStatusCompleted, res.Status)
}

// TestFinalizingMeanwhile: a provider crashed after its transfer stored that all was sent, and before the deal did. A voucher for what
// came before does not end the deal.
func TestFinalizingMeanwhile(t *testing.T) {
	const size = 1 << 20
	ds := dssync.MutexWrap(datastore.NewMapDatastore())
	keep := func(c *retrievalimpl.ProviderConfig) { c.Store = ds }
	m := newMarket(t, keep)
	started(t, m)
	m.manager.sub(dt.Event{Code: dt.Accept}, fakeState{chid: channel(1)})
	require.Eventually(t, func() bool { return m.deal(1).ChannelID == channel(1) }, waitFor, tick)
	require.NoError(t, m.Stop())
	m = newMarketOver(t, &fakeManager{status: dt.Finalizing, queued: size}, keep)
	m.node.total = big.NewInt(10)
	require.Eventually(t, func() bool { return m.deal(1).Status == rm.DealStatusFundsNeededLastPayment }, waitFor, tick)
	res, err := m.pay(1, 10)
	require.ErrorIs(t, err, dt.ErrPause)
	require.Equal(t, rm.DealStatusFundsNeededLastPayment, res.Status)
	require.EqualValues(t, 2*size, res.PaymentOwed.Int64())
	res, err = m.pay(1, 10+2*size)
	require.ErrorIs(t, err, dt.ErrResume)
	require.Equal(t, rm.DealStatusCompleted, res.Status)
}

// TestBadVouchers: rule 8 of 4.7: the third one ends the deal, nothing is credited, and each answer says what is wrong.
func TestBadVouchers(t *testing.T) {
	for name, bad := range map[string]func(*rm.DealPayment){
		"none":          func(p *rm.DealPayment) { p.PaymentVoucher = nil },
		"no signature":  func(p *rm.DealPayment) { p.PaymentVoucher.Signature = nil },
		"other channel": func(p *rm.DealPayment) { p.PaymentVoucher.ChannelAddr, _ = address.NewActorAddress([]byte("x")) },
		"other deal":    func(p *rm.DealPayment) { p.ID = 7 },
		"time lock":     func(p *rm.DealPayment) { p.PaymentVoucher.TimeLockMin = 1 },
		"merges":        func(p *rm.DealPayment) { p.PaymentVoucher.Merges = []paych.Merge{{Lane: 1}} },
		"nothing":       func(p *rm.DealPayment) { p.PaymentVoucher.Amount = big.Zero() },
	} {
		t.Run(name, func(t *testing.T) {
			m := newMarket(t)
			_, err := m.propose(1)
			require.ErrorIs(t, err, dt.ErrPause)
			for range 2 {
				res, err := m.pay(1, 10, bad)
				require.ErrorIs(t, err, dt.ErrPause)
				require.Equal(t, rm.DealStatusFundsNeededUnseal, res.Status)
				require.NotEmpty(t, res.Message)
			}
			res, err := m.pay(1, 10, bad)
			require.Error(t, err)
			require.NotErrorIs(t, err, dt.ErrPause)
			require.Equal(t, rm.DealStatusErrored, res.Status)
			require.Eventually(t, func() bool { return m.deal(1).Status == rm.DealStatusErrored }, waitFor, tick)
			require.Zero(t, m.deal(1).FundsReceived.Int64())
		})
	}
}

// TestNodeAway: a node that cannot look at a voucher is asked again, and is not the payer's fault.
func TestNodeAway(t *testing.T) {
	m := newMarket(t)
	_, err := m.propose(1)
	require.ErrorIs(t, err, dt.ErrPause)
	m.node.head = errors.New("chain is syncing")
	res, err := m.pay(1, 10)
	require.ErrorIs(t, err, dt.ErrPause)
	require.Equal(t, rm.DealStatusFundsNeededUnseal, res.Status)
	require.Regexp(t, `cannot check payments at the moment: .*reference [A-Z2-7]{8}`, res.Message)
	m.node.head = nil
	_, err = m.pay(1, 10)
	require.NoError(t, err)
	for range 3 { // voucher faults count
		m.node.errs = []error{fmt.Errorf("%w: lane 1", pay.ErrStaleNonce)}
		_, err = m.pay(1, 20)
	}
	require.ErrorIs(t, err, pay.ErrStaleNonce)
}

// TestM02UnknownChannel: a channel that no deal knows has no credit, and other users of the manager are left alone.
func TestM02UnknownChannel(t *testing.T) {
	m := newMarket(t)
	limit, limited := m.hub.Limit(channel(9))
	require.True(t, limited)
	require.Zero(t, limit)
	handled, _, _ := m.hub.OnPullDataSent(channel(9), 1)
	require.False(t, handled)
	_, err := m.pay(9, 1)
	require.ErrorIs(t, err, rm.ErrNotFound)
}

// TestTransferEndedMeanwhile: a provider starts although the transfers of its deals ended while it was away, however soon the
// deals end then.
func TestTransferEndedMeanwhile(t *testing.T) {
	const n = 50
	ds := dssync.MutexWrap(datastore.NewMapDatastore())
	keep := func(c *retrievalimpl.ProviderConfig) { c.Store = ds }
	all := func(m *market, want rm.DealStatus) {
		require.Eventually(t, func() bool {
			for id := range uint64(n) {
				if m.deal(id).Status != want {
					return false
				}
			}
			return true
		}, waitFor, tick)
	}
	m := newMarket(t, keep)
	for id := range uint64(n) {
		_, err := m.propose(id)
		require.ErrorIs(t, err, dt.ErrPause)
		m.manager.sub(dt.Event{Code: dt.Accept}, fakeState{chid: channel(id)})
	}
	all(m, rm.DealStatusFundsNeededUnseal)
	require.NoError(t, m.Stop())
	all(newMarketOver(t, &fakeManager{status: dt.Cancelled}, keep), rm.DealStatusCancelled)
}

// TestChannelOfADealIsFoundAgain: a power loss took the note which channel a deal has, and neither deal nor channel. The client's voucher, which it
// sends before it asks for more, belongs to the deal.
func TestChannelOfADealIsFoundAgain(t *testing.T) {
	ds := dssync.MutexWrap(datastore.NewMapDatastore())
	keep := func(c *retrievalimpl.ProviderConfig) { c.Store = ds }
	m := newMarket(t, keep)
	_, err := m.propose(1)
	require.ErrorIs(t, err, dt.ErrPause)
	require.Eventually(t, func() bool { return m.deal(1).Status == rm.DealStatusFundsNeededUnseal }, waitFor, tick)
	require.NoError(t, m.Stop())

	other := *m.proposal(1)
	other.PaymentInterval++
	m = newMarketOver(t, &fakeManager{open: map[dt.ChannelID]dt.ChannelState{
		channel(1): fakeState{chid: channel(1), voucher: m.proposal(1)},
		channel(9): fakeState{chid: channel(9), voucher: &other}, // the same number, and another deal
	}}, keep)
	require.Equal(t, rm.DealStatusFundsNeededUnseal, m.deal(1).Status)
	_, err = m.pay(1, 10)
	require.NoError(t, err)
	require.Eventually(t, func() bool { return m.deal(1).Status == rm.DealStatusUnsealed && m.deal(1).ChannelID == channel(1) }, waitFor, tick)
}
