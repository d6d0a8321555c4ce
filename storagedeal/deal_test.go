package storagedeal_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
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

	"github.com/cartage-dev/cartage/commp"
	"github.com/cartage-dev/cartage/dagstore"
	"github.com/cartage-dev/cartage/imports"
	"github.com/cartage-dev/cartage/internal/blob"
	"github.com/cartage-dev/cartage/internal/faults"
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
	_, err := s.Register(ctx, dagstore.Source{Name: d.Path, Piece: d.Piece, Padded: uint64(d.Size), Progress: d.Progress,
		Build: func(to string) error { return blob.Clone(ctx, blob.OS{}, d.Path, to) }})
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

// TestEndEpoch are the examples of the spec.
func TestEndEpoch(t *testing.T) {
	for _, tc := range []struct{ start, duration, period, end int64 }{
		{3000000, 518400, 1234, 3520593}, {2023040, 518400, 0, 2543039}, {2999999, 518400, 2879, 3522238},
	} {
		require.Equal(t, abi.ChainEpoch(tc.end), storagedeal.EndEpoch(abi.ChainEpoch(tc.start), uint64(tc.duration), abi.ChainEpoch(tc.period)))
	}
}

// TestR_T4 : an answer that the provider's worker did not sign is no answer.
func TestR_T4(t *testing.T) {
	m := newMarket(t)
	_, root, p := m.archive("data", 300_000)
	miner := m.view.Providers["f01000"]
	miner.Worker = &m.from
	m.view.Providers["f01000"] = miner
	_, err := m.client.StatelessDeal(t.Context(), m.params(root, p))
	require.ErrorIs(t, err, storagedeal.ErrBadSignature)
}

// TestR_T5 : a provider that is silent, or hangs up, is waited for no longer than the deadlines, and no stream is left.
func TestR_T5(t *testing.T) {
	m := newMarket(t)
	_, root, p := m.archive("data", 300_000)
	c := storagedeal.NewClient(storagedeal.ClientConfig{Host: m.ch, Chain: m.view, Wallet: m.wallet, Timeouts: storagedeal.Timeouts{Open: 200 * time.Millisecond, Read: 50 * time.Millisecond}})
	done := make(chan struct{})
	m.ph.SetStreamHandler(storagedeal.DealProtocol111, func(s network.Stream) {
		<-done
		_ = s.Reset()
	})
	_, err := c.StatelessDeal(t.Context(), m.params(root, p))
	require.ErrorContains(t, err, "deadline")
	close(done)
	m.ph.SetStreamHandler(storagedeal.DealProtocol111, func(s network.Stream) { _ = s.Reset() })
	_, err = c.StatelessDeal(t.Context(), m.params(root, p))
	require.ErrorIs(t, err, network.ErrReset)
	require.NoError(t, m.ph.Network().Close())
	_, err = c.StatelessDeal(t.Context(), m.params(root, p))
	require.Error(t, err)
	require.Eventually(t, func() bool {
		for _, conn := range m.ch.Network().Conns() {
			for _, s := range conn.GetStreams() {
				if strings.HasPrefix(string(s.Protocol()), "/fil/storage") {
					return false
				}
			}
		}
		return true
	}, 5*time.Second, time.Millisecond)
}

// TestR_T7 : a batch gives the outcome of each proposal, good or bad, in the order of completion.
func TestR_T7(t *testing.T) {
	m := newMarket(t)
	_, root, p := m.archive("data", 300_000)
	const n = 200
	params := func(yield func(storagedeal.StartDealParams) bool) {
		for i := range n {
			q := m.params(root, p)
			q.DealStartEpoch = abi.ChainEpoch(1_010_000 + i)
			if i%10 == 0 {
				q.DealStartEpoch = 5 // long ago
			}
			if !yield(q) {
				return
			}
		}
	}
	seen := map[int]bool{}
	good := 0
	for r := range m.client.StatelessDeals(t.Context(), params, 16) {
		require.False(t, seen[r.Index])
		seen[r.Index] = true
		if r.Index%10 == 0 {
			require.ErrorContains(t, r.Err, "already elapsed")
			continue
		}
		require.NoError(t, r.Err)
		good++
	}
	require.Len(t, seen, n)
	list, err := m.provider.Deals(t.Context())
	require.NoError(t, err)
	require.Len(t, list, good)
	for r := range m.client.StatelessDeals(t.Context(), params, 4) { // who stops early leaves nothing behind
		_ = r
		break
	}
}

// TestAsk: the ask is signed, of the right miner, and outlives a restart.
func TestAsk(t *testing.T) {
	m := newMarket(t)
	a, err := m.client.QueryAsk(t.Context(), m.miner)
	require.NoError(t, err)
	require.Equal(t, abi.PaddedPieceSize(32<<30), a.MaxPieceSize)
	_, err = m.provider.SetAsk(t.Context(), big.NewInt(7), big.NewInt(3), 256, 1<<30, 1000)
	require.NoError(t, err)
	again, err := storagedeal.NewProvider(m.cfg)
	require.NoError(t, err)
	require.NoError(t, m.provider.Stop(t.Context()))
	require.NoError(t, again.Start(t.Context()))
	m.provider = again
	t.Cleanup(func() { require.NoError(t, again.Stop(context.Background())) })
	a, err = m.client.QueryAsk(t.Context(), m.miner)
	require.NoError(t, err)
	require.Equal(t, "7", a.Price.String())
	require.Equal(t, uint64(2), a.SeqNo)
	_, err = m.provider.SetAsk(t.Context(), big.NewInt(7), big.NewInt(3), 100, 1<<30, 1000)
	require.ErrorContains(t, err, "piece size 100")
}

