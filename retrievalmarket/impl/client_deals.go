package retrievalimpl

import (
	"errors"
	"fmt"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/ipfs/go-cid"

	"github.com/cartage-dev/cartage/fsm"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
)

// SubscribeToEvents implements retrievalmarket.RetrievalClient.
func (c *Client) SubscribeToEvents(f rm.ClientSubscriber) rm.Unsubscribe {
	return c.subs.subscribe(f)
}

// TryRestartInsufficientFunds implements retrievalmarket.RetrievalClient.
func (c *Client) TryRestartInsufficientFunds(ch address.Address) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	for _, d := range c.deals {
		if d.isHeld() {
			continue
		}
		if s, _ := d.machine.State(); s.Status == rm.DealStatusInsufficientFunds && s.PaymentInfo != nil && s.PaymentInfo.PayCh == ch {
			errs = append(errs, d.machine.Send(rm.ClientEventRecheckFunds))
		}
	}
	return errors.Join(errs...)
}

// CancelDeal implements retrievalmarket.RetrievalClient.
func (c *Client) CancelDeal(id rm.DealID) error {
	if err := c.ready.Ready(); err != nil {
		return err
	}
	if d := c.deal(id); d != nil {
		if err := d.machine.Send(rm.ClientEventCancel); !errors.Is(err, fsm.ErrTerminated) {
			return err
		}
	}
	s, err := c.store.get(c.ctx, id.String())
	if err != nil {
		return err
	}
	return fmt.Errorf("deal %s has ended already: %s", id, s.Status)
}

// GetDeal implements retrievalmarket.RetrievalClient.
func (c *Client) GetDeal(id rm.DealID) (rm.ClientDealState, error) {
	if err := c.ready.Ready(); err != nil {
		return rm.ClientDealState{}, err
	}
	if d := c.deal(id); d != nil {
		s, _ := d.machine.State()
		return s, nil
	}
	return c.store.get(c.ctx, id.String())
}

// ActiveDeals returns the deals that have not ended. Its cost does not depend on how many have.
func (c *Client) ActiveDeals() []rm.ClientDealState {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make([]rm.ClientDealState, 0, len(c.deals))
	for _, d := range c.deals {
		if s, _ := d.machine.State(); !c.table.Final(s.Status) {
			out = append(out, s)
		}
	}
	return out
}

// ListDeals implements retrievalmarket.RetrievalClient.
func (c *Client) ListDeals() (map[rm.DealID]rm.ClientDealState, error) {
	if err := c.ready.Ready(); err != nil {
		return nil, err
	}
	out := map[rm.DealID]rm.ClientDealState{}
	err := c.store.each(c.ctx, func(d rm.ClientDealState) error {
		out[d.ID] = d
		return nil
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, d := range c.deals {
		out[id], _ = d.machine.State()
	}
	return out, err
}

func checkParams(payload cid.Cid, p rm.Params, funds abi.TokenAmount) error {
	for name, a := range map[string]abi.TokenAmount{"price per byte": p.PricePerByte, "unseal price": p.UnsealPrice, "total funds": funds} {
		if a.Nil() || a.LessThan(big.Zero()) {
			return fmt.Errorf("%s must be given and not negative", name)
		}
	}
	if !payload.Defined() {
		return errors.New("payload CID must be defined")
	}
	if p.PricePerByte.GreaterThan(big.Zero()) && p.PaymentInterval == 0 {
		return errors.New("a price per byte needs a payment interval above 0")
	}
	return nil
}

// refuseSecond refuses a second active deal for the same payload with the same provider.
func (c *Client) refuseSecond(d rm.ClientDealState) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, o := range c.active[payloadOf(d)] {
		if s, _ := o.machine.State(); !c.table.Final(s.Status) {
			return fmt.Errorf("there is an active retrieval deal with peer %s for payload CID %s (retrieval deal ID %d, state %s) - existing deal must be cancelled before starting a new retrieval deal",
				d.Sender, d.PayloadCID, s.ID, s.Status)
		}
	}
	return nil
}
