// Package api is the JSON-RPC surface of a node and its typed client. The same struct of functions serves a process that
// runs the node itself.
//
// Amounts are decimal strings in attoFIL; sizes are bytes.
package api

import (
	"context"
	"net/http"
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-jsonrpc"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/ipfs/go-cid"

	rm "github.com/cartage-dev/cartage/retrievalmarket"
)

// Info is what a node says of itself.
type Info struct {
	PeerID    string   `json:"peer_id"`
	Addresses []string `json:"addresses"`
	Wallet    string   `json:"wallet"`
	Ledger    string   `json:"ledger"`
	Providing bool     `json:"providing"`
	// Refuses is why no new deal is taken at present; empty when they are.
	Refuses string `json:"refuses,omitempty"`
}

// Piece is a piece for sale.
type Piece struct {
	Root     string `json:"root"`
	PieceCID string `json:"piece_cid"`
	Bytes    uint64 `json:"bytes"`
	Blocks   uint64 `json:"blocks"`
	CarSize  uint64 `json:"car_size"`
	Padded   uint64 `json:"padded_size"`
	Path     string `json:"path"`
	State    string `json:"state"`
	// LeftOut are the symbolic links that were skipped when the piece was made.
	LeftOut []string `json:"left_out,omitempty"`
	// Roots are all roots, Root first. Missing is how many blocks below them the piece lacks.
	Roots   []string `json:"roots,omitempty"`
	Missing uint64   `json:"missing,omitempty"`
	// PieceCIDv2 is the CID of version 2 of the piece (FRC-0069).
	PieceCIDv2 string `json:"piece_cid_v2,omitempty"`
	// Warnings are sentences about a piece that was just made.
	Warnings []string `json:"warnings,omitempty"`
}

// ProvideRequest names a file, a folder or a .car to put up for sale, and how it is read. Symlinks is store (or empty), follow, skip or refuse; with
// Preserve permissions and times are kept. Of a .car, Roots are sold instead of those that it names, and Partial sells one that lacks blocks.
type ProvideRequest struct {
	Path     string `json:"path"`
	Symlinks string `json:"symlinks,omitempty"`
	Preserve bool   `json:"preserve,omitempty"`

	Roots   []string `json:"roots,omitempty"`
	Partial bool     `json:"partial,omitempty"`
}

// Ask is what the provider publishes.
type Ask struct {
	PricePerByte            string `json:"price_per_byte"`
	UnsealPrice             string `json:"unseal_price"`
	PaymentInterval         uint64 `json:"payment_interval"`
	PaymentIntervalIncrease uint64 `json:"payment_interval_increase"`
}

// Offer is the answer of one provider.
type Offer struct {
	Provider     string  `json:"provider"`
	Available    bool    `json:"available"`
	Reason       string  `json:"reason,omitempty"` // why there is none, one of Reasons
	Message      string  `json:"message,omitempty"`
	Size         uint64  `json:"size"`
	Price        string  `json:"price"`
	PricePerByte string  `json:"price_per_byte"`
	UnsealPrice  string  `json:"unseal_price"`
	Interval     uint64  `json:"payment_interval"`
	Increase     uint64  `json:"payment_interval_increase"`
	PaidTo       string  `json:"paid_to"`
	RoundTripMS  float64 `json:"round_trip_ms"`
}

