package paych

import (
	"context"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
)

// Summary is a payment channel as a user sees it.
type Summary struct {
	Channel    address.Address
	Outbound   bool
	From, To   address.Address
	Deposit    abi.TokenAmount
	Vouchered  abi.TokenAmount
	Redeemed   abi.TokenAmount
	SettlingAt abi.ChainEpoch
	Collected  bool
	Lanes      []Entry
	// Trouble is why the chain says nothing of the channel: then deposit, redeemed, settling and collected are unknown, whatever they hold.
	Trouble error
}

// Booked returns the channels of the books with their lanes; what the chain knows of them is left out.
func (m *Manager) Booked() (out []Summary) {
	for a, p := range m.allOutChannels() {
		s := Summary{Channel: a, Outbound: true}
		p.mu.Lock()
		s.Vouchered, s.From, s.To = p.rec.Promised, p.rec.From, p.rec.To
		for _, l := range p.lanes {
			s.Lanes = append(s.Lanes, l.bookEntry())
		}
		p.mu.Unlock()
		out = append(out, s)
	}
	for a, p := range m.allInChannels() {
		s := Summary{Channel: a}
		p.mu.Lock()
		s.Vouchered = p.promised
		for _, l := range p.lanes {
			if !l.chainOnly {
				s.Lanes = append(s.Lanes, l.bookEntry())
			}
		}
		p.mu.Unlock()
		if len(s.Lanes) > 0 {
			out = append(out, s)
		}
	}
	return out
}

// List returns all payment channels of the node.
func (m *Manager) List(ctx context.Context) ([]Summary, error) {
	out := m.Booked()
	for i := range out {
		s := &out[i]
		info, err := m.Chain().Channel(ctx, s.Channel)
		if err != nil {
			// One channel that cannot be read does not hide the others.
			s.Deposit, s.Redeemed, s.Trouble = big.Zero(), big.Zero(), err
			continue
		}
		s.From, s.To, s.Deposit, s.Redeemed = info.From, info.To, info.Balance, info.ToSend
		s.SettlingAt, s.Collected = info.SettlingAt, info.Collected
	}
	return out, nil
}

// Best returns the book's entry for a deal, or nil. inbound chooses the book of what we are paid.
func (m *Manager) Best(ctx context.Context, inbound bool, deal string) (*Entry, error) {
	side := "o"
	if inbound {
		side = "i"
	}
	var ref dealRef
	found, err := getRecord(ctx, m.ds, dealKey(side, deal), &ref)
	if err != nil || !found {
		return nil, err
	}
	var l laneRecord
	if found, err = getRecord(ctx, m.ds, laneKey(side, ref.Channel, ref.Lane), &l); err != nil || !found {
		return nil, err
	}
	e := l.bookEntry()
	return &e, nil
}
