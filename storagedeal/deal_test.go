package storagedeal_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/cartage-dev/cartage/blob"
	"github.com/cartage-dev/cartage/commp"
	"github.com/cartage-dev/cartage/dagstore"
	"github.com/cartage-dev/cartage/imports"
	"github.com/cartage-dev/cartage/paych"
	"github.com/cartage-dev/cartage/storagedeal"
)

func TestMain(m *testing.M) {
	address.CurrentNetwork = address.Mainnet
	goleak.VerifyTestMain(m)
}

// shards are the pieces of a provider in a dagstore.
type shards struct{ *dagstore.Store }

func (s shards) Add(ctx context.Context, d storagedeal.Data) error {
	if d.Build == nil {
		d.Build = func(ctx context.Context, to string) error { return blob.Clone(ctx, blob.OS{}, d.Path, to) }
	}
	_, err := s.Register(ctx, dagstore.Source{Name: d.Path, Piece: d.Piece, Padded: uint64(d.Size), Progress: d.Progress, Build: d.Build})
	return err
}

// market is a client and a provider of storage deals over TCP.
type market struct {
	t        testing.TB
	dir      string
	view     *storagedeal.FileView
	client   *storagedeal.Client
	provider *storagedeal.Provider
	shards   *dagstore.Store
	ch, ph   host.Host
	wallet   *paych.Wallet
	from     address.Address
	miner    address.Address
	cfg      storagedeal.ProviderConfig
	ds       datastore.Batching
	join     func(*storagedeal.Provider) // before its start; may be nil
}

func newHost(t testing.TB) host.Host {
	t.Helper()
	h, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.DisableRelay(), libp2p.DisableMetrics(), libp2p.ResourceManager(&network.NullResourceManager{}))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, h.Close()) })
	return h
}

func newMarket(t testing.TB, change ...func(*market)) *market {
	t.Helper()
	m := &market{t: t, dir: t.TempDir(), ch: newHost(t), ph: newHost(t), ds: dssync.MutexWrap(datastore.NewMapDatastore())}
	var err error
	m.wallet, err = paych.OpenWallet(blob.OS{}, filepath.Join(m.dir, "client"))
	require.NoError(t, err)
	m.from, err = m.wallet.New()
	require.NoError(t, err)
	worker, err := paych.NewKey()
	require.NoError(t, err)
	pw, err := paych.OpenWallet(blob.OS{}, filepath.Join(m.dir, "provider"))
	require.NoError(t, err)
	require.NoError(t, pw.Add(worker))
	m.miner, err = address.NewIDAddress(1000)
	require.NoError(t, err)
	m.view = &storagedeal.FileView{Epoch: 1_000_000, Version: 18, MinCollateral: big.Zero(), MaxCollateral: big.NewInt(1 << 40), Providers: map[string]storagedeal.FileMiner{
		"f01000": {Addrs: []string{m.ph.Addrs()[0].String() + "/p2p/" + m.ph.ID().String()}, SectorSize: 32 << 30, Worker: &worker.Address, PeriodStart: 17}}}
	m.shards, err = dagstore.Open(t.Context(), blob.OS{}, filepath.Join(m.dir, "dagstore"))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.shards.Close()) })
	m.cfg = storagedeal.ProviderConfig{Host: m.ph, Miner: m.miner, Worker: worker.Address, Wallet: pw, Chain: m.view, Store: m.ds,
		Pieces: shards{m.shards}, Publisher: &storagedeal.SimulatedPublisher{Store: dssync.MutexWrap(datastore.NewMapDatastore())}}
	for _, f := range change {
		f(m)
	}
	m.provider, err = storagedeal.NewProvider(m.cfg)
	require.NoError(t, err)
	if m.join != nil {
		m.join(m.provider)
	}
	require.NoError(t, m.provider.Start(t.Context()))
	t.Cleanup(func() { require.NoError(t, m.provider.Stop(context.Background())) })
	m.client = storagedeal.NewClient(storagedeal.ClientConfig{Host: m.ch, Chain: m.view, Wallet: m.wallet, Timeouts: storagedeal.Timeouts{Open: 5 * time.Second, Write: 5 * time.Second, Read: 5 * time.Second}})
	return m
}

