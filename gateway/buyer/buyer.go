package buyer

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/url"

	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/ipfs/go-cid"

	"github.com/cartage-dev/cartage/gateway"
	"github.com/cartage-dev/cartage/gateway/x402"
	"github.com/cartage-dev/cartage/internal/reason"
)

// Store keeps the blocks of an order. Put is given blocks that were checked, in the order of the CAR.
type Store interface {
	// Size is the size of a block, and whether it is there.
	Size(c cid.Cid) (int, bool)
	// Get reads a block.
	Get(c cid.Cid) ([]byte, error)
	Put(c cid.Cid, data []byte) error
}

// Signed is a request that was paid for: it is repeated as it is until its bytes are here.
type Signed struct {
	Offer   x402.Offer
	Payment x402.Payment
	From    uint64 // of the CAR
	To      uint64
	Done    bool // its receipt came
}

// Purse signs payments for one order at one gateway. What it signs, and what it pays for, is on stable storage when it returns.
type Purse interface {
	// Takes reports whether it can take an offer.
	Takes(o x402.Offer) bool
	// Last is the last request that was signed; nil if there was none.
	Last(ctx context.Context) (*Signed, error)
	// Sign takes an offer for a range of the CAR; estimate is what the rest of the order will cost, this included. It refuses what is above the
	// budget of the order with reason.PriceAbove or reason.BudgetUsed, and then nothing was signed.
	Sign(ctx context.Context, o x402.Offer, from, to uint64, estimate abi.TokenAmount) (*Signed, error)
	// Confirm notes that the receipt of the last request came.
	Confirm(ctx context.Context) error
	// Renew begins anew with the gateway, which denies what was paid before: what it has not delivered is lost.
	Renew(ctx context.Context) error
	// Spent is what was signed for the order in all.
	Spent(ctx context.Context) (abi.TokenAmount, error)
}

// Progress is how an order stands.
type Progress struct {
	Blocks, Bytes uint64 // that were fetched
	Paid          abi.TokenAmount
	Windows       uint64 // that were paid for
	Position      uint64 // in the CAR
	Size          uint64 // of the CAR; 0 if the gateway does not say
}

// Order is what is bought.
type Order struct {
	Query gateway.Query
	Store Store
	Purse Purse // nil: only what is free
	// Window is how many bytes are paid for at once; 0: what the gateway advises. It never is more than the gateway sells at once.
	Window uint64
	// Report is told how it stands, after each block; nil: nobody is.
	Report func(Progress)
}

// Config is what a Buyer is made of.
type Config struct {
	HTTP *http.Client // nil: one with its own connections
	// Insecure allows HTTP without TLS to others than this machine.
	Insecure bool
	Log      *slog.Logger
}

// Buyer fetches CARs from gateways. It is safe for concurrent use.
type Buyer struct {
	cfg  Config
	http *http.Client
}

// New makes a buyer. Redirects are followed within one origin only.
func New(cfg Config) *Buyer {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	c := http.Client{Transport: newTransport()}
	if cfg.HTTP != nil {
		c = *cfg.HTTP
	}
	c.CheckRedirect = sameOrigin
	return &Buyer{cfg: cfg, http: &c}
}

// Close ends idle connections.
func (b *Buyer) Close() { b.http.CloseIdleConnections() }

// Find asks what a CAR costs, without paying.
func (b *Buyer) Find(ctx context.Context, base *url.URL, q gateway.Query) (Quote, error) {
	if err := b.allowed(base); err != nil {
		return Quote{}, err
	}
	return b.quote(ctx, base, q)
}

// Fetch fetches what is missing of an order from the gateway at a URL, and pays for it. It returns when everything is in the store.
func (b *Buyer) Fetch(ctx context.Context, base *url.URL, o Order) (Progress, error) {
	if err := b.allowed(base); err != nil {
		return Progress{Paid: big.Zero()}, err
	}
	q, err := b.quote(ctx, base, o.Query)
	if err != nil {
		return Progress{Paid: big.Zero()}, err
	}
	header, err := o.Query.Header()
	if err != nil {
		return Progress{Paid: big.Zero()}, err
	}
	f := &fetch{b: b, base: base, order: o, quote: q, ctx: ctx, window: q.windowOf(o.Window), header: uint64(len(header)), progress: Progress{Paid: big.Zero(), Size: q.Size, Position: uint64(len(header))}}
	f.feed = feed{pos: uint64(len(header)), more: f.more}
	defer f.close()
	err = gateway.Visit(ctx, f, o.Query, f.told)
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		err = reason.BlockUnexpected.Errorf("the gateway sent less than it promised: %w", err)
	}
	return f.progress, err
}
