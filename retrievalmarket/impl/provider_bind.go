package retrievalimpl

import (
	"context"

	dt "github.com/cartage-dev/cartage/datatransfer"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	"github.com/cartage-dev/cartage/retrievalmarket/legacy"
)

// boundChannel is a channel and the proposal that it was opened with.
type boundChannel struct {
	id       dt.ChannelID
	proposal *rm.DealProposal
}

// channelsByDeal lists the channels that clients opened for deals with this provider.
func (p *Provider) channelsByDeal(ctx context.Context) map[rm.ProviderDealIdentifier][]boundChannel {
	out := map[rm.ProviderDealIdentifier][]boundChannel{}
	all, err := p.cfg.Hub.dt.InProgressChannels(ctx)
	if err != nil {
		p.cfg.Log.Warn("channels of deals that were cut off from them are not found", "error", err)
		return out
	}
	for chid, s := range all {
		if prop := legacy.Proposal(s.Voucher()); prop != nil && chid.Responder == p.cfg.Hub.self {
			id := rm.ProviderDealIdentifier{Receiver: chid.Initiator, DealID: prop.ID}
			out[id] = append(out[id], boundChannel{chid, prop})
		}
	}
	return out
}

// withChannel gives a stored deal its channel, the latest that was opened with its proposal: both are on stable storage before an acceptance leaves,
// which of them belong together is not. Without it a voucher of that channel would belong to nobody.
func (p *Provider) withChannel(d rm.ProviderDealState, channels func() map[rm.ProviderDealIdentifier][]boundChannel) rm.ProviderDealState {
	if d.ChannelID != (dt.ChannelID{}) {
		return d
	}
	for _, c := range channels()[d.Identifier()] {
		if c.id.ID >= d.ChannelID.ID && sameProposal(c.proposal, &d.DealProposal) {
			d.ChannelID = c.id
		}
	}
	return d
}
