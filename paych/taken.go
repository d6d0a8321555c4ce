package paych

import (
	"context"

	"github.com/filecoin-project/go-address"
)

// LaneEntry returns what the book has of the lane that a voucher was taken for, without reading it.
func (m *Manager) LaneEntry(ch address.Address, lane uint64) (Entry, bool) {
	m.mu.Lock()
	p := m.channels[ch]
	m.mu.Unlock()
	if p == nil {
		return Entry{}, false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.lanes[lane]
	if l == nil || l.chainOnly {
		return Entry{}, false
	}
	return l.bookEntry(), true
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
