package retrievalimpl

import "sync"

// maxOffers is how many answers to queries are remembered.
const maxOffers = 256

// offers are the sizes that providers told lately, in bytes: nobody is paid in advance beyond them.
type offers struct {
	mu    sync.Mutex
	sizes map[payloadKey]uint64
	order []payloadKey // oldest first
}

func (o *offers) note(k payloadKey, size uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.sizes == nil {
		o.sizes = map[payloadKey]uint64{}
	}
	if _, known := o.sizes[k]; !known {
		o.order = append(o.order, k)
	}
	o.sizes[k] = size
	if len(o.order) > maxOffers {
		delete(o.sizes, o.order[0])
		o.order = o.order[1:]
	}
}

func (o *offers) size(k payloadKey) uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.sizes[k]
}
