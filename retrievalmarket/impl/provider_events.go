package retrievalimpl

import (
	"context"
	"errors"
	"fmt"
	"time"

	dt "github.com/cartage-dev/cartage/datatransfer"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	"github.com/cartage-dev/cartage/retrievalmarket/legacy"
	"github.com/cartage-dev/cartage/shared"
)

// transferEvent maps what happens on a channel to its deal (4.4).
func (p *Provider) transferEvent(e dt.Event, s dt.ChannelState) {
	pd := p.of(s.ChannelID())
	if pd == nil {
		if e.Code != dt.Accept {
			return
		}
		if legacy.Proposal(s.Voucher()) != nil { // cancelled before there was a channel to close
			p.closeLater(s.ChannelID())
		}
		return
	}
	pd.mu.Lock()
	pd.active = time.Now()
	pd.mu.Unlock()
	switch e.Code {
	case dt.Accept:
		_ = pd.machine.Send(rm.ProviderEventDealAccepted, s.ChannelID())
	case dt.DataQueuedProgress:
		if st, _ := pd.machine.State(); st.Status == rm.DealStatusUnsealed {
			_ = pd.machine.Send(rm.ProviderEventBlockSent, s.Queued())
		}
	case dt.Error:
		pd.mu.Lock()
		refused := pd.refused
		pd.mu.Unlock()
		if refused != nil {
			_ = pd.machine.Send(rm.ProviderEventSaveVoucherFailed, refused)
			return
		}
		_ = pd.machine.Send(rm.ProviderEventDataTransferError, fmt.Errorf("deal data transfer failed: %s", s.Message()))
	case dt.Cancel:
		_ = pd.machine.Send(rm.ProviderEventClientCancelled)
	case dt.CleanupComplete:
		if s.Status() == dt.Completed {
			_ = pd.machine.Send(rm.ProviderEventComplete)
		}
	}
}

// closeLater closes the channel of a deal that is not there to do it.
func (p *Provider) closeLater(chid dt.ChannelID) {
	p.group.Go(func() {
		ctx, cancel := context.WithTimeout(p.ctx, shared.CloseDataTransferTimeout)
		defer cancel()
		if err := p.CloseDataTransfer(ctx, chid); err != nil && !errors.Is(err, dt.ErrChannelNotFound) {
			p.cfg.Log.Warn("close the channel of a deal that has ended", "channel", chid, "error", err)
		}
	})
}

// limit is how far the sender of a channel may go (M-02: a channel that no deal knows may not go anywhere).
func (p *Provider) limit(chid dt.ChannelID) uint64 {
	pd := p.of(chid)
	if pd == nil {
		return 0
	}
	s, _ := pd.machine.State()
	pd.mu.Lock()
	defer pd.mu.Unlock()
	return p.verdict(pd, &s, 0).Limit
}

// limitIsExact tells whether no block of a channel may go beyond its limit: nothing is lent for it.
func (p *Provider) limitIsExact(chid dt.ChannelID) bool {
	pd := p.of(chid)
	if pd == nil {
		return false
	}
	s, _ := pd.machine.State()
	pd.mu.Lock()
	defer pd.mu.Unlock()
	return p.verdict(pd, &s, 0).Exact
}

func (p *Provider) of(chid dt.ChannelID) *providerDeal {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.byChan[chid]
}
