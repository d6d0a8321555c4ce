// Package retrievalmarket is the contract of the retrieval market: what a client asks and pays, what a provider offers
// and serves, and what both need from the node that embeds them. The implementation is in impl.
//
// Amounts are attoFIL, sizes and intervals are bytes. Every message and record refuses missing fields, duplicate
// fields and negative amounts when it is read.
package retrievalmarket

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/filecoin-project/go-state-types/builtin/v8/paych"
	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/codec/dagcbor"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	cbg "github.com/whyrusleeping/cbor-gen"

	"github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/multistore"
	"github.com/cartage-dev/cartage/piecestore"
	"github.com/cartage-dev/cartage/shared"
)

const (
	// QueryProtocolID is the protocol of queries as maps.
	QueryProtocolID = protocol.ID("/fil/retrieval/qry/1.0.0")
	// OldQueryProtocolID is the protocol of queries as tuples.
	OldQueryProtocolID = protocol.ID("/fil/retrieval/qry/0.0.1")
)

var (
	// ErrNotFound is wrapped by lookups that find nothing.
	ErrNotFound = shared.ErrNotFound
	// ErrVerification means that data did not verify.
	ErrVerification = errors.New("Error when verify data")
)

var (
	// DefaultPricePerByte is 2 attoFIL.
	DefaultPricePerByte = abi.NewTokenAmount(2)
	// DefaultUnsealPrice is 0.
	DefaultUnsealPrice = abi.NewTokenAmount(0)
	// DefaultPaymentInterval is 1 MiB.
	DefaultPaymentInterval = uint64(1 << 20)
	// DefaultPaymentIntervalIncrease is 1 MiB.
	DefaultPaymentIntervalIncrease = uint64(1 << 20)
)

var (
	// QueryUndefined is the zero Query.
	QueryUndefined = Query{}
	// QueryResponseUndefined is the zero QueryResponse.
	QueryResponseUndefined = QueryResponse{}
	// DealProposalUndefined is the zero DealProposal.
	DealProposalUndefined = DealProposal{}
	// DealResponseUndefined is the zero DealResponse.
	DealResponseUndefined = DealResponse{}
	// DealPaymentUndefined is the zero DealPayment.
	DealPaymentUndefined = DealPayment{}
)

// Ask is what a provider publishes.
type Ask struct {
	PricePerByte            abi.TokenAmount
	UnsealPrice             abi.TokenAmount
	PaymentInterval         uint64
	PaymentIntervalIncrease uint64
}

// ShortfallError says by how much a payment channel is short. It is returned unwrapped by nodes and found with errors.As.
type ShortfallError struct{ shortfall abi.TokenAmount }

// NewShortfallError returns a ShortfallError.
func NewShortfallError(shortfall abi.TokenAmount) error { return ShortfallError{shortfall} }

func (se ShortfallError) Error() string {
	return fmt.Sprintf("Inssufficient Funds. Shortfall: %s", se.shortfall)
}

// Shortfall is the missing amount.
func (se ShortfallError) Shortfall() abi.TokenAmount { return se.shortfall }

// DealID numbers the deals of a client.
type DealID uint64

func (d DealID) String() string { return fmt.Sprintf("%d", uint64(d)) }

// Params are the terms of a proposal.
type Params struct {
	Selector                *cbg.Deferred // the whole DAG when nil or null
	PieceCID                *cid.Cid
	PricePerByte            abi.TokenAmount
	PaymentInterval         uint64 // bytes before the first payment
	PaymentIntervalIncrease uint64
	UnsealPrice             abi.TokenAmount
}

// SelectorSpecified tells whether the proposal has a selector of its own.
func (p Params) SelectorSpecified() bool {
	return p.Selector != nil && !bytes.Equal(p.Selector.Raw, cbg.CborNull) && len(p.Selector.Raw) > 0
}

