package storagedeal_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/filecoin-project/go-state-types/abi"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/codec/dagcbor"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/fluent/qp"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/libp2p/go-libp2p/core/peer"
	mh "github.com/multiformats/go-multihash"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/blob"
	"github.com/cartage-dev/cartage/carstore"
	"github.com/cartage-dev/cartage/commp"
	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/testutil"
	"github.com/cartage-dev/cartage/shared"
	"github.com/cartage-dev/cartage/storagedeal"
)

// archived is the data of a deal, in an archive. It counts how often it was opened and not closed.
type archived struct {
	path string
	open atomic.Int32
}

func (a *archived) Open(_ context.Context, root cid.Cid) (ipld.LinkSystem, io.Closer, error) {
	f, err := blob.OS{}.Open(a.path)
	if err != nil {
		return ipld.LinkSystem{}, nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return ipld.LinkSystem{}, nil, err
	}
	l, err := carstore.Inspect(f, size)
	if err != nil {
		return ipld.LinkSystem{}, nil, err
	}
	blocks := map[cid.Cid][]byte{}
	err = carstore.Walk(f, l, func(b carstore.Block) error {
		blocks[b.Cid] = bytes.Clone(b.Data)
		return nil
	})
	a.open.Add(1)
	return carstore.Links(func(c cid.Cid) ([]byte, error) {
		if dec, err := mh.Decode(c.Hash()); err == nil && dec.Code == mh.IDENTITY {
			return dec.Digest, nil
		}
		if data, ok := blocks[c]; ok {
			return data, nil
		}
		return nil, carstore.ErrNotFound
	}), a, err
}

func (a *archived) Piece(context.Context, cid.Cid) (cid.Cid, abi.UnpaddedPieceSize, error) {
	f, err := os.Open(a.path)
	if err != nil {
		return cid.Undef, 0, err
	}
	defer f.Close()
	p, err := commp.Compute(f)
	return p.CID, abi.UnpaddedPieceSize(p.Padded.Unpadded()), err
}

func (a *archived) Close() error {
	a.open.Add(-1)
	return nil
}

// clock is a view of a chain that moves on.
type clock struct {
	*storagedeal.FileView
	epoch atomic.Int64 // 0: that of the view
}

func (c *clock) Head(ctx context.Context) (abi.ChainEpoch, error) {
	if e := c.epoch.Load(); e > 0 {
		return abi.ChainEpoch(e), nil
	}
	return c.FileView.Head(ctx)
}

// online is a market whose sides move the data of deals too.
type online struct {
	*market
	receive storagedeal.ReceiveConfig
	clock   *clock // of the provider
	data    *archived
	pusher  *storagedeal.Pusher
	taken   *storagedeal.Transfers // of the provider
}

func newOnline(t *testing.T, receive ...storagedeal.ReceiveConfig) *online {
	t.Helper()
	o := &online{data: &archived{}}
	for _, r := range receive {
		o.receive = r
	}
	stream := testutil.OverStreams(t)
	var client *testutil.Peer
	o.market = newMarket(t, func(m *market) {
		o.clock = &clock{FileView: m.view}
		m.cfg.Chain = o.clock
		m.cfg.Timeouts = storagedeal.Timeouts{Open: 5 * time.Second, Write: 5 * time.Second, Read: 5 * time.Second}
		m.join = func(p *storagedeal.Provider) {
			side, err := testutil.PeerConfig{On: m.ph, Stream: stream, Prepare: func(dm dt.Manager) {
				var err error
				o.taken, err = storagedeal.NewTransfers(dm, m.ph.ID())
				require.NoError(t, err)
				o.receive.Dir = filepath.Join(m.dir, "staging")
				p.JoinTransfers(o.taken, o.receive)
			}}.Start(t.Context())
			require.NoError(t, err)
			t.Cleanup(func() {
				require.NoError(t, errors.Join(side.Close(context.Background()), p.Stop(context.Background()), o.taken.Close()))
			})
		}
	})
	client, err := testutil.PeerConfig{On: o.ch, Stream: stream, Prepare: func(dm dt.Manager) {
		tr, err := storagedeal.NewTransfers(dm, o.ch.ID())
		require.NoError(t, err)
		o.pusher = storagedeal.NewPusher(storagedeal.PusherConfig{Client: o.client, Transfers: tr, Store: dssync.MutexWrap(datastore.NewMapDatastore()), Blocks: o.data})
		t.Cleanup(func() { require.NoError(t, tr.Close()); require.Zero(t, o.data.open.Load()) })
	}}.Start(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, errors.Join(o.pusher.Stop(context.Background()), client.Close(context.Background())))
	})
	require.NoError(t, o.pusher.Start(t.Context()))
	return o
}

