package limits

import "github.com/cartage-dev/cartage/internal/reason"

// What no configuration changes: both sides of a protocol count on it. The code that enforces it has the value from here.
const (
	MaxBlock    = 4<<20 - 64<<10 // bytes of a block
	MaxDepth    = 4096           // links that lead to a block
	MaxLinks    = 1 << 26        // links that a walk follows
	MaxSelector = 16 << 10       // bytes of the selector of a proposal
)

// The limits of the shape of data, and of what is asked for it.
const (
	Block       Name = "block"
	DAGDepth    Name = "dag_depth"
	Links       Name = "links"
	Selector    Name = "selector"
	QueriesPeer Name = "queries_peer"
)

// shapeDefinitions are the limits of the shape of data.
func shapeDefinitions() []definition {
	return []definition{
		{Block, Bytes, MaxBlock, MaxBlock, MaxBlock, reason.BlockTooLarge, "bytes of a block, in archives, over every transport and when a piece is unsealed"},
		{DAGDepth, Count, MaxDepth, MaxDepth, MaxDepth, reason.DAGTooDeep, "links that lead from the root to a block; graphsync carries a quarter of it"},
		{Links, Count, MaxLinks, MaxLinks, MaxLinks, reason.TooManyLinks, "links that a walk follows, and never more than 65536 + 256 for each block that it met"},
		{Selector, Bytes, MaxSelector, MaxSelector, MaxSelector, reason.PeerLimit, "bytes of the selector of a proposal"},
		{QueriesPeer, Count, 1, 16, 100, reason.PeerLimit, "questions for an offer of one peer that are answered at once"},
	}
}

// Ended counts the fixed limit because of which something ended, if it was one.
func (r *Registry) Ended(why reason.Reason) {
	for _, l := range r.order {
		if l.min == l.max && l.code == why {
			l.hits.Add(1)
		}
	}
}
