package retrievalmarket

import (
	"context"
	"io"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/builtin/v8/paych"
	"github.com/ipfs/go-cid"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/cartage-dev/cartage/multistore"
	"github.com/cartage-dev/cartage/shared"
)

// PeerResolver returns who may have a payload; none is an empty slice and no error. Package discovery has implementations.
type PeerResolver interface {
	GetPeers(payloadCID cid.Cid) ([]RetrievalPeer, error)
}

// Unsubscribe ends a subscription; it may be called more than once and inside a callback.
type Unsubscribe func()

// ClientSubscriber is told each applied event with the state after it.
type ClientSubscriber func(event ClientEvent, state ClientDealState)

// ProviderSubscriber is told each applied event with the state after it.
type ProviderSubscriber func(event ProviderEvent, state ProviderDealState)

// AskStore keeps the ask of a provider.
type AskStore interface {
	GetAsk() *Ask
	SetAsk(ask *Ask) error
}

// RetrievalClient finds, buys and follows retrievals. All methods are safe for concurrent use.
type RetrievalClient interface {
	// Start migrates the stored deals and continues those that are not finished; OnReady tells when.
	Start(ctx context.Context) error
	OnReady(shared.ReadyFunc)
	// FindProviders returns who may have the payload; never nil.
	FindProviders(payloadCID cid.Cid) []RetrievalPeer
	// Query asks one provider for an offer.
	Query(
		ctx context.Context,
		p RetrievalPeer,
		payloadCID cid.Cid,
		params QueryParams,
	) (QueryResponse, error)
	// Retrieve starts a deal and returns before anything is sent. No more than totalFunds is ever paid.
	Retrieve(
		ctx context.Context,
		payloadCID cid.Cid,
		params Params,
		totalFunds abi.TokenAmount,
		p RetrievalPeer,
		clientWallet address.Address,
		minerWallet address.Address,
		storeID *multistore.StoreID,
	) (DealID, error)
	SubscribeToEvents(subscriber ClientSubscriber) Unsubscribe
	// TryRestartInsufficientFunds lets the deals that wait for money on a payment channel look again.
	TryRestartInsufficientFunds(paymentChannel address.Address) error
	// CancelDeal ends a running deal; an unknown one answers an error that wraps ErrNotFound.
	CancelDeal(id DealID) error
	GetDeal(dealID DealID) (ClientDealState, error)
	ListDeals() (map[DealID]ClientDealState, error)
}

// RetrievalProvider answers queries and serves deals. All methods are safe for concurrent use.
type RetrievalProvider interface {
	Start(ctx context.Context) error
	OnReady(shared.ReadyFunc)
	Stop() error
	// SetAsk stores a copy of ask; a bad one is logged and the old one stays.
	SetAsk(ask *Ask)
	// GetAsk returns a copy.
	GetAsk() *Ask
	SubscribeToEvents(subscriber ProviderSubscriber) Unsubscribe
	ListDeals() map[ProviderDealIdentifier]ProviderDealState
}

// RetrievalClientNode is what a client needs from its node.
type RetrievalClientNode interface {
	GetChainHead(ctx context.Context) (shared.TipSetToken, abi.ChainEpoch, error)
	// GetOrCreatePaymentChannel makes clientFundsAvailable more available between the two. (undefined, cid): being
	// created; (address, cid): funds on the way; (address, undefined): ready.
	GetOrCreatePaymentChannel(ctx context.Context, clientAddress, minerAddress address.Address,
		clientFundsAvailable abi.TokenAmount, tok shared.TipSetToken) (address.Address, cid.Cid, error)
	CheckAvailableFunds(ctx context.Context, paymentChannel address.Address) (ChannelAvailableFunds, error)
	AllocateLane(ctx context.Context, paymentChannel address.Address) (uint64, error)
	// CreatePaymentVoucher signs the total amount of a lane; a ShortfallError says how much is missing.
	CreatePaymentVoucher(ctx context.Context, paymentChannel address.Address, amount abi.TokenAmount,
		lane uint64, tok shared.TipSetToken) (*paych.SignedVoucher, error)
	WaitForPaymentChannelReady(ctx context.Context, waitSentinel cid.Cid) (address.Address, error)
	GetKnownAddresses(ctx context.Context, p RetrievalPeer, tok shared.TipSetToken) ([]ma.Multiaddr, error)
}

