package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	dtv2 "github.com/filecoin-project/go-data-transfer/v2"
	v2impl "github.com/filecoin-project/go-data-transfer/v2/impl"
	v2net "github.com/filecoin-project/go-data-transfer/v2/network"
	v2gs "github.com/filecoin-project/go-data-transfer/v2/transport/graphsync"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/ipfs/go-graphsync"
	gsimpl "github.com/ipfs/go-graphsync/impl"
	gsnet "github.com/ipfs/go-graphsync/network"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/datamodel"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/multiformats/go-varint"

	"github.com/cartage-dev/cartage/carstore"
	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/impl"
	dtnet "github.com/cartage-dev/cartage/datatransfer/network"
	"github.com/cartage-dev/cartage/datatransfer/testutil"
	gstransport "github.com/cartage-dev/cartage/datatransfer/transport/graphsync"
	"github.com/cartage-dev/cartage/datatransfer/transport/stream"
	"github.com/cartage-dev/cartage/shared"
)

// row is one way to move a DAG between two processes.
type row struct {
	name  string
	noise bool
	pays  uint64 // bytes between two vouchers
	slow  bool   // the store of the client
	far   bool   // the server, over a simulated link
	many  bool   // a transfer for each leaf
	most  int    // how many of them at once, 0 is all
	crowd int    // clients at once
	times int    // vouchers in all: pays follows from the size
	bar   *bar
	roots []cid.Cid
	// signed is told how many vouchers were signed.
	signed *atomic.Uint64
	serve  func(ctx context.Context, h host.Host, m *memory, r row) (addr string, err error)
	fetch  func(ctx context.Context, h host.Host, server peer.AddrInfo, addr string, root cid.Cid, r row) (uint64, error)
}

// of is a row for DAGs of a size.
func (r row) of(size int) row {
	if r.times > 0 {
		r.pays = uint64(size / r.times)
	}
	return r
}

// fits tells whether a DAG has blocks that are small enough for as many vouchers: one is due at the first block beyond an interval.
func (r row) fits(d dag, size int) bool { return r.times == 0 || 16*d.leaf <= int(r.of(size).pays) }

// The rows that others are compared with.
const (
	ceiling       = "verified CAR over one stream, TLS (ceiling)"
	vouchersAlone = "vouchers alone, one each MiB: signed, checked, two durable commits"
	ceilingFile   = "verified CAR over one stream, TLS, into a CARv2 file"
	bareGraphsync = "go-graphsync v0.18.1"
	manyCars      = "verified CARs over a stream each, TLS"
)

var (
	onlyVouchers = row{name: vouchersAlone, pays: 1 << 20, serve: serveVouchers, fetch: fetchVouchers}
	intoFile     = row{name: ceilingFile, serve: serveCar, fetch: fetchCarFile}
	paidIntoFile = row{name: "Cartage, paid deal into a CARv2 file", pays: 1 << 20, serve: servePaid, fetch: fetchPaid(true),
		bar: &bar{of: []string{ceilingFile, vouchersAlone}, most: 1.2, alloc: 0.05}}
)

// files keep what arrives, as a user's retrieval does.
var files = []row{
	intoFile,
	onlyVouchers,
	paidIntoFile,
	{name: "Cartage, paid deal into a CARv2 file, interval of 8 MiB, paid ahead each MiB", pays: 8 << 20, serve: servePaid, fetch: fetchPaid(true),
		bar: &bar{of: []string{ceilingFile, vouchersAlone}, most: 1.2, alloc: 0.05}},
}