// SelectorNode is the selector of the proposal; without one of its own it selects everything.
func (p Params) SelectorNode() (ipld.Node, error) {
	if !p.SelectorSpecified() {
		return shared.AllSelector(), nil
	}
	n, err := DecodeNode(p.Selector)
	if err != nil {
		return nil, fmt.Errorf("selector is invalid: %w", err)
	}
	return n, nil
}

// NewParamsV0 makes terms without selector, piece and unseal price.
func NewParamsV0(pricePerByte abi.TokenAmount, paymentInterval uint64, paymentIntervalIncrease uint64) Params {
	return Params{
		PricePerByte: pricePerByte, PaymentInterval: paymentInterval,
		PaymentIntervalIncrease: paymentIntervalIncrease, UnsealPrice: big.Zero(),
	}
}

// NewParamsV1 makes terms with a selector.
func NewParamsV1(pricePerByte abi.TokenAmount, paymentInterval uint64, paymentIntervalIncrease uint64, sel ipld.Node, pieceCid *cid.Cid, unsealPrice abi.TokenAmount) (Params, error) {
	if sel == nil {
		return Params{}, errors.New("selector required for NewParamsV1")
	}
	raw, err := ipld.Encode(sel, dagcbor.Encode)
	if err != nil {
		return Params{}, fmt.Errorf("error encoding selector: %w", err)
	}
	p := NewParamsV0(pricePerByte, paymentInterval, paymentIntervalIncrease)
	p.Selector, p.PieceCID, p.UnsealPrice = &cbg.Deferred{Raw: raw}, pieceCid, unsealPrice
	return p, nil
}

// DecodeNode decodes a selector that came as CBOR.
func DecodeNode(defnode *cbg.Deferred) (ipld.Node, error) {
	if defnode == nil {
		return nil, errors.New("no node to decode")
	}
	return ipld.DecodeUsingPrototype(defnode.Raw, dagcbor.Decode, basicnode.Prototype.Any)
}

// Query asks a provider about a payload.
type Query struct {
	PayloadCID cid.Cid
	QueryParams
}

// QueryParams narrow a query to one piece.
type QueryParams struct {
	PieceCID *cid.Cid
}

// NewQueryV0 asks about a payload in any piece.
func NewQueryV0(payloadCID cid.Cid) Query { return Query{PayloadCID: payloadCID} }

// NewQueryV1 asks about a payload, in one piece if pieceCID is given.
func NewQueryV1(payloadCID cid.Cid, pieceCID *cid.Cid) Query {
	return Query{PayloadCID: payloadCID, QueryParams: QueryParams{PieceCID: pieceCID}}
}

// QueryResponseStatus is the outcome of a query.
type QueryResponseStatus uint64

const (
	// QueryResponseAvailable: the payload can be retrieved.
	QueryResponseAvailable QueryResponseStatus = iota
	// QueryResponseUnavailable: the provider does not have it.
	QueryResponseUnavailable
	// QueryResponseError: the provider could not answer; see Message.
	QueryResponseError
)

// QueryItemStatus says whether a requested piece holds the payload.
type QueryItemStatus uint64

const (
	// QueryItemAvailable: it does.
	QueryItemAvailable QueryItemStatus = iota
	// QueryItemUnavailable: it does not.
	QueryItemUnavailable
	// QueryItemUnknown: the provider cannot tell.
	QueryItemUnknown
)

// QueryResponse is an offer, or the reason why there is none.
type QueryResponse struct {
	Status        QueryResponseStatus
	PieceCIDFound QueryItemStatus
	// Size is an upper bound of the payload in bytes: providers quote the piece.
	Size                       uint64
	PaymentAddress             address.Address
	MinPricePerByte            abi.TokenAmount
	MaxPaymentInterval         uint64
	MaxPaymentIntervalIncrease uint64
	Message                    string
	UnsealPrice                abi.TokenAmount
}

// PieceRetrievalPrice is the most that the whole can cost: price x Size + unseal price. Unset amounts count as zero.
func (qr QueryResponse) PieceRetrievalPrice() abi.TokenAmount {
	return big.Add(big.Mul(orZero(qr.MinPricePerByte), big.NewIntUnsigned(qr.Size)), orZero(qr.UnsealPrice))
}