// RetrieveRequest starts or continues a retrieval.
type RetrieveRequest struct {
	CID         string `json:"cid"`
	Provider    string `json:"provider"`
	Budget      string `json:"budget"`            // empty: free only
	MaxExposure uint64 `json:"max_exposure"`      // bytes; 0: as configured
	Transport   string `json:"transport"`         // one of the names below
	PaidTo      string `json:"paid_to,omitempty"` // refuse a provider that is paid elsewhere
	// What is proposed to a provider that takes deals and answers no queries, in attoFIL and bytes; it is paid at PaidTo. Without a price such a
	// provider is only asked for a Piece, for nothing. One that answers queries is proposed what it offers.
	PricePerByte    string `json:"price_per_byte,omitempty"`
	UnsealPrice     string `json:"unseal_price,omitempty"`
	PaymentInterval uint64 `json:"payment_interval,omitempty"`
	// A part of the payload, as package dataselector reads it: DataSelector is a path of data model fields or a selector in DAG-JSON;
	// Path is one of UnixFS names, and Range FIRST:LAST of the bytes of the file there. All empty: everything.
	DataSelector string `json:"data_selector,omitempty"`
	Path         string `json:"path,omitempty"`
	Range        string `json:"range,omitempty"`
	// List asks for the folder at Path without what is in it: node for its first block, shards for all of one that is spread over several.
	List string `json:"list,omitempty"`
	// File says that nothing but a file is wanted, which is found out before its content is paid for.
	File bool `json:"file,omitempty"`
	// Piece is the CID of the piece that has to serve it, of either version; empty: any.
	Piece string `json:"piece,omitempty"`
	// Into is car, a file of its own, or store, the blocks that all such retrievals share; empty: as configured.
	Into string `json:"into,omitempty"`
	// Read says that the result will be read from CarPath; retrievals into the store may have no file otherwise.
	Read bool `json:"read,omitempty"`
	// Output is where the result will be written; the room there is checked before anything is paid. Empty: nowhere.
	Output string `json:"output,omitempty"`
	// StallSeconds parks the retrieval after so long without a byte; 0 is no bound.
	StallSeconds float64 `json:"stall_seconds,omitempty"`
	// Holder names who asks, among those who may ask for the same: the retrieval is parked when the last of them is gone.
	Holder string `json:"holder,omitempty"`
	// Queue leaves the retrieval to the daemon: it goes on without anybody who holds it.
	Queue bool `json:"queue,omitempty"`
}

// What RetrieveRequest.List may be.
const (
	ListNode   = "node"
	ListShards = "shards"
)

// Retrieval is how a retrieval stands.
type Retrieval struct {
	Key         string  `json:"key"` // for Retrieval
	Seq         uint64  `json:"seq"` // grows with each change
	Order       string  `json:"order,omitempty"`
	State       string  `json:"state,omitempty"` // of the order
	ID          string  `json:"id"`              // of its present deal; empty when nothing had to be retrieved
	Deals       int     `json:"deals"`           // that the order had
	Budget      string  `json:"budget,omitempty"`
	OrderSpent  string  `json:"order_spent,omitempty"` // in all deals of the order
	Hint        string  `json:"hint,omitempty"`
	Root        string  `json:"root"`
	Status      string  `json:"status"`
	Message     string  `json:"message,omitempty"`
	Done        bool    `json:"done"`
	OK          bool    `json:"ok"`
	Code        int     `json:"code"`
	Reason      string  `json:"reason,omitempty"` // one of Reasons, when it did not go well
	Blame       string  `json:"blame,omitempty"`
	Size        uint64  `json:"size"` // at most
	Received    uint64  `json:"received"`
	Bytes       uint64  `json:"bytes"` // of unique blocks in the file
	Blocks      int     `json:"blocks"`
	Spent       string  `json:"spent"`
	Owed        string  `json:"owed"`
	Seconds     float64 `json:"seconds"`
	Vouchers    uint64  `json:"vouchers"`
	Transport   string  `json:"transport"`
	Into        string  `json:"into"`
	CarPath     string  `json:"car_path"` // may be empty for one into the store
	PaymentChan string  `json:"payment_channel,omitempty"`
}

// Deal is a deal of either role.
type Deal struct {
	ID           string `json:"id"`
	Role         string `json:"role"`
	Peer         string `json:"peer"`
	Root         string `json:"root"`
	Status       string `json:"status"`
	Message      string `json:"message,omitempty"`
	Final        bool   `json:"final"`
	Reason       string `json:"reason,omitempty"` // why a deal of the client failed or stands still
	Blame        string `json:"blame,omitempty"`
	PricePerByte string `json:"price_per_byte"`
	UnsealPrice  string `json:"unseal_price"`
	Bytes        uint64 `json:"bytes"`
	Owed         string `json:"owed"`
	Vouchered    string `json:"vouchered"`
	PayCh        string `json:"payment_channel,omitempty"`
	Lane         uint64 `json:"lane"`
	Vouchers     uint64 `json:"vouchers"`
}

// ImportRequest names a file or folder to import; with CAR it is an archive that stays where it is. Stream says that the path is a
// copy of a stream that the import may take over.
type ImportRequest struct {
	Path    string `json:"path"`
	CAR     bool   `json:"car,omitempty"`
	Stream  bool   `json:"stream,omitempty"`
	Profile string `json:"profile,omitempty"` // the default if it is empty
	// Symlinks and Preserve are as those of ProvideRequest.
	Symlinks string `json:"symlinks,omitempty"`
	Preserve bool   `json:"preserve,omitempty"`
}