// rows are in the order of the table; the first is the ceiling.
var rows = []row{
	{name: ceiling, serve: serveCar, fetch: fetchCar},
	{name: "verified CAR over one stream, Noise", noise: true, serve: serveCar, fetch: fetchCar},
	{name: "verified CAR over HTTP/1.1, no encryption", serve: serveHTTP, fetch: fetchHTTP},
	{name: "Cartage, stream", serve: serveOurs(true), fetch: fetchOurs(true), bar: &bar{of: []string{ceiling}, most: 1.15, most1KiB: 1.5, alloc: 0.05}},
	{name: "Cartage, stream, a voucher each MiB", pays: 1 << 20, serve: serveOurs(true), fetch: fetchOurs(true)},
	onlyVouchers,
	{name: "Cartage, paid deal over a stream, such a voucher each MiB", pays: 1 << 20, serve: servePaid, fetch: fetchPaid(false),
		bar: &bar{of: []string{ceiling, vouchersAlone}, most: 1.15, most1KiB: 1.5, alloc: 0.05}},
	{name: "Cartage, paid deal over a stream, interval of 8 MiB, paid ahead each MiB", pays: 8 << 20, serve: servePaid, fetch: fetchPaid(false),
		bar: &bar{of: []string{ceiling, vouchersAlone}, most: 1.15, most1KiB: 1.5, alloc: 0.05}},
	{name: "Cartage, paid deal over a stream, 1,000 vouchers", times: 1000, serve: servePaid, fetch: fetchPaid(false)},
	{name: "Cartage, paid deal over a stream, 5,000 vouchers", times: 5000, serve: servePaid, fetch: fetchPaid(false)},
	intoFile,
	paidIntoFile,
	{name: "Cartage, graphsync", serve: serveOurs(false), fetch: fetchOurs(false), bar: &bar{of: []string{bareGraphsync}, most: 1.1}},
	{name: bareGraphsync, serve: serveGraphsync, fetch: fetchGraphsync},
	{name: "go-data-transfer v2.0.0-rc8", serve: serveV2, fetch: fetchV2},
}

func newHost(r row) (host.Host, error) {
	security := libp2p.Security(libp2ptls.ID, libp2ptls.New)
	if r.noise {
		security = libp2p.Security(noise.ID, noise.New)
	}
	return libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.Transport(tcp.NewTCPTransport), security,
		libp2p.DisableRelay(), libp2p.DisableMetrics(), libp2p.ResourceManager(&network.NullResourceManager{}))
}

const carProtocol = "/bench/car/1"

// writeCar writes the sections of a DAG in the order of the traversal.
func writeCar(w io.Writer, m *memory) error {
	out := bufio.NewWriterSize(w, 1<<20)
	err := depthFirst(m.root, func(c cid.Cid) ([]byte, error) {
		data, err := m.get(c)
		if err != nil {
			return nil, err
		}
		key := c.KeyString()
		_, _ = out.Write(varint.ToUvarint(uint64(len(key) + len(data))))
		_, _ = out.WriteString(key)
		_, err = out.Write(data)
		return data, err
	})
	return errors.Join(err, out.Flush())
}

// depthFirst visits a DAG of lists in the order of a traversal.
func depthFirst(root cid.Cid, visit func(cid.Cid) ([]byte, error)) error {
	stack := []cid.Cid{root}
	for len(stack) > 0 {
		c := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		data, err := visit(c)
		if err != nil {
			return err
		}
		if c.Prefix().Codec == cid.Raw {
			continue
		}
		links, err := carstore.LinksOf(c, data)
		if err != nil {
			return err
		}
		for i := len(links) - 1; i >= 0; i-- {
			stack = append(stack, links[i])
		}
	}
	return nil
}

// readCar verifies each section: that it is the one that follows, and its hash.
func readCar(r io.Reader, root cid.Cid) (n uint64, err error) {
	return readCarInto(r, root, func(cid.Cid, []byte) error { return nil })
}

func readCarInto(r io.Reader, root cid.Cid, put func(cid.Cid, []byte) error) (n uint64, err error) {
	in := bufio.NewReaderSize(r, 64<<10)
	var buf []byte
	err = depthFirst(root, func(c cid.Cid) ([]byte, error) {
		size, err := varint.ReadUvarint(in)
		if err != nil {
			return nil, err
		}
		if uint64(cap(buf)) < size {
			buf = make([]byte, size)
		}
		buf = buf[:size]
		if _, err := io.ReadFull(in, buf); err != nil {
			return nil, err
		}
		key := c.KeyString()
		if string(buf[:len(key)]) != key {
			return nil, errors.New("another block than the one that follows")
		}
		data := buf[len(key):]
		if sum := sha256.Sum256(data); string(sum[:]) != key[len(key)-32:] {
			return nil, errors.New("a block is not what its CID says")
		}
		n += uint64(len(data))
		return data, put(c, data)
	})
	return n, err
}