// RetrievalProviderNode is what a provider needs from its node.
type RetrievalProviderNode interface {
	GetChainHead(ctx context.Context) (shared.TipSetToken, abi.ChainEpoch, error)
	// GetMinerWorkerAddress is the address that clients pay to.
	GetMinerWorkerAddress(ctx context.Context, miner address.Address, tok shared.TipSetToken) (address.Address, error)
	// UnsealSector reads a piece: a CAR and zero padding. The reader must be drained or closed.
	UnsealSector(ctx context.Context, sectorID abi.SectorNumber, offset abi.UnpaddedPieceSize, length abi.UnpaddedPieceSize) (io.ReadCloser, error)
	// SavePaymentVoucher checks and stores a voucher and returns by how much the lane grew.
	SavePaymentVoucher(ctx context.Context, paymentChannel address.Address, voucher *paych.SignedVoucher, proof []byte, expectedAmount abi.TokenAmount, tok shared.TipSetToken) (abi.TokenAmount, error)
}

// DealVoucher is a voucher with what it pays for: the entry that a voucher book stores in one atomic, synced step.
type DealVoucher struct {
	Deal    string // the deal's key: c<id>, or p<peer>/<id>
	Amount  abi.TokenAmount
	Bytes   uint64 // what the cumulative amount covers
	Voucher *paych.SignedVoucher
}

// Outcome is the named result of an operation on the voucher book.
type Outcome int

const (
	// Applied: the book has grown.
	Applied Outcome = iota
	// Replayed: the same voucher was there already.
	Replayed
	// Stale: an older voucher than the best one.
	Stale
	// Foreign: the lane belongs to another deal.
	Foreign
)

// ClientBook is optional on a RetrievalClientNode: vouchers with their deal in one synced commit.
type ClientBook interface {
	CreateDealVoucher(ctx context.Context, deal string, ch address.Address, lane uint64, amount abi.TokenAmount, bytes uint64) (*paych.SignedVoucher, Outcome, error)
	// BestForDeal is the entry of the highest amount, or nil.
	BestForDeal(ctx context.Context, deal string) (*DealVoucher, error)
	// ReleaseDeal gives back what the deal reserved and did not spend.
	ReleaseDeal(ctx context.Context, deal string) error
}

// ClientReserver is optional on a RetrievalClientNode: funds are made available to one deal by name, so that another
// cannot take them, and are given back with ReleaseDeal also before the first voucher. Semantics are those of the methods
// of RetrievalClientNode.
type ClientReserver interface {
	GetOrCreateForDeal(ctx context.Context, deal string, from, to address.Address, amount abi.TokenAmount) (address.Address, cid.Cid, error)
	// AllocateDealLane takes a lane; amount is what the deal may spend.
	AllocateDealLane(ctx context.Context, deal string, ch address.Address, amount abi.TokenAmount) (uint64, error)
}

// ClientReplenisher is optional on a RetrievalClientNode. Without it a deal whose money is gone waits until somebody gives it more.
type ClientReplenisher interface {
	// ReplenishDeal makes total available to a deal that has a lane, which it was promised before, and waits for that. It reports whether anything
	// was missing. It is safe to call again.
	ReplenishDeal(ctx context.Context, deal string, from, to address.Address, total abi.TokenAmount) (added bool, err error)
}

// ChannelStanding is what a payment channel says of who pays with it.
type ChannelStanding struct {
	// Payer is the from address of the channel.
	Payer address.Address
	// Secured is what was paid for certain, in attoFIL: redeemed, or covered by the confirmed deposit of a channel that is not settling.
	// What was collected without having been redeemed is not.
	Secured abi.TokenAmount
}

// ProviderStanding is optional on a RetrievalProviderNode. Without it each peer is a payer of its own.
type ProviderStanding interface {
	// ChannelStanding may answer from what was read a short time ago.
	ChannelStanding(ctx context.Context, ch address.Address) (ChannelStanding, error)
}

// ProviderBook is optional on a RetrievalProviderNode.
type ProviderBook interface {
	// SaveDealVoucher checks and stores; the amount is the total credited to the deal.
	SaveDealVoucher(ctx context.Context, deal string, ch address.Address, v *paych.SignedVoucher, bytes uint64) (abi.TokenAmount, Outcome, error)
	BestForDeal(ctx context.Context, deal string) (*DealVoucher, error)
}
