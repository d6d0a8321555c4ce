package node

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"time"

	"github.com/filecoin-project/go-state-types/big"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/internal/reason"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	"github.com/cartage-dev/cartage/retrievalmarket/impl/clientstates"
)

// codeOf is the exit code that the end of a deal stands for.
func codeOf(d rm.ClientDealState) int {
	switch why := clientstates.ReasonOf(&d); {
	case why == reason.None && d.Status == rm.DealStatusCompleted:
		return reason.ExitDone
	case why == reason.None:
		return reason.ExitOther
	case why.Exit() == reason.ExitDone: // somebody ended it, and nothing is there
		return reason.ExitInterrupted
	default:
		return why.Exit()
	}
}

// standsStill tells whether nothing goes on by itself any more: the deal has ended, or its money is used up.
func standsStill(d rm.ClientDealState) bool {
	return clientstates.IsFinal(d.Status) || d.Status == rm.DealStatusInsufficientFunds
}

// await shows the progress of a deal until it ends, or ctx does.
func (n *Node) await(ctx context.Context, r *run, id rm.DealID, moved func()) rm.ClientDealState {
	var received atomic.Uint64
	if d, err := n.Client.GetDeal(id); err == nil {
		received.Store(d.TotalReceived)
	}
	ended, more := make(chan rm.ClientDealState, 1), make(chan struct{}, 1)
	unsub := n.Client.SubscribeToEvents(func(_ rm.ClientEvent, d rm.ClientDealState) {
		if d.ID != id {
			return
		}
		r.set(func(v *api.Retrieval) { n.show(r, v, d) })
		if d.TotalReceived > received.Swap(d.TotalReceived) {
			select {
			case more <- struct{}{}:
			default:
			}
		}
		if standsStill(d) {
			select {
			case ended <- d:
			default:
			}
		}
	})
	defer unsub()
	if d, err := n.Client.GetDeal(id); err != nil || standsStill(d) {
		return d
	}
	for {
		select {
		case <-more:
			moved()
		case d := <-ended:
			return d
		case <-ctx.Done():
			return rm.ClientDealState{}
		}
	}
}

// show shows a deal, with those that brought other parts before it; it is called while r is set.
func (n *Node) show(r *run, v *api.Retrieval, d rm.ClientDealState) {
	v.ID, v.Status, v.Message = "c"+d.ID.String(), statusName(d.Status), d.Message
	v.Reason, v.Blame = d.Reason, ""
	if why := clientstates.ReasonOf(&d); why != reason.None {
		v.Blame = why.Blame().String()
	}
	v.Received, v.Spent = r.past.received+d.TotalReceived, big.Add(r.past.sum(), d.FundsSpent).String()
	v.Owed = big.Add(r.past.sum(), clientstates.Terms(&d).Due(d.TotalReceived)).String()
	v.Seconds = time.Since(r.begun).Seconds()
	n.carrier(v, d)
	if d.PaymentInfo != nil {
		v.PaymentChan = d.PaymentInfo.PayCh.String()
	}
}

// statusName is a status as people read it.
func statusName(s rm.DealStatus) string { return strings.TrimPrefix(s.String(), "DealStatus") }

// succeed finishes the file of a deal that is complete, and tells whether that is a part of what is wanted.
func (n *Node) succeed(r *run, w Want, d rm.ClientDealState) (part bool, err error) {
	b, err := bought(d)
	if err != nil {
		return false, err
	}
	part = !b.same(w.all())
	c, err := n.targets.Acquire(b.root, b.sel)
	if err == nil {
		err = c.Finalize()
	}
	if err == nil && !part && r.snapshot().Into == intoStore {
		err = n.blocks.take(n.ctx, c.Store)
	}
	vouchers := uint64(0)
	if n.Payments != nil {
		if b, berr := n.Payments.Best(n.ctx, false, clientstates.DealKey(d.ID)); berr == nil && b != nil {
			vouchers = b.Nonce
		}
	}
	r.set(func(v *api.Retrieval) {
		n.show(r, v, d)
		if v.Vouchers = r.past.vouchers + vouchers; part {
			r.past.add(d, vouchers)
		}
		if err == nil {
			v.Bytes, v.Blocks = c.Bytes(), c.Len()
		}
	})
	if c != nil {
		err = errors.Join(err, n.targets.Release(c))
	}
	return part, err
}
