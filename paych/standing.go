package paych

import (
	"context"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
)

// Standing is who pays with an inbound channel, and how much of what was paid on it is certain, in attoFIL: redeemed, or covered
// by the deposit of a channel that is not settling. It may be some seconds old.
func (in *inChannels) Standing(ctx context.Context, ch address.Address) (payer address.Address, secured abi.TokenAmount, err error) {
	p := in.channelOrStranger(ch)
	info, err := in.chainState(ctx, p)
	if err != nil {
		return address.Undef, big.Zero(), err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	redeemed := info.ToSend
	for _, l := range p.redeemed {
		redeemed = big.Max(redeemed, l)
	}
	if info.Collected || info.SettlingAt != 0 {
		return info.From, redeemed, nil
	}
	return info.From, big.Max(redeemed, big.Min(p.promised, info.Balance)), nil
}
