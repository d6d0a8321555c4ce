package node

import (
	"fmt"
	"strings"
	"time"

	"github.com/filecoin-project/go-state-types/big"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/internal/reason"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	"github.com/cartage-dev/cartage/retrievalmarket/impl/clientstates"
)

// follow waits for the end of a deal, and makes another one over the same file when the provider refuses to go on (D23).
func (n *Node) follow(r *run, w Want, req api.RetrieveRequest, id rm.DealID, fresh bool) {
	defer func() {
		if err := n.targets.trim(n.ctx, n.parts.Config.Retrieval.CacheBytes, time.Now()); err != nil && n.ctx.Err() == nil {
			n.log.Warn("keep the cache within its quota", "error", err)
		}
		close(r.done)
	}()
	for i := 1; ; i++ {
		d := n.await(r, id)
		if n.ctx.Err() != nil {
			r.set(func(v *api.Retrieval) { v.Done, v.Code, v.Message = true, api.CodeInterrupted, "the node was stopped" })
			return
		}
		if d.Status == rm.DealStatusCompleted {
			n.succeed(r, w, d)
			return
		}
		code := codeOf(d)
		if d.Status == rm.DealStatusInsufficientFunds {
			d.Message = fmt.Sprintf("the budget of %s attoFIL is used up: %s are needed for the next step; what was received is kept, run it again with a larger --budget",
				d.TotalFunds, big.Add(d.TotalFunds, d.VoucherShortfall))
		}
		if i < maxDeals && req.Provider != "" && mayPass(clientstates.ReasonOf(&d), fresh) {
			if here, err := n.here(r, w, req); err == nil && here {
				return
			}
			next, err := n.propose(n.ctx, r, w, req)
			if err == nil {
				id, fresh = next, true
				continue
			}
		}
		r.set(func(v *api.Retrieval) { v.Done, v.Code, v.Message = true, code, d.Message })
		n.discard(w)
		return
	}
}

// mayPass tells whether another deal may succeed where one ended for a reason. One of an earlier call may also be refused because the
// provider gave it up meanwhile.
func mayPass(why reason.Reason, fresh bool) bool {
	return why.CanPass() || !fresh && (why == reason.PeerRefused || why == reason.PeerCancelled)
}

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

// stopped tells whether nothing goes on by itself any more: the deal has ended, or its money is used up.
func stopped(d rm.ClientDealState) bool {
	return clientstates.IsFinal(d.Status) || d.Status == rm.DealStatusInsufficientFunds
}

// await shows the progress of a deal until it ends.
func (n *Node) await(r *run, id rm.DealID) rm.ClientDealState {
	ended := make(chan rm.ClientDealState, 1)
	unsub := n.Client.SubscribeToEvents(func(_ rm.ClientEvent, d rm.ClientDealState) {
		if d.ID != id {
			return
		}
		r.set(func(v *api.Retrieval) { n.show(v, d, r.begun) })
		if stopped(d) {
			select {
			case ended <- d:
			default:
			}
		}
	})
	defer unsub()
	if d, err := n.Client.GetDeal(id); err != nil || stopped(d) {
		return d
	}
	select {
	case d := <-ended:
		return d
	case <-n.ctx.Done():
		return rm.ClientDealState{}
	}
}

func (n *Node) show(v *api.Retrieval, d rm.ClientDealState, begun time.Time) {
	v.ID, v.Status, v.Message = "c"+d.ID.String(), strings.TrimPrefix(d.Status.String(), "DealStatus"), d.Message
	v.Reason, v.Blame = d.Reason, ""
	if why := clientstates.ReasonOf(&d); why != reason.None {
		v.Blame = why.Blame().String()
	}
	v.Received, v.Spent = d.TotalReceived, d.FundsSpent.String()
	v.Owed = clientstates.Terms(&d).Due(d.TotalReceived).String()
	v.Seconds = time.Since(begun).Seconds()
	n.carrier(v, d)
	if d.PaymentInfo != nil {
		v.PaymentChan = d.PaymentInfo.PayCh.String()
	}
}

func (n *Node) succeed(r *run, w Want, d rm.ClientDealState) {
	c, err := n.targets.acquire(w.Root, w.Part.Node())
	if err == nil {
		err = c.Finalize()
	}
	if err == nil && r.snapshot().Into == intoStore {
		err = n.blocks.take(n.ctx, c.Store)
	}
	vouchers := uint64(0)
	if n.Payments != nil {
		if b, berr := n.Payments.Best(n.ctx, false, clientstates.DealKey(d.ID)); berr == nil && b != nil {
			vouchers = b.Nonce
		}
	}
	r.set(func(v *api.Retrieval) {
		n.show(v, d, r.begun)
		v.Done, v.Vouchers = true, vouchers
		if err != nil {
			v.Code, v.Message = api.CodeOther, err.Error()
			return
		}
		v.OK, v.Bytes, v.Blocks = true, c.Bytes(), c.Len()
	})
	if c != nil {
		_ = n.targets.release(c)
	}
}
