package x402

import "encoding/json"

// Version is the version of the protocol.
const Version = 2

// Names of the headers.
const (
	HeaderRequired  = "PAYMENT-REQUIRED"
	HeaderPayment   = "PAYMENT-SIGNATURE"
	HeaderPaymentV1 = "X-PAYMENT" // an alias, if what it holds is of version 2
	HeaderReceipt   = "PAYMENT-RESPONSE"
)

// Resource is what is sold.
type Resource struct {
	URL         string `json:"url"`
	Description string `json:"description,omitempty"`
	MimeType    string `json:"mimeType,omitempty"`
}

// Offer is one way to pay for a resource.
type Offer struct {
	Scheme            string         `json:"scheme"`
	Network           string         `json:"network"`
	Amount            Amount         `json:"amount"`
	Asset             string         `json:"asset"`
	PayTo             string         `json:"payTo"`
	MaxTimeoutSeconds int            `json:"maxTimeoutSeconds"`
	Extra             map[string]any `json:"extra,omitempty"`
}

// Same reports whether two offers are the same but for what is extra.
func (o Offer) Same(p Offer) bool {
	return o.Scheme == p.Scheme && o.Network == p.Network && o.Amount.Cmp(p.Amount) == 0 && o.Asset == p.Asset && o.PayTo == p.PayTo
}

// Challenge asks for a payment: the answer to a request without one, or with one that was not taken.
type Challenge struct {
	X402Version int            `json:"x402Version"`
	Error       string         `json:"error"`
	Resource    Resource       `json:"resource"`
	Accepts     []Offer        `json:"accepts"`
	Extensions  map[string]any `json:"extensions,omitempty"`
}

// Payment is what a client sends: the offer that it took, and what the scheme of the offer wants.
type Payment struct {
	X402Version int             `json:"x402Version"`
	Accepted    Offer           `json:"accepted"`
	Payload     json.RawMessage `json:"payload"`
	Resource    *Resource       `json:"resource,omitempty"`
	Extensions  json.RawMessage `json:"extensions,omitempty"`
}

// Receipt says what was taken.
type Receipt struct {
	Success     bool           `json:"success"`
	ErrorReason string         `json:"errorReason,omitempty"`
	Payer       string         `json:"payer,omitempty"`
	Transaction string         `json:"transaction"`
	Network     string         `json:"network"`
	Amount      string         `json:"amount"`
	Extra       map[string]any `json:"extra,omitempty"`
}

// Refusal is why a payment was not taken. Nothing was charged.
type Refusal struct {
	Code    string
	Message string
	// Status is that of the answer: 402, 400 for what cannot be read, 503 for what passes.
	Status int
	// State goes into the extra part of the offer that was taken: what a client needs to pay right.
	State      map[string]any
	RetryAfter int // seconds; 0: the same payment will not be taken
}

// Error implements error.
func (r *Refusal) Error() string { return r.Message }

// Codes that every scheme has.
const (
	CodeRequired  = "payment_required"
	CodeMalformed = "payment_malformed"
	CodeTerms     = "terms_changed"
)
