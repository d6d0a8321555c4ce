package interop

import (
	"context"
	"testing"

	v2 "github.com/filecoin-project/go-data-transfer/v2"
	v2impl "github.com/filecoin-project/go-data-transfer/v2/impl"
	v2net "github.com/filecoin-project/go-data-transfer/v2/network"
	v2gs "github.com/filecoin-project/go-data-transfer/v2/transport/graphsync"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	gsimpl "github.com/ipfs/go-graphsync/impl"
	gsnet "github.com/ipfs/go-graphsync/network"
	"github.com/ipfs/go-unixfsnode"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/fluent/qp"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/stretchr/testify/require"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/testutil"
	"github.com/cartage-dev/cartage/shared"
)

// theirs is go-data-transfer v2.
type theirs struct {
	h   host.Host
	mem *testutil.MemStore
	mgr v2.Manager
}

const voucherType = v2.TypeIdentifier("FakeDTType")

func newTheirs(ctx context.Context, t *testing.T) side {
	h, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.DisableRelay(), libp2p.DisableMetrics())
	require.NoError(t, err)
	o := &theirs{h: h, mem: testutil.NewMemStore()}
	ctx, cancel := context.WithCancel(ctx)
	ls := o.mem.LinkSystem()
	unixfsnode.AddUnixFSReificationToLinkSystem(&ls)
	gs := gsimpl.New(ctx, gsnet.NewFromLibp2pHost(h), ls)
	o.mgr, err = v2impl.NewDataTransfer(dssync.MutexWrap(datastore.NewMapDatastore()), v2net.NewFromLibp2pHost(h), v2gs.NewTransport(h.ID(), gs))
	require.NoError(t, err)
	ready := make(chan error, 1)
	o.mgr.OnReady(func(err error) { ready <- err })
	require.NoError(t, o.mgr.Start(ctx))
	require.NoError(t, <-ready)
	t.Cleanup(func() {
		_ = o.mgr.Stop(context.Background())
		cancel()
		_ = h.Close()
	})
	return o
}

func (o *theirs) host() host.Host           { return o.h }
func (o *theirs) store() *testutil.MemStore { return o.mem }

func voucher(data string) v2.TypedVoucher {
	n, err := qp.BuildList(basicnode.Prototype.Any, 1, func(la datamodel.ListAssembler) { qp.ListEntry(la, qp.String(data)) })
	if err != nil {
		panic(err)
	}
	return v2.TypedVoucher{Voucher: n, Type: voucherType}
}

// accept makes the application of a v2 responder: it answers vouchers by raising the limit.
func (o *theirs) accept(t *testing.T, p policy) {
	require.NoError(t, o.mgr.RegisterVoucherType(voucherType, v2policy(p)))
	o.mgr.SubscribeToEvents(func(e v2.Event, s v2.ChannelState) {
		if e.Code != v2.NewVoucher {
			return
		}
		moved := max(s.Queued(), s.Received())
		res := v2.ValidationResult{Accepted: true, VoucherResult: ptr(voucher("paid")), RequiresFinalization: p.last && !s.Status().InFinalization()}
		if p.every > 0 {
			res.DataLimit = moved + p.every
		}
		go func() { _ = o.mgr.UpdateValidationStatus(t.Context(), s.ChannelID(), res) }()
	})
}

func ptr[T any](v T) *T { return &v }

type v2policy policy

func (p v2policy) answer() (v2.ValidationResult, error) {
	if p.reject {
		return v2.ValidationResult{VoucherResult: ptr(voucher("no"))}, nil
	}
	return v2.ValidationResult{Accepted: true, VoucherResult: ptr(voucher("yes")), DataLimit: p.every, RequiresFinalization: p.last}, nil
}

func (p v2policy) ValidatePush(v2.ChannelID, peer.ID, datamodel.Node, cid.Cid, datamodel.Node) (v2.ValidationResult, error) {
	return p.answer()
}

func (p v2policy) ValidatePull(v2.ChannelID, peer.ID, datamodel.Node, cid.Cid, datamodel.Node) (v2.ValidationResult, error) {
	return p.answer()
}

func (p v2policy) ValidateRestart(v2.ChannelID, v2.ChannelState) (v2.ValidationResult, error) {
	return p.answer()
}

func id2(c dt.ChannelID) v2.ChannelID {
	return v2.ChannelID{Initiator: c.Initiator, Responder: c.Responder, ID: v2.TransferID(c.ID)}
}

func (o *theirs) open(ctx context.Context, pull bool, to peer.ID, root cid.Cid) (dt.ChannelID, error) {
	f := o.mgr.OpenPushDataChannel
	if pull {
		f = o.mgr.OpenPullDataChannel
	}
	c, err := f(ctx, to, voucher("open"), root, shared.AllSelector())
	return dt.ChannelID{Initiator: c.Initiator, Responder: c.Responder, ID: dt.TransferID(c.ID)}, err
}

func (o *theirs) pay(ctx context.Context, chid dt.ChannelID, data string) error {
	return o.mgr.SendVoucher(ctx, id2(chid), voucher(data))
}

func (o *theirs) pause(ctx context.Context, chid dt.ChannelID) error {
	return o.mgr.PauseDataTransferChannel(ctx, id2(chid))
}

func (o *theirs) resume(ctx context.Context, chid dt.ChannelID) error {
	return o.mgr.ResumeDataTransferChannel(ctx, id2(chid))
}

func (o *theirs) restart(ctx context.Context, chid dt.ChannelID) error {
	return o.mgr.RestartDataTransferChannel(ctx, id2(chid))
}

func (o *theirs) end(ctx context.Context, chid dt.ChannelID) error {
	return o.mgr.CloseDataTransferChannel(ctx, id2(chid))
}

func (o *theirs) state(ctx context.Context, chid dt.ChannelID) (snapshot, error) {
	s, err := o.mgr.ChannelState(ctx, id2(chid))
	if err != nil {
		return snapshot{}, err
	}
	return theirsOf(s), nil
}

func theirsOf(s v2.ChannelState) snapshot {
	c := s.ChannelID()
	return snapshot{
		chid:   dt.ChannelID{Initiator: c.Initiator, Responder: c.Responder, ID: dt.TransferID(c.ID)},
		status: v2.Statuses[s.Status()], message: s.Message(), queued: s.Queued(), received: s.Received(),
		vouchers: len(s.Vouchers()), results: len(s.VoucherResults()),
		initiatorIsPaused: s.InitiatorPaused(), responderIsPaused: s.ResponderPaused(),
		receivedCids: s.ReceivedCidsTotal(), sent: s.SentCidsTotal(),
	}
}

func (o *theirs) follow(f func(string, snapshot)) {
	o.mgr.SubscribeToEvents(func(e v2.Event, s v2.ChannelState) { f(v2.Events[e.Code], theirsOf(s)) })
}
