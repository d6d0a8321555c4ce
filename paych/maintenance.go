package paych

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
)

// Maintain looks once at every channel that is not closed and does what is due (3.5): vouchers of a channel that somebody
// settles are redeemed before it is too late, and a settled channel is collected. The caller repeats it at least every 60
// epochs; every step may be repeated. The error joins what could not be done for single channels.
func (r *redeemer) Maintain(ctx context.Context) error {
	_, epoch, err := r.chain.Head(ctx)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	var errs []error
	var wg sync.WaitGroup
	room := make(chan struct{}, maintainAtOnce)
	for _, ch := range r.openChannels() {
		room <- struct{}{}
		wg.Go(func() { // one that waits for the chain does not keep the others back
			defer func() { <-room }()
			if err := r.maintainChannel(ctx, ch, epoch); err != nil {
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
func (r *redeemer) openChannels() []address.Address {
	out, in := r.out.allOutChannels(), r.in.allInChannels()
	maps.DeleteFunc(in, func(ch address.Address, _ *inChannel) bool { return out[ch] != nil })
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make([]address.Address, 0, len(out)+len(in))
	for ch := range out {
		if !r.collected[ch] {
			list = append(list, ch)
		}
	}
	for ch := range in {
		if !r.collected[ch] {
			list = append(list, ch)
		}
	}
	return list
}

func (r *redeemer) maintainChannel(ctx context.Context, ch address.Address, epoch abi.ChainEpoch) error {
	info, err := r.chain.Channel(ctx, ch)
	if err == nil {
		err = r.earnings.bookRedeemed(ctx, info)
	}
	if err != nil {
		return err
	}
	switch {
	case info.Collected: // perhaps by the other side, and before this node looked
		err := r.earnings.bookLoss(ctx, ch, info)
		if err == nil || errors.Is(err, ErrLost) {
			r.mu.Lock()
			r.collected[ch] = true
			r.mu.Unlock()
		}
		return err
	case info.SettlingAt == 0:
		return nil
	}
	r.in.channelOrStranger(ch).forgetChainState()
	if p, err := r.out.outChannelAt(ch); err == nil && !p.isRetired() {
		if err := r.out.updateRecord(ctx, p, func(r *outRecord) { r.Settling = true }); err != nil {
			return err
		}
	}
	if info.pastWindow(epoch) {
		return errors.Join(r.earnings.bookLoss(ctx, ch, info), r.Collect(ctx, ch))
	}
	if r.wallet.Has(info.To) {
		return r.Redeem(ctx, ch)
	}
	return nil
}
