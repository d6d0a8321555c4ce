package paych

import (
	"context"
	"fmt"
	"maps"
	"sync"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/google/uuid"
	"github.com/ipfs/go-datastore"
)

// outChannels are the channels that this node pays into, with their lanes and the vouchers it signed.
type outChannels struct {
	ds       datastore.Batching
	chain    Chain
	wallet   Signer
	maySpend func(deal string) error // nil: always

	mu     sync.Mutex             // before that of a channel
	pairs  map[string]*outChannel // the open channel from one address to another
	byAddr map[address.Address]*outChannel
}

func newOutChannels(ds datastore.Batching, chain Chain, wallet Signer) *outChannels {
	return &outChannels{ds: ds, chain: chain, wallet: wallet, pairs: map[string]*outChannel{}, byAddr: map[address.Address]*outChannel{}}
}

// checkSpending asks whether money may be spent for a deal now.
func (o *outChannels) checkSpending(deal string) error {
	if o.maySpend == nil {
		return nil
	}
	return o.maySpend(deal)
}

// loadOutbound reads the channels, and returns those with a message that was in flight when the process ended.
func (o *outChannels) loadOutbound(ctx context.Context) (unfinished []*outChannel, err error) {
	err = eachRecord(ctx, o.ds, "/o/pair", func(c *outRecord) error {
		p := newOutChannel(*c)
		if p.hasMessage() {
			unfinished = append(unfinished, p)
		}
		if !c.Settling {
			o.pairs[pairKey(c.From, c.To)] = p
		}
		if !c.Address.Empty() {
			o.byAddr[c.Address] = p
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	err = eachRecord(ctx, o.ds, "/o/lane", func(l *laneRecord) error {
		p := o.byAddr[l.Channel]
		if p == nil {
			return fmt.Errorf("lane %d belongs to unknown channel %s", l.Lane, l.Channel)
		}
		p.lanes[l.Lane] = l
		return nil
	})
	if err != nil {
		return nil, err
	}
	return unfinished, o.skipNoncesAfterRestore(ctx)
}

// knownChannel is the channel with an address, or nil.
func (o *outChannels) knownChannel(ch address.Address) *outChannel {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.byAddr[ch]
}

// addChannel gives a channel the address that the chain gave it.
func (o *outChannels) addChannel(ch address.Address, p *outChannel) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.byAddr[ch] = p
}

// allOutChannels are those that have an address.
func (o *outChannels) allOutChannels() map[address.Address]*outChannel {
	o.mu.Lock()
	defer o.mu.Unlock()
	return maps.Clone(o.byAddr)
}

func pairKey(from, to address.Address) string { return string(from.Bytes()) + string(to.Bytes()) }

// channelBetween returns the owner of the channel from one address to another.
func (o *outChannels) channelBetween(from, to address.Address) (*outChannel, error) {
	if !o.wallet.Has(from) {
		return nil, fmt.Errorf("%w: %s", ErrNoKey, from)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	k := pairKey(from, to)
	p := o.pairs[k]
	if p == nil || p.isRetired() {
		p = newOutChannel(outRecord{ID: uuid.NewString(), From: from, To: to, Amount: big.Zero(), Promised: big.Zero(), Reserved: big.Zero(), Pending: big.Zero()})
		o.pairs[k] = p
	}
	return p, nil
}

// isRetired tells whether the channel is on its way to be closed: a new deal gets a new one.
func (p *outChannel) isRetired() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.rec.Settling && !p.rec.Address.Empty()
}

func (o *outChannels) outChannelAt(ch address.Address) (*outChannel, error) {
	if p := o.knownChannel(ch); p != nil {
		return p, nil
	}
	return nil, fmt.Errorf("%w: %s is not one that this node pays into", ErrUnknownChannel, ch)
}

// Uses tells whether a payment channel of an address is being made.
func (o *outChannels) Uses(a address.Address) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, p := range o.pairs {
		p.mu.Lock()
		busy := p.rec.From == a && (p.hasMessage() || p.serving)
		p.mu.Unlock()
		if busy {
			return true
		}
	}
	return false
}
