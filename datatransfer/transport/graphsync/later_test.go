package graphsync_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/fluent/qp"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/stretchr/testify/require"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/testutil"
	"github.com/cartage-dev/cartage/datatransfer/transport/graphsync"
	"github.com/cartage-dev/cartage/shared"
)

// later is a responder whose validator answers when it is told to.
type later struct {
	ctx     context.Context
	a, b    *testutil.Peer
	asked   chan dt.ChannelID
	answer  map[string]chan error // by voucher
	ended   chan dt.ChannelState  // of the initiator
	running atomic.Int32
}

func newLater(t *testing.T, vouchers ...string) *later {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	t.Cleanup(cancel)
	l := &later{ctx: ctx, asked: make(chan dt.ChannelID, 8), answer: map[string]chan error{}, ended: make(chan dt.ChannelState, 8)}
	for _, v := range vouchers {
		l.answer[v] = make(chan error, 4)
	}
	var err error
	l.a, err = testutil.NewPeer(ctx, nil)
	require.NoError(t, err)
	l.b, err = testutil.PeerConfig{Later: true}.Start(ctx)
	require.NoError(t, err)
	t.Cleanup(func() {
		for _, c := range l.answer {
			close(c)
		}
		require.NoError(t, l.a.Close(context.WithoutCancel(ctx)))
		require.NoError(t, l.b.Close(context.WithoutCancel(ctx)))
	})
	require.NoError(t, testutil.Connect(ctx, l.a, l.b))
	voucher := testutil.NewFakeDTType("")
	require.NoError(t, l.a.Manager.RegisterVoucherType(voucher, &testutil.Validator{}))
	require.NoError(t, l.a.Manager.RegisterVoucherResultType(voucher))
	require.NoError(t, l.b.Manager.RegisterVoucherResultType(voucher))
	require.NoError(t, l.b.Manager.RegisterVoucherType(voucher, &testutil.Validator{Pull: l.validate}))
	l.a.Manager.SubscribeToEvents(func(e dt.Event, s dt.ChannelState) {
		if e.Code == dt.CleanupComplete {
			l.ended <- s
		}
	})
	return l
}

func (l *later) validate(_ bool, chid dt.ChannelID, v dt.Voucher) (dt.VoucherResult, error) {
	l.running.Add(1)
	defer l.running.Add(-1)
	l.asked <- chid
	err := <-l.answer[v.(*testutil.FakeDTType).Data]
	return testutil.NewFakeDTType("answer"), err
}

func (l *later) open(t *testing.T, voucher string, seed uint64) dt.ChannelID {
	root, _, err := l.b.Store.BuildDAG(6, 1000, seed)
	require.NoError(t, err)
	chid, err := l.a.Manager.OpenPullDataChannel(l.ctx, l.b.Host.ID(), testutil.NewFakeDTType(voucher), root, shared.AllSelector())
	require.NoError(t, err)
	return chid
}

// TestR62SlowValidator: a validator that takes its time holds up no other peer and no other channel.
func TestR62SlowValidator(t *testing.T) {
	l := newLater(t, "slow", "quick")
	slow := l.open(t, "slow", 1)
	await(l.ctx, t, l.asked)
	quick := l.open(t, "quick", 2)
	await(l.ctx, t, l.asked)
	l.answer["quick"] <- nil
	end := await(l.ctx, t, l.ended)
	require.Equal(t, quick, end.ChannelID())
	require.Equal(t, dt.Completed, end.Status())
	l.answer["slow"] <- nil
	end = await(l.ctx, t, l.ended)
	require.Equal(t, slow, end.ChannelID())
	require.Equal(t, dt.Completed, end.Status())
}

// TestR62Rejected: the initiator hears the rejection and its result, and nothing of the channel stays.
func TestR62Rejected(t *testing.T) {
	l := newLater(t, "v")
	l.open(t, "v", 1)
	chid := await(l.ctx, t, l.asked)
	l.answer["v"] <- errors.New("no")
	end := await(l.ctx, t, l.ended)
	require.Equal(t, dt.Failed, end.Status())
	require.NotNil(t, end.LastVoucherResult())
	require.Equal(t, "answer", end.LastVoucherResult().(*testutil.FakeDTType).Data)
	_, err := l.b.Manager.ChannelState(l.ctx, chid)
	require.ErrorIs(t, err, dt.ErrChannelNotFound)
	require.Empty(t, l.b.Transport.ChannelsForPeer(l.a.Host.ID()).SendingChannels)
}

