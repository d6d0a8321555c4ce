package book_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/filecoin-project/go-state-types/big"
	"github.com/ipfs/go-datastore"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/cartage-dev/cartage/internal/faults"
	"github.com/cartage-dev/cartage/paych/book"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var clock = func() time.Time { return time.Unix(1_800_000_000, 0) }

func open(t *testing.T, ds datastore.Batching) *book.Book {
	b, err := book.Open(t.Context(), ds, clock)
	require.NoError(t, err)
	return b
}

func keyOf(channel string) book.ChannelKey {
	return book.ChannelKey{Kind: "evm.batch", Network: "eip155:1", Asset: "0x01", Channel: channel}
}

// earn adds to an entry what a payment adds.
func earn(e book.Entry, n int64) book.Entry {
	e.Earned = big.Add(e.Earned, big.NewInt(n))
	e.Secured, e.Bytes, e.LastAt, e.LastReceipt, e.LastKey = e.Earned, e.Bytes+uint64(n), clock(), []byte("receipt"), make([]byte, 32)
	return e
}

// TestBook: what is applied is there after a restart, with its day, and what is unclaimed of the asset.
func TestBook(t *testing.T) {
	ds := faults.NewRecords()
	b := open(t, ds)
	e, err := b.Get(t.Context(), keyOf("0xaa"))
	require.NoError(t, err)
	require.Zero(t, e.Version)
	require.NoError(t, b.Apply(t.Context(), e, earn(e, 100)))
	require.ErrorIs(t, b.Apply(t.Context(), e, earn(e, 100)), book.ErrConflict)
	e, err = b.Get(t.Context(), keyOf("0xaa"))
	require.NoError(t, err)
	require.EqualValues(t, 1, e.Version)
	next := e.Seen(book.Balance{Deposit: big.NewInt(500), Claimed: big.NewInt(60), SeenAt: clock()})
	require.NoError(t, b.Apply(t.Context(), e, next))
	for _, again := range []*book.Book{b, open(t, ds)} {
		require.Equal(t, "40", again.Unclaimed()[book.AssetKey{Network: "eip155:1", Asset: "0x01"}].String())
		require.Equal(t, 1, again.Open())
		e, err = again.Get(t.Context(), keyOf("0xaa"))
		require.NoError(t, err)
		require.Equal(t, "60", e.Redeemed.String())
		require.Equal(t, clock(), e.SeenAt)
		require.Equal(t, "400", e.Left().String())
		days, err := again.Days(t.Context())
		require.NoError(t, err)
		require.Len(t, days, 1)
		require.Equal(t, []string{"100", "60", "0"}, []string{days[0].Earned.String(), days[0].Redeemed.String(), days[0].Lost.String()})
		require.EqualValues(t, 100, days[0].Bytes)
		require.EqualValues(t, 1, days[0].Payments)
	}
}

// TestG_50_Monotone: no entry is written in which less was earned or redeemed than before, more was redeemed than earned, or more earned than secured.
func TestG_50_Monotone(t *testing.T) {
	b := open(t, faults.NewRecords())
	e, err := b.Get(t.Context(), keyOf("0xaa"))
	require.NoError(t, err)
	require.NoError(t, b.Apply(t.Context(), e, earn(e, 100)))
	e, err = b.Get(t.Context(), keyOf("0xaa"))
	require.NoError(t, err)
	for name, change := range map[string]func(*book.Entry){
		"earned":   func(e *book.Entry) { e.Earned = big.NewInt(99) },
		"secured":  func(e *book.Entry) { e.Secured = big.NewInt(99) },
		"above":    func(e *book.Entry) { e.Earned = big.NewInt(101) },
		"redeemed": func(e *book.Entry) { e.Redeemed = big.NewInt(101) },
		"lost":     func(e *book.Entry) { e.Lost, e.Redeemed = big.NewInt(51), big.NewInt(50) },
		"another":  func(e *book.Entry) { e.Key = keyOf("0xbb") },
	} {
		next := e
		change(&next)
		require.Error(t, b.Apply(t.Context(), e, next), name)
	}
	claimed := e.Seen(book.Balance{Deposit: big.NewInt(500), Claimed: big.NewInt(1000)})
	require.Equal(t, "100", claimed.Redeemed.String(), "the chain may show more than this book has earned")
}

