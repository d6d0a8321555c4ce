package node

import (
	"context"
	"sync"
	"time"

	"github.com/filecoin-project/go-state-types/abi"

	"github.com/cartage-dev/cartage/gateway"
	"github.com/cartage-dev/cartage/gateway/paychannel"
	"github.com/cartage-dev/cartage/paych/ledger"
	"github.com/cartage-dev/cartage/paych/lotus"
)

// namedChain is a chain with a name of its own.
type namedChain interface {
	NetworkID(ctx context.Context) (string, error)
}

var _ namedChain = (*ledger.Client)(nil)

// chainName is the name of the chain in offers over HTTP. A chain that does not answer is asked again after a while.
type chainName struct {
	n *Node

	mu    sync.Mutex
	name  string
	asked time.Time
}

// How long the chain may take to say its name, and how long it is left alone when it did not.
const (
	nameTime  = 2 * time.Second
	nameAgain = 10 * time.Second
)

// get is the name, or nothing while it is not known.
func (c *chainName) get() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.name != "" || time.Since(c.asked) < nameAgain {
		return c.name
	}
	c.asked = time.Now()
	switch chain := c.n.parts.Chain.(type) {
	case *lotus.Chain:
		c.name = "fil:f"
	case namedChain:
		ctx, stop := context.WithTimeout(c.n.ctx, nameTime)
		defer stop()
		id, err := chain.NetworkID(ctx)
		if err != nil {
			c.n.log.Warn("the ledger does not say its name: nothing can be bought over HTTP", "error", err)
			return ""
		}
		c.name = "cartage:" + id
	}
	return c.name
}

// cashiers take payments over HTTP, at the price of the ask. There is no unseal price over HTTP.
func (n *Node) cashiers(window uint64) []gateway.Cashier {
	return append(n.evm.cashier(window), paychannel.New(paychannel.Config{
		Manager: n.Payments, Store: n.space(payments), Network: (&chainName{n: n}).get, PayTo: n.wallet, Window: window, Now: n.parts.Now,
		Price: func() abi.TokenAmount { return n.asks.GetAsk().PricePerByte },
	}))
}
