package interop

import (
	"context"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/stretchr/testify/require"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/testutil"
	"github.com/cartage-dev/cartage/shared"
)

// ours is this module.
type ours struct{ p *testutil.Peer }

func newOurs(ctx context.Context, t *testing.T) side { return startOurs(ctx, t, testutil.PeerConfig{}) }

// newLater is a side whose validators are asked beside graphsync's loop.
func newLater(ctx context.Context, t *testing.T) side {
	return startOurs(ctx, t, testutil.PeerConfig{Later: true})
}

func startOurs(ctx context.Context, t *testing.T, cfg testutil.PeerConfig) side {
	p, err := cfg.Start(ctx)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, p.Close(context.Background())) })
	require.NoError(t, p.Manager.RegisterVoucherResultType(testutil.NewFakeDTType("")))
	return ours{p}
}

func (o ours) host() host.Host           { return o.p.Host }
func (o ours) store() *testutil.MemStore { return o.p.Store }

func (o ours) accept(t *testing.T, p policy) {
	answer := func(bool, dt.ChannelID, dt.Voucher) (dt.VoucherResult, error) {
		if p.reject {
			return testutil.NewFakeDTType("no"), dt.ErrRejected
		}
		return testutil.NewFakeDTType("yes"), nil
	}
	require.NoError(t, o.p.Manager.RegisterVoucherType(testutil.NewFakeDTType(""), &testutil.Validator{Push: answer, Pull: answer}))
	if p.every > 0 || p.last {
		require.NoError(t, o.p.Manager.RegisterRevalidator(testutil.NewFakeDTType(""), &testutil.Meter{Every: p.every, Last: p.last}))
	}
}

func (o ours) open(ctx context.Context, pull bool, to peer.ID, root cid.Cid) (dt.ChannelID, error) {
	f := o.p.Manager.OpenPushDataChannel
	if pull {
		f = o.p.Manager.OpenPullDataChannel
	}
	return f(ctx, to, testutil.NewFakeDTType("open"), root, shared.AllSelector())
}

func (o ours) pay(ctx context.Context, chid dt.ChannelID, data string) error {
	return o.p.Manager.SendVoucher(ctx, chid, testutil.NewFakeDTType(data))
}

func (o ours) pause(ctx context.Context, chid dt.ChannelID) error {
	return o.p.Manager.PauseDataTransferChannel(ctx, chid)
}

func (o ours) resume(ctx context.Context, chid dt.ChannelID) error {
	return o.p.Manager.ResumeDataTransferChannel(ctx, chid)
}

func (o ours) restart(ctx context.Context, chid dt.ChannelID) error {
	return o.p.Manager.RestartDataTransferChannel(ctx, chid)
}

func (o ours) end(ctx context.Context, chid dt.ChannelID) error {
	return o.p.Manager.CloseDataTransferChannel(ctx, chid)
}

func (o ours) state(ctx context.Context, chid dt.ChannelID) (snapshot, error) {
	s, err := o.p.Manager.ChannelState(ctx, chid)
	if err != nil {
		return snapshot{}, err
	}
	return oursOf(s), nil
}

func oursOf(s dt.ChannelState) snapshot {
	st := s.Status()
	return snapshot{
		chid: s.ChannelID(), status: dt.Statuses[st], message: s.Message(), queued: s.Queued(), received: s.Received(),
		vouchers: len(s.Vouchers()), results: len(s.VoucherResults()),
		initiatorIsPaused: st == dt.InitiatorPaused || st == dt.BothPaused,
		responderIsPaused: st == dt.ResponderPaused || st == dt.BothPaused,
		receivedCids:      s.ReceivedCidsTotal(), sent: s.SentCidsTotal(),
	}
}

func (o ours) follow(f func(string, snapshot)) {
	o.p.Manager.SubscribeToEvents(func(e dt.Event, s dt.ChannelState) { f(dt.Events[e.Code], oursOf(s)) })
}
