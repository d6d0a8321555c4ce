package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/filecoin-project/go-state-types/big"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/api"
)

// side is what a party says of its deals and vouchers.
type side struct {
	deals     []api.Deal
	vouchered big.Int
	channels  []api.PayChannel
}

func (k *killRound) sideOf(name string) (s side, err error) {
	s.vouchered = big.Zero()
	err = k.ask(name, func(ctx context.Context, n *api.Node) error {
		if s.deals, err = n.Deals(ctx); err != nil {
			return err
		}
		s.channels, err = n.PayChannels(ctx)
		for _, c := range s.channels {
			s.vouchered = big.Add(s.vouchered, big.MustFromString(c.Vouchered))
		}
		return err
	})
	return s, err
}

// compare waits until all deals rest, and compares what both sides say, the file, and what was due.
func (k *killRound) compare() {
	t := k.t
	var c, p side
	rest := func() (why string) {
		var err error
		if c, err = k.sideOf("client"); err != nil {
			return err.Error()
		}
		if p, err = k.sideOf("provider"); err != nil {
			return err.Error()
		}
		for _, d := range append(c.deals, p.deals...) {
			if !d.Final {
				return fmt.Sprintf("deal %s of the %s is %s", d.ID, d.Role, d.Status)
			}
		}
		if !c.vouchered.Equals(p.vouchered) {
			return fmt.Sprintf("the client vouchered %s, the provider has %s", c.vouchered, p.vouchered)
		}
		return ""
	}
	why := rest()
	for end := time.Now().Add(30 * time.Second); why != "" && time.Now().Before(end); why = rest() {
		time.Sleep(50 * time.Millisecond)
	}
	require.Empty(t, why, "client %+v\nprovider %+v", c.deals, p.deals)
	require.Equal(t, k.hash("data.bin"), k.hash("out.bin"), "the file")
	due := big.Mul(big.NewInt(killPrice), big.NewIntUnsigned(k.bytes))
	require.True(t, p.vouchered.GreaterThanEqual(due), "vouchered %s of %s: client %+v\nprovider %+v", p.vouchered, due, c.deals, p.deals)
	k.deals, k.excess = len(c.deals), big.Sub(p.vouchered, due)
	require.True(t, k.excess.LessThanEqual(big.NewInt(killPrice*(256<<10))), "an excess of %s", k.excess)
	for _, list := range [][]api.Deal{c.deals, p.deals} {
		for _, d := range list {
			if d.Status == "Completed" {
				require.True(t, big.MustFromString(d.Vouchered).GreaterThanEqual(big.MustFromString(d.Owed)), "a completed deal has a tail: %+v", d)
			}
		}
	}
	require.Len(t, p.deals, len(c.deals))
	k.sameDeals(c.deals, p.deals)
}

// sameDeals compares owed and vouchered of each deal.
func (k *killRound) sameDeals(mine, theirs []api.Deal) {
	for _, d := range mine {
		found := false
		for _, o := range theirs {
			if o.ID[strings.LastIndexByte(o.ID, '/')+1:] != strings.TrimPrefix(d.ID, "c") {
				continue
			}
			found = true
			require.Equal(k.t, d.Vouchered, o.Vouchered, "vouchered: client %+v\nprovider %+v", d, o)
			if d.Status == "Completed" && o.Status == "Completed" {
				require.Equal(k.t, d.Owed, o.Owed, "owed: client %+v\nprovider %+v", d, o)
			}
		}
		require.True(k.t, found, "%+v is none of %+v", d, theirs)
	}
}

func (k *killRound) hash(name string) [32]byte {
	data, err := os.ReadFile(filepath.Join(k.dir, name))
	require.NoError(k.t, err)
	return sha256.Sum256(data)
}

// settle closes every channel of the provider: what was vouchered is redeemed.
func (k *killRound) settle() {
	p, err := k.sideOf("provider")
	require.NoError(k.t, err)
	require.NotEmpty(k.t, p.channels)
	for _, ch := range p.channels {
		require.NoError(k.t, k.ask("provider", func(ctx context.Context, n *api.Node) error { return n.SettlePayCh(ctx, ch.Channel) }))
		require.Eventually(k.t, func() bool {
			return k.ask("provider", func(ctx context.Context, n *api.Node) error { return n.CollectPayCh(ctx, ch.Channel) }) == nil
		}, time.Minute, 50*time.Millisecond)
	}
	for _, name := range []string{"provider", "client"} {
		s, err := k.sideOf(name)
		require.NoError(k.t, err)
		for _, ch := range s.channels {
			require.Equal(k.t, ch.Vouchered, ch.Redeemed, "%s, channel %s", name, ch.Channel)
		}
	}
}
