package retrievalimpl

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/cartage-dev/cartage/internal/reason"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	"github.com/cartage-dev/cartage/retrievalmarket/network"
)

// HandleQueryStream answers one query; it always answers (M-18) and touches no piece.
func (p *Provider) HandleQueryStream(s network.RetrievalQueryStream) {
	defer s.Close()
	q, err := s.ReadQuery()
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(p.ctx, queryWork)
	defer cancel()
	_ = s.WriteQueryResponse(p.answer(ctx, s.RemotePeer(), q))
}

const errFreeOnly = "this provider asks for money and has no ledger to take it: its operator has to set one"

// whyFreeOnly says why no money is taken now; nothing: it is.
func (p *Provider) whyFreeOnly(ctx context.Context) string {
	if p.cfg.FreeOnly {
		return errFreeOnly
	}
	if p.cfg.RefusesMoney == nil {
		return ""
	}
	if err := p.cfg.RefusesMoney(ctx); err != nil {
		return p.ownFault("money cannot be taken", err)
	}
	return ""
}

// unable is what others are told when no new deal is taken; the cause is logged, not told.
func (p *Provider) unable() string {
	if p.cfg.TakesDeals == nil {
		return ""
	}
	err := p.cfg.TakesDeals()
	if err == nil {
		return ""
	}
	p.cfg.Log.Warn("no new deal is taken", "error", err)
	return fmt.Sprintf("no new deal is taken at present: %s", reason.From(err))
}

// ownFault is what others are told of a fault of this node.
func (p *Provider) ownFault(what string, cause error) string {
	return reason.ToldStrangers(p.cfg.Log, what, cause)
}

func priced(amounts ...abi.TokenAmount) bool {
	for _, a := range amounts {
		if a.Sign() > 0 {
			return true
		}
	}
	return false
}

// SetAddress changes where the offers from now on want to be paid.
func (p *Provider) SetAddress(to address.Address) { p.paidTo.Store(&to) }

// queryWork bounds what one query may ask of the node.
const queryWork = 5 * time.Second

func (p *Provider) answer(ctx context.Context, from peer.ID, q rm.Query) rm.QueryResponse {
	ask, to := p.GetAsk(), *p.paidTo.Load()
	r := rm.QueryResponse{
		Status: rm.QueryResponseUnavailable, PieceCIDFound: rm.QueryItemUnavailable, PaymentAddress: to,
		MinPricePerByte: ask.PricePerByte, MaxPaymentInterval: ask.PaymentInterval, MaxPaymentIntervalIncrease: ask.PaymentIntervalIncrease,
		UnsealPrice: ask.UnsealPrice,
	}
	if r.Message = p.unable(); r.Message != "" {
		r.Status = rm.QueryResponseError
		return r
	}
	tok, _, err := p.cfg.Node.GetChainHead(ctx)
	if err != nil {
		r.Status, r.Message = rm.QueryResponseError, p.ownFault("failed to get the chain head", err)
		return r
	}
	if priced(ask.PricePerByte, ask.UnsealPrice) {
		if why := p.whyFreeOnly(ctx); why != "" {
			r.Status, r.Message = rm.QueryResponseError, why
			return r
		}
	}
	worker, err := p.cfg.Node.GetMinerWorkerAddress(ctx, to, tok)
	if err == nil && worker.Empty() {
		worker = to
	}
	if err != nil {
		r.Status, r.Message = rm.QueryResponseError, p.ownFault("failed to look up payment address", err)
		return r
	}
	r.PaymentAddress = worker
	f, err := p.cfg.Pieces.Find(ctx, q.PayloadCID, q.PieceCID)
	switch {
	case errors.Is(err, rm.ErrNotFound):
		r.MinPricePerByte, r.UnsealPrice = big.Zero(), big.Zero()
		r.Message = "piece info for cid not found (deal has not been added to a piece yet)"
	case err != nil:
		r.Status, r.Message = rm.QueryResponseError, p.ownFault("failed to fetch piece to retrieve from", err)
	default:
		if ask, err = p.price(ctx, from, q.PayloadCID, f.Info); err != nil {
			r.Status, r.Message = rm.QueryResponseError, p.ownFault("failed to name a price", err)
			return r
		}
		if p.cfg.Pricing == nil {
			p.quotes.given(from, *ask)
		}
		offer := p.withDeposit(ctx, from, *ask, f.Size)
		ask = &offer
		r.MinPricePerByte, r.MaxPaymentInterval, r.MaxPaymentIntervalIncrease, r.UnsealPrice = ask.PricePerByte, ask.PaymentInterval, ask.PaymentIntervalIncrease, ask.UnsealPrice
		r.Status, r.PieceCIDFound, r.Size = rm.QueryResponseAvailable, rm.QueryItemAvailable, f.Size
	}
	return r
}
