package paych

import (
	"context"
	"errors"
	"maps"
	"sync"
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/ipfs/go-datastore"
	"golang.org/x/time/rate"
)

// inChannels are the channels that this node is paid from, with the voucher book of their lanes.
type inChannels struct {
	ds        datastore.Batching
	chain     Chain
	wallet    Signer
	clock     *chainClock
	strangers *rate.Limiter // of channels that have not paid yet

	mu       sync.Mutex // not held together with that of a channel, but by bindDeal, inside it
	channels map[address.Address]*inChannel
	bound    map[string]dealRef // the lane that pays for a deal
}

func newInChannels(ds datastore.Batching, chain Chain, wallet Signer, clock *chainClock) *inChannels {
	return &inChannels{ds: ds, chain: chain, wallet: wallet, clock: clock, strangers: rate.NewLimiter(strangerRate, 4*strangerRate),
		channels: map[address.Address]*inChannel{}, bound: map[string]dealRef{}}
}

func (in *inChannels) loadInbound(ctx context.Context) error {
	err := eachRecord(ctx, in.ds, "/i/lane", func(l *laneRecord) error {
		p := in.inChannelAt(l.Channel)
		p.lanes[l.Lane] = l
		p.promised = big.Add(p.promised, l.Amount)
		if l.Deal != "" {
			in.bound[l.Deal] = dealRef{l.Channel, l.Lane}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return eachRecord(ctx, in.ds, paidPrefix, func(r *paidRecord) error {
		in.inChannelAt(r.Channel).redeemed[r.Lane] = r.Redeemed
		return nil
	})
}

// knownChannel is a channel that has paid, or nil.
func (in *inChannels) knownChannel(ch address.Address) *inChannel {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.channels[ch]
}

// allInChannels are those that have paid.
func (in *inChannels) allInChannels() map[address.Address]*inChannel {
	in.mu.Lock()
	defer in.mu.Unlock()
	return maps.Clone(in.channels)
}

// channelOrStranger returns the owner of a channel, or one that is not remembered.
func (in *inChannels) channelOrStranger(ch address.Address) *inChannel {
	in.mu.Lock()
	defer in.mu.Unlock()
	if p := in.channels[ch]; p != nil {
		return p
	}
	p := newInChannel(ch)
	p.limiter = in.strangers
	return p
}

// keepChannel keeps the owner of a channel that has paid, with what is known of it.
func (in *inChannels) keepChannel(p *inChannel) *inChannel {
	in.mu.Lock()
	defer in.mu.Unlock()
	if known := in.channels[p.addr]; known != nil {
		return known
	}
	p.limiter = rate.NewLimiter(voucherRate, 2*voucherRate)
	in.channels[p.addr] = p
	return p
}

func (in *inChannels) inChannelAt(ch address.Address) *inChannel {
	in.mu.Lock()
	defer in.mu.Unlock()
	p := in.channels[ch]
	if p == nil {
		p = newInChannel(ch)
		in.channels[ch] = p
	}
	return p
}

// chainState returns the channel on the chain, cached; while the chain is away the last known state serves (D20).
func (in *inChannels) chainState(ctx context.Context, p *inChannel) (*ChannelInfo, error) {
	info, err := in.lastChainState(ctx, p)
	if err != nil && info != nil && !errors.Is(err, ErrUnknownChannel) {
		return info, nil
	}
	return info, err
}

// lastChainState is what the chain says of a channel, or, with the error that kept it from saying it now, what it said last, which may be nothing.
func (in *inChannels) lastChainState(ctx context.Context, p *inChannel) (*ChannelInfo, error) {
	p.mu.Lock()
	info, fresh := p.info, time.Since(p.readAt) < stateTTL
	p.mu.Unlock()
	if info != nil && fresh {
		return info, nil
	}
	next, err := in.readChainState(ctx, p)
	if err != nil {
		return info, err
	}
	return next, nil
}

// readChainState asks the chain for a channel.
func (in *inChannels) readChainState(ctx context.Context, p *inChannel) (*ChannelInfo, error) {
	next, err := in.chain.Channel(ctx, p.addr)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	p.info, p.readAt = next, time.Now()
	p.syncFromChain(next)
	p.mu.Unlock()
	return next, nil
}
