package retrievalmarket

import (
	"io"

	"github.com/cartage-dev/cartage/internal/wire"
)

// Tupled is a message or record that also has the tuple form of the releases before the maps: the query protocol 0.0.1, the
// vouchers without a version in their type, and records of store version 0 (docs/protocol/retrievalmarket.md 2).
type Tupled interface{ tuple() []wire.Field }

// WriteTuple writes the tuple form.
func WriteTuple(w io.Writer, v Tupled) error { return wire.WriteTuple(w, v.tuple()) }

// ReadTuple reads the tuple form.
func ReadTuple(r io.Reader, v Tupled) error { return wire.ReadTuple(r, "tuple", v.tuple()) }

func (a *Ask) tuple() []wire.Field           { return wire.AsTuple(a.fields()) }
func (p *DealProposal) tuple() []wire.Field  { return wire.AsTuple(p.fields()) }
func (q *Query) tuple() []wire.Field         { return wire.AsTuple(q.fields()) }
func (q *QueryResponse) tuple() []wire.Field { return wire.AsTuple(q.fields()) }
func (p *DealResponse) tuple() []wire.Field  { return wire.AsTuple(p.fields()) }
func (p *DealPayment) tuple() []wire.Field   { return wire.AsTuple(p.fields()) }
func (p *RetrievalPeer) tuple() []wire.Field { return wire.AsTuple(p.fields()) }

// Records of version 0 end before LegacyProtocol, which they all are.
func (s *ClientDealState) tuple() []wire.Field {
	f := wire.AsTuple(s.published())
	return f[:len(f)-1]
}

func (s *ProviderDealState) tuple() []wire.Field {
	f := wire.AsTuple(s.fields())
	return f[:len(f)-1]
}
