package retrievalimpl_test

import (
	"context"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/stretchr/testify/require"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/impl"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	retrievalimpl "github.com/cartage-dev/cartage/retrievalmarket/impl"
)

// TestDisableNewDeals: the client proposes once more in the first generation, and hears the answer even if it is here before the call that
// proposed has returned.
func TestDisableNewDeals(t *testing.T) {
	for name, changed := range map[string]func(dt.Manager) dt.Manager{
		"at once":          func(m dt.Manager) dt.Manager { return m },
		"answered earlier": func(m dt.Manager) dt.Manager { return slowToReturn{m.(*impl.Manager)} },
	} {
		t.Run(name, func(t *testing.T) {
			w := newTradeOver(t, changed, retrievalimpl.DisableNewDeals())
			s, _ := w.retrieve(nil)
			require.Equal(t, rm.DealStatusCompleted, s.Status, s.Message)
			require.True(t, s.LegacyProtocol)
			w.paid(int64(2*w.total + 50))
		})
	}
}

// slowToReturn opens a channel and returns after its answer was told.
type slowToReturn struct{ *impl.Manager }

func (m slowToReturn) OpenPullDataChannel(ctx context.Context, to peer.ID, v dt.Voucher, root cid.Cid, sel ipld.Node) (dt.ChannelID, error) {
	answered := make(chan dt.ChannelID, 1000)
	defer m.SubscribeToEvents(func(e dt.Event, s dt.ChannelState) {
		if e.Code == dt.NewVoucherResult || e.Code == dt.Error {
			answered <- s.ChannelID()
		}
	})()
	chid, err := m.Manager.OpenPullDataChannel(ctx, to, v, root, sel)
	for err == nil && <-answered != chid {
	}
	return chid, err
}
