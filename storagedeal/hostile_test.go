package storagedeal_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/internal/faults"
	"github.com/cartage-dev/cartage/storagedeal"
)

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
	c := storagedeal.NewClient(storagedeal.ClientConfig{Host: m.ch, Chain: m.view, Wallet: m.wallet, Timeouts: storagedeal.Timeouts{Open: 2 * time.Second, Read: 500 * time.Millisecond}})
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
	require.ErrorContains(t, err, "reset")
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
