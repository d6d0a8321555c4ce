package paych

import (
	"context"
	"errors"
	"fmt"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/filecoin-project/go-state-types/builtin/v8/paych"
	"github.com/ipfs/go-datastore"
)

// ErrNotExact means that a voucher does not add what was asked for, not more and not less.
var ErrNotExact = errors.New("voucher does not add exactly what is asked for")

// Checked is a voucher that is good by itself, on a channel that pays this node. Only the book was not asked yet.
type Checked struct {
	owner   *inChannel
	info    *ChannelInfo
	voucher *paych.SignedVoucher
}

// From is the address that pays.
func (c *Checked) From() address.Address { return c.info.From }

// Settling reports whether the channel is being closed.
func (c *Checked) Settling() bool { return c.info.SettlingAt != 0 }

// Deposit is what the channel holds, in attoFIL.
func (c *Checked) Deposit() abi.TokenAmount { return c.info.Balance }

// Lane is what the book has of the lane of the voucher, or the chain, if the book was lost: then there is no voucher and no deal.
func (c *Checked) Lane() Entry {
	c.owner.mu.Lock()
	defer c.owner.mu.Unlock()
	l := c.owner.lanes[c.voucher.Lane]
	if l == nil {
		return Entry{Channel: c.owner.addr, Lane: c.voucher.Lane, Amount: big.Zero(), Credit: big.Zero()}
	}
	return l.bookEntry()
}

// booking is what a voucher is taken for.
type booking struct {
	deal     string
	voucher  *paych.SignedVoucher
	expected abi.TokenAmount // by how much the lane has to grow, at least
	exact    bool            // and at most
	covers   uint64          // bytes that the lane has paid for with it
	added    bool            // covers are bytes beside those of before
	also     func(ctx context.Context, w datastore.Write) error
}

// checkVoucher makes the checks of a voucher that need no book (rows 1 to 13). Vouchers that come too fast wait.
func (in *inChannels) checkVoucher(ctx context.Context, ch address.Address, v *paych.SignedVoucher) (*Checked, error) {
	if err := CheckStateless(v, ch); err != nil {
		return nil, err
	}
	p := in.channelOrStranger(ch)
	if err := p.limiterOf(v.Lane).Wait(ctx); err != nil {
		return nil, err
	}
	info, err := in.chainState(ctx, p)
	if err != nil {
		return nil, err
	}
	if err := in.checkChannel(ctx, p, info); err != nil {
		return nil, err
	}
	if err := VerifyVoucher(v, info.From); err != nil {
		return nil, err
	}
	return &Checked{in.keepChannel(p), info, v}, nil // only now: addresses that somebody made up cost nothing
}

// checkChannel makes the checks that need the chain (3.5, rows 10 to 13).
func (in *inChannels) checkChannel(ctx context.Context, p *inChannel, info *ChannelInfo) error {
	if info.Collected {
		return fmt.Errorf("%w: %s", ErrChannelSettled, info.Address)
	}
	if !in.wallet.Has(info.To) {
		return fmt.Errorf("%w: %s pays %s", ErrWrongPayee, info.Address, info.To)
	}
	if err := in.clock.CheckWindow(ctx); err != nil {
		return err
	}
	if info.SettlingAt != 0 {
		switch _, epoch, err := in.chain.Head(ctx); {
		case err != nil:
			return err
		case info.pastWindow(epoch):
			return fmt.Errorf("%w: %s, since epoch %d", ErrChannelSettled, info.Address, info.SettlingAt)
		}
	}
	return in.checkDepth(ctx, p, info)
}

// checkDepth waits for the confirmations of a channel. One that was seen deep enough is not asked for again: a chain that is away does
// not stop the deals on it.
func (in *inChannels) checkDepth(ctx context.Context, p *inChannel, info *ChannelInfo) error {
	f := in.chain.Finality()
	p.mu.Lock()
	deep := p.confirmed
	p.mu.Unlock()
	if f == 0 || deep {
		return nil
	}
	_, epoch, err := in.chain.Head(ctx)
	if err != nil {
		return err
	}
	if epoch-info.OpenedAt < f {
		return fmt.Errorf("%w: opened at %d, now %d, needed depth %d", ErrUnconfirmed, info.OpenedAt, epoch, f)
	}
	p.mu.Lock()
	p.confirmed = true
	p.mu.Unlock()
	return nil
}

