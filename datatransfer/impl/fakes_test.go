package impl_test

import (
	"context"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/stretchr/testify/require"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/impl"
	"github.com/cartage-dev/cartage/datatransfer/message"
	"github.com/cartage-dev/cartage/datatransfer/testutil"
	"github.com/cartage-dev/cartage/shared"
)

// faked is a manager over fakes: the test is the transport and the other side.
type faked struct {
	manager   dt.Manager
	net       *testutil.FakeNetwork
	transport *testutil.FakeTransport
	trace     *trace
	root      cid.Cid
	other     peer.ID
	stopped   bool
}

const us, them = peer.ID("us"), peer.ID("them")

func newFaked(t *testing.T) *faked {
	return fakedOn(t, dssync.MutexWrap(datastore.NewMapDatastore()))
}

func fakedOn(t *testing.T, ds datastore.Batching, opts ...impl.DataTransferOption) *faked {
	return fakedWith(t, ds, func(m dt.Manager) {
		require.NoError(t, m.RegisterVoucherType(testutil.NewFakeDTType(""), &testutil.Validator{}))
		require.NoError(t, m.RegisterVoucherResultType(testutil.NewFakeDTType("")))
	}, opts...)
}

func fakedWith(t *testing.T, ds datastore.Batching, register func(dt.Manager), opts ...impl.DataTransferOption) *faked {
	f := &faked{net: testutil.NewFakeNetwork(us), transport: testutil.NewFakeTransport(), other: them}
	var err error
	f.manager, err = impl.NewDataTransfer(ds, f.net, f.transport, opts...)
	require.NoError(t, err)
	register(f.manager)
	f.trace = follow(f.manager)
	require.NoError(t, testutil.StartAndWaitForReady(t.Context(), f.manager))
	t.Cleanup(func() { f.stop(t) })
	f.root, _, err = testutil.NewMemStore().BuildDAG(3, 10, 1)
	require.NoError(t, err)
	return f
}

func (f *faked) stop(t *testing.T) {
	if !f.stopped {
		f.stopped = true
		require.NoError(t, f.manager.Stop(context.WithoutCancel(t.Context())))
	}
}

func (f *faked) pull(t *testing.T) dt.ChannelID {
	chid, err := f.manager.OpenPullDataChannel(t.Context(), f.other, testutil.NewFakeDTType("open"), f.root, shared.AllSelector())
	require.NoError(t, err)
	return chid
}

func (f *faked) push(t *testing.T) dt.ChannelID {
	chid, err := f.manager.OpenPushDataChannel(t.Context(), f.other, testutil.NewFakeDTType("open"), f.root, shared.AllSelector())
	require.NoError(t, err)
	return chid
}

func (f *faked) request(t *testing.T, restart, pull bool) dt.Request {
	m, err := message.NewRequest(7, restart, pull, "FakeDTType", testutil.NewFakeDTType("open"), f.root, shared.AllSelector())
	require.NoError(t, err)
	return m
}

// asked is a channel that the other side initiates.
func asked() dt.ChannelID { return dt.ChannelID{Initiator: them, Responder: us, ID: 7} }

// play is one thing that happens to a side.
type play func(t *testing.T, f *faked, chid dt.ChannelID)

func opened(pull bool) func(t *testing.T, f *faked) dt.ChannelID {
	return func(t *testing.T, f *faked) dt.ChannelID {
		if pull {
			return f.pull(t)
		}
		return f.push(t)
	}
}

// requested is a channel that the other side opens, pull or push.
func requested(pull bool) func(t *testing.T, f *faked) dt.ChannelID {
	return func(t *testing.T, f *faked) dt.ChannelID {
		if !pull {
			f.net.Delegate().ReceiveRequest(t.Context(), them, f.request(t, false, false))
			return asked()
		}
		_, err := f.transport.EventHandler().OnRequestReceived(asked(), f.request(t, false, true))
		require.NoError(t, err)
		return asked()
	}
}

func answer(m dt.Response, err error) play {
	return func(t *testing.T, f *faked, chid dt.ChannelID) {
		require.NoError(t, err)
		_ = f.transport.EventHandler().OnResponseReceived(chid, m)
	}
}

// answers makes a response with the id of the channel.
func answers(mk func(id dt.TransferID) (dt.Response, error)) play {
	return func(t *testing.T, f *faked, chid dt.ChannelID) {
		m, err := mk(chid.ID)
		answer(m, err)(t, f, chid)
	}
}

func accept(paused bool) play {
	return answers(func(id dt.TransferID) (dt.Response, error) { return message.NewResponse(id, true, paused, "", nil) })
}

func restartAnswer(ok bool) play {
	return answers(func(id dt.TransferID) (dt.Response, error) { return message.RestartResponse(id, ok, false, "", nil) })
}

