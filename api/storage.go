package api

import (
	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/ipfs/go-cid"
)

// StartDealParams are the terms of a storage deal, in the shape of ClientStatelessDeal.
type StartDealParams struct {
	Data               *DataRef
	Wallet             address.Address // the default wallet if undefined
	Miner              address.Address
	EpochPrice         big.Int
	MinBlocksDuration  uint64
	ProviderCollateral *big.Int // attoFIL; the network's minimum if it is not given
	DealStartEpoch     abi.ChainEpoch
	FastRetrieval      *bool // true if it is not given
	VerifiedDeal       *bool // if it is not given: whether the client is verified
}

// DataRef says which data a storage deal is about. PieceSize is unpadded.
type DataRef struct {
	TransferType string
	Root         cid.Cid
	PieceCid     *cid.Cid
	PieceSize    abi.UnpaddedPieceSize
	RawBlockSize uint64
}

// StorageDeal is a deal that this node has taken.
type StorageDeal struct {
	Proposal   string `json:"proposal"`
	Client     string `json:"client"`
	Peer       string `json:"peer"`
	PieceCID   string `json:"piece_cid"`
	PieceSize  uint64 `json:"piece_size"` // padded
	Root       string `json:"root"`
	State      string `json:"state"`
	Message    string `json:"message,omitempty"`
	DealID     uint64 `json:"deal_id"`
	StartEpoch int64  `json:"start_epoch"`
	EndEpoch   int64  `json:"end_epoch"`
	Verified   bool   `json:"verified"`
	Created    string `json:"created"`
}

// StorageDealState is what a provider tells about a deal.
type StorageDealState struct {
	Proposal string `json:"proposal"`
	State    string `json:"state"`
	Message  string `json:"message,omitempty"`
	DealID   uint64 `json:"deal_id"`
}

// StoragePush is an online deal that this node proposed, and how far its data was sent.
type StoragePush struct {
	Proposal string `json:"proposal"`
	Root     string `json:"root"`
	Wallet   string `json:"wallet"` // that signed the proposal
	Miner    string `json:"miner"`
	Peer     string `json:"peer"`
	State    string `json:"state"` // CheckForAcceptance when all was sent; Error when it does not go on by itself
	Message  string `json:"message,omitempty"`
	Sent     uint64 `json:"sent"` // bytes of blocks
	Pushing  bool   `json:"pushing"`
	Created  string `json:"created"`
}

// StorageAsk is what a provider of storage deals takes. Prices are attoFIL for a GiB and epoch, sizes are padded bytes.
type StorageAsk struct {
	Miner         string `json:"miner"`
	Price         string `json:"price"`
	VerifiedPrice string `json:"verified_price"`
	MinPieceSize  uint64 `json:"min_piece_size"`
	MaxPieceSize  uint64 `json:"max_piece_size"`
	Timestamp     int64  `json:"timestamp"`
	Expiry        int64  `json:"expiry"`
	SeqNo         uint64 `json:"seq_no"`
}
