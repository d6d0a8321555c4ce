package graphsync_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/testutil"
	"github.com/cartage-dev/cartage/shared"
)

func two(t *testing.T) (ctx context.Context, a, b *testutil.Peer) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	t.Cleanup(cancel)
	a, err := testutil.NewPeer(ctx, nil)
	require.NoError(t, err)
	b, err = testutil.NewPeer(ctx, nil)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, a.Close(context.WithoutCancel(ctx)))
		require.NoError(t, b.Close(context.WithoutCancel(ctx)))
	})
	require.NoError(t, testutil.Connect(ctx, a, b))
	return ctx, a, b
}

// TestUnknownChannels: what was never opened, or is over, is named so, and closing or cleaning it up again is harmless.
func TestUnknownChannels(t *testing.T) {
	ctx, a, b := two(t)
	chid := dt.ChannelID{Initiator: a.Host.ID(), Responder: b.Host.ID(), ID: 7}
	require.ErrorIs(t, a.Transport.CloseChannel(ctx, chid), dt.ErrChannelNotFound)
	require.ErrorIs(t, a.Transport.PauseChannel(ctx, chid), dt.ErrChannelNotFound)
	a.Transport.CleanupChannel(chid)
	a.Transport.CleanupChannel(chid)
	require.ErrorIs(t, a.Transport.SetEventHandler(nil), dt.ErrHandlerAlreadySet)
	got := a.Transport.ChannelsForPeer(b.Host.ID())
	require.Empty(t, got.ReceivingChannels)
	require.Empty(t, got.SendingChannels)
}

// TestR42R97EverythingIsFreed: after a transfer neither side remembers anything of it.
func TestR42R97EverythingIsFreed(t *testing.T) {
	ctx, a, b := two(t)
	for _, p := range []*testutil.Peer{a, b} {
		require.NoError(t, p.Manager.RegisterVoucherType(testutil.NewFakeDTType(""), &testutil.Validator{}))
		require.NoError(t, p.Manager.RegisterVoucherResultType(testutil.NewFakeDTType("")))
	}
	done := make(chan struct{}, 2)
	for _, p := range []*testutil.Peer{a, b} {
		p.Manager.SubscribeToEvents(func(e dt.Event, _ dt.ChannelState) {
			if e.Code == dt.CleanupComplete {
				done <- struct{}{}
			}
		})
	}
	for i := range uint64(5) {
		root, _, err := b.Store.BuildDAG(20, 1000, i)
		require.NoError(t, err)
		_, err = a.Manager.OpenPullDataChannel(ctx, b.Host.ID(), testutil.NewFakeDTType("v"), root, shared.AllSelector())
		require.NoError(t, err)
		<-done
		<-done
	}
	for _, pair := range [][2]*testutil.Peer{{a, b}, {b, a}} {
		got := pair[0].Transport.ChannelsForPeer(pair[1].Host.ID())
		require.Empty(t, got.ReceivingChannels)
		require.Empty(t, got.SendingChannels)
	}
}

// TestShutdownTwice: it may be called again, and afterwards nothing can be opened.
func TestShutdownTwice(t *testing.T) {
	ctx, a, b := two(t)
	require.NoError(t, a.Transport.Shutdown(ctx))
	require.NoError(t, a.Transport.Shutdown(ctx))
	root, _, err := b.Store.BuildDAG(2, 100, 1)
	require.NoError(t, err)
	require.NoError(t, a.Manager.RegisterVoucherType(testutil.NewFakeDTType(""), &testutil.Validator{}))
	_, err = a.Manager.OpenPullDataChannel(ctx, b.Host.ID(), testutil.NewFakeDTType("v"), root, shared.AllSelector())
	require.ErrorContains(t, err, "shut down")
}

// TestEndedWhileAskedAgain: an earlier request of a channel completes, and the channel is cleaned up, while a restart of it is decided
// on. The restart is served from the store of the channel all the same.
func TestEndedWhileAskedAgain(t *testing.T) {
	ctx, a, b := two(t)
	voucher := testutil.NewFakeDTType("v")
	require.NoError(t, a.Manager.RegisterVoucherType(voucher, &testutil.Validator{}))
	require.NoError(t, b.Manager.RegisterVoucherType(voucher, &testutil.Validator{Pull: func(restart bool, _ dt.ChannelID, _ dt.Voucher) (dt.VoucherResult, error) {
		if restart {
			return nil, nil
		}
		return nil, dt.ErrPause // nothing flows before the restart
	}}))
	store := testutil.NewMemStore()
	root, _, err := store.BuildDAG(5, 1000, 1)
	require.NoError(t, err)
	configured := 0
	require.NoError(t, b.Manager.RegisterTransportConfigurer(voucher, func(chid dt.ChannelID, _ dt.Voucher, _ dt.Transport) {
		require.NoError(t, b.Transport.UseStore(chid, store.LinkSystem()))
		if configured++; configured == 2 {
			b.Transport.CleanupChannel(chid)
		}
	}))
	ended := make(chan dt.Status, 1)
	a.Manager.SubscribeToEvents(func(e dt.Event, s dt.ChannelState) {
		if e.Code == dt.CleanupComplete {
			ended <- s.Status()
		}
	})
	accepted := make(chan dt.EventCode, 9)
	b.Manager.SubscribeToEvents(func(e dt.Event, s dt.ChannelState) {
		if e.Code == dt.Accept || e.Code == dt.Restart {
			accepted <- e.Code
		}
	})
	chid, err := a.Manager.OpenPullDataChannel(ctx, b.Host.ID(), voucher, root, shared.AllSelector())
	require.NoError(t, err)
	await(ctx, t, accepted)
	require.NoError(t, a.Manager.RestartDataTransferChannel(ctx, chid))
	await(ctx, t, accepted)
	await(ctx, t, accepted) // decided on again
	require.NoError(t, b.Manager.ResumeDataTransferChannel(ctx, chid))
	require.Equal(t, dt.Statuses[dt.Completed], dt.Statuses[await(ctx, t, ended)])
}

func await[T any](ctx context.Context, t *testing.T, c chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-ctx.Done():
		select {
		case v = <-c: // a read behind the end of a test
		default:
			t.Fatal(ctx.Err())
		}
	}
	return v
}
