package node

import (
	"context"
	"sync"
	"time"

	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/internal/node/download"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
)

// run is how a retrieval is shown while it is in progress or just over: equal requests attach to it.
type run struct {
	begun time.Time

	mu   sync.Mutex
	view api.Retrieval
	past past
	news chan struct{} // closed at the next change
}

// past is what the deals brought and cost that have ended in this run: each was of a part.
type past struct {
	received, vouchers uint64
	spent              abi.TokenAmount
}

// add notes a deal that is complete.
func (p *past) add(d rm.ClientDealState, vouchers uint64) {
	p.received += d.TotalReceived
	p.vouchers += vouchers
	p.spent = big.Add(p.sum(), d.FundsSpent)
}

func (p *past) sum() abi.TokenAmount {
	if p.spent.Nil() {
		return big.Zero()
	}
	return p.spent
}

func newRun(key string, w Want, req api.RetrieveRequest) *run {
	return &run{begun: time.Now(), news: make(chan struct{}), view: api.Retrieval{Key: key, Root: w.Root.String(), Status: "Starting", Spent: "0", Owed: "0",
		Transport: api.TransportAuto, Into: req.Into, State: download.Running.String()}}
}

func (r *run) snapshot() *api.Retrieval {
	r.mu.Lock()
	defer r.mu.Unlock()
	v := r.view
	return &v
}

func (r *run) set(f func(v *api.Retrieval)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	seq := r.view.Seq
	f(&r.view)
	r.view.Seq = seq + 1
	close(r.news)
	r.news = make(chan struct{})
}

// after waits for a change that is later than seq, until ctx ends.
func (r *run) after(ctx context.Context, seq uint64) {
	for {
		r.mu.Lock()
		news, now := r.news, r.view.Seq
		r.mu.Unlock()
		if now != seq {
			return
		}
		select {
		case <-news:
		case <-ctx.Done():
			return
		}
	}
}
