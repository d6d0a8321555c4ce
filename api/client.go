package api

import (
	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/ipfs/go-cid"

	rm "github.com/cartage-dev/cartage/retrievalmarket"
)

// The types of this file have the names and shapes that programs of a Filecoin node know (node spec 2.9).

// FileRef names a file on the node's machine.
type FileRef struct {
	Path  string
	IsCAR bool
}

// ImportRes is what ClientImport made.
type ImportRes struct {
	Root     cid.Cid
	ImportID uint64
}

// QueryOffer is the answer of one provider. Amounts are attoFIL.
type QueryOffer struct {
	Err                     string
	Root                    cid.Cid
	Piece                   *cid.Cid
	Size                    uint64
	MinPrice                big.Int // for all of it
	UnsealPrice             big.Int
	PricePerByte            big.Int
	PaymentInterval         uint64
	PaymentIntervalIncrease uint64
	Miner                   address.Address
	MinerPeer               rm.RetrievalPeer
}

// Order makes a retrieval of an offer.
func (o QueryOffer) Order(client address.Address) RetrievalOrder {
	p := o.MinerPeer
	return RetrievalOrder{Root: o.Root, Piece: o.Piece, Size: o.Size, Total: o.MinPrice, UnsealPrice: o.UnsealPrice, PaymentInterval: o.PaymentInterval,
		PaymentIntervalIncrease: o.PaymentIntervalIncrease, Client: client, Miner: o.Miner, MinerPeer: &p}
}

// RetrievalOrder says what is retrieved, from whom, and for how much at most.
type RetrievalOrder struct {
	Root                    cid.Cid
	Piece                   *cid.Cid
	DataSelector            *string
	Size                    uint64
	Total                   big.Int
	UnsealPrice             big.Int
	PaymentInterval         uint64
	PaymentIntervalIncrease uint64
	Client                  address.Address
	Miner                   address.Address
	MinerPeer               *rm.RetrievalPeer
}

// RetrievalRes is the deal that ClientRetrieve made or goes on with; 0 if everything was here.
type RetrievalRes struct{ DealID rm.DealID }

// DagSpec is a part of a DAG that is exported.
type DagSpec struct {
	DataSelector      *string
	ExportMerkleProof bool
}

// ExportRef says what is exported: out of an import if FromLocalCAR says so, else out of what was retrieved.
type ExportRef struct {
	Root         cid.Cid
	DAGs         []DagSpec
	FromLocalCAR string
	DealID       rm.DealID
}

// RetrievalInfo is a retrieval of the client.
type RetrievalInfo struct {
	PayloadCID        cid.Cid
	ID                rm.DealID
	PieceCID          *cid.Cid
	PricePerByte      big.Int
	UnsealPrice       big.Int
	Status            rm.DealStatus
	Message           string
	Provider          string // peer
	BytesReceived     uint64
	BytesPaidFor      uint64
	TotalPaid         big.Int
	TransferChannelID string
	Event             *rm.ClientEvent // of an update
}

// DataSize is the size of the archive of an import.
type DataSize struct {
	PayloadSize int64
	PieceSize   abi.PaddedPieceSize
}

// CommPRet is the commitment of a file. Size is that of the piece, unpadded.
type CommPRet struct {
	Root    cid.Cid
	Size    abi.UnpaddedPieceSize
	Padded  abi.PaddedPieceSize
	Payload int64
}

// ClientImport is an import in the shape of ClientListImports. Root is nil if it is not known.
type ClientImport struct {
	Key      uint64
	Err      string
	Root     *cid.Cid
	Source   string
	FilePath string
	CARPath  string
}
