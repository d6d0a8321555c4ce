package testnodes

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"testing"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/builtin/v8/paych"
	"github.com/stretchr/testify/require"

	cpaych "github.com/cartage-dev/cartage/paych"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	"github.com/cartage-dev/cartage/shared"
)

// unsealKey is a part of a sector.
type unsealKey struct {
	sector         abi.SectorNumber
	offset, length abi.UnpaddedPieceSize
}

// voucherKey is a payment by its value.
type voucherKey struct{ ch, voucher, proof, expected string }

type voucherResult struct {
	amount abi.TokenAmount
	err    error
}

// TestRetrievalProviderNode is a retrievalmarket.RetrievalProviderNode. It is safe for concurrent use.
type TestRetrievalProviderNode struct {
	// ChainHeadError is what GetChainHead answers; it is set before the node is used.
	ChainHeadError error

	mu              sync.Mutex
	sectors         map[unsealKey][]byte // nil: unsealing it fails
	expectedSectors map[unsealKey]bool
	unsealed        map[unsealKey]bool
	vouchers        map[voucherKey]voucherResult
	saved           map[voucherKey]bool
}

var _ rm.RetrievalProviderNode = (*TestRetrievalProviderNode)(nil)

// NewTestRetrievalProviderNode returns a node that expects nothing.
func NewTestRetrievalProviderNode() *TestRetrievalProviderNode {
	return &TestRetrievalProviderNode{sectors: map[unsealKey][]byte{}, expectedSectors: map[unsealKey]bool{}, unsealed: map[unsealKey]bool{},
		vouchers: map[voucherKey]voucherResult{}, saved: map[voucherKey]bool{}}
}

// GetChainHead implements retrievalmarket.RetrievalProviderNode.
func (n *TestRetrievalProviderNode) GetChainHead(context.Context) (shared.TipSetToken, abi.ChainEpoch, error) {
	return []byte{42}, 0, n.ChainHeadError
}

// GetMinerWorkerAddress implements retrievalmarket.RetrievalProviderNode: a provider is its own worker.
func (n *TestRetrievalProviderNode) GetMinerWorkerAddress(_ context.Context, miner address.Address, _ shared.TipSetToken) (address.Address, error) {
	return miner, nil
}

// StubUnseal sets what a part of a sector holds.
func (n *TestRetrievalProviderNode) StubUnseal(sector abi.SectorNumber, offset, length abi.UnpaddedPieceSize, data []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.sectors[unsealKey{sector, offset, length}] = bytes.Clone(data)
}

// ExpectUnseal is StubUnseal of a part that has to be asked for.
func (n *TestRetrievalProviderNode) ExpectUnseal(sector abi.SectorNumber, offset, length abi.UnpaddedPieceSize, data []byte) {
	n.StubUnseal(sector, offset, length, data)
	n.expect(unsealKey{sector, offset, length})
}

// ExpectFailedUnseal says that a part will be asked for, and cannot be unsealed.
func (n *TestRetrievalProviderNode) ExpectFailedUnseal(sector abi.SectorNumber, offset, length abi.UnpaddedPieceSize) {
	n.expect(unsealKey{sector, offset, length})
}

func (n *TestRetrievalProviderNode) expect(k unsealKey) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.expectedSectors[k] = true
}

var (
	errUnseal  = errors.New("Could not unseal")
	errVoucher = errors.New("SavePaymentVoucher failed")
)

// UnsealSector implements retrievalmarket.RetrievalProviderNode.
func (n *TestRetrievalProviderNode) UnsealSector(_ context.Context, sector abi.SectorNumber, offset, length abi.UnpaddedPieceSize) (io.ReadCloser, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	k := unsealKey{sector, offset, length}
	n.unsealed[k] = true
	data, ok := n.sectors[k]
	if !ok {
		return nil, errUnseal
	}
	return io.NopCloser(bytes.NewReader(data)), nil
}

// ExpectVoucher says that a voucher will be saved, and what is answered then.
func (n *TestRetrievalProviderNode) ExpectVoucher(ch address.Address, v *paych.SignedVoucher, proof []byte, expectedAmount, actualAmount abi.TokenAmount, err error) error {
	k, kerr := keyOf(ch, v, proof, expectedAmount)
	if kerr != nil {
		return kerr
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.vouchers[k] = voucherResult{actualAmount, err}
	return nil
}

// SavePaymentVoucher implements retrievalmarket.RetrievalProviderNode: one that is not expected fails.
func (n *TestRetrievalProviderNode) SavePaymentVoucher(_ context.Context, ch address.Address, v *paych.SignedVoucher, proof []byte, expected abi.TokenAmount, _ shared.TipSetToken) (abi.TokenAmount, error) {
	k, err := keyOf(ch, v, proof, expected)
	if err != nil {
		return abi.TokenAmount{}, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	r, ok := n.vouchers[k]
	if !ok {
		return abi.TokenAmount{}, errVoucher
	}
	n.saved[k] = true
	return r.amount, r.err
}

func keyOf(ch address.Address, v *paych.SignedVoucher, proof []byte, expected abi.TokenAmount) (k voucherKey, err error) {
	k = voucherKey{ch: ch.String(), proof: string(proof), expected: expected.String()}
	if v != nil {
		var data []byte
		data, err = cpaych.EncodeVoucher(v)
		k.voucher = string(data)
	}
	return k, err
}

// VerifyExpectations fails a test in which something expected did not happen.
func (n *TestRetrievalProviderNode) VerifyExpectations(t testing.TB) {
	t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	for k := range n.expectedSectors {
		require.True(t, n.unsealed[k], "sector %d was not asked for at %d (%d bytes)", k.sector, k.offset, k.length)
	}
	for k := range n.vouchers {
		require.True(t, n.saved[k], "a voucher on %s was not saved", k.ch)
	}
}
