package sim

import (
	"github.com/cartage-dev/cartage/paych/marketnode"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	retrievalimpl "github.com/cartage-dev/cartage/retrievalmarket/impl"
)

// Hostility is how a client cheats.
type Hostility int

// Honest is a client that does not.
const Honest Hostility = 0

// clientNode is what a client pays with.
func (w *world) clientNode(_ *party, r *process) rm.RetrievalClientNode {
	return marketnode.Client{Manager: r.payments}
}

// clientTargets is where a client's blocks go.
func (w *world) clientTargets(_ *party, r *process) retrievalimpl.Targets { return r.targets }
