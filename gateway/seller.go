package gateway

import (
	"context"

	"github.com/ipfs/go-cid"

	"github.com/cartage-dev/cartage/gateway/x402"
)

// Seller says what costs money, and takes it.
type Seller struct {
	// Cashiers are the ways to pay, in the order in which their offers are shown.
	Cashiers []Cashier
	// Free tells what is given away, by the CID of the URL and the number of the piece that has it; nil: nothing.
	Free func(root cid.Cid, piece uint64) bool
}

// Cashier makes offers and reads the payments that take them. It is safe for concurrent use.
type Cashier interface {
	// Offers are the ways to pay for n bytes now; none if they cost nothing.
	Offers(n uint64) []x402.Offer
	// Read reads a payment without looking anything up; nil if it takes no offer of this cashier. Errors are *x402.Refusal.
	Read(p x402.Payment) (Draft, error)
}

// Draft is a payment that was read.
type Draft interface {
	// Channel is what it draws on: payments of one channel are taken one after the other.
	Channel() string
	// Buys reports whether it pays for bytes; one that asks for money back does not.
	Buys() bool
	// Check compares it with the terms and the book, and changes nothing. Errors are *x402.Refusal, or those of a store.
	Check(ctx context.Context, p Purchase) (Sale, error)
}

// Purchase is what a payment is for.
type Purchase struct {
	Bytes uint64
	// Key is the same for the same bytes under the same terms: a payment that comes again with the same key is answered again.
	Key [32]byte
}

// Sale is a payment that would be taken.
type Sale struct {
	Receipt x402.Receipt
	Charge  x402.Amount
	Asset   string
	// Replayed says that it was taken before, with the same key: the bytes are sent again, and nothing is charged.
	Replayed bool
	// Spoiled books what was done already when the window cannot be served after all, a deposit for example, and gives the receipt of that; nil: nothing was.
	Spoiled func(ctx context.Context) (*x402.Receipt, error)
	// Commit takes it: when it returns nil, payment and receipt are on stable storage, and the bytes may leave. With an error nothing was taken.
	// Of one that is replayed it notes that.
	Commit func(ctx context.Context) error
}