// TestImportCrash: a provider that dies at any write of an import waits for the data again, or has finished with it after a start.
func TestImportCrash(t *testing.T) {
	for at := 1; ; at++ {
		m := newMarket(t)
		path, root, p := m.archive("data", 300_000)
		name, err := m.client.StatelessDeal(t.Context(), m.params(root, p))
		require.NoError(t, err)
		require.NoError(t, m.provider.Stop(t.Context()))

		sw := &faults.Switch{At: at}
		cfg := m.cfg
		cfg.Store = faults.Store{Batching: m.ds, Switch: sw}
		m.provider, err = storagedeal.NewProvider(cfg)
		require.NoError(t, err)
		err = m.provider.Start(t.Context())
		if err == nil {
			_, err = m.provider.ImportData(t.Context(), name, path, nil)
		}
		if !sw.Crashed() {
			require.NoError(t, err)
			require.Greater(t, at, 4)
			return
		}
		require.True(t, errors.Is(err, faults.ErrCrashed), "%v", err)
		require.NoError(t, m.provider.Stop(t.Context()))

		m.provider, err = storagedeal.NewProvider(m.cfg)
		require.NoError(t, err)
		require.NoError(t, m.provider.Start(t.Context()))
		d, err := m.provider.Deal(t.Context(), name)
		require.NoError(t, err)
		if d.State == storagedeal.StorageDealWaitingForData {
			d, err = m.provider.ImportData(t.Context(), name, path, nil)
			require.NoError(t, err)
		}
		require.Equal(t, storagedeal.StorageDealActive, d.State)
		require.Equal(t, abi.DealID(1), d.DealID)
		_, err = m.shards.Lookup(root)
		require.NoError(t, err)
	}
}

// TestHostileQuestions: proposals with epochs near the end of numbers are answered, or refused, at once; a provider without an address
// is an error; a root of version 0 has a label.
func TestHostileQuestions(t *testing.T) {
	m := newMarket(t)
	_, root, p := m.archive("data", 300_000)
	params := m.params(root, p)
	params.DealStartEpoch = 9223372036854257307
	_, err := m.client.StatelessDeal(t.Context(), params)
	require.ErrorContains(t, err, "none of this millennium")
	params = m.params(root, p)
	params.Data.Root = cid.NewCidV0(root.Hash())
	name, err := m.client.StatelessDeal(t.Context(), params)
	require.NoError(t, err)
	d, err := m.provider.Deal(t.Context(), name)
	require.NoError(t, err)
	label, err := d.Proposal.Proposal.Label.ToString()
	require.NoError(t, err)
	require.Equal(t, params.Data.Root.String(), label)

	other, err := address.NewIDAddress(2000)
	require.NoError(t, err)
	m.view.Providers["f02000"] = storagedeal.FileMiner{SectorSize: 32 << 30}
	_, err = m.client.QueryAsk(t.Context(), other)
	require.ErrorContains(t, err, "has no peer of the provider")
	_, err = m.client.DealStatus(t.Context(), other, m.from, name)
	require.ErrorContains(t, err, "has no peer of the provider")
}

// TestSlots: one peer that opens streams and says nothing does not keep others out, and not itself for long.
func TestSlots(t *testing.T) {
	m := newMarket(t)
	_, root, p := m.archive("data", 300_000)
	hog := newHost(t)
	hog.Peerstore().AddAddrs(m.ph.ID(), m.ph.Addrs(), time.Hour)
	for range 200 {
		s, err := hog.NewStream(t.Context(), m.ph.ID(), storagedeal.DealProtocol111)
		require.NoError(t, err)
		_, _ = s.Write([]byte{0xa3})
	}
	_, err := m.client.StatelessDeal(t.Context(), m.params(root, p))
	require.NoError(t, err)
}

// TestR_T6 : a stateless deal writes nothing on the side of the client: it has no store at all; what it returns with an error is enough to
// ask for the state (R-T5 lost answers).
func TestR_T6(t *testing.T) {
	m := newMarket(t)
	_, root, p := m.archive("data", 300_000)
	params := m.params(root, p)
	params.DealStartEpoch = 5 // long ago
	name, err := m.client.StatelessDeal(t.Context(), params)
	require.Error(t, err)
	require.True(t, name.Defined())
	st, err := m.client.DealStatus(t.Context(), m.miner, m.from, name)
	require.NoError(t, err)
	require.Equal(t, storagedeal.StorageDealProposalNotFound, st.State)
	params = m.params(root, p)
	params.FastRetrieval = false
	name, err = m.client.StatelessDeal(t.Context(), params)
	require.NoError(t, err)
	st, err = m.client.DealStatus(t.Context(), m.miner, m.from, name)
	require.NoError(t, err)
	require.False(t, st.FastRetrieval, "R-T3")
}
