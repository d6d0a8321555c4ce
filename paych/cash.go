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
	waitLimit  = 10 * time.Minute // for messages to be on the chain (20 epochs); after that the state is looked at anew
	maxMessage = 500              // that one sweep sends for a channel at once
	maintainAtOnce = 16               // channels
)

// lockFunds locks the money of a channel: one message that moves it at a time, or one sweep. The lock is held while the chain is waited for, so
// whoever wants it waits no longer than its ctx.
func (m *Manager) lockFunds(ctx context.Context, ch address.Address) (unlock func(), err error) {
	m.mu.Lock()
	l := m.fundsLocks[ch]
	if l == nil {
		l = make(chan struct{}, 1)
		m.fundsLocks[ch] = l
	}
	m.mu.Unlock()
	select {
	case l <- struct{}{}:
		return func() { <-l }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Settle starts to close a channel. A payee redeems its best vouchers first, and takes none after.
func (m *Manager) Settle(ctx context.Context, ch address.Address) error {
	info, err := m.chain.Channel(ctx, ch)
	if err != nil {
		return err
	}
	m.mu.Lock()
	p := m.byAddr[ch]
	m.mu.Unlock()
	if p != nil { // before the message: no voucher may be signed that could come too late
		if err := m.updateRecord(ctx, p, func(r *outRecord) { r.Settling = true }); err != nil {
			return err
		}
	}
	by := m.ownAddress(info)
	if by == info.To {
		if err := m.Redeem(ctx, ch); err != nil {
			return err
		}
	}
	if info.SettlingAt != 0 {
		return nil
	}
	defer m.channelOrStranger(ch).forgetChainState()
	return m.submitAndWait(ctx, Op{Kind: OpSettle, From: by, Channel: ch})
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
func (m *Manager) Redeem(ctx context.Context, ch address.Address) error {
	unlock, err := m.lockFunds(ctx, ch)
	if err != nil {
		return err
	}
	defer unlock()
	info, err := m.chain.Channel(ctx, ch)
	if err != nil {
		return err
	}
	gains := m.channelOrStranger(ch).redeemGains(info)
	if len(gains) == 0 {
		return nil
	}
	var errs []error
	for len(gains) > 0 {
		n := min(len(gains), maxMessage)
		errs = append(errs, m.redeemLanes(ctx, info, gains[:n]))
		gains = gains[n:]
	}
	if info, err = m.chain.Channel(ctx, ch); err == nil {
		err = m.bookRedeemed(ctx, info)
	}
	return errors.Join(append(errs, err)...)
}

// redeemLanes sends the vouchers of several lanes and waits until they are on the chain.
func (m *Manager) redeemLanes(ctx context.Context, info *ChannelInfo, gains []redeemGain) error {
	var errs []error
	sent := map[cid.Cid]uint64{}
	for _, g := range gains {
		op := Op{Kind: OpRedeem, From: info.To, Channel: info.Address, Voucher: g.voucher, Intent: uuid.New(), MaxFee: g.amount}
		switch msg, err := m.chain.Submit(ctx, op); {
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
		if err := m.waitApplied(wctx, msg); err != nil {
			errs = append(errs, fmt.Errorf("redeem lane %d of %s: %w", lane, info.Address, err))
		}
	}
	return errors.Join(errs...)
}

// waitApplied waits for a message and returns its failure.
func (m *Manager) waitApplied(ctx context.Context, msg cid.Cid) error {
	r, err := m.chain.Wait(ctx, msg)
	if err == nil {
		return r.failureOf(msg)
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
func (m *Manager) Plan(ctx context.Context, ch address.Address) (*Plan, error) {
	info, err := m.chain.Channel(ctx, ch)
	if err != nil {
		return nil, err
	}
	_, epoch, err := m.chain.Head(ctx)
	if err != nil {
		return nil, err
	}
	out := &Plan{Channel: ch, Epoch: epoch, Adds: big.Zero(), SettlingAt: info.SettlingAt, Collected: info.Collected, Redeemed: info.ToSend, ToPayee: big.Zero(), ToPayer: big.Zero()}
	if info.Collected {
		return out, nil
	}
	if m.wallet.Has(info.To) && (info.SettlingAt == 0 || epoch < info.SettlingAt) {
		for _, g := range m.channelOrStranger(ch).redeemGains(info) {
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
func (m *Manager) Collect(ctx context.Context, ch address.Address) error {
	unlock, err := m.lockFunds(ctx, ch)
	if err != nil {
		return err
	}
	defer unlock()
	info, err := m.chain.Channel(ctx, ch)
	if err != nil || info.Collected {
		return err
	}
	return m.submitAndWait(ctx, Op{Kind: OpCollect, From: m.ownAddress(info), Channel: ch})
}

// ownAddress is the address of ours in a channel, the payee's if both are.
func (m *Manager) ownAddress(info *ChannelInfo) address.Address {
	if m.wallet.Has(info.To) {
		return info.To
	}
	return info.From
}

func (m *Manager) submitAndWait(ctx context.Context, op Op) error {
	op.Intent = uuid.New()
	msg, err := m.chain.Submit(ctx, op)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, waitLimit)
	defer cancel()
	return m.waitApplied(ctx, msg)
}

// Maintain looks once at every channel that is not closed and does what is due (3.5): vouchers of a channel that somebody
// settles are redeemed before it is too late, and a settled channel is collected. The caller repeats it at least every 60
// epochs; every step may be repeated. The error joins what could not be done for single channels.
func (m *Manager) Maintain(ctx context.Context) error {
	_, epoch, err := m.chain.Head(ctx)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	var errs []error
	var wg sync.WaitGroup
	room := make(chan struct{}, maintainAtOnce)
	for _, ch := range m.openChannels() {
		room <- struct{}{}
		wg.Go(func() { // one that waits for the chain does not keep the others back
			defer func() { <-room }()
			if err := m.maintainChannel(ctx, ch, epoch); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, fmt.Errorf("payment channel %s: %w", ch, err))
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// openChannels lists the channels that were not seen collected.
func (m *Manager) openChannels() []address.Address {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]address.Address, 0, len(m.byAddr)+len(m.channels))
	for ch := range m.byAddr {
		if !m.collected[ch] {
			out = append(out, ch)
		}
	}
	for ch := range m.channels {
		if m.byAddr[ch] == nil && !m.collected[ch] {
			out = append(out, ch)
		}
	}
	return out
}

func (m *Manager) maintainChannel(ctx context.Context, ch address.Address, epoch abi.ChainEpoch) error {
	info, err := m.chain.Channel(ctx, ch)
	if err == nil {
		err = m.bookRedeemed(ctx, info)
	}
	if err != nil {
		return err
	}
	switch {
	case info.Collected: // perhaps by the other side, and before this node looked
		err := m.bookLoss(ctx, ch, info)
		if err == nil || errors.Is(err, ErrLost) {
			m.mu.Lock()
			m.collected[ch] = true
			m.mu.Unlock()
		}
		return err
	case info.SettlingAt == 0:
		return nil
	}
	m.channelOrStranger(ch).forgetChainState()
	if p, err := m.outChannelAt(ch); err == nil && !p.isRetired() {
		if err := m.updateRecord(ctx, p, func(r *outRecord) { r.Settling = true }); err != nil {
			return err
		}
	}
	if info.pastWindow(epoch) {
		return errors.Join(m.bookLoss(ctx, ch, info), m.Collect(ctx, ch))
	}
	if m.wallet.Has(info.To) {
		return m.Redeem(ctx, ch)
	}
	return nil
}
