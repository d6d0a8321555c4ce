// Package testnodes has nodes for tests of embedders: they answer what a test sets, note what they were asked, and tell what was expected
// and did not happen. No money and no chain is behind them.
package testnodes

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"testing"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/filecoin-project/go-state-types/builtin/v8/paych"
	"github.com/ipfs/go-cid"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/stretchr/testify/require"

	rm "github.com/cartage-dev/cartage/retrievalmarket"
	"github.com/cartage-dev/cartage/shared"
)

// TestRetrievalClientNodeParams are the answers of a client's node. Recorders may be nil; they are called without a lock.
type TestRetrievalClientNodeParams struct {
	PayCh                  address.Address
	PayChErr               error
	CreatePaychCID         cid.Cid
	AddFundsCID            cid.Cid
	Lane                   uint64
	LaneError              error
	Voucher                *paych.SignedVoucher
	VoucherError           error
	AllocateLaneRecorder   func(address.Address)
	PaymentVoucherRecorder func(voucher *paych.SignedVoucher)
	PaymentChannelRecorder func(client, miner address.Address, amount abi.TokenAmount)
	AddFundsOnly           bool // the channel is there: GetOrCreatePaymentChannel answers it with AddFundsCID
	WaitForReadyErr        error
	ChannelAvailableFunds  rm.ChannelAvailableFunds
	CheckAvailableFundsErr error
	// IntegrationTest lets money count: a voucher above the confirmed amount is a ShortfallError, and waiting adds what was asked for.
	IntegrationTest bool
}

// TestRetrievalClientNode is a retrievalmarket.RetrievalClientNode. It is safe for concurrent use.
type TestRetrievalClientNode struct {
	params TestRetrievalClientNodeParams

	mu       sync.Mutex
	funds    rm.ChannelAvailableFunds
	asked    abi.TokenAmount // for the channel, and not added yet
	expected map[string][]ma.Multiaddr
	received map[string]bool
}

var _ rm.RetrievalClientNode = (*TestRetrievalClientNode)(nil)

// NewTestRetrievalClientNode returns a node with the answers of params.
func NewTestRetrievalClientNode(params TestRetrievalClientNodeParams) *TestRetrievalClientNode {
	return &TestRetrievalClientNode{params: params, funds: settled(params.ChannelAvailableFunds), asked: big.Zero(), expected: map[string][]ma.Multiaddr{}, received: map[string]bool{}}
}

// settled replaces amounts that were not set by zero.
func settled(f rm.ChannelAvailableFunds) rm.ChannelAvailableFunds {
	for _, a := range []*abi.TokenAmount{&f.ConfirmedAmt, &f.PendingAmt, &f.QueuedAmt, &f.VoucherReedeemedAmt} {
		if a.Nil() {
			*a = big.Zero()
		}
	}
	return f
}

// GetChainHead implements retrievalmarket.RetrievalClientNode.
func (n *TestRetrievalClientNode) GetChainHead(context.Context) (shared.TipSetToken, abi.ChainEpoch, error) {
	return shared.TipSetToken{}, 0, nil
}

// GetOrCreatePaymentChannel implements retrievalmarket.RetrievalClientNode.
func (n *TestRetrievalClientNode) GetOrCreatePaymentChannel(_ context.Context, client, miner address.Address, amount abi.TokenAmount, _ shared.TipSetToken) (address.Address, cid.Cid, error) {
	if f := n.params.PaymentChannelRecorder; f != nil {
		f(client, miner, amount)
	}
	if n.params.PayChErr != nil {
		return address.Undef, cid.Undef, n.params.PayChErr
	}
	n.mu.Lock()
	n.asked = big.Add(n.asked, amount)
	n.mu.Unlock()
	if n.params.AddFundsOnly {
		return n.params.PayCh, n.params.AddFundsCID, nil
	}
	return address.Undef, n.params.CreatePaychCID, nil
}

// WaitForPaymentChannelReady implements retrievalmarket.RetrievalClientNode.
func (n *TestRetrievalClientNode) WaitForPaymentChannelReady(context.Context, cid.Cid) (address.Address, error) {
	if n.params.WaitForReadyErr != nil {
		return address.Undef, n.params.WaitForReadyErr
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.params.IntegrationTest {
		n.funds.ConfirmedAmt, n.asked = big.Add(n.funds.ConfirmedAmt, n.asked), big.Zero()
	}
	return n.params.PayCh, nil
}

// AllocateLane implements retrievalmarket.RetrievalClientNode.
func (n *TestRetrievalClientNode) AllocateLane(_ context.Context, ch address.Address) (uint64, error) {
	if f := n.params.AllocateLaneRecorder; f != nil {
		f(ch)
	}
	return n.params.Lane, n.params.LaneError
}

// CreatePaymentVoucher implements retrievalmarket.RetrievalClientNode.
func (n *TestRetrievalClientNode) CreatePaymentVoucher(_ context.Context, _ address.Address, amount abi.TokenAmount, _ uint64, _ shared.TipSetToken) (*paych.SignedVoucher, error) {
	if n.params.VoucherError != nil {
		return nil, n.params.VoucherError
	}
	n.mu.Lock()
	confirmed := n.funds.ConfirmedAmt
	n.mu.Unlock()
	if n.params.IntegrationTest && amount.GreaterThan(confirmed) {
		return nil, rm.NewShortfallError(big.Sub(amount, confirmed))
	}
	if f := n.params.PaymentVoucherRecorder; f != nil {
		f(n.params.Voucher)
	}
	return n.params.Voucher, nil
}

// CheckAvailableFunds implements retrievalmarket.RetrievalClientNode.
func (n *TestRetrievalClientNode) CheckAvailableFunds(context.Context, address.Address) (rm.ChannelAvailableFunds, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.funds, n.params.CheckAvailableFundsErr
}

// ResetChannelAvailableFunds changes the money of the channel.
func (n *TestRetrievalClientNode) ResetChannelAvailableFunds(f rm.ChannelAvailableFunds) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.funds = settled(f)
}

// ExpectKnownAddresses says that the addresses of a provider will be asked for, and what they are.
func (n *TestRetrievalClientNode) ExpectKnownAddresses(p rm.RetrievalPeer, addrs []ma.Multiaddr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.expected[peerKey(p)] = slices.Clone(addrs)
}

var errNoProvider = errors.New("Provider not found")

// GetKnownAddresses implements retrievalmarket.RetrievalClientNode: an unexpected provider is not found.
func (n *TestRetrievalClientNode) GetKnownAddresses(_ context.Context, p rm.RetrievalPeer, _ shared.TipSetToken) ([]ma.Multiaddr, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	k := peerKey(p)
	addrs, ok := n.expected[k]
	if !ok {
		return nil, errNoProvider
	}
	n.received[k] = true
	return addrs, nil
}

// VerifyExpectations fails a test in which something expected did not happen.
func (n *TestRetrievalClientNode) VerifyExpectations(t testing.TB) {
	t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, k := range slices.Sorted(maps.Keys(n.expected)) {
		require.True(t, n.received[k], "the addresses of %s were not asked for", k)
	}
}

// peerKey is the value of a peer, whatever pointers are in it.
func peerKey(p rm.RetrievalPeer) string {
	k := p.Address.String() + " " + p.ID.String()
	if p.PieceCID != nil {
		k += " " + p.PieceCID.String()
	}
	return k
}
