package impl_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/ipld/go-ipld-prime"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/stretchr/testify/require"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/impl"
	"github.com/cartage-dev/cartage/datatransfer/network"
	"github.com/cartage-dev/cartage/datatransfer/testutil"
)

// counting counts the bytes that are written.
type counting struct {
	datastore.Batching
	bytes atomic.Int64
}

func (c *counting) Batch(ctx context.Context) (datastore.Batch, error) {
	b, err := c.Batching.Batch(ctx)
	return countingBatch{b, c}, err
}

type countingBatch struct {
	datastore.Batch
	c *counting
}

func (b countingBatch) Put(ctx context.Context, k datastore.Key, v []byte) error {
	b.c.bytes.Add(int64(len(k.String()) + len(v)))
	return b.Batch.Put(ctx, k, v)
}

// discarding forgets vouchers and log lines: what is left in memory is the manager's.
type discarding struct{ datastore.Batching }

func (d *discarding) Batch(ctx context.Context) (datastore.Batch, error) {
	b, err := d.Batching.Batch(ctx)
	return discardingBatch{b}, err
}

type discardingBatch struct{ datastore.Batch }

func (b discardingBatch) Put(ctx context.Context, k datastore.Key, v []byte) error {
	if s := k.String(); len(s) > 4 && (s[:4] == "/4/v" || s[:4] == "/4/l" || s[:4] == "/4/h" || s[:4] == "/4/s") {
		return nil
	}
	return b.Batch.Put(ctx, k, v)
}

// fakedManager is a manager and its fake transport.
type fakedManager struct {
	dt.Manager
	transport *testutil.FakeTransport
}

// deaf is a network that keeps nothing of what is sent.
type deaf struct{ *testutil.FakeNetwork }

func (deaf) SendMessage(context.Context, peer.ID, dt.Message) error { return nil }

// still is a transport that keeps nothing of what it is asked for.
type still struct{ *testutil.FakeTransport }

func (still) OpenChannel(context.Context, peer.ID, dt.ChannelID, ipld.Link, ipld.Node, dt.ChannelState, dt.Message) error {
	return nil
}

func newManager(ds datastore.Batching, net network.DataTransferNetwork, transport dt.Transport) (fakedManager, error) {
	m, err := impl.NewDataTransfer(ds, net, transport)
	f, _ := transport.(*testutil.FakeTransport)
	return fakedManager{m, f}, err
}

// settle waits until what was submitted is written: counters go out at the latest 100 ms after the last event.
func settle() error {
	time.Sleep(5 * time.Millisecond)
	return nil
}

// TestChecklist08 is number 8 of the checklist: voucher number ten thousand writes as many bytes as number ten. Times are in
// BenchmarkVoucher.
func TestChecklist08(t *testing.T) {
	ds := &counting{Batching: dssync.MutexWrap(datastore.NewMapDatastore())}
	f := fakedOn(t, ds)
	chid := f.pull(t)
	send := func(n int) {
		want := f.trace.count(dt.NewVoucher) + n
		for range n {
			require.NoError(t, f.manager.SendVoucher(t.Context(), chid, testutil.NewFakeDTType("payment")))
		}
		f.trace.saw(t, dt.NewVoucher, want)
	}
	written := func(n int) int64 { // one by one: those that wait together are stored together
		before := ds.bytes.Load()
		for range n {
			send(1)
		}
		return ds.bytes.Load() - before
	}
	written(10)
	early := written(10)
	send(9970)
	late := written(10)
	require.InEpsilon(t, early, late, 0.05) // numbers grow by a byte
	s, err := f.manager.ChannelState(t.Context(), chid)
	require.NoError(t, err)
	require.Len(t, s.Vouchers(), 10_001)
}
