package paych

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/filecoin-project/go-state-types/builtin/v8/paych"
	"github.com/google/uuid"
	"github.com/ipfs/go-cid"
)

// Bounds of a sweep.
const (
	waitLimit      = 10 * time.Minute // for messages to be on the chain (20 epochs); after that the state is looked at anew
	maxMessage     = 500              // that one sweep sends for a channel at once
	maintainAtOnce = 16               // channels
)

// redeemer moves money from channels to accounts: it redeems vouchers, settles and collects.
type redeemer struct {
	chain    Chain
	wallet   Signer
	out      *outChannels
	in       *inChannels
	earnings *earningsBook

	mu         sync.Mutex
	fundsLocks map[address.Address]chan struct{} // who moves the money of a channel
	collected  map[address.Address]bool          // nothing can happen any more
}

func newRedeemer(chain Chain, wallet Signer, out *outChannels, in *inChannels, earnings *earningsBook) *redeemer {
	return &redeemer{chain: chain, wallet: wallet, out: out, in: in, earnings: earnings, fundsLocks: map[address.Address]chan struct{}{}, collected: map[address.Address]bool{}}
}

// lockFunds locks the money of a channel: one message that moves it at a time, or one sweep. The lock is held while the chain is waited for, so
// whoever wants it waits no longer than its ctx.
func (r *redeemer) lockFunds(ctx context.Context, ch address.Address) (unlock func(), err error) {
	r.mu.Lock()
	l := r.fundsLocks[ch]
	if l == nil {
		l = make(chan struct{}, 1)
		r.fundsLocks[ch] = l
	}
	r.mu.Unlock()
	select {
	case l <- struct{}{}:
		return func() { <-l }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Settle starts to close a channel. A payee redeems its best vouchers first, and takes none after.
func (r *redeemer) Settle(ctx context.Context, ch address.Address) error {
	info, err := r.chain.Channel(ctx, ch)
	if err != nil {
		return err
	}
	if p := r.out.knownChannel(ch); p != nil { // before the message: no voucher may be signed that could come too late
		if err := r.out.updateRecord(ctx, p, func(r *outRecord) { r.Settling = true }); err != nil {
			return err
		}
	}
	by := r.ownAddress(info)
	if by == info.To {
		if err := r.Redeem(ctx, ch); err != nil {
			return err
		}
	}
	if info.SettlingAt != 0 {
		return nil
	}
	defer r.in.channelOrStranger(ch).forgetChainState()
	return r.submitAndWait(ctx, Op{Kind: OpSettle, From: by, Channel: ch})
}

// forgetChainState drops what is known of the chain, so that it is read again before the next voucher.
func (p *inChannel) forgetChainState() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.readAt = time.Time{}
}

// Redeem puts the best voucher of every lane into the channel, if it adds something, the largest gain first. A lane that
// fails does not keep the others back; one whose gain is below the fee of its message is left for later. All messages are sent before the
// first is waited for.
func (r *redeemer) Redeem(ctx context.Context, ch address.Address) error {
	unlock, err := r.lockFunds(ctx, ch)
	if err != nil {
		return err
	}
	defer unlock()
	info, err := r.chain.Channel(ctx, ch)
	if err != nil {
		return err
	}
	gains := r.in.channelOrStranger(ch).redeemGains(info)
	if len(gains) == 0 {
		return nil
	}
	var errs []error
	for len(gains) > 0 {
		n := min(len(gains), maxMessage)
		errs = append(errs, r.redeemLanes(ctx, info, gains[:n]))
		gains = gains[n:]
	}
	if info, err = r.chain.Channel(ctx, ch); err == nil {
		err = r.earnings.bookRedeemed(ctx, info)
	}
	return errors.Join(append(errs, err)...)
}

// redeemLanes sends the vouchers of several lanes and waits until they are on the chain.
func (r *redeemer) redeemLanes(ctx context.Context, info *ChannelInfo, gains []redeemGain) error {
	var errs []error
	sent := map[cid.Cid]uint64{}
	for _, g := range gains {
		op := Op{Kind: OpRedeem, From: info.To, Channel: info.Address, Voucher: g.voucher, Intent: uuid.New(), MaxFee: g.amount}
		switch msg, err := r.chain.Submit(ctx, op); {
		case errors.Is(err, ErrFee): // dust
		case err != nil:
			errs = append(errs, fmt.Errorf("redeem lane %d of %s: %w", g.voucher.Lane, info.Address, err))
		default:
			sent[msg] = g.voucher.Lane
		}
	}
	wctx, cancel := context.WithTimeout(ctx, waitLimit)
	defer cancel()
	for msg, lane := range sent {
		if err := r.waitApplied(wctx, msg); err != nil {
			errs = append(errs, fmt.Errorf("redeem lane %d of %s: %w", lane, info.Address, err))
		}
	}
	return errors.Join(errs...)
}

// waitApplied waits for a message and returns its failure.
func (r *redeemer) waitApplied(ctx context.Context, msg cid.Cid) error {
	receipt, err := r.chain.Wait(ctx, msg)
	if err == nil {
		return receipt.failureOf(msg)
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("%w: %s, after %s", ErrPending, msg, waitLimit)
	}
	return err
}

// Plan is what closing a channel would do now; nothing is sent.
type Plan struct {
	Channel    address.Address
	Epoch      abi.ChainEpoch // now
	Redeem     []Redeem       // what Redeem and Settle of a payee would put into it
	Adds       abi.TokenAmount
	SettlingAt abi.ChainEpoch // 0: nobody settles it
	Collected  bool
	Redeemed   abi.TokenAmount // on the chain now: what Collect alone would pay the payee
	ToPayee    abi.TokenAmount // by Collect, after the redeeming
	ToPayer    abi.TokenAmount
}

// Redeem is a voucher that is worth redeeming.
type Redeem struct {
	Lane uint64
	Adds abi.TokenAmount
}

// Plan says what Redeem, Settle and Collect would do to a channel.
func (r *redeemer) Plan(ctx context.Context, ch address.Address) (*Plan, error) {
	info, err := r.chain.Channel(ctx, ch)
	if err != nil {
		return nil, err
	}
	_, epoch, err := r.chain.Head(ctx)
	if err != nil {
		return nil, err
	}
	out := &Plan{Channel: ch, Epoch: epoch, Adds: big.Zero(), SettlingAt: info.SettlingAt, Collected: info.Collected, Redeemed: info.ToSend, ToPayee: big.Zero(), ToPayer: big.Zero()}
	if info.Collected {
		return out, nil
	}
	if r.wallet.Has(info.To) && (info.SettlingAt == 0 || epoch < info.SettlingAt) {
		for _, g := range r.in.channelOrStranger(ch).redeemGains(info) {
			out.Redeem = append(out.Redeem, Redeem{g.voucher.Lane, g.amount})
			out.Adds = big.Add(out.Adds, g.amount)
		}
	}
	out.ToPayee = big.Add(info.ToSend, out.Adds)
	out.ToPayer = big.Sub(info.Balance, out.ToPayee)
	return out, nil
}

// redeemGain is what redeeming a voucher would add.
type redeemGain struct {
	voucher *paych.SignedVoucher
	amount  abi.TokenAmount
}

// redeemGains lists the vouchers that are worth redeeming in a state of the chain.
func (p *inChannel) redeemGains(info *ChannelInfo) []redeemGain {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []redeemGain
	for n, l := range p.lanes {
		if l.Voucher == nil {
			continue
		}
		c, ok := info.Lanes[n]
		switch {
		case !ok:
			out = append(out, redeemGain{l.Voucher, l.Voucher.Amount})
		case c.Nonce < l.Voucher.Nonce && c.Redeemed.LessThan(l.Voucher.Amount):
			out = append(out, redeemGain{l.Voucher, big.Sub(l.Voucher.Amount, c.Redeemed)})
		}
	}
	slices.SortFunc(out, func(a, b redeemGain) int { return big.Cmp(b.amount, a.amount) })
	return out
}

// Collect ends a settled channel: everybody gets what is theirs. On a collected one it does nothing.
func (r *redeemer) Collect(ctx context.Context, ch address.Address) error {
	unlock, err := r.lockFunds(ctx, ch)
	if err != nil {
		return err
	}
	defer unlock()
	info, err := r.chain.Channel(ctx, ch)
	if err != nil || info.Collected {
		return err
	}
	return r.submitAndWait(ctx, Op{Kind: OpCollect, From: r.ownAddress(info), Channel: ch})
}

// ownAddress is the address of ours in a channel, the payee's if both are.
func (r *redeemer) ownAddress(info *ChannelInfo) address.Address {
	if r.wallet.Has(info.To) {
		return info.To
	}
	return info.From
}

func (r *redeemer) submitAndWait(ctx context.Context, op Op) error {
	op.Intent = uuid.New()
	msg, err := r.chain.Submit(ctx, op)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, waitLimit)
	defer cancel()
	return r.waitApplied(ctx, msg)
}