// bookSynced compares a voucher with the book and puts it there, in one synced commit.
func (in *inChannels) bookSynced(ctx context.Context, c *Checked, b booking) (abi.TokenAmount, error) {
	grown, err := in.bookVoucher(ctx, c.owner, c.info, b)
	if errors.Is(err, ErrInsufficientChannel) {
		// A top-up may be there already. That the chain cannot be asked now is not the payer's fault.
		var info *ChannelInfo
		if info, err = in.readChainState(ctx, c.owner); err == nil {
			c.info = info
			grown, err = in.bookVoucher(ctx, c.owner, info, b)
		}
	}
	if err != nil {
		return grown, err
	}
	// Also for a replay: the first call may still be flushing it.
	return grown, in.ds.Sync(ctx, datastore.NewKey("/"))
}

// CheckExact checks a voucher of somebody who pays in advance: everything but the book. Nothing is stored. A channel that is settling is refused.
func (in *inChannels) CheckExact(ctx context.Context, ch address.Address, v *paych.SignedVoucher) (*Checked, error) {
	c, err := in.checkVoucher(ctx, ch, v)
	if err == nil && c.Settling() {
		return nil, fmt.Errorf("%w: %s", ErrChannelSettling, ch)
	}
	return c, err
}

// Exact is a payment in advance.
type Exact struct {
	Deal   string          // to which the lane of the voucher is bound
	Amount abi.TokenAmount // by which the lane has to grow, in attoFIL
	Bytes  uint64          // that are bought
	// Also writes what belongs to the payment into its commit; nil: nothing.
	Also func(ctx context.Context, w datastore.Write) error
}

// AcceptExact takes a voucher that was checked: when it returns nil, voucher, deal, day and what Also writes are on stable storage, all or none.
// A voucher that adds another amount, or that was taken before, is ErrNotExact and changes nothing.
func (in *inChannels) AcceptExact(ctx context.Context, c *Checked, e Exact) error {
	grown, err := in.bookSynced(ctx, c, booking{deal: e.Deal, voucher: c.voucher, expected: e.Amount, exact: true, covers: e.Bytes, added: true, also: e.Also})
	switch {
	case errors.Is(err, ErrStaleNonce), errors.Is(err, ErrAmountNotIncreasing), errors.Is(err, ErrTooSmall):
		return fmt.Errorf("%w: %w", ErrNotExact, err)
	case err == nil && grown.IsZero() && e.Amount.Sign() > 0:
		return fmt.Errorf("%w: it was taken before", ErrNotExact)
	}
	return err
}

// AcceptVoucher checks a voucher strictly, binds its lane to the deal, stores it in one synced commit, and returns by how
// much the lane grew. The same voucher again adds nothing. Zero and no error: replayed or older. Vouchers that come too fast wait. One of a
// channel that is settling is stored too, and redeemed at once: it counts when the chain has taken it, else the error is ErrChannelSettling.
func (m *Manager) AcceptVoucher(ctx context.Context, deal string, ch address.Address, v *paych.SignedVoucher, expected abi.TokenAmount, covers uint64) (abi.TokenAmount, error) {
	c, err := m.checkVoucher(ctx, ch, v)
	if err != nil {
		return big.Zero(), err
	}
	grown, err := m.bookSynced(ctx, c, booking{deal: deal, voucher: v, expected: expected, covers: covers})
	if err != nil || c.info.SettlingAt == 0 {
		return grown, err
	}
	if err := m.redeemSettling(ctx, c.info, v.Lane, v.Amount); err != nil {
		return big.Zero(), err
	}
	return grown, nil
}