func serveCar(_ context.Context, h host.Host, m *memory, _ row) (string, error) {
	h.SetStreamHandler(carProtocol, func(s network.Stream) {
		_ = writeCar(s, m)
		_ = s.Close()
	})
	return "", nil
}

func fetchCar(ctx context.Context, h host.Host, server peer.AddrInfo, _ string, root cid.Cid, _ row) (uint64, error) {
	s, err := h.NewStream(ctx, server.ID, carProtocol)
	if err != nil {
		return 0, err
	}
	_ = s.CloseWrite()
	return readCar(s, root)
}

func serveHTTP(ctx context.Context, _ host.Host, m *memory, _ row) (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _ = writeCar(w, m) }), ReadHeaderTimeout: time.Second}
	context.AfterFunc(ctx, func() { _ = srv.Close() })
	go func() { _ = srv.Serve(l) }()
	return "http://" + l.Addr().String(), nil
}

func fetchHTTP(ctx context.Context, _ host.Host, _ peer.AddrInfo, addr string, root cid.Cid, _ row) (uint64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, addr, nil)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	return readCar(resp.Body, root)
}

func exchange(ctx context.Context, h host.Host, ls ipld.LinkSystem) graphsync.GraphExchange {
	return gsimpl.New(ctx, gsnet.NewFromLibp2pHost(h), ls)
}

// manager is our data transfer on a host, over one of its transports.
func manager(ctx context.Context, h host.Host, ls ipld.LinkSystem, streams bool) (dt.Manager, error) {
	var t dt.Transport
	if streams {
		t = stream.New(h, ls)
	} else { // as a node does
		checked := gstransport.NewCheckedNetwork(gsnet.NewFromLibp2pHost(h))
		t = gstransport.NewTransport(h.ID(), gsimpl.New(ctx, checked, ls), gstransport.Checked(checked))
	}
	m, err := impl.NewDataTransfer(dssync.MutexWrap(datastore.NewMapDatastore()), dtnet.NewFromLibp2pHost(h), t,
		impl.CompletionDelay(func(peer.ID) time.Duration { return 0 }))
	if err != nil {
		return nil, err
	}
	return m, m.RegisterVoucherResultType(testutil.NewFakeDTType(""))
}

func serveOurs(streams bool) func(context.Context, host.Host, *memory, row) (string, error) {
	return func(ctx context.Context, h host.Host, m *memory, r row) (string, error) {
		mgr, err := manager(ctx, h, m.links(), streams)
		if err != nil {
			return "", err
		}
		if err := mgr.RegisterVoucherType(testutil.NewFakeDTType(""), &testutil.Validator{}); err != nil {
			return "", err
		}
		if r.pays > 0 {
			if err := mgr.RegisterRevalidator(testutil.NewFakeDTType(""), &testutil.Meter{Every: r.pays}); err != nil {
				return "", err
			}
		}
		return "", testutil.StartAndWaitForReady(ctx, mgr)
	}
}

func fetchOurs(streams bool) func(context.Context, host.Host, peer.AddrInfo, string, cid.Cid, row) (uint64, error) {
	return func(ctx context.Context, h host.Host, server peer.AddrInfo, _ string, root cid.Cid, r row) (uint64, error) {
		mgr, err := manager(ctx, h, r.store(), streams)
		if err != nil {
			return 0, err
		}
		if err := mgr.RegisterVoucherType(testutil.NewFakeDTType(""), nil); err != nil {
			return 0, err
		}
		ended := make(chan dt.ChannelState, 1)
		pay := make(chan dt.ChannelID, 64)
		// As the market listens.
		mgr.(*impl.Manager).SubscribeToProgress(func(e dt.Event, s dt.ChannelState) {
			switch {
			case e.Code == dt.CleanupComplete:
				ended <- s
			case e.Code == dt.PauseResponder && r.pays > 0:
				pay <- s.ChannelID()
			}
		})
		if err := testutil.StartAndWaitForReady(ctx, mgr); err != nil {
			return 0, err
		}
		if _, err := mgr.OpenPullDataChannel(ctx, server.ID, testutil.NewFakeDTType("open"), root, shared.AllSelector()); err != nil {
			return 0, err
		}
		for {
			select {
			case id := <-pay:
				if err := mgr.SendVoucher(ctx, id, testutil.NewFakeDTType("pay")); err != nil {
					return 0, err
				}
			case s := <-ended:
				if s.Status() != dt.Completed {
					return s.Received(), fmt.Errorf("%s: %s", dt.Statuses[s.Status()], s.Message())
				}
				return s.Received(), mgr.Stop(ctx)
			case <-ctx.Done():
				return 0, ctx.Err()
			}
		}
	}
}

