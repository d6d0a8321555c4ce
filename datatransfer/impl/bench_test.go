package impl_test

import (
	"context"
	"math/rand/v2"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/ipfs/go-graphsync"
	gsimpl "github.com/ipfs/go-graphsync/impl"
	gsnet "github.com/ipfs/go-graphsync/network"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/fluent/qp"
	"github.com/ipld/go-ipld-prime/linking"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/stretchr/testify/require"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/message"
	"github.com/cartage-dev/cartage/datatransfer/testutil"
	"github.com/cartage-dev/cartage/shared"
)

// docs/benchmarks/datatransfer.md is made of what the benchmarks of this file print:
//
//	go test -run xxx -bench 'Graphsync|Voucher|Idle|Refused' -benchtime 1x ./datatransfer/impl

// tree stores leaves of random bytes below lists of at most 1000 links.
func tree(b *testing.B, s *testutil.MemStore, leaves, size int) cid.Cid {
	ls := s.LinkSystem()
	rnd := rand.New(rand.NewPCG(1, 2))
	leaf := cidlink.LinkPrototype{Prefix: cid.Prefix{Version: 1, Codec: cid.Raw, MhType: 0x12, MhLength: 32}}
	inner := cidlink.LinkPrototype{Prefix: cid.Prefix{Version: 1, Codec: cid.DagCBOR, MhType: 0x12, MhLength: 32}}
	list := func(links []ipld.Link) ipld.Link {
		n, err := qp.BuildList(basicnode.Prototype.Any, int64(len(links)), func(la ipld.ListAssembler) {
			for _, l := range links {
				qp.ListEntry(la, qp.Link(l))
			}
		})
		require.NoError(b, err)
		return must(ls.Store(linking.LinkContext{}, inner, n))
	}
	var lists, links []ipld.Link
	for i := range leaves {
		data := make([]byte, size)
		for j := 0; j < len(data); j += 8 {
			v := rnd.Uint64()
			for k := range min(8, len(data)-j) {
				data[j+k] = byte(v >> (8 * k))
			}
		}
		links = append(links, must(ls.Store(linking.LinkContext{}, leaf, basicnode.NewBytes(data))))
		if len(links) == 1000 || i == leaves-1 {
			lists, links = append(lists, list(links)), nil
		}
	}
	return list(lists).(cidlink.Link).Cid
}

// cpu is the processor time of this process, both ends of a transfer.
func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func newHost(b *testing.B) host.Host {
	h, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.DisableRelay(), libp2p.DisableMetrics())
	require.NoError(b, err)
	return h
}

// bare moves a DAG with nothing but go-graphsync.
func bare(b *testing.B, from *testutil.MemStore, root cid.Cid, blocks int) time.Duration {
	ctx, cancel := context.WithCancel(b.Context())
	x, y := newHost(b), newHost(b)
	to := testutil.NewMemStore()
	sender := gsimpl.New(ctx, gsnet.NewFromLibp2pHost(x), from.LinkSystem())
	sender.RegisterIncomingRequestHook(func(_ peer.ID, _ graphsync.RequestData, ha graphsync.IncomingRequestHookActions) {
		ha.ValidateRequest()
	})
	recipient := gsimpl.New(ctx, gsnet.NewFromLibp2pHost(y), to.LinkSystem())
	require.NoError(b, y.Connect(ctx, peer.AddrInfo{ID: x.ID(), Addrs: x.Addrs()}))
	runtime.GC()
	begin := cpu()
	responses, errs := recipient.Request(ctx, x.ID(), cidlink.Link{Cid: root}, shared.AllSelector())
	for responses != nil || errs != nil {
		select {
		case _, ok := <-responses:
			if !ok {
				responses = nil
			}
		case err, ok := <-errs:
			require.NoError(b, err)
			if !ok {
				errs = nil
			}
		}
	}
	used := cpu() - begin
	require.Equal(b, blocks, to.Len())
	cancel()
	_, _ = x.Close(), y.Close()
	return used
}

