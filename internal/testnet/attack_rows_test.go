package testnet_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/carstore"
	"github.com/cartage-dev/cartage/internal/config"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	"github.com/cartage-dev/cartage/shared"
)

// lending is a configuration that lends strangers so much, and no more with time.
func lending(strangers int64) func(*config.Config) {
	return func(c *config.Config) { c.Credit.Strangers, c.Credit.StrangersPerHour = strangers, 0 }
}

// buy retrieves the payload as an honest newcomer does.
func (a *attack) buy(t *testing.T) {
	t.Helper()
	c, err := a.net.Peer(a.ctx, "newcomer", false)
	require.NoError(t, err)
	require.NoError(t, c.Start(a.ctx, nil))
	defer func() { require.NoError(t, c.Stop(context.WithoutCancel(a.ctx))) }()
	got, err := c.Retrieve(a.ctx, api.RetrieveRequest{CID: a.root.String(), Provider: a.provider.Address(), Budget: "100000000000", MaxExposure: 1 << 30})
	require.NoError(t, err)
	require.True(t, got.OK, "a newcomer who pays is served: %s %s", got.Status, got.Message)
}

// freshKeys is the attack of T03: a new identity says that it has what the ones before took, takes an interval and leaves. Who comes next and
// can pay is served.
func freshKeys(t *testing.T) result {
	a := newAttack(t, 64<<20, asked(1<<20), nil)
	l, p := a.loot(), a.purse(t, "purse")
	for range scaled(20, 100) {
		th := a.identity(t, p, l, never, false)
		a.take(t, th, a.root, 0)
		a.leave(t, th)
	}
	allowance := uint64(a.provider.Config.Credit.Strangers)
	r := a.outcome(t, l, allowance+a.refilled()+leaf, allowance/2)
	a.buy(t)
	return r
}

// leaves are the large blocks of the payload, each a payload of its own.
func (a *attack) leaves(t *testing.T) (out []cid.Cid) {
	ls := carstore.Links(func(c cid.Cid) ([]byte, error) {
		data, err := a.read(c)
		if len(data) == leaf {
			out = append(out, c)
		}
		return data, err
	})
	require.NoError(t, carstore.WalkSelector(&ls, a.root, shared.AllSelector(), nil))
	return out
}

// manyDeals is one who paid little and then begins many deals at once.
func manyDeals(t *testing.T) result {
	a := newAttack(t, 67<<20, asked(1<<20), func(c *config.Config) {
		c.Limits = map[string]any{"deals_peer": int64(128), "graphsync_deals": int64(128)}
	})
	l := a.loot()
	a.streams = true // graphsync asks for no more than 64 at once
	th := a.identity(t, a.purse(t, "purse"), l, upTo(2000), false)
	leaves := a.leaves(t)
	a.take(t, th, leaves[0], 0)
	th.set(never)
	var ids []rm.DealID
	for _, c := range leaves[1:66] {
		ids = append(ids, a.open(t, th, c, 0))
	}
	for _, id := range ids {
		a.stuck(t, th, id)
	}
	return a.outcome(t, l, 2000/price/16+1<<20+leaf, 1<<18)
}

// strangersStay is the attack of item 3: they take what they are lent and leave their deals open. Who can pay is served beside them.
func strangersStay(t *testing.T) result {
	a := newAttack(t, 8<<20, asked(1<<20), nil)
	l, p := a.loot(), a.purse(t, "purse")
	for range scaled(20, 100) {
		th := a.identity(t, p, a.loot(), never, false) // each counts for itself: they take the same blocks
		l.join(th.loot)
		a.stuck(t, th, a.open(t, th, a.root, 0))
	}
	allowance := uint64(a.provider.Config.Credit.Strangers)
	r := a.outcome(t, l, allowance+a.refilled()+leaf, allowance/2)
	a.buy(t)
	return r
}

// byteInAdvance gets no credit, and pays as little as it can before each deal.
func byteInAdvance(t *testing.T) result {
	a := newAttack(t, 16<<20, asked(1<<20), lending(0))
	l, p := a.loot(), a.purse(t, "purse")
	for range scaled(6, 40) {
		th := a.identity(t, p, l, upTo(price), true)
		a.take(t, th, a.root, 0)
		a.leave(t, th)
	}
	return a.outcome(t, l, leaf, 0)
}

// smallIntervals wants blocks that are larger than what it is lent for.
func smallIntervals(t *testing.T) result {
	a := newAttack(t, 24<<20, asked(1<<20), lending(4<<20))
	l, p := a.loot(), a.purse(t, "purse")
	for i := range scaled(12, 80) {
		th := a.identity(t, p, l, upTo(64<<10*price), i%2 == 1)
		if i%2 == 0 {
			th.set(never)
		}
		a.take(t, th, a.root, 64<<10)
		a.leave(t, th)
	}
	return a.outcome(t, l, 4<<20+leaf, 2<<20)
}

// manyPayers has a payment channel of its own for each identity, and pays one byte with each.
func manyPayers(t *testing.T) result {
	a := newAttack(t, scaled(16, 64)<<20, asked(1<<20), lending(int64(scaled(4, 16))<<20))
	l, allowance := a.loot(), uint64(scaled(4, 16))<<20
	payers := scaled(10, 1000)
	for i := range payers {
		th := a.identity(t, a.purse(t, fmt.Sprint("purse", i)), l, upTo(price), i%2 == 1)
		a.take(t, th, a.root, 0)
		a.leave(t, th)
	}
	return a.outcome(t, l, allowance+uint64(payers)/16+leaf, allowance/2)
}