func serveGraphsync(ctx context.Context, h host.Host, m *memory, _ row) (string, error) {
	gs := exchange(ctx, h, m.links())
	gs.RegisterIncomingRequestHook(func(_ peer.ID, _ graphsync.RequestData, ha graphsync.IncomingRequestHookActions) {
		ha.ValidateRequest()
	})
	return "", nil
}

func fetchGraphsync(ctx context.Context, h host.Host, server peer.AddrInfo, _ string, root cid.Cid, r row) (n uint64, err error) {
	gs := exchange(ctx, h, r.store())
	gs.RegisterIncomingBlockHook(func(_ peer.ID, _ graphsync.ResponseData, b graphsync.BlockData, _ graphsync.IncomingBlockHookActions) {
		n += b.BlockSize()
	})
	progress, errs := gs.Request(ctx, server.ID, cidlink.Link{Cid: root}, shared.AllSelector())
	for range progress {
	}
	for e := range errs {
		err = errors.Join(err, e)
	}
	return n, err
}

const v2Voucher = dtv2.TypeIdentifier("bench")

type v2Accepts struct{}

func (v2Accepts) ValidatePush(dtv2.ChannelID, peer.ID, datamodel.Node, cid.Cid, datamodel.Node) (dtv2.ValidationResult, error) {
	return dtv2.ValidationResult{Accepted: true}, nil
}

func (v2Accepts) ValidatePull(dtv2.ChannelID, peer.ID, datamodel.Node, cid.Cid, datamodel.Node) (dtv2.ValidationResult, error) {
	return dtv2.ValidationResult{Accepted: true}, nil
}

func (v2Accepts) ValidateRestart(dtv2.ChannelID, dtv2.ChannelState) (dtv2.ValidationResult, error) {
	return dtv2.ValidationResult{Accepted: true}, nil
}

func v2(ctx context.Context, h host.Host, ls ipld.LinkSystem) (dtv2.Manager, error) {
	m, err := v2impl.NewDataTransfer(dssync.MutexWrap(datastore.NewMapDatastore()), v2net.NewFromLibp2pHost(h), v2gs.NewTransport(h.ID(), exchange(ctx, h, ls)))
	if err != nil {
		return nil, err
	}
	ready := make(chan error, 1)
	m.OnReady(func(err error) { ready <- err })
	return m, errors.Join(m.RegisterVoucherType(v2Voucher, v2Accepts{}), m.Start(ctx), <-ready)
}

func serveV2(ctx context.Context, h host.Host, m *memory, _ row) (string, error) {
	_, err := v2(ctx, h, m.links())
	return "", err
}

func fetchV2(ctx context.Context, h host.Host, server peer.AddrInfo, _ string, root cid.Cid, _ row) (uint64, error) {
	m, err := v2(ctx, h, discard())
	if err != nil {
		return 0, err
	}
	ended := make(chan dtv2.ChannelState, 1)
	m.SubscribeToEvents(func(e dtv2.Event, s dtv2.ChannelState) {
		if e.Code == dtv2.CleanupComplete {
			ended <- s
		}
	})
	if _, err := m.OpenPullDataChannel(ctx, server.ID, dtv2.TypedVoucher{Voucher: basicnode.NewString("open"), Type: v2Voucher}, root, shared.AllSelector()); err != nil {
		return 0, err
	}
	select {
	case s := <-ended:
		if s.Status() != dtv2.Completed {
			return s.Received(), fmt.Errorf("%s: %s", dtv2.Statuses[s.Status()], s.Message())
		}
		return s.Received(), nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}
