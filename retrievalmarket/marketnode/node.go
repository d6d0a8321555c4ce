// Package marketnode gives the market what it needs of a node, over the payment-channel manager and any chain.
package marketnode

import (
	"context"
	"errors"
	"io"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	spaych "github.com/filecoin-project/go-state-types/builtin/v8/paych"
	"github.com/google/uuid"
	"github.com/ipfs/go-cid"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/cartage-dev/cartage/paych"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	"github.com/cartage-dev/cartage/shared"
)

// ErrNoLedger means that the node has no chain: only free deals are possible.
var ErrNoLedger = errors.New("this node has no ledger: paid deals are not possible (cartage init --ledger URL)")

// Client is the node of a retrieval client; Manager may be nil.
//
// The records of the deals belong into the store of the manager, or into another namespace of it: what a deal allocates and gives back is on
// stable storage with the next synced record there (ADR 0013).
type Client struct{ Manager *paych.Manager }

// Provider is the node of a retrieval provider; Manager may be nil.
type Provider struct {
	Manager *paych.Manager
	// Unseal reads a local piece by its number.
	Unseal func(ctx context.Context, sector abi.SectorNumber) (io.ReadCloser, error)
}

var (
	_ rm.RetrievalClientNode   = Client{}
	_ rm.ClientBook            = Client{}
	_ rm.ClientReserver        = Client{}
	_ rm.ClientReplenisher     = Client{}
	_ rm.RetrievalProviderNode = Provider{}
	_ rm.ProviderBook          = Provider{}
	_ rm.ProviderStanding      = Provider{}
)

func head(ctx context.Context, m *paych.Manager) (shared.TipSetToken, abi.ChainEpoch, error) {
	if m == nil {
		return nil, 0, nil
	}
	return m.Head(ctx)
}

// GetChainHead implements retrievalmarket.RetrievalClientNode. A chain that is away does not stop free deals or queries.
func (c Client) GetChainHead(ctx context.Context) (shared.TipSetToken, abi.ChainEpoch, error) {
	tok, e, err := head(ctx, c.Manager)
	if err != nil {
		return nil, 0, nil
	}
	return tok, e, nil
}

// GetOrCreatePaymentChannel implements retrievalmarket.RetrievalClientNode.
func (c Client) GetOrCreatePaymentChannel(ctx context.Context, from, to address.Address, amount abi.TokenAmount, _ shared.TipSetToken) (address.Address, cid.Cid, error) {
	if c.Manager == nil {
		return address.Undef, cid.Undef, ErrNoLedger
	}
	return c.GetOrCreateForDeal(ctx, paych.Unnamed+uuid.NewString(), from, to, amount)
}

// GetOrCreateForDeal implements retrievalmarket.ClientReserver.
func (c Client) GetOrCreateForDeal(ctx context.Context, deal string, from, to address.Address, amount abi.TokenAmount) (address.Address, cid.Cid, error) {
	if c.Manager == nil {
		return address.Undef, cid.Undef, ErrNoLedger
	}
	r, err := c.Manager.GetOrCreate(ctx, deal, from, to, amount)
	return r.Channel, r.Wait, err
}

// AllocateDealLane implements retrievalmarket.ClientReserver.
func (c Client) AllocateDealLane(ctx context.Context, deal string, ch address.Address, amount abi.TokenAmount) (uint64, error) {
	if c.Manager == nil {
		return 0, ErrNoLedger
	}
	return c.Manager.AllocateLane(ctx, deal, ch, amount)
}

// ReplenishDeal implements retrievalmarket.ClientReplenisher.
func (c Client) ReplenishDeal(ctx context.Context, deal string, from, to address.Address, total abi.TokenAmount) (bool, error) {
	if c.Manager == nil {
		return false, ErrNoLedger
	}
	return c.Manager.Replenish(ctx, deal, from, to, total)
}

// CheckAvailableFunds implements retrievalmarket.RetrievalClientNode.
func (c Client) CheckAvailableFunds(ctx context.Context, ch address.Address) (rm.ChannelAvailableFunds, error) {
	if c.Manager == nil {
		return rm.ChannelAvailableFunds{}, ErrNoLedger
	}
	f, err := c.Manager.Available(ctx, ch)
	if err != nil {
		return rm.ChannelAvailableFunds{}, err
	}
	// Callers subtract the two to learn what a voucher may add: what deals have reserved and not spent is not theirs.
	return rm.ChannelAvailableFunds{ConfirmedAmt: f.Confirmed, PendingAmt: f.Pending, PendingWaitSentinel: f.Wait, QueuedAmt: f.Queued,
		VoucherReedeemedAmt: big.Sub(f.Confirmed, f.Free)}, nil
}

// AllocateLane implements retrievalmarket.RetrievalClientNode.
func (c Client) AllocateLane(ctx context.Context, ch address.Address) (uint64, error) {
	if c.Manager == nil {
		return 0, ErrNoLedger
	}
	return c.Manager.AllocateLane(ctx, "", ch, big.Zero())
}

// CreatePaymentVoucher implements retrievalmarket.RetrievalClientNode for callers without a deal.
func (c Client) CreatePaymentVoucher(ctx context.Context, ch address.Address, amount abi.TokenAmount, lane uint64, _ shared.TipSetToken) (*spaych.SignedVoucher, error) {
	v, _, err := c.CreateDealVoucher(ctx, "", ch, lane, amount, 0)
	return v, err
}

