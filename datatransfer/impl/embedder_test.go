package impl_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/ipld/go-ipld-prime/datamodel"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/stretchr/testify/require"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/impl"
	"github.com/cartage-dev/cartage/datatransfer/message"
	"github.com/cartage-dev/cartage/datatransfer/testutil"
	"github.com/cartage-dev/cartage/internal/port"
	"github.com/cartage-dev/cartage/shared"
)

// TestOnReadyAfterStart: a listener that comes late is called, and its caller does not wait for it: it may hand on over a channel without room.
func TestOnReadyAfterStart(t *testing.T) {
	f := newFaked(t)
	heard := make(chan error)
	f.manager.OnReady(func(err error) { heard <- err })
	require.NoError(t, <-heard)
}

// slowOpen is a store whose first read waits.
type slowOpen struct {
	datastore.Batching
	open chan struct{}
}

func (s slowOpen) Get(ctx context.Context, k datastore.Key) ([]byte, error) {
	select {
	case <-s.open:
		return s.Batching.Get(ctx, k)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// TestCallsWaitForReadiness: what is asked of a manager that has been started is done once its store is ready, or ends with its context. Before the start
// it is refused.
func TestCallsWaitForReadiness(t *testing.T) {
	ds := slowOpen{dssync.MutexWrap(datastore.NewMapDatastore()), make(chan struct{})}
	m, err := impl.NewDataTransfer(ds, testutil.NewFakeNetwork(us), testutil.NewFakeTransport())
	require.NoError(t, err)
	require.NoError(t, m.RegisterVoucherType(testutil.NewFakeDTType(""), nil))
	root, _, err := testutil.NewMemStore().BuildDAG(1, 10, 1)
	require.NoError(t, err)
	push := func(ctx context.Context) (dt.ChannelID, error) {
		return m.OpenPushDataChannel(ctx, them, testutil.NewFakeDTType("open"), root, shared.AllSelector())
	}
	_, err = push(t.Context())
	require.ErrorIs(t, err, shared.ErrNotReady)
	require.NoError(t, m.Start(t.Context()))
	over, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = push(over)
	require.ErrorIs(t, err, context.Canceled)
	time.AfterFunc(20*time.Millisecond, func() { close(ds.open) })
	chid, err := push(t.Context())
	require.NoError(t, err)
	require.Equal(t, dt.Requested, m.TransferChannelStatus(t.Context(), chid))
	require.NoError(t, m.Stop(context.Background()))
}

// TestStopEndsWithItsContext: a validator that does not return keeps Stop no longer than its context; a later Stop waits for the end.
func TestStopEndsWithItsContext(t *testing.T) {
	testutil.EachDecision(t, func(t *testing.T) {
		asked, answer := make(chan struct{}), make(chan struct{})
		d := newTrade(t, true, 2, 100, &testutil.Validator{Pull: func(bool, dt.ChannelID, dt.Voucher) (dt.VoucherResult, error) {
			close(asked)
			<-answer
			return nil, errors.New("no")
		}}, nil)
		d.open(t)
		<-asked
		ctx, cancel := context.WithTimeout(d.ctx, 50*time.Millisecond)
		defer cancel()
		ended := make(chan error, 1)
		go func() { ended <- d.b.Manager.Stop(ctx) }()
		select {
		case err := <-ended:
			require.ErrorIs(t, err, context.DeadlineExceeded)
		case <-time.After(20 * time.Second):
			close(answer)
			t.Fatal("Stop goes on after its context")
		}
		close(answer)
		require.NoError(t, d.b.Manager.Stop(d.ctx))
	})
}

// TestRestartRefusals have the words that callers know.
func TestRestartRefusals(t *testing.T) {
	away := errors.New("nobody there")
	valid := error(nil)
	f := fakedWith(t, dssync.MutexWrap(datastore.NewMapDatastore()), func(m dt.Manager) {
		require.NoError(t, m.RegisterVoucherType(testutil.NewFakeDTType(""), &testutil.Validator{
			Pull: func(restart bool, _ dt.ChannelID, _ dt.Voucher) (dt.VoucherResult, error) {
				if restart {
					return nil, valid
				}
				return nil, nil
			},
		}))
	})
	mine, theirs := f.push(t), requested(true)(t, f)
	f.net.Err = away
	require.EqualError(t, f.manager.RestartDataTransferChannel(t.Context(), theirs), "unable to send restart request: nobody there")
	require.EqualError(t, f.manager.RestartDataTransferChannel(t.Context(), mine), "Unable to send restart request: nobody there")
	valid = errors.New("too old")
	require.EqualError(t, f.manager.RestartDataTransferChannel(t.Context(), theirs), "failed to restart channel, validation error: too old")
	pulls := newFaked(t)
	chid := pulls.pull(t)
	pulls.transport.OpenErr = away
	require.EqualError(t, pulls.manager.RestartDataTransferChannel(t.Context(), chid), "Unable to send open channel restart request: nobody there")
}

// TestSentAfterRestart: what a sender says it has sent is everything once. Blocks that the recipient has were sent, also if their connection broke before
// this side heard that they had left.
func TestSentAfterRestart(t *testing.T) {
	for name, pull := range map[string]bool{"pull": true, "push": false} {
		t.Run(name, func(t *testing.T) {
			f := newFaked(t)
			h := port.HandlerOf(f.transport.EventHandler(), nil)
			chid := asked()
			if pull {
				requested(true)(t, f)
			} else {
				chid = f.push(t)
				accept(false)(t, f, chid)
			}
			block := cidlink.Link{Cid: f.root}
			for i := range int64(4) {
				_, err := h.OnDataQueued(chid, block, 10, i+1, true)
				require.NoError(t, err)
			}
			require.NoError(t, h.OnDataSent(chid, block, 10, 1, true))
			require.NoError(t, h.OnRequestDisconnected(chid, errors.New("gone")))
			if pull {
				_, err := h.OnDataRequest(chid, f.request(t, true, true), 3)
				require.NoError(t, err)
			}
			for i := range int64(3) { // the transport leaves them out
				if h.ClaimCounts(chid, i+1) {
					h.OnBlockClaimed(chid, 10, i+1)
				}
			}
			_, err := h.OnDataQueued(chid, block, 10, 4, true)
			require.NoError(t, err)
			require.NoError(t, h.OnDataSent(chid, block, 10, 4, true))
			s, err := f.manager.ChannelState(t.Context(), chid)
			require.NoError(t, err)
			require.EqualValues(t, 40, s.Queued())
			require.EqualValues(t, 40, s.Sent())
			require.EqualValues(t, 4, s.SentCidsTotal())
		})
	}
}

// nodeVoucher is a voucher whose decoded form is a node and no voucher.
type nodeVoucher struct{ datamodel.Node }

func (nodeVoucher) Type() dt.TypeIdentifier { return "NodeVoucher" }

// TestVoucherOfWrongForm: what the other side sends decodes to what is no voucher: its channel ends, and nothing panics.
func TestVoucherOfWrongForm(t *testing.T) {
	v := nodeVoucher{basicnode.NewString("pay")}
	f := fakedWith(t, dssync.MutexWrap(datastore.NewMapDatastore()), func(m dt.Manager) {
		require.NoError(t, m.RegisterVoucherType(testutil.NewFakeDTType(""), &testutil.Validator{}))
		require.NoError(t, m.RegisterRevalidator(v, &tab{}))
	})
	requested(true)(t, f)
	resp, err := f.transport.EventHandler().OnRequestReceived(asked(), must(message.VoucherRequest(asked().ID, v.Type(), v)))
	require.NoError(t, err)
	require.False(t, resp.Accepted())
	require.Equal(t, dt.Statuses[dt.Failed], dt.Statuses[f.trace.wait(t).Status()])
	require.Contains(t, f.trace.state().Message(), "is not a voucher")
}