func orZero(a abi.TokenAmount) abi.TokenAmount {
	if a.Nil() {
		return big.Zero()
	}
	return a
}

// DealProposal proposes a deal; it is the opening voucher of the transfer.
type DealProposal struct {
	PayloadCID cid.Cid
	ID         DealID
	Params
}

// Type is the wire name of the voucher.
func (p *DealProposal) Type() datatransfer.TypeIdentifier { return "RetrievalDealProposal/1" }

// DealResponse is the provider's word on a deal; it is a voucher result of the transfer.
type DealResponse struct {
	Status      DealStatus
	ID          DealID
	PaymentOwed abi.TokenAmount
	Message     string
}

// Type is the wire name of the voucher result.
func (p *DealResponse) Type() datatransfer.TypeIdentifier { return "RetrievalDealResponse/1" }

// DealPayment pays for a deal; it is a further voucher of the transfer.
type DealPayment struct {
	ID             DealID
	PaymentChannel address.Address
	PaymentVoucher *paych.SignedVoucher
}

// Type is the wire name of the voucher.
func (p *DealPayment) Type() datatransfer.TypeIdentifier { return "RetrievalDealPayment/1" }

// PaymentInfo is where a deal is paid.
type PaymentInfo struct {
	PayCh address.Address
	Lane  uint64
}

// ClientDealState is a deal as the client sees it.
type ClientDealState struct {
	DealProposal
	StoreID              *multistore.StoreID
	ChannelID            datatransfer.ChannelID
	LastPaymentRequested bool
	AllBlocksReceived    bool
	TotalFunds           abi.TokenAmount
	ClientWallet         address.Address
	MinerWallet          address.Address
	PaymentInfo          *PaymentInfo
	Status               DealStatus
	Sender               peer.ID
	TotalReceived        uint64
	Message              string
	BytesPaidFor         uint64
	CurrentInterval      uint64
	PaymentRequested     abi.TokenAmount
	FundsSpent           abi.TokenAmount
	UnsealFundsPaid      abi.TokenAmount
	WaitMsgCID           *cid.Cid // what the deal waits for on the ledger
	VoucherShortfall     abi.TokenAmount
	LegacyProtocol       bool
	// Reason is why the deal failed or stands still, a name of api.Reasons; empty while nothing went wrong. Message is for people.
	Reason string
}

// ProviderDealState is a deal as the provider sees it.
type ProviderDealState struct {
	DealProposal
	StoreID         multistore.StoreID
	ChannelID       datatransfer.ChannelID
	PieceInfo       *piecestore.PieceInfo
	Status          DealStatus
	Receiver        peer.ID
	TotalSent       uint64
	FundsReceived   abi.TokenAmount
	Message         string
	CurrentInterval uint64
	LegacyProtocol  bool
}

// Identifier names the deal among all deals of the provider.
func (pds ProviderDealState) Identifier() ProviderDealIdentifier {
	return ProviderDealIdentifier{Receiver: pds.Receiver, DealID: pds.ID}
}

// ProviderDealIdentifier names a deal on the provider's side.
type ProviderDealIdentifier struct {
	Receiver peer.ID
	DealID   DealID
}

func (p ProviderDealIdentifier) String() string { return fmt.Sprintf("%v/%v", p.Receiver, p.DealID) }

// RetrievalPeer is a provider that may have a payload.
type RetrievalPeer struct {
	Address  address.Address
	ID       peer.ID // optional
	PieceCID *cid.Cid
}

// ChannelAvailableFunds is the money of a payment channel.
type ChannelAvailableFunds struct {
	ConfirmedAmt        abi.TokenAmount
	PendingAmt          abi.TokenAmount
	PendingWaitSentinel *cid.Cid
	QueuedAmt           abi.TokenAmount
	VoucherReedeemedAmt abi.TokenAmount // the spelling is part of the API
}
