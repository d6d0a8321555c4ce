// Package storagedeal has storage deals as far as retrieval needs them: the stateless client, which sends free, offline
// proposals and keeps nothing; the intake of a provider, which accepts them, checks the data that is imported for them and makes
// it a shard; and the messages of the protocols of both (node spec 4).
package storagedeal

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/builtin/v9/market"
	"github.com/filecoin-project/go-state-types/crypto"
	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"
	cbg "github.com/whyrusleeping/cbor-gen"

	"github.com/cartage-dev/cartage/internal/wire"
)

// Limits of what a peer may send (node spec 4.3).
const (
	MaxMessage = 64 << 10 // bytes of one message
	MaxLabel   = 256      // bytes of a label
	maxDepth   = 16
)

// TTManual is the transfer type of a deal whose data comes by other ways.
const TTManual = "manual"

// TTGraphsync is the transfer type of a deal whose data is pulled over graphsync.
const TTGraphsync = "graphsync"

// DataRef says which data a deal is about and how it comes.
type DataRef struct {
	TransferType string
	Root         cid.Cid
	PieceCid     *cid.Cid
	PieceSize    abi.UnpaddedPieceSize
	RawBlockSize uint64
}

// Proposal is what a client writes on a deal stream.
type Proposal struct {
	DealProposal  *market.ClientDealProposal
	Piece         *DataRef
	FastRetrieval bool
}

// Response is the answer of a provider; its encoding is what the provider signs.
type Response struct {
	State          State
	Message        string // a reason, if the deal is refused
	Proposal       cid.Cid
	PublishMessage *cid.Cid
}

// SignedResponse is what a provider writes back. Signed are the bytes of the response as they came, over which its signature is.
type SignedResponse struct {
	Response  Response
	Signature *crypto.Signature
	Signed    []byte
}

// AskRequest asks for the storage ask of a provider.
type AskRequest struct{ Miner address.Address }

// AskResponse has the ask, or nothing.
type AskResponse struct{ Ask *SignedStorageAsk }

// SignedStorageAsk is an ask with the signature of the provider's worker over it.
type SignedStorageAsk struct {
	Ask       *StorageAsk
	Signature *crypto.Signature
	Signed    []byte // the ask as it came
}

// StorageAsk is what a provider takes. Prices are attoFIL for a GiB and epoch, sizes are padded.
type StorageAsk struct {
	Price, VerifiedPrice       abi.TokenAmount
	MinPieceSize, MaxPieceSize abi.PaddedPieceSize
	Miner                      address.Address
	Timestamp, Expiry          abi.ChainEpoch
	SeqNo                      uint64
}

// DealStatusRequest asks for the state of a deal; the client's signature is over the encoding of the proposal CID.
type DealStatusRequest struct {
	Proposal  cid.Cid
	Signature crypto.Signature
}

// DealStatusResponse is the answer. Signed are the bytes of the state as they came.
type DealStatusResponse struct {
	DealState ProviderDealState
	Signature crypto.Signature
	Signed    []byte
}

// ProviderDealState is what a provider tells about a deal.
type ProviderDealState struct {
	State         State
	Message       string
	Proposal      *market.DealProposal
	ProposalCid   *cid.Cid
	AddFundsCid   *cid.Cid
	PublishCid    *cid.Cid
	DealID        abi.DealID
	FastRetrieval bool
}

// form is how the members of messages stand in CBOR: maps with the shortest key first, or the arrays of protocol 1.0.1.
type form bool

const (
	asMaps   form = false
	asArrays form = true
)

// nested is a message inside another.
func (f form) nested(name string, fields []wire.Field) wire.Field {
	if f == asArrays {
		return wire.Tuple(name, fields)
	}
	slices.SortStableFunc(fields, func(a, b wire.Field) int {
		if d := len(a.Name) - len(b.Name); d != 0 {
			return d
		}
		return strings.Compare(a.Name, b.Name)
	})
	return wire.Map(name, fields)
}

func optCid(name string, v **cid.Cid) wire.Field {
	return wire.Nullable(name, v, func(c *cid.Cid) wire.Field { return wire.Cid(name, c) })
}

func epoch(name string, v *abi.ChainEpoch) wire.Field { return wire.Object(name, (*cbg.CborInt)(v)) }

func (d *DataRef) fields(f form) []wire.Field {
	out := []wire.Field{
		wire.Text("TransferType", &d.TransferType), wire.Cid("Root", &d.Root), optCid("PieceCid", &d.PieceCid), wire.Uint("PieceSize", &d.PieceSize),
	}
	if f == asMaps {
		out = append(out, wire.Uint("RawBlockSize", &d.RawBlockSize))
	}
	return out
}

func (p *Proposal) fields(f form) []wire.Field {
	return []wire.Field{
		wire.Nullable("DealProposal", &p.DealProposal, func(d *market.ClientDealProposal) wire.Field { return wire.Object("DealProposal", d) }),
		wire.Nullable("Piece", &p.Piece, func(d *DataRef) wire.Field { return f.nested("Piece", d.fields(f)) }),
		wire.Bool("FastRetrieval", &p.FastRetrieval),
	}
}