// TestR62AcceptedPaused: nothing flows until the application resumes.
func TestR62AcceptedPaused(t *testing.T) {
	l := newLater(t, "v")
	accepted := make(chan struct{}, 1)
	l.a.Manager.SubscribeToEvents(func(e dt.Event, _ dt.ChannelState) {
		if e.Code == dt.PauseResponder {
			accepted <- struct{}{}
		}
	})
	l.open(t, "v", 1)
	chid := await(l.ctx, t, l.asked)
	l.answer["v"] <- dt.ErrPause
	await(l.ctx, t, accepted)
	s, err := l.a.Manager.ChannelState(l.ctx, chid)
	require.NoError(t, err)
	require.Zero(t, s.Received())
	require.NoError(t, l.b.Manager.ResumeDataTransferChannel(l.ctx, chid))
	require.Equal(t, dt.Completed, await(l.ctx, t, l.ended).Status())
}

// TestR62ResumedAtOnce: however soon the application resumes, the initiator hears of the acceptance first, and does not take it for a
// pause that came later.
func TestR62ResumedAtOnce(t *testing.T) {
	l := newLater(t, "v")
	var turn atomic.Int64
	l.b.Manager.SubscribeToEvents(func(e dt.Event, s dt.ChannelState) {
		if e.Code == dt.PauseResponder { // before the answer has left, while it leaves, and after
			time.AfterFunc(time.Duration(turn.Add(1)%25)*20*time.Microsecond, func() {
				_ = l.b.Manager.ResumeDataTransferChannel(l.ctx, s.ChannelID())
			})
		}
	})
	for i := range uint64(100) {
		l.answer["v"] <- dt.ErrPause
		l.open(t, "v", i+1)
		require.Equal(t, dt.Completed, await(l.ctx, t, l.ended).Status())
		await(l.ctx, t, l.asked)
	}
}

// TestR62ResumedAtRestart: the same when the requester was away and asks again: the resume belongs to the request that is decided on.
func TestR62ResumedAtRestart(t *testing.T) {
	l := newLater(t, "v")
	var restarted atomic.Bool
	var turn atomic.Int64
	l.b.Manager.SubscribeToEvents(func(e dt.Event, s dt.ChannelState) {
		if e.Code == dt.PauseResponder && restarted.Load() {
			time.AfterFunc(time.Duration(turn.Add(1)%25)*20*time.Microsecond, func() {
				_ = l.b.Manager.ResumeDataTransferChannel(l.ctx, s.ChannelID())
			})
		}
	})
	for i := range uint64(25) {
		restarted.Store(false)
		l.answer["v"] <- dt.ErrPause
		chid := l.open(t, "v", i+1)
		await(l.ctx, t, l.asked)
		require.Eventually(t, func() bool {
			s, err := l.a.Manager.ChannelState(l.ctx, chid)
			return err == nil && s.Status() == dt.ResponderPaused
		}, 10*time.Second, time.Millisecond)
		require.NoError(t, l.a.Transport.CloseChannel(l.ctx, chid))
		restarted.Store(true)
		l.answer["v"] <- dt.ErrPause
		require.NoError(t, l.a.Manager.RestartDataTransferChannel(l.ctx, chid))
		await(l.ctx, t, l.asked)
		end := await(l.ctx, t, l.ended)
		require.Equal(t, dt.Completed, end.Status(), end.Message())
	}
}

// TestR62RepeatedLinks: a link that is followed again counts for the bound, although its block does not leave again.
func TestR62RepeatedLinks(t *testing.T) {
	l := newLater(t, "v")
	require.NoError(t, l.b.Manager.RegisterTransportConfigurer(testutil.NewFakeDTType(""), func(chid dt.ChannelID, _ dt.Voucher, _ dt.Transport) {
		l.b.Transport.MaxLinks(chid, 1000)
	}))
	require.NoError(t, l.a.Manager.RegisterTransportConfigurer(testutil.NewFakeDTType(""), func(chid dt.ChannelID, _ dt.Voucher, _ dt.Transport) {
		l.a.Transport.MaxLinks(chid, 5000) // it follows the links itself
	}))
	ls := l.b.Store.LinkSystem()
	proto := cidlink.LinkPrototype{Prefix: cid.Prefix{Version: 1, Codec: cid.DagCBOR, MhType: 0x12, MhLength: 32}}
	link, err := ls.Store(ipld.LinkContext{}, proto, basicnode.NewString("leaf"))
	require.NoError(t, err)
	for range 40 { // each has the one before twice
		n, err := qp.BuildList(basicnode.Prototype.Any, 2, func(la datamodel.ListAssembler) {
			qp.ListEntry(la, qp.Link(link))
			qp.ListEntry(la, qp.Link(link))
		})
		require.NoError(t, err)
		link, err = ls.Store(ipld.LinkContext{}, proto, n)
		require.NoError(t, err)
	}
	l.answer["v"] <- nil
	chid, err := l.a.Manager.OpenPullDataChannel(l.ctx, l.b.Host.ID(), testutil.NewFakeDTType("v"), link.(cidlink.Link).Cid, shared.AllSelector())
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		s, err := l.b.Manager.ChannelState(l.ctx, chid)
		return err == nil && s.Status() == dt.Failed
	}, 10*time.Second, time.Millisecond)
	require.Equal(t, dt.Failed, await(l.ctx, t, l.ended).Status())
}