// cheapThenDear earns a record with cheap data and takes dear data on it.
func cheapThenDear(t *testing.T) result {
	cheap := asked(1 << 20)
	cheap.PricePerByte = "1"
	a := newAttack(t, 24<<20, cheap, lending(2<<20))
	l, leaves := a.loot(), a.leaves(t)
	th := a.identity(t, a.purse(t, "purse"), l, always, false)
	a.buys(t, th, leaves[:8])
	paid := a.earned(t)
	require.EqualValues(t, 8<<20, paid.Int64())
	a.ask(t, "1000")
	th.set(never)
	before := l.taken()
	for _, c := range leaves[8:20] {
		a.stuck(t, th, a.open(t, th, c, 0))
	}
	return result{taken: l.taken() - before, bound: paid.Uint64()/16/1000 + 2<<20 + leaf, paid: paid.Uint64() / 1000, least: 1 << 18}
}

// tinyPrice earns a record with dear data and takes cheap data on it: a price of next to nothing gives nothing away without end.
func tinyPrice(t *testing.T) result {
	dear := asked(1 << 20)
	dear.PricePerByte = "1000"
	const most = 4 << 20
	a := newAttack(t, 24<<20, dear, func(c *config.Config) {
		lending(2 << 20)(c)
		c.Credit.Record = most
	})
	l, leaves := a.loot(), a.leaves(t)
	th := a.identity(t, a.purse(t, "purse"), l, always, false)
	a.buys(t, th, leaves[:4])
	a.ask(t, "1")
	th.set(never)
	before, paid := l.taken(), a.earned(t).Uint64()
	for _, c := range leaves[4:20] {
		a.stuck(t, th, a.open(t, th, c, 0))
	}
	require.Greater(t, paid/16, uint64(most), "the record alone would lend more")
	return result{taken: l.taken() - before, bound: most + 2<<20 + leaf, paid: paid, least: most / 2}
}

// ask changes the price of a byte.
func (a *attack) ask(t *testing.T, perByte string) {
	next := asked(1 << 20)
	next.PricePerByte = perByte
	_, err := a.provider.API().SetAsk(a.ctx, next)
	require.NoError(t, err)
}

// buys pays for payloads as it should.
func (a *attack) buys(t *testing.T, th *thief, roots []cid.Cid) {
	t.Helper()
	for _, c := range roots {
		s := a.take(t, th, c, 0)
		require.Equal(t, rm.DealStatusCompleted, s.Status, s.Message)
	}
}

// defaultTwice pays much and then nothing, and comes back when its debt is forgotten.
func defaultTwice(t *testing.T) result {
	bought := scaled(16, 256)
	tries := bought/16 + 5
	a := newAttack(t, (bought+2*tries+1)<<20, asked(1<<20), lending(2<<20))
	l, leaves := a.loot(), a.leaves(t)
	th := a.identity(t, a.purse(t, "purse"), l, always, false)
	a.buys(t, th, leaves[:bought])
	for i := range 2 {
		th.set(never)
		for _, c := range leaves[bought+i*tries:][:tries] {
			a.take(t, th, c, 0)
		}
		a.skew.Add(int64(25 * time.Hour))
	}
	// A sixteenth once, and one interval of the strangers on each day.
	return a.outcome(t, l, uint64(bought*leaf/16+2*(2<<20)+leaf), 1<<18)
}

// settleEach settles its channel after each deal and pays the next one with a new one.
func settleEach(t *testing.T) result {
	a := newAttack(t, 16<<20, asked(1<<20), lending(6<<20))
	l, leaves := a.loot(), a.leaves(t)
	p := a.purse(t, "purse")
	for i := range scaled(6, 12) {
		th := a.identity(t, p, l, upTo(leaf*price/2), false)
		a.take(t, th, leaves[i], 0)
		list, err := p.List(a.ctx)
		require.NoError(t, err)
		for _, ch := range list {
			_ = p.Settle(a.ctx, ch.Channel) // those before are settling already
		}
		a.leave(t, th)
	}
	return a.outcome(t, l, 6<<20+leaf, 1<<20)
}

// claimAll says that it has everything, and then that it has nothing.
func claimAll(t *testing.T) result {
	a := newAttack(t, 8<<20, asked(1<<20), lending(2<<20))
	l, p := a.loot(), a.purse(t, "purse")
	for range 4 {
		th := a.identity(t, p, l, never, false)
		l.claim(1 << 20)
		a.take(t, th, a.root, 0)
		l.claim(0)
		a.take(t, th, a.root, 0)
		a.leave(t, th)
	}
	return a.outcome(t, l, 2<<20+leaf, 1<<20)
}

// restartAtZero says that it has all but the last blocks, and after a restart of its process, of the same deal, that it has none.
func restartAtZero(t *testing.T) result {
	a := newAttack(t, 8<<20, asked(1<<20), lending(6<<20)) // an interval and a block for each round
	l, p := a.loot(), a.purse(t, "purse")
	for range 3 {
		th := a.identity(t, p, l, never, false)
		l.claim(6)
		id := a.open(t, th, a.root, 0)
		a.stuck(t, th, id)
		require.NoError(t, th.Stop(a.ctx))
		l.claim(0)
		th.set(upTo(leaf * price)) // nothing goes on before what is due is paid: it pays for what it was sent
		served := a.rootReads.Load()
		require.NoError(t, th.Start(a.ctx))
		a.connect(t, th)
		require.Eventually(t, func() bool { return a.rootReads.Load() > served }, 20*time.Second, 5*time.Millisecond, "the deal goes on from 0")
		a.stuck(t, th, id)
		a.leave(t, th)
	}
	return a.outcome(t, l, 6<<20+leaf, 1<<20)
}