func (r *Response) fields(form) []wire.Field {
	return []wire.Field{
		wire.Uint("State", &r.State), wire.Text("Message", &r.Message), wire.Cid("Proposal", &r.Proposal), optCid("PublishMessage", &r.PublishMessage),
	}
}

func signature(name string, v **crypto.Signature) wire.Field {
	return wire.Nullable(name, v, func(s *crypto.Signature) wire.Field { return wire.Object(name, s) })
}

// signed is a member whose bytes are kept as they came, because a signature is over them.
func signed(f form, name string, raw *[]byte, m message) wire.Field {
	inner := f.nested(name, m.fields(f))
	return wire.Field{Name: name, Write: inner.Write, Read: func(r *cbg.CborReader) error {
		data, err := wire.ReadRaw(r, MaxMessage, maxDepth)
		if err != nil {
			return err
		}
		*raw = data
		return inner.Read(cbg.NewCborReader(bytes.NewReader(data)))
	}}
}

func (r *SignedResponse) fields(f form) []wire.Field {
	return []wire.Field{signed(f, "Response", &r.Signed, &r.Response), signature("Signature", &r.Signature)}
}

func (a *AskRequest) fields(form) []wire.Field { return []wire.Field{wire.Address("Miner", &a.Miner)} }

func (a *AskResponse) fields(f form) []wire.Field {
	return []wire.Field{wire.Nullable("Ask", &a.Ask, func(s *SignedStorageAsk) wire.Field { return f.nested("Ask", s.fields(f)) })}
}

func (s *SignedStorageAsk) fields(f form) []wire.Field {
	return []wire.Field{
		wire.Nullable("Ask", &s.Ask, func(a *StorageAsk) wire.Field { return signed(f, "Ask", &s.Signed, a) }), signature("Signature", &s.Signature),
	}
}

func (a *StorageAsk) fields(form) []wire.Field {
	return []wire.Field{
		wire.Amount("Price", &a.Price), wire.Amount("VerifiedPrice", &a.VerifiedPrice), wire.Uint("MinPieceSize", &a.MinPieceSize),
		wire.Uint("MaxPieceSize", &a.MaxPieceSize), wire.Address("Miner", &a.Miner), epoch("Timestamp", &a.Timestamp), epoch("Expiry", &a.Expiry),
		wire.Uint("SeqNo", &a.SeqNo),
	}
}

func (d *DealStatusRequest) fields(form) []wire.Field {
	return []wire.Field{wire.Cid("Proposal", &d.Proposal), wire.Object("Signature", &d.Signature)}
}

func (d *DealStatusResponse) fields(f form) []wire.Field {
	return []wire.Field{signed(f, "DealState", &d.Signed, &d.DealState), wire.Object("Signature", &d.Signature)}
}

func (d *ProviderDealState) fields(form) []wire.Field {
	return []wire.Field{
		wire.Uint("State", &d.State), wire.Text("Message", &d.Message),
		wire.Nullable("Proposal", &d.Proposal, func(p *market.DealProposal) wire.Field { return wire.Object("Proposal", p) }),
		optCid("ProposalCid", &d.ProposalCid), optCid("AddFundsCid", &d.AddFundsCid), optCid("PublishCid", &d.PublishCid),
		wire.Uint("DealID", &d.DealID), wire.Bool("FastRetrieval", &d.FastRetrieval),
	}
}

// message is any of the above.
type message interface{ fields(form) []wire.Field }

// encodeMessage writes a message.
func encodeMessage(m message, f form) ([]byte, error) {
	var b bytes.Buffer
	err := f.nested("message", m.fields(f)).Write(cbg.NewCborWriter(&b))
	if err == nil && b.Len() > MaxMessage {
		err = fmt.Errorf("the message has %d bytes, the limit is %d", b.Len(), MaxMessage)
	}
	return b.Bytes(), err
}

// decodeMessage reads the bytes of a message: all of them, and with claims that they can keep.
func decodeMessage(data []byte, m message, f form) error {
	if len(data) > MaxMessage {
		return fmt.Errorf("the message has %d bytes, the limit is %d", len(data), MaxMessage)
	}
	if err := wire.CheckClaims(data); err != nil {
		return err
	}
	r := bytes.NewReader(data)
	if err := f.nested("message", m.fields(f)).Read(cbg.NewCborReader(r)); err != nil {
		return err
	}
	if r.Len() > 0 {
		return fmt.Errorf("%d bytes after the message", r.Len())
	}
	return nil
}

// MarshalProposal is the encoding of a deal proposal: what its client signs.
func MarshalProposal(p *market.DealProposal) ([]byte, error) {
	var b bytes.Buffer
	err := p.MarshalCBOR(&b)
	return b.Bytes(), err
}

// ProposalCID is the name of a signed proposal: dag-cbor and sha2-256 over its encoding.
func ProposalCID(p *market.ClientDealProposal) (cid.Cid, error) {
	var b bytes.Buffer
	if err := p.MarshalCBOR(&b); err != nil {
		return cid.Undef, err
	}
	return cid.V1Builder{Codec: cid.DagCBOR, MhType: mh.SHA2_256}.Sum(b.Bytes())
}
