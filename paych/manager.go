package paych

import (
	"context"

	"github.com/ipfs/go-datastore"
)

// Manager keeps the payment channels of a node, those it pays into and those it is paid from. All methods are safe for
// concurrent use. Each part has its own state and lock; none calls upward in this list.
type Manager struct {
	ds datastore.Batching

	*chainClock   // where the chain is, and how fast
	*outChannels  // what this node pays: channels, lanes, vouchers
	*depositor    // what brings money into them
	*inChannels   // what this node is paid: channels, lanes, the voucher book
	*earningsBook // what that brought, and what was lost of it
	*redeemer     // what takes it from the chain
}

// MaySpend asks f before a voucher is signed and before a channel is opened or topped up for a deal; an error of it is the error of the
// call. A voucher that exists already is given again without being asked for. f must not call the manager.
func MaySpend(f func(deal string) error) Option {
	return func(m *Manager) { m.maySpend = f }
}

// Open returns a manager over ds, which is namespaced by the caller. Its lifetime ends with Close, not with ctx. Messages
// that were in flight are waited for again.
func Open(ctx context.Context, ds datastore.Batching, chain Chain, wallet Signer, options ...Option) (*Manager, error) {
	m := &Manager{ds: ds, chainClock: &chainClock{chain: chain}, outChannels: newOutChannels(ds, chain, wallet)}
	m.inChannels = newInChannels(ds, chain, wallet, m.chainClock)
	m.earningsBook = &earningsBook{ds: ds, chain: chain, wallet: wallet, in: m.inChannels}
	m.redeemer = newRedeemer(chain, wallet, m.outChannels, m.inChannels, m.earningsBook)
	for _, o := range options {
		o(m)
	}
	unfinished, err := m.loadOutbound(ctx)
	if err == nil {
		err = m.loadInbound(ctx)
	}
	if err != nil {
		return nil, err
	}
	m.depositor = newDepositor(ctx, chain, m.outChannels)
	for _, p := range unfinished {
		if err := m.enqueue(p, nil); err != nil {
			return nil, err
		}
	}
	return m, nil
}
