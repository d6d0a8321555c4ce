package testnet_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/ipfs/go-cid"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/internal/faults"
	"github.com/cartage-dev/cartage/internal/testnet"
)

// storing is a client and a provider of online storage deals.
type storing struct {
	ctx              context.Context
	client, provider *testnet.Peer
	root             cid.Cid
	payload          string
	resumed          int // by hand
}

// view writes what a node has to know of a chain.
func view(t *testing.T, path string, addrs []string) {
	t.Helper()
	data, err := json.Marshal(map[string]any{"epoch": 1_000_000, "network_version": 18, "min_collateral_per_gib": "0", "max_collateral_per_gib": "100",
		"miners": map[string]any{"f01000": map[string]any{"addrs": addrs, "sector_size": 34359738368, "proving_period_start": 17}}})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, data, 0o600))
}

// newStoring makes both sides, with something imported at the client. Neither runs.
func newStoring(t *testing.T) *storing {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	t.Cleanup(cancel)
	dir := t.TempDir()
	tn, err := testnet.New(ctx, dir)
	require.NoError(t, err)
	t.Cleanup(func() { _ = tn.Close() })
	d := &storing{ctx: ctx, payload: filepath.Join(dir, "payload")}
	d.provider, err = tn.Peer(ctx, "provider", true)
	require.NoError(t, err)
	d.client, err = tn.Peer(ctx, "client", false)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.client.Stop(ctx)); require.NoError(t, d.provider.Stop(ctx)) })

	view(t, filepath.Join(dir, "p.json"), nil)
	d.provider.Config.Storage.ChainView, d.provider.Config.Storage.Miner = filepath.Join(dir, "p.json"), "f01000"
	require.NoError(t, d.provider.Start(ctx, nil)) // which gives it its address
	view(t, filepath.Join(dir, "c.json"), []string{d.provider.Address()})
	require.NoError(t, d.provider.Stop(ctx))

	data := make([]byte, 5<<19)
	_, err = rand.Read(data)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(d.payload, data, 0o600))
	d.client.Config.Storage.ChainView = filepath.Join(dir, "c.json")
	require.NoError(t, d.client.Start(ctx, nil))
	i, err := d.client.API().Import(ctx, api.ImportRequest{Path: d.payload})
	require.NoError(t, err)
	d.root = cid.MustParse(i.Root)
	require.NoError(t, d.client.Stop(ctx))
	return d
}

// start proposes the deal.
func (d *storing) start() (*cid.Cid, error) {
	miner, err := address.NewFromString("f01000")
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(d.ctx, 10*time.Second)
	defer cancel()
	return d.client.API().ClientStartDeal(ctx, api.StartDealParams{Data: &api.DataRef{Root: d.root}, Miner: miner, EpochPrice: big.Zero(),
		MinBlocksDuration: 518400, DealStartEpoch: 1_050_000})
}

// end waits until the deal is in force. What the last run began goes on by itself; a user does again what was not recorded yet, and lets go on
// what says that it failed.
func (d *storing) end(t *testing.T) {
	t.Helper()
	var taken []api.StorageDeal
	var list []api.StoragePush
	defer func() {
		if t.Failed() {
			t.Logf("taken %+v\npushed %+v", taken, list)
		}
	}()
	require.Eventually(t, func() (over bool) {
		var err error
		taken, err = d.provider.API().StorageDeals(d.ctx)
		require.NoError(t, err)
		if len(taken) == 1 && taken[0].State == "Active" {
			return true
		}
		list, err = d.client.API().StoragePushes(d.ctx)
		require.NoError(t, err)
		switch {
		case len(list) == 0:
			_, _ = d.start()
		case list[0].State == "Error":
			d.resumed++
			_ = d.client.API().ResumeStoragePush(d.ctx, list[0].Proposal)
		}
		return false
	}, 40*time.Second, 20*time.Millisecond)
	pieces, err := d.provider.API().Pieces(d.ctx)
	require.NoError(t, err)
	require.Len(t, pieces, 1)
	require.Equal(t, d.root.String(), pieces[0].Root)
	require.Eventually(t, func() bool { return len(d.staged(t)) == 0 }, 5*time.Second, 10*time.Millisecond)
	findings, err := d.provider.API().DagstoreDoctor(d.ctx)
	require.NoError(t, err)
	require.Empty(t, findings)
}

func (d *storing) staged(t *testing.T) []string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(filepath.Dir(d.payload), "provider", "staging", "*"))
	require.NoError(t, err)
	return list
}

// TestOnlineDeal: the data of an online deal is pushed, becomes a shard under the piece that the client computed, and is for sale.
func TestOnlineDeal(t *testing.T) {
	d := newStoring(t)
	require.NoError(t, d.provider.Start(d.ctx, nil))
	require.NoError(t, d.client.Start(d.ctx, nil))
	name, err := d.start()
	require.NoError(t, err)
	d.end(t)
	_, err = d.start()
	require.ErrorContains(t, err, "proposed already")
	var p *api.StoragePush
	require.Eventually(t, func() bool { // it hears of the end after the provider
		p, err = d.client.API().StoragePush(d.ctx, name.String())
		return err == nil && p.State == "CheckForAcceptance"
	}, 20*time.Second, 5*time.Millisecond)
	require.Greater(t, p.Sent, uint64(5<<19))
	r, err := d.client.Retrieve(d.ctx, api.RetrieveRequest{CID: d.root.String(), Provider: d.provider.Address(), Budget: "1000000000000"})
	require.NoError(t, err)
	require.True(t, r.OK, r.Message)
}

// TestCountUpOnline crashes one side of an online deal at its first write, its second, and so on: started again, the deal comes to its end.
func TestCountUpOnline(t *testing.T) {
	step := 1
	if testing.Short() {
		step = 9
	}
	for _, side := range []string{"client", "provider"} {
		t.Run(side, func(t *testing.T) {
			for n := 1; ; n += step {
				if !onlineCrash(t, side, n) {
					t.Logf("%s: %d crash points", side, n-1)
					require.Greater(t, n, 10)
					return
				}
			}
		})
	}
}

func onlineCrash(t *testing.T, side string, n int) (crashed bool) {
	t.Run("", func(t *testing.T) {
		d := newStoring(t)
		victim, other := d.client, d.provider
		if side == "provider" {
			victim, other = other, victim
		}
		dead := make(chan struct{})
		sw := &faults.Switch{At: n, AtCrash: victim.Silence, OnCrash: func() { close(dead) }}
		require.NoError(t, other.Start(d.ctx, nil))
		if victim.Start(d.ctx, sw) == nil {
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				if _, err := d.start(); err != nil {
					return
				}
				for !sw.Crashed() {
					taken, err := d.provider.API().StorageDeals(d.ctx)
					if err == nil && len(taken) == 1 && taken[0].State == "Active" && len(d.staged(t)) == 0 {
						list, err := d.client.API().StoragePushes(d.ctx)
						if err == nil && len(list) == 1 && list[0].State == "CheckForAcceptance" {
							return
						}
					}
					time.Sleep(5 * time.Millisecond)
				}
			}()
			<-ended
			if crashed = sw.Crashed(); !crashed {
				d.end(t)
				return
			}
			<-dead
			stop, cancel := context.WithTimeout(d.ctx, 2*time.Second)
			_ = victim.Stop(stop)
			cancel()
		}
		crashed = true
		require.NoError(t, victim.Start(d.ctx, nil), "crash at write %d", n)
		d.end(t)
		if side == "client" {
			require.Zero(t, d.resumed, "a client that starts goes on by itself")
		}
	})
	return crashed
}