// Import is something that was imported. Refs and CARPath are the files that it is read from.
type Import struct {
	Key      uint64
	Root     string
	Source   string
	FilePath string
	CARPath  string `json:",omitempty"`
	Refs     string `json:",omitempty"`
	Bytes    uint64
	Err      string
	LeftOut  []string `json:",omitempty"` // the symbolic links that were skipped
}

// DataCIDSize is the piece that the archive of an import makes.
type DataCIDSize struct {
	PayloadSize int64
	PieceSize   abi.PaddedPieceSize
	PieceCID    cid.Cid
}

// Node is the API; over RPC the methods are `Cartage.*`. The tag perm is what a token must permit for a call: read, pay, provide or admin; pay and
// provide include read, and admin includes all. The tag path names what of the first argument is a path on the node's machine: 0 for all of it, else
// its field; for anybody but an admin it must lie below api.paths of the configuration.
type Node struct {
	Version func(ctx context.Context) (*Version, error)                 `perm:"read"`
	Status  func(ctx context.Context) (*Status, error)                  `perm:"read"`
	Doctor  func(ctx context.Context, r DoctorRequest) ([]Check, error) `perm:"read"`
	// DashboardCode is a page that signs a person in to the dashboard, once, with what the token of the call permits.
	DashboardCode func(ctx context.Context) (*DashboardCode, error) `perm:"read"`

	VerifyPiece func(ctx context.Context, piece string) (*PieceVerified, error) `perm:"read"`
	RemovePiece func(ctx context.Context, r RemovePiece) (*PieceRemoved, error) `perm:"provide"`

	Info      func(ctx context.Context) (*Info, error)                                 `perm:"read"`
	Provide   func(ctx context.Context, path string) (*Piece, error)                   `perm:"provide" path:"0"`
	ProvideAs func(ctx context.Context, r ProvideRequest) (*Piece, error)              `perm:"provide" path:"Path"`
	Pieces    func(ctx context.Context) ([]Piece, error)                               `perm:"read"`
	Import    func(ctx context.Context, r ImportRequest) (*Import, error)              `perm:"provide" path:"Path"`
	Ask       func(ctx context.Context) (*Ask, error)                                  `perm:"read"`
	SetAsk    func(ctx context.Context, ask Ask) (*Ask, error)                         `perm:"provide"`
	Find      func(ctx context.Context, c string, providers []string) ([]Offer, error) `perm:"read"`
	// What is earned on EVM chains: by channel and day, claimed at once, and the addresses of the keys for it.
	EVMEarnings func(ctx context.Context) (*EVMEarnings, error)    `perm:"read"`
	EVMRedeem   func(ctx context.Context, channels []string) error `perm:"provide"` // none: all
	EVMKeyNew   func(ctx context.Context) (string, error)          `perm:"admin"`
	EVMKeys     func(ctx context.Context) ([]string, error)        `perm:"read"`
	// FindIn is Find for a piece that has to serve it, by its CID of either version; empty: any.
	FindIn   func(ctx context.Context, c, piece string, providers []string) ([]Offer, error) `perm:"read"`
	Retrieve func(ctx context.Context, r RetrieveRequest) (*Retrieval, error)                `perm:"pay" path:"Output"`
	// RetrieveWeb buys from a gateway, whose URL is the provider. It returns at the end; meanwhile Retrieval shows it under web/HOLDER.
	RetrieveWeb func(ctx context.Context, r RetrieveRequest) (*Retrieval, error) `perm:"admin"`
	Retrieval   func(ctx context.Context, key string) (*Retrieval, error)        `perm:"read"`
	Deals       func(ctx context.Context) ([]Deal, error)                        `perm:"read"`
	CancelDeal  func(ctx context.Context, id string) error                       `perm:"admin"`

	Orders       func(ctx context.Context) ([]Order, error)                   `perm:"read"`
	OrderWatch   func(ctx context.Context, w OrderWatch) (*Retrieval, error)  `perm:"pay"`
	OrderRelease func(ctx context.Context, w OrderWatch) (*Retrieval, error)  `perm:"pay"`
	OrderPark    func(ctx context.Context, id string) (*Retrieval, error)     `perm:"pay"`
	OrderResume  func(ctx context.Context, r OrderResume) (*Retrieval, error) `perm:"pay"`
	OrderCancel  func(ctx context.Context, id string) (*Retrieval, error)     `perm:"pay"`

	Faucet func(ctx context.Context) (*Balance, error) `perm:"admin"`

	WalletNew     func(ctx context.Context, kind string) (*Balance, error) `perm:"admin"`
	WalletList    func(ctx context.Context) ([]Balance, error)             `perm:"read"`
	WalletExport  func(ctx context.Context, addr string) (string, error)   `perm:"admin"`
	WalletImport  func(ctx context.Context, key string) (*Balance, error)  `perm:"admin"`
	WalletRemove  func(ctx context.Context, addr string) error             `perm:"admin"`
	WalletDefault func(ctx context.Context, addr string) (*Balance, error) `perm:"admin"`

	PayChannels   func(ctx context.Context) ([]PayChannel, error)          `perm:"read"`
	PayChVouchers func(ctx context.Context, ch string) ([]Voucher, error)  `perm:"read"`
	PayChPlan     func(ctx context.Context, ch string) (*PayChPlan, error) `perm:"read"`
	RedeemPayCh   func(ctx context.Context, ch string) error               `perm:"provide"`
	SettlePayCh   func(ctx context.Context, ch string) error               `perm:"admin"`
	CollectPayCh  func(ctx context.Context, ch string) error               `perm:"admin"`
	Earnings      func(ctx context.Context) (*Earnings, error)             `perm:"read"`
	Spending      func(ctx context.Context) (*Spending, error)             `perm:"read"`
	PeerDebts     func(ctx context.Context) ([]Debt, error)                `perm:"read"`
	ForgivePeer   func(ctx context.Context, peer string) (int, error)      `perm:"provide"`
	Limits        func(ctx context.Context) ([]Limit, error)               `perm:"read"`
	ConfigShow    func(ctx context.Context) ([]ConfigKey, error)           `perm:"read"`
	ConfigReload  func(ctx context.Context) (*ConfigChange, error)         `perm:"admin"`

	TokenCreate func(ctx context.Context, t TokenRequest) (*Token, error) `perm:"admin"`
	TokenList   func(ctx context.Context) ([]Token, error)                `perm:"admin"`
	TokenRevoke func(ctx context.Context, name string) (*Token, error)    `perm:"admin"`

	Imports            func(ctx context.Context) ([]Import, error)                        `perm:"read"`
	ClientListImports  func(ctx context.Context) ([]ClientImport, error)                  `perm:"read"`
	ClientRemoveImport func(ctx context.Context, id uint64) error                         `perm:"admin"`
	ClientHasLocal     func(ctx context.Context, root cid.Cid) (bool, error)              `perm:"read"`
	ClientLocal        func(ctx context.Context, root string) (*Import, error)            `perm:"read"`
	ClientRepoint      func(ctx context.Context, id uint64, path string) (*Import, error) `perm:"admin"`
	ClientDealPieceCID func(ctx context.Context, root cid.Cid) (*DataCIDSize, error)      `perm:"read"`

	ClientImport              func(ctx context.Context, ref FileRef) (*ImportRes, error)                                          `perm:"provide" path:"Path"`
	ClientFindData            func(ctx context.Context, root cid.Cid, piece *cid.Cid) ([]QueryOffer, error)                       `perm:"read"`
	ClientMinerQueryOffer     func(ctx context.Context, miner address.Address, root cid.Cid, piece *cid.Cid) (*QueryOffer, error) `perm:"read"`
	ClientRetrieve            func(ctx context.Context, order RetrievalOrder) (*RetrievalRes, error)                              `perm:"pay"`
	ClientRetrieveWait        func(ctx context.Context, id rm.DealID) error                                                       `perm:"read"`
	ClientListRetrievals      func(ctx context.Context) ([]RetrievalInfo, error)                                                  `perm:"read"`
	ClientCancelRetrievalDeal func(ctx context.Context, id rm.DealID) error                                                       `perm:"admin"`
	ClientExport              func(ctx context.Context, ref ExportRef, to FileRef) error                                          `perm:"admin"`
	ClientDealSize            func(ctx context.Context, root cid.Cid) (*DataSize, error)                                          `perm:"read"`
	ClientCalcCommP           func(ctx context.Context, path string) (*CommPRet, error)                                           `perm:"admin"`
	ClientGenCar              func(ctx context.Context, ref FileRef, out string) error                                            `perm:"admin"`

	DagstoreListShards      func(ctx context.Context) ([]DagstoreShardInfo, error)                       `perm:"read"`
	DagstoreShards          func(ctx context.Context, p DagstoreListParams) ([]DagstoreShard, error)     `perm:"read"`
	DagstoreRegisterShard   func(ctx context.Context, key string) error                                  `perm:"admin"`
	DagstoreRegister        func(ctx context.Context, key, where string, url, lazy bool) (*Piece, error) `perm:"admin"`
	DagstoreInitializeShard func(ctx context.Context, key string) error                                  `perm:"admin"`
	DagstoreRecoverShard    func(ctx context.Context, key string) error                                  `perm:"admin"`
	DagstoreDestroyShard    func(ctx context.Context, key string) error                                  `perm:"admin"`
	DagstoreGC              func(ctx context.Context) ([]DagstoreShardResult, error)                     `perm:"admin"`
	DagstoreLookupPieces    func(ctx context.Context, c string) ([]DagstoreShardInfo, error)             `perm:"read"`
	DagstoreImport          func(ctx context.Context, from string) ([]DagstoreShardResult, error)        `perm:"admin"`
	DagstoreDoctor          func(ctx context.Context) ([]DagstoreFinding, error)                         `perm:"read"`
	DagstoreRebuild         func(ctx context.Context) ([]DagstoreShardResult, error)                     `perm:"admin"`

	ClientStatelessDeal func(ctx context.Context, p StartDealParams) (*cid.Cid, error)                       `perm:"admin"`
	ClientDealStatus    func(ctx context.Context, miner, wallet, proposal string) (*StorageDealState, error) `perm:"read"`
	ClientQueryAsk      func(ctx context.Context, miner string) (*StorageAsk, error)                         `perm:"read"`
	ClientStartDeal     func(ctx context.Context, p StartDealParams) (*cid.Cid, error)                       `perm:"admin"`
	StoragePushes       func(ctx context.Context) ([]StoragePush, error)                                     `perm:"read"`
	StoragePush         func(ctx context.Context, proposal string) (*StoragePush, error)                     `perm:"read"`
	ResumeStoragePush   func(ctx context.Context, proposal string) error                                     `perm:"admin"`
	StorageDeals        func(ctx context.Context) ([]StorageDeal, error)                                     `perm:"read"`
	StorageImport       func(ctx context.Context, proposal, path string) (*StorageDeal, error)               `perm:"admin"`
	StorageAsk          func(ctx context.Context) (*StorageAsk, error)                                       `perm:"read"`
	SetStorageAsk       func(ctx context.Context, ask StorageAsk, epochs int64) (*StorageAsk, error)         `perm:"admin"`
}

