package paych

import (
	"context"
	"fmt"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
)

// TopUp gives a deal that has a lane more than it was given: from what is free on its channel, else by a deposit, for which it waits.
func (m *Manager) TopUp(ctx context.Context, deal string, from, to address.Address, more abi.TokenAmount) error {
	r, err := m.GetOrCreate(ctx, deal, from, to, more)
	if err != nil {
		return err
	}
	if r.Wait.Defined() {
		if _, err := m.WaitReady(ctx, r.Wait); err != nil {
			return err
		}
	}
	var ref dealRef
	found, err := get(ctx, m.ds, dealKey("o", deal), &ref)
	if err != nil {
		return err
	}
	if !found {
		return fmt.Errorf("%w: deal %s has no lane", ErrUnknownChannel, deal)
	}
	p, err := m.outbound(ref.Channel)
	if err != nil {
		return err
	}
	p.mu.Lock()
	l := p.lanes[ref.Lane]
	p.mu.Unlock()
	if l == nil || l.Deal != deal || l.Closed {
		return fmt.Errorf("%w: the lane of deal %s is closed", ErrLaneBound, deal)
	}
	return m.enlarge(ctx, p, l)
}
