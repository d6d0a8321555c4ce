package graphsync_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	exchange "github.com/ipfs/go-graphsync"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/stretchr/testify/require"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/message"
	"github.com/cartage-dev/cartage/datatransfer/testutil"
	"github.com/cartage-dev/cartage/shared"
)

// steps is an exchange whose answers to Unpause and whose block hooks a test orders.
type steps struct {
	exchange.GraphExchange
	unpaused func(err error)   // before the transport hears what came of it
	block    func(index int64) // after the transport has decided on a block, and before graphsync pauses
	updates  atomic.Int64      // that were said while a response ran
}

// SendUpdate implements graphsync.GraphExchange.
func (s *steps) SendUpdate(ctx context.Context, id exchange.RequestID, exts ...exchange.ExtensionData) error {
	s.updates.Add(1)
	return s.GraphExchange.SendUpdate(ctx, id, exts...)
}

// Unpause implements graphsync.GraphExchange.
func (s *steps) Unpause(ctx context.Context, id exchange.RequestID, exts ...exchange.ExtensionData) error {
	err := s.GraphExchange.Unpause(ctx, id, exts...)
	if s.unpaused != nil {
		s.unpaused(err)
	}
	return err
}

// RegisterOutgoingBlockHook implements graphsync.GraphExchange: the transport has one.
func (s *steps) RegisterOutgoingBlockHook(hook exchange.OnOutgoingBlockHook) exchange.UnregisterHookFunc {
	return s.GraphExchange.RegisterOutgoingBlockHook(func(p peer.ID, r exchange.RequestData, b exchange.BlockData, ha exchange.OutgoingBlockHookActions) {
		hook(p, r, b, ha)
		if s.block != nil {
			s.block(b.Index())
		}
	})
}

// each is a revalidator that demands a payment after each block.
type each struct{ testutil.Meter }

// OnPullDataSent implements datatransfer.Revalidator.
func (*each) OnPullDataSent(dt.ChannelID, uint64) (bool, dt.VoucherResult, error) {
	return true, testutil.NewFakeDTType("pay"), dt.ErrPause
}

// OnComplete implements datatransfer.Revalidator.
func (*each) OnComplete(dt.ChannelID) (bool, dt.VoucherResult, error) { return true, nil, nil }

// ordered starts a provider b with an ordered exchange, and a client a.
func ordered(t *testing.T, r dt.Revalidator) (ctx context.Context, a, b *testutil.Peer, s *steps, ended chan dt.ChannelState) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	t.Cleanup(cancel)
	s = &steps{}
	a, err := testutil.NewPeer(ctx, nil)
	require.NoError(t, err)
	b, err = testutil.PeerConfig{Exchange: func(gs exchange.GraphExchange) exchange.GraphExchange {
		s.GraphExchange = gs
		return s
	}}.Start(ctx)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, a.Close(context.WithoutCancel(ctx)))
		require.NoError(t, b.Close(context.WithoutCancel(ctx)))
	})
	require.NoError(t, testutil.Connect(ctx, a, b))
	voucher := testutil.NewFakeDTType("")
	for _, p := range []*testutil.Peer{a, b} {
		require.NoError(t, p.Manager.RegisterVoucherType(voucher, &testutil.Validator{}))
		require.NoError(t, p.Manager.RegisterVoucherResultType(voucher))
	}
	if r != nil {
		require.NoError(t, b.Manager.RegisterRevalidator(voucher, r))
	}
	ended = make(chan dt.ChannelState, 1)
	a.Manager.SubscribeToEvents(func(e dt.Event, s dt.ChannelState) {
		if e.Code == dt.CleanupComplete {
			ended <- s
		}
	})
	return ctx, a, b, s, ended
}