// ours moves it with two managers; the recipient's listener is told of each block, or of progress only.
func ours(b *testing.B, from *testutil.MemStore, root cid.Cid, blocks int, each bool) time.Duration {
	x, err := testutil.PeerConfig{Store: from}.Start(b.Context())
	require.NoError(b, err)
	y, err := testutil.NewPeer(b.Context(), nil)
	require.NoError(b, err)
	require.NoError(b, x.Manager.RegisterVoucherType(testutil.NewFakeDTType(""), &testutil.Validator{}))
	require.NoError(b, y.Manager.RegisterVoucherType(testutil.NewFakeDTType(""), nil))
	require.NoError(b, testutil.Connect(b.Context(), y, x))
	done := make(chan struct{})
	subscribe := y.Manager.SubscribeToEvents
	if !each {
		subscribe = y.Manager.(interface {
			SubscribeToProgress(dt.Subscriber) dt.Unsubscribe
		}).SubscribeToProgress
	}
	subscribe(func(e dt.Event, s dt.ChannelState) {
		if e.Code == dt.CleanupComplete {
			close(done)
		}
	})
	runtime.GC()
	begin := cpu()
	_, err = y.Manager.OpenPullDataChannel(b.Context(), x.Host.ID(), testutil.NewFakeDTType("open"), root, shared.AllSelector())
	require.NoError(b, err)
	<-done
	used := cpu() - begin
	require.Equal(b, blocks, y.Store.Len())
	require.NoError(b, y.Close(context.WithoutCancel(b.Context())))
	require.NoError(b, x.Close(context.WithoutCancel(b.Context())))
	return used
}

