package testmarket

import (
	"context"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/filecoin-project/go-state-types/builtin/v8/paych"

	vouchers "github.com/cartage-dev/cartage/paych"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
)

// ClientBook is the bank as a client's node with a voucher book.
type ClientBook struct {
	Client
	Owner address.Address // the ids of deals are unique for one owner only
}

var _ rm.ClientBook = ClientBook{}

// CreateDealVoucher implements retrievalmarket.ClientBook.
func (c ClientBook) CreateDealVoucher(ctx context.Context, deal string, ch address.Address, n uint64, amount abi.TokenAmount, bytes uint64) (*paych.SignedVoucher, rm.Outcome, error) {
	v, err := c.CreatePaymentVoucher(ctx, ch, amount, n, nil)
	if err != nil {
		return nil, rm.Applied, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return v, c.enter(c.Owner.String()+deal, v, bytes), nil
}

// enter puts a voucher into the book; mu is held.
func (b *SimulatedBank) enter(deal string, v *paych.SignedVoucher, bytes uint64) rm.Outcome {
	if old := b.books[deal]; old != nil && old.Amount.GreaterThanEqual(v.Amount) {
		return rm.Replayed
	}
	b.books[deal] = &rm.DealVoucher{Deal: deal, Amount: v.Amount, Bytes: bytes, Voucher: v}
	return rm.Applied
}

// BestForDeal implements retrievalmarket.ClientBook.
func (c ClientBook) BestForDeal(_ context.Context, deal string) (*rm.DealVoucher, error) {
	return c.best(c.Owner.String() + deal), nil
}

// BestForDeal implements retrievalmarket.ProviderBook.
func (p ProviderBook) BestForDeal(_ context.Context, deal string) (*rm.DealVoucher, error) {
	return p.best(p.Owner.String() + deal), nil
}

func (b *SimulatedBank) best(deal string) *rm.DealVoucher {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.books[deal]
}

// ReleaseDeal implements retrievalmarket.ClientBook.
func (c ClientBook) ReleaseDeal(context.Context, string) error { return nil }

// ProviderBook is the bank as a provider's node with a voucher book.
type ProviderBook struct {
	Provider
	Owner address.Address
}

var _ rm.ProviderBook = ProviderBook{}

// SaveDealVoucher implements retrievalmarket.ProviderBook.
func (p ProviderBook) SaveDealVoucher(_ context.Context, deal string, ch address.Address, v *paych.SignedVoucher, bytes uint64) (abi.TokenAmount, rm.Outcome, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	deal = p.Owner.String() + deal
	l, err := p.checked(ch, v)
	if err == nil && l.deal != "" && l.deal != deal {
		err = vouchers.ErrLaneBound
	}
	if err != nil {
		return big.Zero(), rm.Foreign, err
	}
	l.deal = deal
	l.take(v)
	out := p.enter(deal, v, bytes)
	return p.books[deal].Amount, out, nil
}