// archive makes a CAR of some bytes, with its piece.
func (m *market) archive(name string, n int) (path string, root cid.Cid, p commp.Piece) {
	m.t.Helper()
	file := filepath.Join(m.dir, name)
	data := make([]byte, n)
	for i := range data {
		data[i] = byte(i>>8*31 + i + len(name))
	}
	require.NoError(m.t, os.WriteFile(file, data, 0o600))
	path = file + ".car"
	root, err := imports.WriteCAR(m.t.Context(), blob.OS{}, file, path, imports.UnixFS2025(), nil)
	require.NoError(m.t, err)
	f, err := os.Open(path)
	require.NoError(m.t, err)
	defer f.Close()
	p, err = commp.Compute(f)
	require.NoError(m.t, err)
	return path, root, p
}

func (m *market) params(root cid.Cid, p commp.Piece) storagedeal.StartDealParams {
	return storagedeal.StartDealParams{Data: &storagedeal.DataRef{TransferType: storagedeal.TTManual, Root: root, PieceCid: &p.CID, PieceSize: abi.UnpaddedPieceSize(p.Padded.Unpadded())},
		Wallet: m.from, Miner: m.miner, EpochPrice: big.Zero(), MinBlocksDuration: 518400, FastRetrieval: true}
}

// staged are the files of pieces.
func (m *market) staged() []string {
	m.t.Helper()
	list, err := filepath.Glob(filepath.Join(m.dir, "dagstore", "pieces", "*"))
	require.NoError(m.t, err)
	return list
}

// TestT_T1 : a client without any import proposes, the provider waits for the data, takes it, and every block can be found.
func TestT_T1(t *testing.T) {
	m := newMarket(t)
	path, root, p := m.archive("data", 3_000_000)
	name, err := m.client.StatelessDeal(t.Context(), m.params(root, p))
	require.NoError(t, err)
	st, err := m.client.DealStatus(t.Context(), m.miner, m.from, name)
	require.NoError(t, err)
	require.Equal(t, storagedeal.StorageDealWaitingForData, st.State)
	label, err := st.Proposal.Label.ToString()
	require.NoError(t, err)
	require.Equal(t, "u", label[:1])
	require.Equal(t, abi.ChainEpoch(1_000_000+23_040), st.Proposal.StartEpoch)

	d, err := m.provider.ImportData(t.Context(), name, path, nil)
	require.NoError(t, err)
	require.Equal(t, storagedeal.StorageDealActive, d.State)
	require.Equal(t, abi.DealID(1), d.DealID)
	sh, err := m.shards.Info(p.CID)
	require.NoError(t, err)
	require.Equal(t, dagstore.StateAvailable, sh.State)
	found, err := m.shards.Lookup(root)
	require.NoError(t, err)
	require.Len(t, found, 1)
	st, err = m.client.DealStatus(t.Context(), m.miner, m.from, name)
	require.NoError(t, err)
	require.Equal(t, storagedeal.StorageDealActive, st.State)
	require.Equal(t, abi.DealID(1), st.DealID)
	_, err = m.provider.ImportData(t.Context(), name, path, nil)
	require.ErrorContains(t, err, "is in state StorageDealActive, data is taken in StorageDealWaitingForData only")
}

// TestT_T2 : a wrong file is an error, the deal waits as before, and the staging folder is empty.
func TestT_T2(t *testing.T) {
	m := newMarket(t)
	_, root, p := m.archive("data", 300_000)
	wrong, _, wp := m.archive("wrong", 300_000)
	require.NotEqual(t, p.CID, wp.CID)
	name, err := m.client.StatelessDeal(t.Context(), m.params(root, p))
	require.NoError(t, err)
	for file, says := range map[string]string{
		wrong:                                fmt.Sprintf("given data does not match expected commP (got: %s, expected %s)", wp.CID, p.CID),
		filepath.Join(m.dir, "data"):         "not a CAR",
		filepath.Join(m.dir, "nothing here"): "no such file",
	} {
		_, err = m.provider.ImportData(t.Context(), name, file, nil)
		require.ErrorContains(t, err, says)
		d, err := m.provider.Deal(t.Context(), name)
		require.NoError(t, err)
		require.Equal(t, storagedeal.StorageDealWaitingForData, d.State)
		require.Empty(t, m.staged())
	}
	list, err := m.shards.List()
	require.NoError(t, err)
	require.Empty(t, list)
	_, err = m.provider.ImportData(t.Context(), root, wrong, nil)
	require.ErrorIs(t, err, storagedeal.ErrUnknownDeal)
}

