package paych

import (
	"github.com/filecoin-project/go-address"
)

// LaneEntry returns what the book has of the lane that a voucher was taken for, without reading it.
func (in *inChannels) LaneEntry(ch address.Address, lane uint64) (Entry, bool) {
	p := in.knownChannel(ch)
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