func complete(paused bool) play {
	return answers(func(id dt.TransferID) (dt.Response, error) {
		return message.CompleteResponse(id, true, paused, "", nil)
	})
}

func demand(paused bool) play {
	return answers(func(id dt.TransferID) (dt.Response, error) {
		return message.VoucherResultResponse(id, true, paused, "FakeDTType", testutil.NewFakeDTType("pay"))
	})
}

func finished(cause error) play {
	return func(t *testing.T, f *faked, chid dt.ChannelID) {
		_ = f.transport.EventHandler().OnChannelCompleted(chid, cause)
	}
}

func says(mk func(id dt.TransferID) dt.Request) play {
	return func(t *testing.T, f *faked, chid dt.ChannelID) {
		f.net.Delegate().ReceiveRequest(t.Context(), them, mk(chid.ID))
	}
}

func voucher(t *testing.T, f *faked, chid dt.ChannelID) {
	require.NoError(t, f.manager.SendVoucher(t.Context(), chid, testutil.NewFakeDTType("payment")))
}

func received(t *testing.T, f *faked, chid dt.ChannelID) {
	for i := range int64(2) {
		require.NoError(t, f.transport.EventHandler().OnDataReceived(chid, cidlink.Link{Cid: f.root}, 10, i+1, true))
	}
}