// deal proposes a deal for data of n bytes as if it were of a piece.
func (o *online) deal(n int, change func(*storagedeal.StartDealParams)) (cid.Cid, commp.Piece) {
	o.t.Helper()
	path, root, p := o.archive("data", n)
	o.data.path = path
	params := o.params(root, p)
	params.Data.TransferType = storagedeal.TTGraphsync
	if change != nil {
		change(&params)
	}
	name, err := o.pusher.StartDeal(o.t.Context(), params)
	require.NoError(o.t, err)
	return name, p
}

// until waits for a state of a deal at the provider and of its push.
func (o *online) until(name cid.Cid, state, pushed storagedeal.State) (d storagedeal.Deal, p storagedeal.Push) {
	o.t.Helper()
	defer func() {
		o.t.Logf("deal %s (%s), push %s (%s)", d.State, d.Message, p.State, p.Message)
	}()
	require.Eventually(o.t, func() bool {
		var err error
		d, err = o.provider.Deal(o.t.Context(), name)
		require.NoError(o.t, err)
		p, err = o.pusher.Push(o.t.Context(), name)
		require.NoError(o.t, err)
		return d.State == state && p.State == pushed
	}, 10*time.Second, 5*time.Millisecond, "deal %s, push %s", state, pushed)
	return d, p
}

// TestOnline: the data of a deal is pushed over either transport, and is a shard under its piece; nothing is left of it elsewhere.
func TestOnline(t *testing.T) {
	testutil.EachTransport(t, func(t *testing.T) {
		o := newOnline(t)
		name, p := o.deal(3_000_000, nil)
		d, sent := o.until(name, storagedeal.StorageDealActive, storagedeal.StorageDealCheckForAcceptance)
		require.EqualValues(t, 1, d.DealID)
		require.Greater(t, sent.Sent, uint64(1_900_000)) // of unique blocks
		sh, err := o.shards.Info(p.CID)
		require.NoError(t, err)
		require.Equal(t, d.Ref.Root, sh.Root)
		o.nothingStaged()
		require.NoError(t, o.pusher.Resume(t.Context(), name))
	})
}

// nothingStaged waits for the data of a deal that has ended to go: the deal is recorded before.
func (o *online) nothingStaged() {
	o.t.Helper()
	var left []string
	require.Eventually(o.t, func() bool {
		var err error
		left, err = filepath.Glob(filepath.Join(o.dir, "staging", "*"))
		return err == nil && len(left) == 0
	}, 5*time.Second, 5*time.Millisecond, "%s", &left)
}

// TestOnlineOtherPiece: data that is not of the piece that was proposed ends the deal, and leaves nothing.
func TestOnlineOtherPiece(t *testing.T) {
	testutil.EachTransport(t, func(t *testing.T) {
		o := newOnline(t)
		_, _, other := o.archive("other", 3_000_000)
		name, _ := o.deal(3_000_000, func(p *storagedeal.StartDealParams) { p.Data.PieceCid = &other.CID })
		d, _ := o.until(name, storagedeal.StorageDealFailing, storagedeal.StorageDealCheckForAcceptance)
		require.Contains(t, d.Message, "given data does not match expected commP")
		o.nothingStaged()
		require.Empty(t, o.staged())
	})
}

// TestOnlineTooMuch: data that does not fit into the piece that was proposed is not taken in, however much would come.
func TestOnlineTooMuch(t *testing.T) {
	testutil.EachTransport(t, func(t *testing.T) {
		o := newOnline(t)
		name, _ := o.deal(3_000_000, func(p *storagedeal.StartDealParams) {
			p.Data.PieceSize = abi.PaddedPieceSize(1 << 20).Unpadded()
		})
		var d storagedeal.Deal
		require.Eventually(t, func() bool { // all may have been sent before the transfer is ended
			p, err := o.pusher.Push(t.Context(), name)
			require.NoError(t, err)
			d, err = o.provider.Deal(t.Context(), name)
			require.NoError(t, err)
			return d.State == storagedeal.StorageDealFailing && !p.State.Pushing()
		}, 10*time.Second, 5*time.Millisecond)
		require.Contains(t, d.Message, "more data than its piece of 1040384 bytes holds")
		o.nothingStaged()
		require.Empty(t, o.staged())
	})
}

