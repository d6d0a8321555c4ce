package retrievalmarket

import (
	"io"

	cbg "github.com/whyrusleeping/cbor-gen"

	"github.com/cartage-dev/cartage/internal/wire"
)

// fielder is a value that lists its fields; nil pointers are written as null.
type fielder[T any] interface {
	*T
	fields() []wire.Field
}

func marshal[T any, P fielder[T]](v P, w io.Writer) error {
	if v == nil {
		_, err := w.Write(cbg.CborNull)
		return err
	}
	return wire.WriteMap(w, v.fields())
}

func unmarshal[T any, P fielder[T]](v P, name string, r io.Reader) error {
	var zero T
	*v = zero
	return wire.ReadMap(r, name, v.fields())
}

// MarshalCBOR writes the map form.
func (t *Ask) MarshalCBOR(w io.Writer) error { return marshal(t, w) }

// UnmarshalCBOR reads the map form.
func (t *Ask) UnmarshalCBOR(r io.Reader) error { return unmarshal(t, "Ask", r) }

// MarshalCBOR writes the map form.
func (t *Params) MarshalCBOR(w io.Writer) error { return marshal(t, w) }

// UnmarshalCBOR reads the map form.
func (t *Params) UnmarshalCBOR(r io.Reader) error { return unmarshal(t, "Params", r) }

// MarshalCBOR writes the map form.
func (t *DealProposal) MarshalCBOR(w io.Writer) error { return marshal(t, w) }

// UnmarshalCBOR reads the map form.
func (t *DealProposal) UnmarshalCBOR(r io.Reader) error { return unmarshal(t, "DealProposal", r) }

// MarshalCBOR writes the map form.
func (t *QueryParams) MarshalCBOR(w io.Writer) error { return marshal(t, w) }

// UnmarshalCBOR reads the map form.
func (t *QueryParams) UnmarshalCBOR(r io.Reader) error { return unmarshal(t, "QueryParams", r) }

// MarshalCBOR writes the map form.
func (t *Query) MarshalCBOR(w io.Writer) error { return marshal(t, w) }

// UnmarshalCBOR reads the map form.
func (t *Query) UnmarshalCBOR(r io.Reader) error { return unmarshal(t, "Query", r) }

// MarshalCBOR writes the map form.
func (t *QueryResponse) MarshalCBOR(w io.Writer) error { return marshal(t, w) }

// UnmarshalCBOR reads the map form.
func (t *QueryResponse) UnmarshalCBOR(r io.Reader) error { return unmarshal(t, "QueryResponse", r) }

// MarshalCBOR writes the map form.
func (t *DealResponse) MarshalCBOR(w io.Writer) error { return marshal(t, w) }

// UnmarshalCBOR reads the map form.
func (t *DealResponse) UnmarshalCBOR(r io.Reader) error { return unmarshal(t, "DealResponse", r) }

// MarshalCBOR writes the map form.
func (t *DealPayment) MarshalCBOR(w io.Writer) error { return marshal(t, w) }

// UnmarshalCBOR reads the map form.
func (t *DealPayment) UnmarshalCBOR(r io.Reader) error { return unmarshal(t, "DealPayment", r) }

// MarshalCBOR writes the map form.
func (t *PaymentInfo) MarshalCBOR(w io.Writer) error { return marshal(t, w) }

// UnmarshalCBOR reads the map form.
func (t *PaymentInfo) UnmarshalCBOR(r io.Reader) error { return unmarshal(t, "PaymentInfo", r) }

// MarshalCBOR writes the map form.
func (t *RetrievalPeer) MarshalCBOR(w io.Writer) error { return marshal(t, w) }

// UnmarshalCBOR reads the map form.
func (t *RetrievalPeer) UnmarshalCBOR(r io.Reader) error { return unmarshal(t, "RetrievalPeer", r) }

// MarshalCBOR writes the map form.
func (t *ClientDealState) MarshalCBOR(w io.Writer) error { return marshal(t, w) }

// UnmarshalCBOR reads the map form.
func (t *ClientDealState) UnmarshalCBOR(r io.Reader) error {
	*t = ClientDealState{}
	return wire.ReadMap(r, "ClientDealState", append(t.published(), t.reason()))
}

// MarshalCBOR writes the map form.
func (t *ProviderDealState) MarshalCBOR(w io.Writer) error { return marshal(t, w) }

// UnmarshalCBOR reads the map form.
func (t *ProviderDealState) UnmarshalCBOR(r io.Reader) error {
	return unmarshal(t, "ProviderDealState", r)
}
