package retrievalimpl

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime"

	"github.com/cartage-dev/cartage/carstore"
	dt "github.com/cartage-dev/cartage/datatransfer"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	"github.com/cartage-dev/cartage/retrievalmarket/legacy"
)

// limitReached is asked when a channel has sent up to its limit.
func (p *Provider) limitReached(chid dt.ChannelID) (bool, dt.VoucherResult, error) {
	pd := p.of(chid)
	if pd == nil {
		return false, nil, nil // not ours to say; the credit of the channel is zero
	}
	state, _ := pd.machine.State()
	sent := p.sent(p.ctx, chid)
	pd.mu.Lock() // a payment is taken before this request or after it
	defer pd.mu.Unlock()
	v := p.verdict(pd, &state, sent)
	if v.Send {
		return true, nil, nil
	}
	_ = pd.machine.Send(rm.ProviderEventPaymentRequested, sent)
	return true, legacy.ResponseOf(&rm.DealResponse{ID: pd.id.DealID, Status: rm.DealStatusFundsNeeded, PaymentOwed: v.Owed(pd.paid)}, state.LegacyProtocol), dt.ErrPause
}

// allSent is asked when the last block has left.
func (p *Provider) allSent(chid dt.ChannelID) (bool, dt.VoucherResult, error) {
	pd := p.of(chid)
	if pd == nil {
		return false, nil, nil
	}
	state, _ := pd.machine.State()
	owed := p.sentWhole(pd, p.sent(p.ctx, chid))
	if owed.IsZero() {
		return true, legacy.ResponseOf(&rm.DealResponse{ID: pd.id.DealID, Status: rm.DealStatusCompleted, PaymentOwed: big.Zero()}, state.LegacyProtocol), nil
	}
	return true, legacy.ResponseOf(&rm.DealResponse{ID: pd.id.DealID, Status: rm.DealStatusFundsNeededLastPayment, PaymentOwed: owed}, state.LegacyProtocol), dt.ErrPause
}

// sentWhole tells a deal that all of it is sent, and returns what is still owed for it.
func (p *Provider) sentWhole(pd *providerDeal, sent uint64) abi.TokenAmount {
	state, _ := pd.machine.State()
	pd.mu.Lock()
	pd.sentAll, pd.whole = true, sent
	owed := p.verdict(pd, &state, sent).Owed(pd.paid)
	pd.mu.Unlock()
	_ = pd.machine.Send(rm.ProviderEventBlockSent, sent)
	_ = pd.machine.Send(rm.ProviderEventBlocksCompleted)
	if owed.IsZero() {
		p.settleLoan(p.ctx, pd)
	} else {
		_ = pd.machine.Send(rm.ProviderEventPaymentRequested, sent)
	}
	return owed
}

// open returns the reader of a deal's piece, which is acquired once.
func (pd *providerDeal) open(ctx context.Context) (Reader, error) {
	pd.opening.Lock()
	defer pd.opening.Unlock()
	if pd.reader != nil {
		return pd.reader, nil
	}
	if pd.released.Load() {
		return nil, errors.New("deal is over")
	}
	s, _ := pd.machine.State()
	if s.PieceInfo == nil {
		return nil, errors.New("deal has no piece")
	}
	r, err := pd.pieces.Acquire(ctx, s.PieceInfo.PieceCID)
	pd.reader = r
	return r, err
}

// BufferedReader is a Reader that reads into a buffer of the caller, if that is large enough.
type BufferedReader interface {
	Reader
	GetInto(buf []byte, c cid.Cid) ([]byte, error)
}

func (pd *providerDeal) get(ctx context.Context, buf []byte, c cid.Cid) ([]byte, error) {
	r, err := pd.open(ctx)
	if err != nil {
		pd.unreadable()
		return nil, err
	}
	var data []byte
	if into, ok := r.(BufferedReader); ok {
		data, err = into.GetInto(buf, c)
	} else {
		data, err = r.Get(c)
	}
	if err != nil {
		pd.unreadable()
	}
	return data, err
}

// unreadable notes that a block cannot be read: that is not what the client failed to pay. Whoever reads ahead when the deal ends finds its piece given
// back, and that is no fault.
func (pd *providerDeal) unreadable() {
	if !pd.released.Load() {
		pd.blameOurselves()
	}
}

func (pd *providerDeal) release() error {
	pd.opening.Lock()
	defer pd.opening.Unlock()
	pd.released.Store(true)
	r := pd.reader
	pd.reader = nil
	if r == nil {
		return nil
	}
	return r.Close()
}

// linkSystem serves a deal out of its piece.
func (p *Provider) linkSystem(chid dt.ChannelID, id rm.DealID) *ipld.LinkSystem {
	pd := p.of(chid)
	if pd == nil || pd.released.Load() {
		return p.linkSystemAgain(chid, id)
	}
	if pd.id.DealID != id {
		return nil
	}
	late := sync.OnceValue(func() *againReader { return p.again(chid, id) })
	ls := carstore.LinksInto(func(buf []byte, c cid.Cid) ([]byte, error) {
		data, err := pd.get(p.ctx, buf, c)
		if err != nil && pd.released.Load() && p.ctx.Err() == nil { // the piece was given back since
			if a := late(); a != nil {
				return a.get(c)
			}
		}
		return data, err
	})
	return &ls
}

// Unseal implements providerstates.ProviderDealEnvironment: the piece is opened, and must hold the payload, before
// anything is sent.
func (p *Provider) Unseal(ctx context.Context, deal rm.ProviderDealState) error {
	p.mu.Lock()
	pd := p.deals[deal.Identifier()]
	p.mu.Unlock()
	if pd == nil {
		return fmt.Errorf("deal %s: %w", deal.Identifier(), rm.ErrNotFound)
	}
	r, err := pd.open(ctx)
	if err != nil {
		pd.blameOurselves()
		return err
	}
	if _, err := r.Get(deal.PayloadCID); err != nil {
		pd.blameOurselves()
		return fmt.Errorf("the piece does not serve the payload: %w", err)
	}
	pd.mu.Lock()
	pd.unsealed = true
	pd.mu.Unlock()
	return nil
}

// Release implements providerstates.ProviderDealEnvironment.
func (p *Provider) Release(deal rm.ProviderDealState) error {
	p.mu.Lock()
	pd := p.deals[deal.Identifier()]
	p.mu.Unlock()
	if pd == nil {
		return nil
	}
	return pd.release()
}

// ResumeDataTransfer implements providerstates.ProviderDealEnvironment. A channel is resumed once, when its data can be read: later
// pauses wait for payments, and only those end them.
func (p *Provider) ResumeDataTransfer(ctx context.Context, chid dt.ChannelID) error {
	if pd := p.of(chid); pd != nil {
		pd.mu.Lock()
		done := pd.resumed
		pd.resumed = true
		pd.mu.Unlock()
		if done {
			return nil
		}
	}
	if s, err := p.cfg.Hub.dt.ChannelState(ctx, chid); err == nil && s.Status() == dt.Finalizing {
		return nil // everything was sent before a restart of this process
	}
	return p.cfg.Hub.dt.ResumeDataTransferChannel(ctx, chid)
}

// CloseDataTransfer implements providerstates.ProviderDealEnvironment.
func (p *Provider) CloseDataTransfer(ctx context.Context, chid dt.ChannelID) error {
	return p.cfg.Hub.dt.CloseDataTransferChannel(ctx, chid)
}
