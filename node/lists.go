package node

import (
	"context"
	"iter"

	"github.com/cartage-dev/cartage/api"
)

// Filter chooses deals; what is empty does not choose.
type Filter struct {
	Role string // client or provider
	Peer string // peer id of the other side
	Root string
	Open bool // only those that have not ended
}

func (f Filter) takes(d api.Deal) bool {
	return (f.Role == "" || f.Role == d.Role) && (f.Peer == "" || f.Peer == d.Peer) && (f.Root == "" || f.Root == d.Root) && !(f.Open && d.Final)
}

// Deals are the deals of both roles. A list that cannot be read ends with an error.
func (n *Node) Deals(ctx context.Context, f Filter) iter.Seq2[api.Deal, error] {
	return each(func() ([]api.Deal, error) { return n.api.Deals(ctx) }, f.takes)
}

// Orders are what was bought, is being bought, or stands still, with budgets and deals.
func (n *Node) Orders(ctx context.Context) iter.Seq2[api.Order, error] {
	return each(func() ([]api.Order, error) { return n.api.Orders(ctx) }, func(api.Order) bool { return true })
}

// Pieces are what is for sale.
func (n *Node) Pieces(ctx context.Context) iter.Seq2[api.Piece, error] {
	return each(func() ([]api.Piece, error) { return n.api.Pieces(ctx) }, func(api.Piece) bool { return true })
}

// each reads a list when the loop over it begins.
func each[T any](read func() ([]T, error), takes func(T) bool) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		list, err := read()
		if err != nil {
			var none T
			yield(none, api.ErrorOf(err))
			return
		}
		for _, v := range list {
			if takes(v) && !yield(v, nil) {
				return
			}
		}
	}
}

// Park stops an order: what is due is paid, and nothing else until Resume.
func (n *Node) Park(ctx context.Context, order string) error {
	_, err := told(n.api.OrderPark(ctx, order))
	return err
}

// Cancel ends an order and its deals; what arrived stays in the home.
func (n *Node) Cancel(ctx context.Context, order string) error {
	_, err := told(n.api.OrderCancel(ctx, order))
	return err
}