// TestT_T3 : the same proposal twice is one deal, and the second answer has its present state; also at the same time.
func TestT_T3(t *testing.T) {
	m := newMarket(t)
	path, root, p := m.archive("data", 300_000)
	params := m.params(root, p)
	params.DealStartEpoch = 1_050_000
	var wg sync.WaitGroup
	names := make([]cid.Cid, 8)
	for i := range names {
		wg.Go(func() { names[i], _ = m.client.StatelessDeal(t.Context(), params) })
	}
	wg.Wait()
	require.Len(t, slices.Compact(names), 1)
	require.True(t, names[0].Defined())
	_, err := m.provider.ImportData(t.Context(), names[0], path, nil)
	require.NoError(t, err)
	_, err = m.client.StatelessDeal(t.Context(), params)
	var refused *storagedeal.RefusedError
	require.ErrorAs(t, err, &refused)
	require.Equal(t, storagedeal.StorageDealActive, refused.State)
	list, err := m.provider.Deals(t.Context())
	require.NoError(t, err)
	require.Len(t, list, 1)
}

// TestT_T4 : the deal's piece is four times as large as the data needs.
func TestT_T4(t *testing.T) {
	m := newMarket(t)
	path, root, p := m.archive("data", 300_000)
	up, err := commp.PadUp(p, 4*p.Padded)
	require.NoError(t, err)
	name, err := m.client.StatelessDeal(t.Context(), m.params(root, up))
	require.NoError(t, err)
	_, err = m.provider.ImportData(t.Context(), name, path, nil)
	require.NoError(t, err)
	sh, err := m.shards.Info(up.CID)
	require.NoError(t, err)
	require.Equal(t, uint64(up.Padded), sh.Padded)
	_, err = m.shards.Info(p.CID)
	require.ErrorIs(t, err, dagstore.ErrShardUnknown)
}

// TestRules: each rule refuses with its reason, and nothing is kept.
func TestRules(t *testing.T) {
	for _, tc := range []struct {
		rule   string
		change func(m *market, p *storagedeal.StartDealParams)
		says   string
	}{
		{"provider", func(m *market, p *storagedeal.StartDealParams) {
			other, _ := address.NewIDAddress(2000)
			m.view.Providers["f02000"] = m.view.Providers["f01000"]
			p.Miner = other
		}, "deal rejected: incorrect provider for deal: f02000, this is f01000"},
		{"epochs", func(_ *market, p *storagedeal.StartDealParams) { p.DealStartEpoch = 999_999 }, "deal start epoch has already elapsed: 999999, the chain is at 1000000"},
		{"end", func(_ *market, p *storagedeal.StartDealParams) {
			p.MinBlocksDuration, p.DealStartEpoch = 1_550_000, 1_100_000
		}, "cannot be more than 1555200 past current epoch"},
		{"collateral", func(_ *market, p *storagedeal.StartDealParams) { p.ProviderCollateral = big.NewInt(1 << 50) }, "above maximum"},
		{"price", func(m *market, p *storagedeal.StartDealParams) {
			_, err := m.provider.SetAsk(t.Context(), big.NewInt(1<<40), big.Zero(), 128, 32<<30, 100)
			require.NoError(t, err)
		}, "storage price per epoch less than asking price: 0 <"},
		{"ask-size", func(m *market, p *storagedeal.StartDealParams) {
			_, err := m.provider.SetAsk(t.Context(), big.Zero(), big.Zero(), 1<<30, 32<<30, 100)
			require.NoError(t, err)
		}, "piece size less than minimum required size: 524288 < 1073741824"},
		{"verified", func(_ *market, p *storagedeal.StartDealParams) { p.VerifiedDeal = true }, "is not verified"},
	} {
		t.Run(tc.rule, func(t *testing.T) {
			m := newMarket(t)
			_, root, p := m.archive("data", 300_000)
			params := m.params(root, p)
			tc.change(m, &params)
			_, err := m.client.StatelessDeal(t.Context(), params)
			var refused *storagedeal.RefusedError
			require.ErrorAs(t, err, &refused)
			require.Equal(t, storagedeal.StorageDealFailing, refused.State)
			require.Contains(t, refused.Message, tc.says)
			list, err := m.provider.Deals(t.Context())
			require.NoError(t, err)
			require.Empty(t, list)
		})
	}
	t.Run("left out by name", func(t *testing.T) {
		m := newMarket(t, func(m *market) { m.cfg.SkipRules = []string{"verified"} })
		_, root, p := m.archive("data", 300_000)
		params := m.params(root, p)
		params.VerifiedDeal = true
		_, err := m.client.StatelessDeal(t.Context(), params)
		require.NoError(t, err)
		_, err = storagedeal.NewProvider(storagedeal.ProviderConfig{SkipRules: []string{"everything"}, Wallet: m.wallet})
		require.ErrorContains(t, err, `no rule "everything"`)
	})
	t.Run("filter", func(t *testing.T) {
		script := filepath.Join(t.TempDir(), "filter.sh")
		require.NoError(t, os.WriteFile(script, []byte("#!/bin/sh\ngrep -q f01000 && echo not on sundays && exit 3\n"), 0o700))
		m := newMarket(t, func(m *market) { m.cfg.Filter = storagedeal.CommandFilter(script) })
		_, root, p := m.archive("data", 300_000)
		_, err := m.client.StatelessDeal(t.Context(), m.params(root, p))
		require.ErrorContains(t, err, "deal rejected: not on sundays")
	})
}