// TestOnlinePushes: what a provider lets in as the data of a deal.
func TestOnlinePushes(t *testing.T) {
	o := newOnline(t)
	_, root, p := o.archive("data", 1000)
	require.NoError(t, o.ch.Connect(t.Context(), peer.AddrInfo{ID: o.ph.ID(), Addrs: o.ph.Addrs()}))
	propose := func(transfer string, start abi.ChainEpoch) cid.Cid {
		params := o.params(root, p)
		params.Data.TransferType, params.DealStartEpoch = transfer, start
		deal, err := storagedeal.SignedProposal(t.Context(), o.client, params)
		require.NoError(t, err)
		r, err := storagedeal.AskFor(t.Context(), o.ch, o.ph.ID(), storagedeal.DealProtocol111, deal)
		require.NoError(t, err)
		require.Equal(t, storagedeal.StorageDealWaitingForData, r.Response.State, r.Response.Message)
		return r.Response.Proposal
	}
	waits, offline := propose(storagedeal.TTGraphsync, 1_100_000), propose(storagedeal.TTManual, 1_100_001)
	chid := dt.ChannelID{Initiator: o.ch.ID(), Responder: o.ph.ID(), ID: 7}
	push := func(sender int, deal, base cid.Cid, sel ipld.Node) error {
		from := o.ch.ID()
		if sender == 1 {
			from = o.ph.ID()
		}
		_, err := o.taken.ValidatePush(false, chid, from, &storagedeal.DataTransferVoucher{Proposal: deal}, base, sel)
		return err
	}
	all := shared.AllSelector()
	require.ErrorIs(t, push(0, root, root, all), storagedeal.ErrUnknownDeal)
	require.ErrorContains(t, push(1, waits, root, all), "the data comes from")
	require.ErrorContains(t, push(0, offline, root, all), "an offline one")
	require.ErrorContains(t, push(0, waits, waits, all), "the data is of")
	require.ErrorContains(t, push(0, waits, root, basicnode.NewString("x")), "the whole payload")
	require.ErrorContains(t, push(0, cid.Undef, root, all), "names no proposal")
	_, err := o.taken.ValidatePull(false, chid, o.ch.ID(), &storagedeal.DataTransferVoucher{Proposal: waits}, root, all)
	require.ErrorContains(t, err, "not pulled")
	d, err := o.provider.Deal(t.Context(), waits)
	require.NoError(t, err)
	require.Equal(t, storagedeal.StorageDealWaitingForData, d.State)
	require.NoError(t, push(0, waits, root, all))
	require.NoError(t, push(0, waits, root, all), "a restart")
	d, err = o.provider.Deal(t.Context(), waits)
	require.NoError(t, err)
	require.Equal(t, storagedeal.StorageDealTransferring, d.State)
	o.clock.epoch.Store(2_000_000)
	require.ErrorContains(t, push(0, waits, root, all), "had to start")
}

