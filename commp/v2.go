package commp

import (
	"fmt"

	commcid "github.com/filecoin-project/go-fil-commcid"
	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"
	"github.com/multiformats/go-varint"
)

// treeHash is the multihash of a piece CID of version 2 (FRC-0069): the sizes of the piece stand beside its commitment.
const treeHash = 0x1011

// maxHeight is that of the tree of MaxPadded.
const maxHeight = 31

// V2 is the CID of version 2 of a piece. Payloads below 127 bytes have none.
func V2(p Piece) (cid.Cid, error) {
	payload := p.Payload
	if PaddedFor(payload) != p.Padded { // zeros that were put behind it belong to what the piece holds
		payload = Payload(p.Padded.Unpadded())
	}
	return commcid.PieceCidV2FromV1(p.CID, uint64(payload))
}

// IsV2 reports whether a CID is meant as a piece CID of version 2.
func IsV2(c cid.Cid) bool {
	return c.Defined() && c.Prefix().Codec == cid.Raw && c.Prefix().MhType == treeHash
}

// V1 is the CID of version 1 of a piece that is named by either version; any other CID stays what it is. Records and the wire of the market
// know version 1 only.
func V1(c cid.Cid) (cid.Cid, error) {
	if !IsV2(c) {
		return c, nil
	}
	p, err := FromV2(c)
	return p.CID, err
}

// FromV2 is the piece that a CID of version 2 names.
func FromV2(c cid.Cid) (Piece, error) {
	bad := func(err error) (Piece, error) {
		return Piece{}, fmt.Errorf("%s is no piece CID of version 2: %w", c, err)
	}
	d, err := mh.Decode(c.Hash())
	if err != nil {
		return bad(err)
	}
	_, n, err := varint.FromUvarint(d.Digest)
	if err != nil {
		return bad(err)
	}
	if n >= len(d.Digest) || d.Digest[n] > maxHeight {
		return bad(fmt.Errorf("its tree is higher than %d", maxHeight))
	}
	v1, payload, err := commcid.PieceCidV1FromV2(c)
	if err != nil {
		return bad(err)
	}
	return Piece{CID: v1, Payload: Payload(payload), Padded: 32 << d.Digest[n]}, nil
}