// TestR62CancelledMeanwhile: a channel that its initiator cancels while it is decided on is not left behind.
func TestR62CancelledMeanwhile(t *testing.T) {
	l := newLater(t, "v")
	chid := l.open(t, "v", 1)
	await(l.ctx, t, l.asked)
	require.NoError(t, l.a.Manager.CloseDataTransferChannel(l.ctx, chid))
	require.Equal(t, dt.Cancelled, await(l.ctx, t, l.ended).Status())
	require.Eventually(t, func() bool {
		all, gone := graphsync.Undecided(l.b.Transport)
		return all == 1 && gone == 1
	}, 10*time.Second, time.Millisecond)
	time.AfterFunc(50*time.Millisecond, func() { l.answer["v"] <- nil }) // the cancel of data transfer comes on a stream of its own
	require.Eventually(t, func() bool {
		s, err := l.b.Manager.ChannelState(l.ctx, chid)
		return err == nil && s.Status() == dt.Cancelled
	}, 10*time.Second, time.Millisecond)
	require.Empty(t, l.b.Transport.ChannelsForPeer(l.a.Host.ID()).SendingChannels)
}

// TestR62GoneMeanwhile: a requester that leaves while its request is decided on, and asks again, is served.
func TestR62GoneMeanwhile(t *testing.T) {
	l := newLater(t, "v")
	chid := l.open(t, "v", 1)
	await(l.ctx, t, l.asked)
	require.NoError(t, l.a.Transport.CloseChannel(l.ctx, chid)) // ends the request, not the channel
	require.NoError(t, l.a.Manager.RestartDataTransferChannel(l.ctx, chid))
	require.Eventually(t, func() bool {
		all, gone := graphsync.Undecided(l.b.Transport)
		return all == 2 && gone == 1
	}, 10*time.Second, time.Millisecond)
	require.EqualValues(t, 1, l.running.Load(), "never two about the same channel")
	l.answer["v"] <- nil
	await(l.ctx, t, l.asked)
	l.answer["v"] <- nil
	end := await(l.ctx, t, l.ended)
	require.Equal(t, dt.Completed, end.Status(), end.Message())
}

// TestR62StopMeanwhile: a responder that stops refuses nothing that it has not decided on.
func TestR62StopMeanwhile(t *testing.T) {
	l := newLater(t, "v")
	chid := l.open(t, "v", 1)
	await(l.ctx, t, l.asked)
	stopped := make(chan error, 1)
	go func() { stopped <- l.b.Manager.Stop(l.ctx) }()
	time.AfterFunc(500*time.Millisecond, func() { l.answer["v"] <- nil }) // while it stops
	require.NoError(t, await(l.ctx, t, stopped))
	s, err := l.a.Manager.ChannelState(l.ctx, chid)
	require.NoError(t, err)
	require.Equal(t, dt.Requested, s.Status(), s.Message())
}

// TestR62MaxLinks: the bound of a channel holds although its request was made before.
func TestR62MaxLinks(t *testing.T) {
	l := newLater(t, "v")
	require.NoError(t, l.b.Manager.RegisterTransportConfigurer(testutil.NewFakeDTType(""), func(chid dt.ChannelID, _ dt.Voucher, _ dt.Transport) {
		l.b.Transport.MaxLinks(chid, 3)
	}))
	l.open(t, "v", 1)
	await(l.ctx, t, l.asked)
	l.answer["v"] <- nil
	require.Equal(t, dt.Failed, await(l.ctx, t, l.ended).Status())
}