// Streams are the methods that answer more than once; they need a WebSocket.
type Streams struct {
	DagstoreInitializeAll     func(ctx context.Context, p DagstoreInitializeAllParams) (<-chan DagstoreInitializeAllEvent, error) `perm:"admin"`
	ClientGetRetrievalUpdates func(ctx context.Context) (<-chan RetrievalInfo, error)                                             `perm:"read"`
}

// Namespace of the methods. FilecoinNamespace has the same ones: programs of a Filecoin node find those that they know there.
const (
	Namespace         = "Cartage"
	FilecoinNamespace = "Filecoin"
)

// Dial returns a client of the node at url.
func Dial(ctx context.Context, url, token string) (*Node, func(), error) {
	var n Node
	closer, err := jsonrpc.NewMergeClient(ctx, url, Namespace, []any{&n}, http.Header{"Authorization": {"Bearer " + token}},
		jsonrpc.WithErrors(Errors()), jsonrpc.WithTimeout(24*time.Hour))
	if err != nil {
		return nil, nil, err
	}
	return &n, func() { closer() }, nil
}

// DialStreams returns the methods of the node at url, ws://..., that answer more than once.
func DialStreams(ctx context.Context, url, token string) (*Streams, func(), error) {
	var s Streams
	closer, err := jsonrpc.NewMergeClient(ctx, url, Namespace, []any{&s}, http.Header{"Authorization": {"Bearer " + token}}, jsonrpc.WithErrors(Errors()))
	if err != nil {
		return nil, nil, err
	}
	return &s, func() { closer() }, nil
}

// Transports by name: over a stream if the provider speaks it, always over a stream, or always over graphsync.
const (
	TransportAuto      = "auto"
	TransportStream    = "stream"
	TransportGraphsync = "graphsync"
)