// BenchmarkGraphsync compares the processor time of both ends with bare go-graphsync over the same stores, in interleaved rounds.
func BenchmarkGraphsync(b *testing.B) {
	for _, w := range []struct {
		name         string
		leaves, size int
	}{{"1GiB of 1MiB blocks", 1024, 1 << 20}, {"100000 blocks of 1KiB", 100_000, 1 << 10}} {
		b.Run(w.name, func(b *testing.B) {
			store := testutil.NewMemStore()
			root := tree(b, store, w.leaves, w.size)
			blocks := store.Len()
			var theirs []float64
			mine, ratios := map[bool][]float64{}, map[bool][]float64{}
			for b.Loop() {
				for range 5 {
					t := bare(b, store, root, blocks).Seconds()
					theirs = append(theirs, t)
					for _, each := range []bool{true, false} {
						m := ours(b, store, root, blocks, each).Seconds()
						mine[each], ratios[each] = append(mine[each], m), append(ratios[each], m/t)
					}
				}
			}
			slices.Sort(theirs)
			b.ReportMetric(theirs[len(theirs)/2], "bare-cpu-s")
			for each, name := range map[bool]string{true: "each-block", false: "progress"} {
				slices.Sort(mine[each])
				slices.Sort(ratios[each])
				b.ReportMetric(mine[each][len(mine[each])/2]/theirs[len(theirs)/2], name+"-ratio")
				b.ReportMetric(ratios[each][0], name+"-least")
				b.ReportMetric(ratios[each][len(ratios[each])-1], name+"-most")
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkVoucher compares the ten thousandth voucher of a channel with the tenth: time and bytes written.
func BenchmarkVoucher(b *testing.B) {
	for b.Loop() {
		ds := &counting{Batching: dssync.MutexWrap(datastore.NewMapDatastore())}
		net, transport := deaf{testutil.NewFakeNetwork(us)}, testutil.NewFakeTransport()
		m := must(newManager(ds, net, transport))
		require.NoError(b, m.RegisterVoucherType(testutil.NewFakeDTType(""), nil))
		require.NoError(b, testutil.StartAndWaitForReady(b.Context(), m))
		root, _, err := testutil.NewMemStore().BuildDAG(1, 10, 1)
		require.NoError(b, err)
		chid, err := m.OpenPullDataChannel(b.Context(), them, testutil.NewFakeDTType("open"), root, shared.AllSelector())
		require.NoError(b, err)
		const each, last = 500, 10_000
		batch := func() (time.Duration, int) {
			bytes, begin := ds.bytes.Load(), time.Now()
			for range each {
				require.NoError(b, m.SendVoucher(b.Context(), chid, testutil.NewFakeDTType("payment")))
			}
			_ = settle()
			return time.Since(begin), int(ds.bytes.Load() - bytes)
		}
		_, _ = batch() // warm
		early, earlyBytes := batch()
		for range last/each - 3 {
			_, _ = batch()
		}
		late, lateBytes := batch()
		b.ReportMetric(float64(late)/float64(early), "time-ratio")
		b.ReportMetric(float64(lateBytes)/float64(earlyBytes), "bytes-ratio")
		b.ReportMetric(0, "ns/op")
		require.NoError(b, m.Stop(context.WithoutCancel(b.Context())))
	}
}

// BenchmarkIdle measures what a thousand channels with a hundred vouchers each hold while nothing happens.
func BenchmarkIdle(b *testing.B) {
	const channels, vouchers = 1000, 100
	for b.Loop() {
		ds := &discarding{Batching: dssync.MutexWrap(datastore.NewMapDatastore())}
		m := must(newManager(ds, deaf{testutil.NewFakeNetwork(us)}, still{testutil.NewFakeTransport()}))
		require.NoError(b, m.RegisterVoucherType(testutil.NewFakeDTType(""), nil))
		require.NoError(b, testutil.StartAndWaitForReady(b.Context(), m))
		root, _, err := testutil.NewMemStore().BuildDAG(1, 10, 1)
		require.NoError(b, err)
		goroutines, before := runtime.NumGoroutine(), heap()
		for range channels {
			chid, err := m.OpenPullDataChannel(b.Context(), them, testutil.NewFakeDTType("open"), root, shared.AllSelector())
			require.NoError(b, err)
			for range vouchers {
				require.NoError(b, m.SendVoucher(b.Context(), chid, testutil.NewFakeDTType("payment")))
			}
		}
		time.Sleep(time.Second)
		b.ReportMetric(float64(runtime.NumGoroutine()-goroutines)/channels, "goroutines/channel")
		b.ReportMetric(float64(heap()-before)/channels, "B/channel")
		b.ReportMetric(0, "ns/op")
		require.NoError(b, m.Stop(context.WithoutCancel(b.Context())))
	}
}

// BenchmarkRefused measures what a thousand refused requests leave.
func BenchmarkRefused(b *testing.B) {
	for b.Loop() {
		m := must(newManager(dssync.MutexWrap(datastore.NewMapDatastore()), testutil.NewFakeNetwork(us), testutil.NewFakeTransport()))
		transport := m.transport
		require.NoError(b, m.RegisterVoucherType(testutil.NewFakeDTType(""), &testutil.Validator{Pull: accepts("no", dt.ErrRejected)}))
		require.NoError(b, testutil.StartAndWaitForReady(b.Context(), m))
		root, _, err := testutil.NewMemStore().BuildDAG(1, 10, 1)
		require.NoError(b, err)
		refuse := func(id dt.TransferID) {
			req := must(message.NewRequest(id, false, true, "FakeDTType", testutil.NewFakeDTType("v"), root, shared.AllSelector()))
			_, err := transport.EventHandler().OnRequestReceived(dt.ChannelID{Initiator: them, Responder: us, ID: id}, req)
			require.Error(b, err)
		}
		for id := range dt.TransferID(1000) {
			refuse(id + 1)
		}
		goroutines, before := runtime.NumGoroutine(), heap()
		for id := range dt.TransferID(1000) {
			refuse(id + 2000)
		}
		b.ReportMetric(float64(runtime.NumGoroutine()-goroutines), "goroutines")
		b.ReportMetric(max(0, float64(heap()-before))/1000, "B/request")
		b.ReportMetric(0, "ns/op")
		require.NoError(b, m.Stop(context.WithoutCancel(b.Context())))
	}
}

func heap() int64 {
	var s runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&s)
	return int64(s.HeapAlloc)
}
