// Package piecestore is the contract of the store that knows which deals hold a piece and in which pieces a payload
// lies. Sizes in DealInfo are padded; offsets in BlockLocation count from the start of the piece.
package piecestore

import (
	"context"
	"io"

	"github.com/filecoin-project/go-state-types/abi"
	"github.com/ipfs/go-cid"

	"github.com/cartage-dev/cartage/internal/wire"
	"github.com/cartage-dev/cartage/shared"
)

// DealInfo says where a deal keeps a piece.
type DealInfo struct {
	DealID   abi.DealID
	SectorID abi.SectorNumber
	Offset   abi.PaddedPieceSize
	Length   abi.PaddedPieceSize
}

// BlockLocation is the place of a block in a piece.
type BlockLocation struct {
	RelOffset uint64
	BlockSize uint64
}

// PieceBlockLocation is the place of a block in a named piece.
type PieceBlockLocation struct {
	BlockLocation
	PieceCID cid.Cid
}

// CIDInfo lists the pieces that hold a payload.
type CIDInfo struct {
	CID                 cid.Cid
	PieceBlockLocations []PieceBlockLocation
}

// PieceInfo lists the deals that hold a piece.
type PieceInfo struct {
	PieceCID cid.Cid
	Deals    []DealInfo
}

var (
	// CIDInfoUndefined is the zero CIDInfo.
	CIDInfoUndefined = CIDInfo{}
	// PieceInfoUndefined is the zero PieceInfo.
	PieceInfoUndefined = PieceInfo{}
)

// PieceStore is safe for concurrent use; adding an equal deal or location changes nothing. Lookups of what is not
// there answer an error that wraps shared.ErrNotFound.
type PieceStore interface {
	Start(ctx context.Context) error
	OnReady(ready shared.ReadyFunc)
	AddDealForPiece(pieceCID cid.Cid, dealInfo DealInfo) error
	AddPieceBlockLocations(pieceCID cid.Cid, blockLocations map[cid.Cid]BlockLocation) error
	GetPieceInfo(pieceCID cid.Cid) (PieceInfo, error)
	GetCIDInfo(payloadCID cid.Cid) (CIDInfo, error)
	ListCidInfoKeys() ([]cid.Cid, error)
	ListPieceInfoKeys() ([]cid.Cid, error)
}

func (d *DealInfo) fields() []wire.Field {
	return []wire.Field{wire.Uint("DealID", &d.DealID), wire.Uint("SectorID", &d.SectorID), wire.Uint("Offset", &d.Offset), wire.Uint("Length", &d.Length)}
}

func (b *BlockLocation) fields() []wire.Field {
	return []wire.Field{wire.Uint("RelOffset", &b.RelOffset), wire.Uint("BlockSize", &b.BlockSize)}
}

func (p *PieceBlockLocation) fields() []wire.Field {
	return []wire.Field{wire.Map("BlockLocation", p.BlockLocation.fields()), wire.Cid("PieceCID", &p.PieceCID)}
}

func (c *CIDInfo) fields() []wire.Field {
	return []wire.Field{wire.Cid("CID", &c.CID), wire.List("PieceBlockLocations", &c.PieceBlockLocations,
		func(p *PieceBlockLocation) wire.Field { return wire.Map("PieceBlockLocation", p.fields()) })}
}

func (p *PieceInfo) fields() []wire.Field {
	return []wire.Field{wire.Cid("PieceCID", &p.PieceCID), wire.List("Deals", &p.Deals,
		func(d *DealInfo) wire.Field { return wire.Map("DealInfo", d.fields()) })}
}

// Field is a piece inside another record.
func (p *PieceInfo) Field() wire.Field { return wire.Map("PieceInfo", p.fields()) }

// MarshalCBOR writes the map form.
func (d *DealInfo) MarshalCBOR(w io.Writer) error { return wire.WriteMap(w, d.fields()) }

// UnmarshalCBOR reads the map form.
func (d *DealInfo) UnmarshalCBOR(r io.Reader) error { return wire.ReadMap(r, "DealInfo", d.fields()) }

// MarshalCBOR writes the map form.
func (p *PieceBlockLocation) MarshalCBOR(w io.Writer) error { return wire.WriteMap(w, p.fields()) }

// UnmarshalCBOR reads the map form.
func (p *PieceBlockLocation) UnmarshalCBOR(r io.Reader) error {
	return wire.ReadMap(r, "PieceBlockLocation", p.fields())
}

// MarshalTuple writes the form of the releases before the maps.
func (p *PieceInfo) MarshalTuple(w io.Writer) error {
	return wire.WriteTuple(w, wire.AsTuple(p.fields()))
}

// UnmarshalTuple reads the form of the releases before the maps.
func (p *PieceInfo) UnmarshalTuple(r io.Reader) error {
	return wire.ReadTuple(r, "PieceInfo", wire.AsTuple(p.fields()))
}

// MarshalTuple writes the form of the releases before the maps.
func (c *CIDInfo) MarshalTuple(w io.Writer) error {
	return wire.WriteTuple(w, wire.AsTuple(c.fields()))
}

// UnmarshalTuple reads the form of the releases before the maps.
func (c *CIDInfo) UnmarshalTuple(r io.Reader) error {
	return wire.ReadTuple(r, "CIDInfo", wire.AsTuple(c.fields()))
}

// MarshalCBOR writes the map form.
func (c *CIDInfo) MarshalCBOR(w io.Writer) error { return wire.WriteMap(w, c.fields()) }

// UnmarshalCBOR reads the map form.
func (c *CIDInfo) UnmarshalCBOR(r io.Reader) error { return wire.ReadMap(r, "CIDInfo", c.fields()) }

// MarshalCBOR writes the map form.
func (p *PieceInfo) MarshalCBOR(w io.Writer) error { return wire.WriteMap(w, p.fields()) }

// UnmarshalCBOR reads the map form.
func (p *PieceInfo) UnmarshalCBOR(r io.Reader) error { return wire.ReadMap(r, "PieceInfo", p.fields()) }
