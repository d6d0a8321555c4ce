package impl_test

import (
	"context"
	"testing"

	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/stretchr/testify/require"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/impl"
	"github.com/cartage-dev/cartage/datatransfer/message"
	"github.com/cartage-dev/cartage/datatransfer/testutil"
	"github.com/cartage-dev/cartage/internal/faults"
)

// TestLateVoucherIsBooked: a voucher that comes when its channel has ended reaches the revalidator, and the payer hears what became of it. One
// that is refused ends nothing and is not answered.
func TestLateVoucherIsBooked(t *testing.T) {
	for name, end := range map[string]func(*testing.T, *faked, dt.ChannelID){
		"completed": func(t *testing.T, f *faked, chid dt.ChannelID) {
			require.NoError(t, f.transport.EventHandler().OnChannelCompleted(chid, nil))
		},
		"cancelled": func(t *testing.T, f *faked, chid dt.ChannelID) {
			require.NoError(t, f.manager.CloseDataTransferChannel(t.Context(), chid))
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFaked(t)
			acc := &tab{interval: 1000, manager: f.manager}
			require.NoError(t, f.manager.RegisterRevalidator(testutil.NewFakeDTType(""), acc))
			h := f.transport.EventHandler()
			_, err := h.OnRequestReceived(asked(), f.request(t, false, true))
			require.NoError(t, err)
			_, err = h.OnDataQueued(asked(), cidlink.Link{Cid: f.root}, 10, 1, true)
			require.NoError(t, err)
			end(t, f, asked())
			f.trace.wait(t)
			voucher := func(text string) (dt.Response, error) {
				return h.OnRequestReceived(asked(), must(message.VoucherRequest(asked().ID, "FakeDTType", testutil.NewFakeDTType(text))))
			}
			resp, err := voucher("pay 10")
			require.NoError(t, err)
			require.Equal(t, []string{"pay 10"}, acc.taken)
			require.True(t, resp != nil && resp.Accepted() && !resp.IsPaused())
			resp, err = voucher("nonsense")
			require.NoError(t, err)
			require.Nil(t, resp)
		})
	}
}

// TestAcceptanceSurvivesPowerLoss: what was accepted is on stable storage before the acceptance leaves, with the voucher that opened it.
func TestAcceptanceSurvivesPowerLoss(t *testing.T) {
	ds := faults.NewRecords()
	f := fakedOn(t, ds)
	resp, err := f.transport.EventHandler().OnRequestReceived(asked(), f.request(t, false, true))
	require.NoError(t, err)
	require.True(t, resp.Accepted())
	ds.PowerLoss(func(int) int { return 0 })
	net, transport := testutil.NewFakeNetwork(us), testutil.NewFakeTransport()
	m, err := impl.NewDataTransfer(ds, net, transport)
	require.NoError(t, err)
	require.NoError(t, m.RegisterVoucherType(testutil.NewFakeDTType(""), &testutil.Validator{}))
	require.NoError(t, testutil.StartAndWaitForReady(t.Context(), m))
	defer func() { require.NoError(t, m.Stop(context.Background())) }()
	s, err := m.ChannelState(t.Context(), asked())
	require.NoError(t, err, "the channel is known after a power loss")
	require.Equal(t, testutil.NewFakeDTType("open"), s.Voucher())
	again, err := transport.EventHandler().OnRequestReceived(asked(), f.request(t, true, true))
	require.NoError(t, err)
	require.True(t, again.Accepted(), "its recipient goes on with it")
}