// TestConcurrent (T-08): of those who apply to one version, one does, and the sum of the day is the sum of what was applied.
func TestConcurrent(t *testing.T) {
	b := open(t, faults.NewRecords())
	var applied atomic.Int64
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for range 20 {
				k := keyOf([]string{"0xaa", "0xbb"}[i%2])
				e, err := b.Get(t.Context(), k)
				if err == nil {
					err = b.Apply(t.Context(), e, earn(e, 1))
				}
				switch {
				case err == nil:
					applied.Add(1)
				case !errors.Is(err, book.ErrConflict):
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	days, err := b.Days(t.Context())
	require.NoError(t, err)
	sum := int64(0)
	for _, d := range days {
		sum += d.Earned.Int64()
	}
	require.Equal(t, applied.Load(), sum)
	require.Equal(t, applied.Load(), b.Unclaimed()[book.AssetKey{Network: "eip155:1", Asset: "0x01"}].Int64())
}

// TestCrashes: a power loss at any write leaves entry, day and intent together, or none of them.
func TestCrashes(t *testing.T) {
	for n := 1; ; n++ {
		ds, sw := faults.NewRecords(), &faults.Switch{At: n}
		b := open(t, faults.Store{Batching: ds, Switch: sw})
		apply := func(ctx context.Context) error {
			e, err := b.Get(ctx, keyOf("0xaa"))
			if err != nil {
				return err
			}
			i, err := b.Intend(ctx, book.Intent{Key: e.Key, Nonce: "0x01", Before: big.Zero(), Created: clock()})
			if err != nil {
				return err
			}
			i.Done = true
			return b.Apply(ctx, e, earn(e, 7), i)
		}
		err := apply(t.Context())
		ds.PowerLoss(func(int) int { return 0 })
		again := open(t, ds)
		e, gerr := again.Get(t.Context(), keyOf("0xaa"))
		require.NoError(t, gerr)
		days, gerr := again.Days(t.Context())
		require.NoError(t, gerr)
		intents, gerr := again.Intents(t.Context())
		require.NoError(t, gerr)
		if err == nil {
			require.EqualValues(t, 1, e.Version)
			require.Len(t, days, 1)
			require.True(t, intents[0].Done)
			require.Greater(t, n, 2)
			return
		}
		require.Zero(t, e.Version)
		require.Empty(t, days)
		for _, i := range intents {
			require.False(t, i.Done)
		}
	}
}

// TestDamage: a record that cannot be decoded stops the start and is named.
func TestDamage(t *testing.T) {
	ds := faults.NewRecords()
	b := open(t, ds)
	e, err := b.Get(t.Context(), keyOf("0xaa"))
	require.NoError(t, err)
	require.NoError(t, b.Apply(t.Context(), e, earn(e, 7)))
	require.NoError(t, ds.Put(t.Context(), datastore.NewKey("/book/1/e/evm.batch/0xaa"), []byte{0x80}))
	_, err = book.Open(t.Context(), ds, clock)
	require.ErrorContains(t, err, "/book/1/e/evm.batch/0xaa")
}

// TestPrune: what is closed for a month, and intents that nobody asks for again, go.
func TestPrune(t *testing.T) {
	ds := faults.NewRecords()
	b := open(t, ds)
	e, err := b.Get(t.Context(), keyOf("0xaa"))
	require.NoError(t, err)
	next := earn(e, 7)
	next.State, next.Redeemed = book.Closed, next.Earned
	require.NoError(t, b.Apply(t.Context(), e, next, book.Intent{Key: e.Key, Nonce: "0x01", Before: big.Zero(), Created: clock(), Done: true}, book.Intent{Key: e.Key, Nonce: "0x02", Before: big.Zero(), Created: clock()}))
	require.NoError(t, b.Prune(t.Context()))
	intents, err := b.Intents(t.Context())
	require.NoError(t, err)
	require.Len(t, intents, 2)
	later, err := book.Open(t.Context(), ds, func() time.Time { return clock().AddDate(0, 0, 31) })
	require.NoError(t, err)
	require.Zero(t, later.Open())
	require.NoError(t, later.Prune(t.Context()))
	intents, err = later.Intents(t.Context())
	require.NoError(t, err)
	require.Len(t, intents, 1)
	require.True(t, strings.HasSuffix(intents[0].Nonce, "2"))
	e, err = later.Get(t.Context(), keyOf("0xaa"))
	require.NoError(t, err)
	require.Zero(t, e.Version)
}
