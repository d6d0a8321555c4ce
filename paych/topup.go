package paych

import (
	"context"
	"fmt"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
)

// TopUp gives a deal that has a lane more than it was given: from what is free on its channel, else by a deposit, for which it waits.
func (d *depositor) TopUp(ctx context.Context, deal string, from, to address.Address, more abi.TokenAmount) error {
	r, err := d.GetOrCreate(ctx, deal, from, to, more)
	if err != nil {
		return err
	}
	if r.Wait.Defined() {
		if _, err := d.WaitReady(ctx, r.Wait); err != nil {
			return err
		}
	}
	p, l, err := d.out.openLaneOf(ctx, deal)
	if err != nil {
		return err
	}
	return d.out.enlargeLane(ctx, p, l)
}

// Replenish gives a deal that has a lane what is missing to a total, and tells whether anything was: a deal that waited for its money while the process
// was started again may have found it with another one.
func (d *depositor) Replenish(ctx context.Context, deal string, from, to address.Address, total abi.TokenAmount) (added bool, err error) {
	_, l, err := d.out.openLaneOf(ctx, deal)
	if err != nil {
		return false, err
	}
	missing := big.Sub(total, l.Reserved)
	if missing.Sign() <= 0 {
		return false, nil
	}
	return true, d.TopUp(ctx, deal, from, to, missing)
}

// openLaneOf finds the lane of a deal and its channel.
func (o *outChannels) openLaneOf(ctx context.Context, deal string) (*outChannel, *laneRecord, error) {
	var ref dealRef
	found, err := getRecord(ctx, o.ds, dealKey("o", deal), &ref)
	if err != nil {
		return nil, nil, err
	}
	if !found {
		return nil, nil, fmt.Errorf("%w: deal %s has no lane", ErrUnknownChannel, deal)
	}
	p, err := o.outChannelAt(ref.Channel)
	if err != nil {
		return nil, nil, err
	}
	p.mu.Lock()
	l := p.lanes[ref.Lane]
	p.mu.Unlock()
	if l == nil || l.Deal != deal || l.Closed {
		return nil, nil, fmt.Errorf("%w: the lane of deal %s is closed", ErrLaneBound, deal)
	}
	return p, l, nil
}
