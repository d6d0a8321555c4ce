// Package legacy is the first generation of the market's vouchers: the same values as tuples, under type identifiers without a
// version (docs/protocol/retrievalmarket.md 2.3). A provider answers in the generation in which a deal was proposed.
package legacy

import (
	"io"

	dt "github.com/cartage-dev/cartage/datatransfer"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
)

// DealProposal0 is a proposal as a tuple.
type DealProposal0 struct{ rm.DealProposal }

// Type implements datatransfer.Voucher.
func (*DealProposal0) Type() dt.TypeIdentifier { return "RetrievalDealProposal" }

// MarshalCBOR writes the tuple form.
func (p *DealProposal0) MarshalCBOR(w io.Writer) error { return rm.WriteTuple(w, &p.DealProposal) }

// UnmarshalCBOR reads the tuple form.
func (p *DealProposal0) UnmarshalCBOR(r io.Reader) error { return rm.ReadTuple(r, &p.DealProposal) }

// DealPayment0 is a payment as a tuple.
type DealPayment0 struct{ rm.DealPayment }

// Type implements datatransfer.Voucher.
func (*DealPayment0) Type() dt.TypeIdentifier { return "RetrievalDealPayment" }

// MarshalCBOR writes the tuple form.
func (p *DealPayment0) MarshalCBOR(w io.Writer) error { return rm.WriteTuple(w, &p.DealPayment) }

// UnmarshalCBOR reads the tuple form.
func (p *DealPayment0) UnmarshalCBOR(r io.Reader) error { return rm.ReadTuple(r, &p.DealPayment) }

// DealResponse0 is an answer as a tuple.
type DealResponse0 struct{ rm.DealResponse }

// Type implements datatransfer.VoucherResult.
func (*DealResponse0) Type() dt.TypeIdentifier { return "RetrievalDealResponse" }

// MarshalCBOR writes the tuple form.
func (p *DealResponse0) MarshalCBOR(w io.Writer) error { return rm.WriteTuple(w, &p.DealResponse) }

// UnmarshalCBOR reads the tuple form.
func (p *DealResponse0) UnmarshalCBOR(r io.Reader) error { return rm.ReadTuple(r, &p.DealResponse) }

// Proposal returns the proposal that a voucher of either generation carries, or nil.
func Proposal(v dt.Voucher) *rm.DealProposal {
	switch v := v.(type) {
	case *rm.DealProposal:
		return v
	case *DealProposal0:
		return &v.DealProposal
	}
	return nil
}

// Payment returns the payment that a voucher of either generation carries, or nil.
func Payment(v dt.Voucher) *rm.DealPayment {
	switch v := v.(type) {
	case *rm.DealPayment:
		return v
	case *DealPayment0:
		return &v.DealPayment
	}
	return nil
}

// Response returns the answer that a result of either generation carries, or nil.
func Response(v dt.VoucherResult) *rm.DealResponse {
	switch v := v.(type) {
	case *rm.DealResponse:
		return v
	case *DealResponse0:
		return &v.DealResponse
	}
	return nil
}

// Is tells whether a voucher is of the first generation.
func Is(v dt.Voucher) bool {
	switch v.(type) {
	case *DealProposal0, *DealPayment0:
		return true
	}
	return false
}

// ProposalOf returns a proposal as a voucher of the generation of its deal.
func ProposalOf(p *rm.DealProposal, first bool) dt.Voucher {
	if first {
		return &DealProposal0{*p}
	}
	return p
}

// PaymentOf returns a payment as a voucher of the generation of its deal.
func PaymentOf(p *rm.DealPayment, first bool) dt.Voucher {
	if first {
		return &DealPayment0{*p}
	}
	return p
}

// ResponseOf returns an answer as a result of the generation of its deal; no answer is nil.
func ResponseOf(r *rm.DealResponse, first bool) dt.VoucherResult {
	switch {
	case r == nil:
		return nil
	case first:
		return &DealResponse0{*r}
	}
	return r
}
