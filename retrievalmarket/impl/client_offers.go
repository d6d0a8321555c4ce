package retrievalimpl

import (
	"context"
	"sync"

	"github.com/ipfs/go-cid"

	rm "github.com/cartage-dev/cartage/retrievalmarket"
)

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

// FindProviders implements retrievalmarket.RetrievalClient.
func (c *Client) FindProviders(payload cid.Cid) []rm.RetrievalPeer {
	out, err := c.cfg.Resolver.GetPeers(payload)
	if err != nil {
		c.cfg.Log.Error("failed to get peers", "error", err)
	}
	if out == nil {
		return []rm.RetrievalPeer{}
	}
	return out
}

// addresses makes the addresses of a provider known.
func (c *Client) addresses(ctx context.Context, p rm.RetrievalPeer) error {
	tok, _, err := c.cfg.Node.GetChainHead(ctx)
	if err != nil {
		return err
	}
	addrs, err := c.cfg.Node.GetKnownAddresses(ctx, p, tok)
	if err != nil {
		return err
	}
	if len(addrs) > 0 {
		c.cfg.Network.AddAddrs(p.ID, addrs)
	}
	return nil
}

// Query implements retrievalmarket.RetrievalClient.
func (c *Client) Query(ctx context.Context, p rm.RetrievalPeer, payload cid.Cid, params rm.QueryParams) (rm.QueryResponse, error) {
	if err := c.addresses(ctx, p); err != nil {
		return rm.QueryResponseUndefined, err
	}
	s, err := c.cfg.Network.NewQueryStream(ctx, p.ID)
	if err != nil {
		return rm.QueryResponseUndefined, err
	}
	defer s.Close()
	if err := s.WriteQuery(rm.Query{PayloadCID: payload, QueryParams: params}); err != nil {
		return rm.QueryResponseUndefined, err
	}
	r, err := s.ReadQueryResponse()
	if err == nil {
		c.offers.note(payloadKey{p.ID, payload}, r.Size)
	}
	return r, err
}