// TestR_T1 : what cannot become a stateless deal is refused before anything is asked or signed.
func TestR_T1(t *testing.T) {
	m := newMarket(t)
	_, root, p := m.archive("data", 300_000)
	for name, tc := range map[string]struct {
		change func(p *storagedeal.StartDealParams)
		says   string
	}{
		"no data":         {func(p *storagedeal.StartDealParams) { p.Data = nil }, "no data reference"},
		"online":          {func(p *storagedeal.StartDealParams) { p.Data.TransferType = "graphsync" }, "invalid transfer type graphsync for stateless storage deal"},
		"no piece":        {func(p *storagedeal.StartDealParams) { p.Data.PieceCid = nil }, "no piece CID"},
		"not a piece":     {func(p *storagedeal.StartDealParams) { p.Data.PieceCid = &root }, "is not a piece CID"},
		"no size":         {func(p *storagedeal.StartDealParams) { p.Data.PieceSize = 0 }, "must specify piece size when manually setting cid"},
		"padded size":     {func(p *storagedeal.StartDealParams) { p.Data.PieceSize = 1024 }, "piece size 1024"},
		"no root":         {func(p *storagedeal.StartDealParams) { p.Data.Root = cid.Undef }, "no data CID"},
		"R-T2 price 2^64": {func(p *storagedeal.StartDealParams) { p.EpochPrice = big.Lsh(big.NewInt(1), 64) }, "storage price of 0"},
		"short":           {func(p *storagedeal.StartDealParams) { p.MinBlocksDuration = 518_399 }, "minimum deal duration is 518400 blocks"},
		"long":            {func(p *storagedeal.StartDealParams) { p.MinBlocksDuration = 1_555_201 }, "maximum deal duration is 1555200 blocks"},
		"strange wallet":  {func(p *storagedeal.StartDealParams) { p.Wallet = m.cfg.Worker }, "provided address doesn't exist in wallet"},
		"large":           {func(p *storagedeal.StartDealParams) { p.Data.PieceSize = abi.PaddedPieceSize(64 << 30).Unpadded() }, "data doesn't fit in a sector"},
		"unknown miner":   {func(p *storagedeal.StartDealParams) { p.Miner, _ = address.NewIDAddress(3) }, "f03 is not in the chain view"},
	} {
		t.Run(name, func(t *testing.T) {
			params := m.params(root, p)
			tc.change(&params)
			_, err := m.client.StatelessDeal(t.Context(), params)
			require.ErrorContains(t, err, tc.says)
		})
	}
	require.Empty(t, m.ch.Network().Conns(), "nobody was asked")
}