// CreateDealVoucher implements retrievalmarket.ClientBook.
func (c Client) CreateDealVoucher(ctx context.Context, deal string, ch address.Address, lane uint64, amount abi.TokenAmount, bytes uint64) (*spaych.SignedVoucher, rm.Outcome, error) {
	if c.Manager == nil {
		return nil, rm.Stale, ErrNoLedger
	}
	v, replayed, err := c.Manager.CreateVoucher(ctx, deal, ch, lane, amount, bytes)
	var short *paych.ShortfallError
	switch {
	case errors.As(err, &short):
		return nil, rm.Stale, rm.NewShortfallError(short.Missing)
	case errors.Is(err, paych.ErrLaneBound):
		return nil, rm.Foreign, err
	case err != nil:
		return nil, rm.Stale, err
	case replayed:
		return v, rm.Replayed, nil
	}
	return v, rm.Applied, nil
}

func best(ctx context.Context, m *paych.Manager, inbound bool, deal string) (*rm.DealVoucher, error) {
	if m == nil {
		return nil, nil
	}
	e, err := m.Best(ctx, inbound, deal)
	if err != nil || e == nil || e.Voucher == nil {
		return nil, err
	}
	return &rm.DealVoucher{Deal: e.Deal, Amount: e.Credit, Bytes: e.Bytes, Voucher: e.Voucher}, nil
}

// BestForDeal implements retrievalmarket.ClientBook.
func (c Client) BestForDeal(ctx context.Context, deal string) (*rm.DealVoucher, error) {
	return best(ctx, c.Manager, false, deal)
}

// ReleaseDeal implements retrievalmarket.ClientBook.
func (c Client) ReleaseDeal(ctx context.Context, deal string) error {
	if c.Manager == nil {
		return nil
	}
	return c.Manager.ReleaseDeal(ctx, deal)
}

// WaitForPaymentChannelReady implements retrievalmarket.RetrievalClientNode.
func (c Client) WaitForPaymentChannelReady(ctx context.Context, msg cid.Cid) (address.Address, error) {
	if c.Manager == nil {
		return address.Undef, ErrNoLedger
	}
	return c.Manager.WaitReady(ctx, msg)
}

// GetKnownAddresses implements retrievalmarket.RetrievalClientNode: addresses come from the user or the peerstore.
func (c Client) GetKnownAddresses(context.Context, rm.RetrievalPeer, shared.TipSetToken) ([]ma.Multiaddr, error) {
	return nil, nil
}

// GetChainHead implements retrievalmarket.RetrievalProviderNode.
func (p Provider) GetChainHead(ctx context.Context) (shared.TipSetToken, abi.ChainEpoch, error) {
	return head(ctx, p.Manager)
}

// GetMinerWorkerAddress implements retrievalmarket.RetrievalProviderNode: the provider is its own worker.
func (p Provider) GetMinerWorkerAddress(_ context.Context, miner address.Address, _ shared.TipSetToken) (address.Address, error) {
	return miner, nil
}

// UnsealSector implements retrievalmarket.RetrievalProviderNode: the sector is the number of a local piece.
func (p Provider) UnsealSector(ctx context.Context, sector abi.SectorNumber, offset, length abi.UnpaddedPieceSize) (io.ReadCloser, error) {
	if p.Unseal == nil {
		return nil, errors.New("this node has no sectors")
	}
	r, err := p.Unseal(ctx, sector)
	if err != nil {
		return nil, err
	}
	if _, err := io.CopyN(io.Discard, r, int64(offset)); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return struct {
		io.Reader
		io.Closer
	}{io.LimitReader(r, int64(length)), r}, nil
}

// SavePaymentVoucher implements retrievalmarket.RetrievalProviderNode for callers without a deal.
func (p Provider) SavePaymentVoucher(ctx context.Context, ch address.Address, v *spaych.SignedVoucher, _ []byte, expected abi.TokenAmount, _ shared.TipSetToken) (abi.TokenAmount, error) {
	if p.Manager == nil {
		return big.Zero(), ErrNoLedger
	}
	return p.Manager.AcceptVoucher(ctx, "", ch, v, expected, 0)
}

// SaveDealVoucher implements retrievalmarket.ProviderBook. A replayed or an older voucher adds nothing and is no error:
// peers send their last one again after a restart.
func (p Provider) SaveDealVoucher(ctx context.Context, deal string, ch address.Address, v *spaych.SignedVoucher, bytes uint64) (abi.TokenAmount, rm.Outcome, error) {
	if p.Manager == nil {
		return big.Zero(), rm.Stale, ErrNoLedger
	}
	grown, err := p.Manager.AcceptVoucher(ctx, deal, ch, v, big.Zero(), bytes)
	outcome := rm.Applied
	switch {
	case errors.Is(err, paych.ErrStaleNonce), errors.Is(err, paych.ErrAmountNotIncreasing):
		outcome = rm.Stale
	case errors.Is(err, paych.ErrLaneBound):
		return big.Zero(), rm.Foreign, err
	case err != nil:
		return big.Zero(), rm.Stale, err
	case grown.IsZero():
		outcome = rm.Replayed
	}
	if e, ok := p.Manager.LaneEntry(ch, v.Lane); ok && e.Deal == deal {
		return e.Credit, outcome, nil
	}
	b, err := p.Manager.Best(ctx, true, deal)
	if err != nil || b == nil {
		return big.Zero(), outcome, err
	}
	return b.Credit, outcome, nil
}

// ChannelStanding implements retrievalmarket.ProviderStanding.
func (p Provider) ChannelStanding(ctx context.Context, ch address.Address) (rm.ChannelStanding, error) {
	if p.Manager == nil {
		return rm.ChannelStanding{}, ErrNoLedger
	}
	payer, secured, err := p.Manager.Standing(ctx, ch)
	return rm.ChannelStanding{Payer: payer, Secured: secured}, err
}

// BestForDeal implements retrievalmarket.ProviderBook.
func (p Provider) BestForDeal(ctx context.Context, deal string) (*rm.DealVoucher, error) {
	return best(ctx, p.Manager, true, deal)
}
