package node

import (
	"context"
	"sync/atomic"

	"github.com/filecoin-project/go-state-types/big"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/internal/reason"
	"github.com/cartage-dev/cartage/money"
)

// selling counts who sells at present: deals are taken while somebody does.
type selling struct{ now atomic.Int32 }

func (s *selling) check() error {
	if s.now.Load() > 0 {
		return nil
	}
	return reason.PeerNotProvider.Errorf("this node does not sell at present")
}

// Ask is what a seller asks for. The zero value gives everything away.
type Ask struct {
	Price  money.Price  // of data; rounded down to whole attoFIL a byte, as deals over libp2p have it
	Unseal money.Amount // before the first byte of a deal
	// Interval is how many bytes are sent between two payments; 0 is 1 MiB. A buyer may propose less.
	Interval uint64
}

// defaultInterval is the interval of an ask that names none.
const defaultInterval = 1 << 20

// terms are the ask as deals have it.
func (a Ask) terms() (api.Ask, error) {
	perByte, _ := a.Price.PerByte()
	out := api.Ask{PricePerByte: "0", UnsealPrice: "0", PaymentInterval: a.Interval}
	for _, m := range []struct {
		amount money.Amount
		to     *string
	}{{perByte, &out.PricePerByte}, {a.Unseal, &out.UnsealPrice}} {
		switch {
		case m.amount.Units.Int == nil || m.amount.Units.IsZero():
		case m.amount.Asset != money.FIL:
			return out, api.Errorf(api.CodeUsage, "Name a price in FIL.", "deals over libp2p are paid in FIL, not in %s", m.amount.Asset)
		case m.amount.Units.LessThan(big.Zero()):
			return out, api.Errorf(api.CodeUsage, "Name a price of 0 or more.", "the price %s is below zero", m.amount)
		default:
			*m.to = m.amount.Units.String()
		}
	}
	if out.PaymentInterval == 0 {
		out.PaymentInterval = defaultInterval
	}
	return out, nil
}

// Provide puts a file, a folder, or a CAR archive (named .car) up for sale, and returns its piece. What is not an archive is copied into one in the home.
// Nothing is sold before Serve. Providing the same again changes nothing.
func (n *Node) Provide(ctx context.Context, path string) (*api.Piece, error) {
	return told(n.api.Provide(ctx, path))
}

// Serve sells all pieces of the node for what is asked, until the context ends, and then returns nil. Deals that are in progress then go on until the node
// closes; new ones are refused. The ask is stored and replaces the last one, also for another Serve that runs. The functions in ready are called when
// deals are taken.
func (n *Node) Serve(ctx context.Context, ask Ask, ready ...func()) error {
	terms, err := ask.terms()
	if err != nil {
		return err
	}
	if _, err := told(n.api.SetAsk(ctx, terms)); err != nil {
		return err
	}
	n.selling.now.Add(1)
	defer n.selling.now.Add(-1)
	for _, tell := range ready {
		tell()
	}
	<-ctx.Done()
	return nil
}
