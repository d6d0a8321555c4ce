package testnet_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/ipfs/go-cid"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/internal/config"
	"github.com/cartage-dev/cartage/internal/testnet"
	retrievalimpl "github.com/cartage-dev/cartage/retrievalmarket/impl"
)

const (
	leaf  = 1 << 20 // of what Provide makes of a file
	price = 2
)

// attack is a provider over TCP that is attacked, and its ledger.
type attack struct {
	ctx      context.Context
	net      *testnet.Net
	provider *testnet.Peer
	address  address.Address
	root     cid.Cid
	bytes    uint64
	read     func(cid.Cid) ([]byte, error)
	funds    abi.TokenAmount
	began    time.Time
	number   atomic.Uint64
	// rootReads is how often a deal has begun to be served, or was begun again.
	rootReads atomic.Int64
	streams   bool         // all identities ask over streams, not each second one
	skew      atomic.Int64 // of the provider's clock
}

// newAttack starts a provider with a file of so many bytes for sale. change is made to its configuration.
func newAttack(t *testing.T, size int, ask api.Ask, change func(*config.Config)) *attack {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Duration(scaled(3, 30))*time.Minute)
	t.Cleanup(cancel)
	a := &attack{ctx: ctx, funds: big.NewInt(1 << 40)}
	var err error
	a.net, err = testnet.New(ctx, t.TempDir())
	require.NoError(t, err)
	a.provider, err = a.net.Peer(ctx, "provider", true)
	require.NoError(t, err)
	var pieces retrievalimpl.PieceSource
	a.provider.WrapPieces = func(p retrievalimpl.PieceSource) retrievalimpl.PieceSource {
		pieces = p
		return &seam{PieceSource: p, change: func(_ int, c cid.Cid, data []byte) []byte {
			if c.Equals(a.root) {
				a.rootReads.Add(1)
			}
			return data
		}}
	}
	a.provider.Now = func() time.Time { return time.Now().Add(time.Duration(a.skew.Load())) }
	if change != nil {
		change(&a.provider.Config)
	}
	require.NoError(t, a.provider.Start(ctx, nil))
	t.Cleanup(func() {
		require.NoError(t, a.provider.Stop(context.Background()))
		require.NoError(t, a.net.Close())
	})
	a.address, err = a.provider.Wallet.Default()
	require.NoError(t, err)
	data := make([]byte, size)
	_, _ = rand.NewChaCha8(sha256.Sum256([]byte("attack"))).Read(data)
	file := filepath.Join(t.TempDir(), "file.bin")
	require.NoError(t, os.WriteFile(file, data, 0o600))
	p, err := a.provider.API().Provide(ctx, file)
	require.NoError(t, err)
	a.root, err = cid.Decode(p.Root)
	require.NoError(t, err)
	a.bytes = p.Bytes
	_, err = a.provider.API().SetAsk(ctx, ask)
	require.NoError(t, err)
	found, err := pieces.Find(ctx, a.root, nil)
	require.NoError(t, err)
	r, err := pieces.Acquire(ctx, found.Info.PieceCID)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, r.Close()) })
	a.read, a.began = r.Get, time.Now()
	return a
}

// loot begins to count what is taken.
func (a *attack) loot() *loot { return &loot{read: a.read, blocks: map[cid.Cid]bool{}} }

// asked is an ask with an interval, at the usual price.
func asked(interval uint64) api.Ask {
	return api.Ask{PricePerByte: fmt.Sprint(price), UnsealPrice: "0", PaymentInterval: interval}
}

// earned is what the provider can redeem, in attoFIL.
func (a *attack) earned(t *testing.T) abi.TokenAmount {
	list, err := a.provider.API().PayChannels(a.ctx)
	require.NoError(t, err)
	sum := big.Zero()
	for _, c := range list {
		n, err := big.FromString(c.Vouchered)
		require.NoError(t, err)
		sum = big.Add(sum, n)
	}
	return sum
}

// refilled is what has come back to the strangers' allowance since the attack began.
func (a *attack) refilled() uint64 {
	c := a.provider.Config.Credit
	return uint64(c.StrangersPerHour) * uint64(time.Since(a.began)/time.Second+1) / 3600
}

// whole reports whether attacks have the size that the design names; make soak says so, CI has a share of it.
func whole() bool { return os.Getenv("CARTAGE_ATTACKS") == "full" }

// scaled is a size for CI, or the whole one.
func scaled(share, all int) int {
	if whole() {
		return all
	}
	return share
}

// result is a row of the table, in bytes at the price of what was attacked.
type result struct {
	taken uint64 // and not paid
	bound uint64
	paid  uint64
	least uint64 // what the attack must have got, so that it is one
}

// outcome is what was taken of a payload at the usual price, and how much of it the provider can redeem.
func (a *attack) outcome(t *testing.T, l *loot, bound, least uint64) result {
	paid := big.Div(a.earned(t), big.NewInt(price)).Uint64()
	return result{taken: l.taken() - min(l.taken(), paid), bound: bound, paid: paid, least: least}
}

// TestAttacks: hostile parties over real sockets take no more unpaid than section 4 of the design lets a provider, or a client, risk on them.
func TestAttacks(t *testing.T) {
	if testing.Short() && !whole() {
		t.Skip("the race detector has the accounts of credit in internal/accounting and internal/sim")
	}
	var table []string
	var mu sync.Mutex
	t.Cleanup(func() {
		t.Logf("%-70s %12s %12s %12s", "attack", "taken unpaid", "bound", "paid")
		for _, row := range table {
			t.Log(row)
		}
	})
	for _, tc := range []struct {
		name string
		run  func(t *testing.T) result
	}{
		{"ever new keys that claim the first blocks", freshKeys},
		{"65 deals at once of one payer who paid 2,000 attoFIL", manyDeals},
		{"strangers that never pay and stay, then a newcomer buys", strangersStay},
		{"payer addresses with one byte paid each", manyPayers},
		{"ever new keys that pay one byte in advance", byteInAdvance},
		{"ever new keys with the smallest interval", smallIntervals},
		{"cheap data first, then dear (bytes of the dear)", cheapThenDear},
		{"dear data first, then at 1 attoFIL a byte (bytes of the cheap)", tinyPrice},
		{"much paid, then a default, twice across the expiry of the debt", defaultTwice},
		{"settle and reopen at each deal", settleEach},
		{"claim all in one deal, begin at 0 in the next", claimAll},
		{"claim nearly all, then restart the same deal at 0", restartAtZero},
		{"fake providers paid in advance, against one order (loss of the client)", fakeProviders},
		{"fake providers, each against an order of its own (loss of the client)", fakeProvidersEach},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r := tc.run(t)
			mu.Lock()
			table = append(table, fmt.Sprintf("%-70s %12d %12d %12d", tc.name, r.taken, r.bound, r.paid))
			mu.Unlock()
			require.GreaterOrEqual(t, r.taken, r.least, "this was no attack")
			require.LessOrEqual(t, r.taken, r.bound)
		})
	}
}