// TestResumeBeforePauseTakesEffect: a response is let go on, and pauses again before the side that let it go on has heard of that; the next
// resume comes before graphsync has noted the second pause. It is not lost.
func TestResumeBeforePauseTakesEffect(t *testing.T) {
	ctx, a, b, s, ended := ordered(t, &each{})
	second, refused := make(chan struct{}), make(chan struct{})
	var once, tooEarly sync.Once
	s.block = func(index int64) {
		if index == 2 {
			close(second)
			await(ctx, t, refused)
		}
	}
	s.unpaused = func(err error) {
		if err != nil {
			tooEarly.Do(func() { close(refused) })
			return
		}
		once.Do(func() { await(ctx, t, second) })
	}
	demanded := make(chan struct{}, 9)
	a.Manager.SubscribeToEvents(func(e dt.Event, _ dt.ChannelState) {
		if e.Code == dt.PauseResponder {
			demanded <- struct{}{}
		}
	})
	root, _, err := b.Store.BuildDAG(1, 1000, 1)
	require.NoError(t, err)
	chid, err := a.Manager.OpenPullDataChannel(ctx, b.Host.ID(), testutil.NewFakeDTType("v"), root, shared.AllSelector())
	require.NoError(t, err)
	await(ctx, t, demanded)
	require.NoError(t, a.Manager.SendVoucher(ctx, chid, testutil.NewFakeDTType("first")))
	await(ctx, t, second)
	require.NoError(t, a.Manager.SendVoucher(ctx, chid, testutil.NewFakeDTType("second")))
	require.Equal(t, dt.Completed, await(ctx, t, ended).Status())
}

// TestNothingStandsForTheEnd: what is said while a response runs leaves beside its next block, and behind the last block another way. As an update of
// graphsync it would have a status, which in one message of the network takes the place of the end of the response: a client with everything here, and a
// provider that has sent it, waited for each other for ever.
func TestNothingStandsForTheEnd(t *testing.T) {
	ctx, a, b, s, ended := ordered(t, &testutil.Meter{})
	chids := make(chan dt.ChannelID, 2)
	heard := make(chan dt.TypeIdentifier, 9)
	a.Manager.SubscribeToEvents(func(e dt.Event, s dt.ChannelState) {
		if e.Code == dt.NewVoucherResult {
			heard <- s.LastVoucherResult().Type()
		}
	})
	root, _, err := b.Store.BuildDAG(1, 1000, 1)
	require.NoError(t, err)
	const last = 2
	s.block = func(index int64) {
		if index != 1 && index != last {
			return
		}
		chid := await(ctx, t, chids)
		msg, err := message.VoucherResultResponse(chid.ID, true, false, testutil.NewFakeDTType("").Type(), testutil.NewFakeDTType("beside"))
		require.NoError(t, err)
		require.NoError(t, b.Transport.ResumeChannel(ctx, msg, chid))
	}
	chid, err := a.Manager.OpenPullDataChannel(ctx, b.Host.ID(), testutil.NewFakeDTType("v"), root, shared.AllSelector())
	require.NoError(t, err)
	chids <- chid
	chids <- chid
	await(ctx, t, heard)
	require.Equal(t, dt.Completed, await(ctx, t, ended).Status())
	require.Zero(t, s.updates.Load())
}

// once is a revalidator that demands a payment for the first block only.
type once struct {
	testutil.Meter
	demanded sync.Once
}

// OnPullDataSent implements datatransfer.Revalidator.
func (o *once) OnPullDataSent(dt.ChannelID, uint64) (known bool, result dt.VoucherResult, err error) {
	o.demanded.Do(func() { result, err = testutil.NewFakeDTType("pay"), dt.ErrPause })
	return true, result, err
}

// OnComplete implements datatransfer.Revalidator.
func (*once) OnComplete(dt.ChannelID) (bool, dt.VoucherResult, error) { return true, nil, nil }

// TestPausedTwiceResumedOnce: a response is told to pause while it pauses for a payment anyway. One resume ends both.
func TestPausedTwiceResumedOnce(t *testing.T) {
	ctx, a, b, s, ended := ordered(t, &once{})
	chids := make(chan dt.ChannelID, 1)
	s.block = func(index int64) {
		if index == 1 {
			require.NoError(t, b.Transport.PauseChannel(ctx, await(ctx, t, chids)))
		}
	}
	demanded := make(chan struct{}, 9)
	a.Manager.SubscribeToEvents(func(e dt.Event, _ dt.ChannelState) {
		if e.Code == dt.PauseResponder {
			demanded <- struct{}{}
		}
	})
	root, _, err := b.Store.BuildDAG(3, 1000, 1)
	require.NoError(t, err)
	chid, err := a.Manager.OpenPullDataChannel(ctx, b.Host.ID(), testutil.NewFakeDTType("v"), root, shared.AllSelector())
	require.NoError(t, err)
	chids <- chid
	await(ctx, t, demanded)
	require.NoError(t, a.Manager.SendVoucher(ctx, chid, testutil.NewFakeDTType("first")))
	require.Equal(t, dt.Completed, await(ctx, t, ended).Status())
}