// TestChecklist02Fakes has the sequences of section 4.8 over fakes, where each order can be chosen.
func TestChecklist02Fakes(t *testing.T) {
	update := func(paused bool) func(dt.TransferID) dt.Request {
		return func(id dt.TransferID) dt.Request { return message.UpdateRequest(id, paused) }
	}
	for _, tc := range []struct {
		name  string
		start func(*testing.T, *faked) dt.ChannelID
		plays []play
		want  string
		ends  dt.Status
	}{
		{"pull, data first", opened(true), []play{accept(false), received, finished(nil), complete(false)},
			"Open Opened Accept ResumeResponder FinishTransfer ResponderCompletes CleanupComplete ", dt.Completed},
		{"pull, Complete first", opened(true), []play{accept(false), received, complete(false), finished(nil)},
			"Open Opened Accept ResumeResponder ResponderCompletes FinishTransfer CleanupComplete ", dt.Completed},
		{"pull, Complete before the acceptance (R-61)", opened(true), []play{complete(false), accept(false), received, finished(nil)},
			"Open Opened ResponderCompletes Accept ResumeResponder FinishTransfer CleanupComplete ", dt.Completed},
		{"pull, finalizing, data first", opened(true), []play{accept(false), finished(nil), complete(true), voucher, complete(false)},
			"Open Opened Accept ResumeResponder FinishTransfer ResponderBeginsFinalization PauseResponder NewVoucher ResponderCompletes CleanupComplete ", dt.Completed},
		{"pull, finalizing first", opened(true), []play{accept(false), complete(true), finished(nil), voucher, complete(false)},
			"Open Opened Accept ResumeResponder ResponderBeginsFinalization PauseResponder FinishTransfer NewVoucher ResponderCompletes CleanupComplete ", dt.Completed},
		{"pull, finalizing twice (R-103)", opened(true), []play{accept(false), finished(nil), complete(true), complete(true), voucher, complete(false)},
			"Open Opened Accept ResumeResponder FinishTransfer ResponderBeginsFinalization PauseResponder ResponderBeginsFinalization PauseResponder NewVoucher ResponderCompletes CleanupComplete ", dt.Completed},
		{"pull, asked for the last payment after Complete", opened(true), []play{accept(false), received, complete(false), complete(true), finished(nil)},
			"Open Opened Accept ResumeResponder ResponderCompletes FinishTransfer CleanupComplete ", dt.Completed},
		{"pull, demand of v2 without a result", opened(true), []play{accept(false), answers(func(id dt.TransferID) (dt.Response, error) { return message.UpdateResponse(id, true), nil }), demand(true), voucher, demand(false)},
			"Open Opened Accept ResumeResponder PauseResponder NewVoucherResult PauseResponder NewVoucher NewVoucherResult ResumeResponder ", dt.Ongoing},
		{"pull, paused and then completed (R-35)", opened(true), []play{accept(true), complete(false), finished(nil)},
			"Open Opened Accept PauseResponder ResponderCompletes FinishTransfer CleanupComplete ", dt.Completed},
		{"pull, everything local", opened(true), []play{finished(nil)}, "Open Opened FinishTransfer CleanupComplete ", dt.Completed},
		{"pull, rejected", opened(true), []play{answers(func(id dt.TransferID) (dt.Response, error) { return message.NewResponse(id, false, false, "", nil) })},
			"Open Opened Error CleanupComplete ", dt.Failed},
		{"pull, cancelled by the responder", opened(true), []play{accept(false), answers(func(id dt.TransferID) (dt.Response, error) { return message.CancelResponse(id), nil })},
			"Open Opened Accept ResumeResponder Cancel CleanupComplete ", dt.Cancelled},
		{"pull, transport failure", opened(true), []play{accept(false), finished(context.DeadlineExceeded)},
			"Open Opened Accept ResumeResponder Error CleanupComplete ", dt.Failed},
		{"pull, restart refused", opened(true), []play{accept(false), restartAnswer(false)},
			"Open Opened Accept ResumeResponder Error CleanupComplete ", dt.Failed},
		{"push, everything local at the responder (R-39)", opened(false), []play{complete(false)}, "Open ResponderCompletes FinishTransfer CleanupComplete ", dt.Completed},
		{"push", opened(false), []play{accept(false), finished(nil), complete(false)},
			"Open Accept ResumeResponder FinishTransfer ResponderCompletes CleanupComplete ", dt.Completed},
		{"push, rejected on the network", opened(false), []play{func(t *testing.T, f *faked, chid dt.ChannelID) {
			f.net.Delegate().ReceiveResponse(t.Context(), them, must(message.NewResponse(chid.ID, false, false, "FakeDTType", testutil.NewFakeDTType("no"))))
		}}, "Open NewVoucherResult Error CleanupComplete ", dt.Failed},
		{"responder of a pull", requested(true), []play{finished(nil)}, "Open Accept Complete CleanupComplete ", dt.Completed},
		{"responder of a push", requested(false), []play{received, finished(nil)}, "Open Accept Opened Complete CleanupComplete ", dt.Completed},
		{"responder, paused and resumed by the initiator", requested(true), []play{says(update(true)), says(update(false)), finished(nil)},
			"Open Accept PauseInitiator ResumeInitiator Complete CleanupComplete ", dt.Completed},
		{"responder paused while the initiator resumes", requested(true), []play{says(update(true)), func(t *testing.T, f *faked, chid dt.ChannelID) {
			require.NoError(t, f.manager.PauseDataTransferChannel(t.Context(), chid))
			_, err := f.transport.EventHandler().OnRequestReceived(chid, message.UpdateRequest(chid.ID, false))
			require.ErrorIs(t, err, dt.ErrPause)
		}}, "Open Accept PauseInitiator PauseResponder ResumeInitiator ", dt.ResponderPaused},
		{"responder, cancelled by the initiator", requested(true), []play{says(message.CancelRequest)}, "Open Accept Cancel CleanupComplete ", dt.Cancelled},
		{"responder of a pull, restarted", requested(true), []play{func(t *testing.T, f *faked, chid dt.ChannelID) {
			resp, err := f.transport.EventHandler().OnRequestReceived(chid, f.request(t, true, true))
			require.NoError(t, err)
			require.True(t, resp.Accepted() && resp.IsRestart())
		}, finished(nil)}, "Open Accept Restart Complete CleanupComplete ", dt.Completed},
		{"a request for a channel that exists (R-43)", requested(true), []play{func(t *testing.T, f *faked, chid dt.ChannelID) {
			resp, err := f.transport.EventHandler().OnRequestReceived(chid, f.request(t, false, true))
			require.Error(t, err)
			require.False(t, resp.Accepted())
			f.net.Delegate().ReceiveRequest(t.Context(), them, f.request(t, false, false))
			require.Empty(t, f.transport.ClosedChannels())
		}, finished(nil)}, "Open Accept Complete CleanupComplete ", dt.Completed},
		{"an undecodable result ends the channel (R-48)", opened(true), []play{accept(false), answers(func(id dt.TransferID) (dt.Response, error) {
			return message.VoucherResultResponse(id, true, false, "Strange", testutil.NewFakeDTType("x"))
		})}, "Open Opened Accept ResumeResponder Error CleanupComplete ", dt.Failed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFaked(t)
			chid := tc.start(t, f)
			for _, p := range tc.plays {
				p(t, f, chid)
			}
			if tc.ends == dt.Completed || tc.ends == dt.Failed || tc.ends == dt.Cancelled {
				f.trace.wait(t)
			}
			f.stop(t)
			require.Equal(t, tc.want, f.trace.String())
			require.Equal(t, dt.Statuses[tc.ends], dt.Statuses[f.trace.state().Status()])
			f.trace.checkBlocks(t)
			if f.trace.count(dt.CleanupComplete) == 1 {
				require.Equal(t, []dt.ChannelID{chid}, f.transport.CleanedUpChannels())
				require.False(t, f.net.Protected(them, chid.String()))
			}
		})
	}
}
