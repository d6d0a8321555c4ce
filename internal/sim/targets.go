package sim

import (
	"context"

	"github.com/cartage-dev/cartage/internal/cartargets"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	retrievalimpl "github.com/cartage-dev/cartage/retrievalmarket/impl"
)

// retrievals is where the files of a client are.
const retrievals = "/retrievals"

// targets are the files that deals receive into, those of a node.
type targets struct{ *cartargets.Files }

var (
	_ retrievalimpl.Targets        = targets{}
	_ retrievalimpl.FinishedTarget = (*cartargets.Target)(nil)
	_ retrievalimpl.SyncedTarget   = (*cartargets.Target)(nil)
)

// Open implements retrievalimpl.Targets.
func (t targets) Open(ctx context.Context, d rm.ClientDealState) (retrievalimpl.Target, error) {
	target, err := t.Receive(ctx, &d)
	if err != nil {
		return nil, err
	}
	return target, nil
}

// Done implements retrievalimpl.Targets.
func (t targets) Done(d rm.ClientDealState) { _ = t.EndDeal(d.ID) }
