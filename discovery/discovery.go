// Package discovery finds the providers of a payload.
package discovery

import (
	"io"

	"github.com/ipfs/go-cid"

	"github.com/cartage-dev/cartage/internal/wire"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
)

// RetrievalPeers is the record of a payload: who may have it.
type RetrievalPeers struct{ Peers []rm.RetrievalPeer }

func (p *RetrievalPeers) fields() []wire.Field {
	return []wire.Field{wire.List("Peers", &p.Peers, (*rm.RetrievalPeer).Field)}
}

// MarshalCBOR writes the map form.
func (p *RetrievalPeers) MarshalCBOR(w io.Writer) error { return wire.WriteMap(w, p.fields()) }

// UnmarshalCBOR reads the map form.
func (p *RetrievalPeers) UnmarshalCBOR(r io.Reader) error {
	return wire.ReadMap(r, "RetrievalPeers", p.fields())
}

// MarshalTuple writes the form of the releases before the maps.
func (p *RetrievalPeers) MarshalTuple(w io.Writer) error {
	return wire.WriteTuple(w, wire.AsTuple(p.fields()))
}

// UnmarshalTuple reads the form of the releases before the maps.
func (p *RetrievalPeers) UnmarshalTuple(r io.Reader) error {
	return wire.ReadTuple(r, "RetrievalPeers", wire.AsTuple(p.fields()))
}

// PeerResolver returns who may have a payload; none is an empty slice and no error.
type PeerResolver = rm.PeerResolver

// Static answers the same peers for every payload.
type Static []rm.RetrievalPeer

// GetPeers implements PeerResolver.
func (s Static) GetPeers(cid.Cid) ([]rm.RetrievalPeer, error) {
	return append([]rm.RetrievalPeer{}, s...), nil
}
