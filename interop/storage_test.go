package interop

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/filecoin-project/go-address"
	v2 "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/fluent/qp"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/blob"
	"github.com/cartage-dev/cartage/carstore"
	"github.com/cartage-dev/cartage/commp"
	"github.com/cartage-dev/cartage/dagstore"
	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/testutil"
	"github.com/cartage-dev/cartage/paych"
	"github.com/cartage-dev/cartage/shared"
	"github.com/cartage-dev/cartage/storagedeal"
)

type shards struct{ *dagstore.Store }

func (s shards) Add(ctx context.Context, d storagedeal.Data) error {
	_, err := s.Register(ctx, dagstore.Source{Name: d.Path, Piece: d.Piece, Padded: uint64(d.Size), Build: d.Build})
	return err
}

func newWallet(t *testing.T) (*paych.Wallet, address.Address) {
	w, err := paych.OpenWallet(blob.OS{}, t.TempDir())
	require.NoError(t, err)
	a, err := w.New()
	require.NoError(t, err)
	return w, a
}

// TestOnlineDeal: the data of a storage deal is pushed to our provider by go-data-transfer v2, under the voucher of deployed clients.
func TestOnlineDeal(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	client := newTheirs(ctx, t).(*theirs)
	root, _, err := client.mem.BuildDAG(40, 2000, 3)
	require.NoError(t, err)
	var car bytes.Buffer
	ls := carstore.Links(client.mem.Get)
	require.NoError(t, carstore.WriteCARFrom(ctx, &ls, root, &car))
	piece, err := commp.Compute(&car)
	require.NoError(t, err)

	dir, miner := t.TempDir(), must(address.NewIDAddress(1000))
	pieces, err := dagstore.Open(ctx, blob.OS{}, filepath.Join(dir, "dagstore"))
	require.NoError(t, err)
	pw, worker := newWallet(t)
	view := &storagedeal.FileView{Epoch: 1_000_000, Version: 18, MinCollateral: big.Zero(), MaxCollateral: big.NewInt(1 << 40), Providers: map[string]storagedeal.FileMiner{}}
	var provider *storagedeal.Provider
	var transfers *storagedeal.Transfers
	ours, err := testutil.PeerConfig{}.Start(ctx)
	require.NoError(t, err)
	require.NoError(t, ours.Manager.Stop(ctx))
	view.Providers["f01000"] = storagedeal.FileMiner{Addrs: []string{ours.Host.Addrs()[0].String() + "/p2p/" + ours.Host.ID().String()}, SectorSize: 32 << 30, Worker: &worker}
	ours, err = testutil.PeerConfig{On: ours.Host, Prepare: func(m dt.Manager) {
		transfers, err = storagedeal.NewTransfers(m, ours.Host.ID())
		require.NoError(t, err)
		provider, err = storagedeal.NewProvider(storagedeal.ProviderConfig{Host: ours.Host, Miner: miner, Worker: worker, Wallet: pw, Chain: view,
			Store: dssync.MutexWrap(datastore.NewMapDatastore()), Pieces: shards{pieces},
			Publisher: &storagedeal.SimulatedPublisher{Store: dssync.MutexWrap(datastore.NewMapDatastore())}})
		require.NoError(t, err)
		provider.JoinTransfers(transfers, storagedeal.ReceiveConfig{Dir: filepath.Join(dir, "staging")})
	}}.Start(ctx)
	require.NoError(t, err)
	require.NoError(t, provider.Start(ctx))
	t.Cleanup(func() {
		require.NoError(t, errors.Join(ours.Close(context.Background()), provider.Stop(context.Background()), transfers.Close(), pieces.Close()))
	})

	cw, from := newWallet(t)
	size := abi.UnpaddedPieceSize(piece.Padded.Unpadded())
	name, err := storagedeal.NewClient(storagedeal.ClientConfig{Host: client.h, Chain: view, Wallet: cw}).Propose(ctx, storagedeal.StartDealParams{
		Data:   &storagedeal.DataRef{TransferType: storagedeal.TTGraphsync, Root: root, PieceCid: &piece.CID, PieceSize: size},
		Wallet: from, Miner: miner, EpochPrice: big.Zero(), MinBlocksDuration: 518400})
	require.NoError(t, err)
	node, err := qp.BuildList(basicnode.Prototype.Any, 1, func(la datamodel.ListAssembler) { qp.ListEntry(la, qp.Link(cidlink.Link{Cid: name})) })
	require.NoError(t, err)
	_, err = client.mgr.OpenPushDataChannel(ctx, ours.Host.ID(), v2.TypedVoucher{Voucher: node, Type: "StorageDataTransferVoucher"}, root, shared.AllSelector())
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		d, err := provider.Deal(ctx, name)
		return err == nil && d.State == storagedeal.StorageDealActive
	}, 20*time.Second, 10*time.Millisecond)
	sh, err := pieces.Info(piece.CID)
	require.NoError(t, err)
	require.Equal(t, root, sh.Root)
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