// TestOnlineBounds: how many deals of a client arrive at once, and how much of all, is bounded; a transfer that brings nothing, and one whose
// channel never was, end; a deal that had to start is given up with its data.
func TestOnlineBounds(t *testing.T) {
	o := newOnline(t, storagedeal.ReceiveConfig{Quota: 5000, PushesPerPeer: 2, Idle: time.Second, Tick: 10 * time.Millisecond})
	_, root, p := o.archive("data", 1000)
	require.NoError(t, o.ch.Connect(t.Context(), peer.AddrInfo{ID: o.ph.ID(), Addrs: o.ph.Addrs()}))
	offer := func(n int) cid.Cid {
		params := o.params(root, p)
		params.Data.TransferType, params.DealStartEpoch = storagedeal.TTGraphsync, abi.ChainEpoch(1_100_000+n)
		deal, err := storagedeal.SignedProposal(t.Context(), o.client, params)
		require.NoError(t, err)
		r, err := storagedeal.AskFor(t.Context(), o.ch, o.ph.ID(), storagedeal.DealProtocol111, deal)
		require.NoError(t, err)
		return r.Response.Proposal
	}
	push := func(deal cid.Cid, n int) error {
		_, err := o.taken.ValidatePush(false, dt.ChannelID{Initiator: o.ch.ID(), Responder: o.ph.ID(), ID: dt.TransferID(n)}, o.ch.ID(),
			&storagedeal.DataTransferVoucher{Proposal: deal}, root, shared.AllSelector())
		return err
	}
	state := func(deal cid.Cid) storagedeal.State {
		d, err := o.provider.Deal(t.Context(), deal)
		require.NoError(t, err)
		return d.State
	}
	first, second, third := offer(1), offer(2), offer(3)
	require.NoError(t, push(first, 1))
	require.NoError(t, push(second, 2))
	require.ErrorContains(t, push(third, 3), "2 deals of this client are arriving already")
	require.NoError(t, push(second, 4), "in the place of the one before")
	require.Eventually(t, func() bool {
		return state(first) == storagedeal.StorageDealWaitingForData && state(second) == storagedeal.StorageDealWaitingForData
	}, 5*time.Second, 5*time.Millisecond, "nothing came")
	require.NoError(t, push(third, 5))

	big := o.params(root, p)
	big.Data.TransferType, big.Data.PieceSize, big.DealStartEpoch = storagedeal.TTGraphsync, abi.PaddedPieceSize(1<<14).Unpadded(), 1_200_000
	deal, err := storagedeal.SignedProposal(t.Context(), o.client, big)
	require.NoError(t, err)
	r, err := storagedeal.AskFor(t.Context(), o.ch, o.ph.ID(), storagedeal.DealProtocol111, deal)
	require.NoError(t, err)
	require.ErrorContains(t, push(r.Response.Proposal, 6), "no room")

	// Something of the first is here when its time comes.
	require.NoError(t, os.MkdirAll(o.receive.Dir, 0o700))
	left := filepath.Join(o.receive.Dir, first.String()+".car")
	require.NoError(t, os.WriteFile(left, []byte("half"), 0o600))
	stray := filepath.Join(o.receive.Dir, root.String()+".car")
	require.NoError(t, os.WriteFile(stray, []byte("of no deal"), 0o600))
	o.clock.epoch.Store(1_150_000)
	require.Eventually(t, func() bool { return state(first) == storagedeal.StorageDealFailing }, 5*time.Second, 5*time.Millisecond)
	require.Eventually(t, func() bool {
		_, a := os.Stat(left)
		_, b := os.Stat(stray)
		return os.IsNotExist(a) && os.IsNotExist(b)
	}, 5*time.Second, 5*time.Millisecond)
}

// TestOnlineIdentities: blocks that are their own CIDs are part of the archive and not of what arrives: data that is too much only with
// them ends its deal, and is not looked at again for ever.
func TestOnlineIdentities(t *testing.T) {
	testutil.EachTransport(t, func(t *testing.T) {
		o := newOnline(t)
		var links []ipld.Node
		for i := range 400 {
			c, err := cid.V1Builder{Codec: cid.Raw, MhType: mh.IDENTITY}.Sum(bytes.Repeat([]byte{byte(i), byte(i >> 8)}, 20))
			require.NoError(t, err)
			links = append(links, basicnode.NewLink(cidlink.Link{Cid: c}))
		}
		node, err := qp.BuildList(basicnode.Prototype.Any, -1, func(la datamodel.ListAssembler) {
			for _, l := range links {
				qp.ListEntry(la, qp.Node(l))
			}
		})
		require.NoError(t, err)
		data, err := ipld.Encode(node, dagcbor.Encode)
		require.NoError(t, err)
		root, err := cid.V1Builder{Codec: cid.DagCBOR, MhType: mh.SHA2_256}.Sum(data)
		require.NoError(t, err)
		o.data.path = filepath.Join(o.dir, "identities.car")
		head, err := carstore.V1Header(root)
		require.NoError(t, err)
		car := bytes.NewBuffer(head)
		require.NoError(t, carstore.WriteSection(car, root, data))
		require.NoError(t, os.WriteFile(o.data.path, car.Bytes(), 0o600))
		_, _, p := o.archive("data", 10)
		params := o.params(root, p)
		params.Data.TransferType, params.Data.PieceSize = storagedeal.TTGraphsync, abi.PaddedPieceSize(32<<10).Unpadded()
		name, err := o.pusher.StartDeal(t.Context(), params)
		require.NoError(t, err)
		d, _ := o.until(name, storagedeal.StorageDealFailing, storagedeal.StorageDealCheckForAcceptance)
		require.Contains(t, d.Message, "larger than its piece")
		require.NotContains(t, d.Message, o.dir)
		o.nothingStaged()
	})
}
