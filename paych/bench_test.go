package paych_test

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/filecoin-project/go-address"
	gocrypto "github.com/filecoin-project/go-crypto"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/filecoin-project/go-state-types/builtin/v8/paych"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/blake2b"

	"github.com/cartage-dev/cartage/internal/store"
	cpaych "github.com/cartage-dev/cartage/paych"
)

// ratios runs two pieces of work in turns and reports the median of how much longer the second takes, with its spread.
func ratios(b *testing.B, rounds int, base, work func() time.Duration) {
	b.Helper()
	var all []float64
	for range rounds {
		x, y := base(), work()
		all = append(all, float64(y)/float64(x))
	}
	slices.Sort(all)
	b.ReportMetric(all[len(all)/2], "ratio")
	b.ReportMetric(all[0], "least")
	b.ReportMetric(all[len(all)-1], "greatest")
	b.ReportMetric(0, "ns/op")
}

func timed(n int, f func(i int)) time.Duration {
	begun := time.Now()
	for i := range n {
		f(i)
	}
	return time.Since(begun)
}

// newBenchKey is a key, and a voucher that it has signed.
func newBenchKey(b *testing.B) (*cpaych.Key, *paych.SignedVoucher) {
	key, err := cpaych.NewKey()
	require.NoError(b, err)
	ch, err := address.NewActorAddress([]byte("channel"))
	require.NoError(b, err)
	v := &paych.SignedVoucher{ChannelAddr: ch, Lane: 3, Nonce: 7, Amount: big.NewInt(2 << 40), Merges: []paych.Merge{}}
	require.NoError(b, cpaych.SignVoucher(key, v))
	return key, v
}

// BenchmarkCreate: making, signing and encoding a voucher against the bare signature.
func BenchmarkCreate(b *testing.B) {
	key, v := newBenchKey(b)
	msg, err := cpaych.SigningBytes(v)
	require.NoError(b, err)
	ratios(b, 9, func() time.Duration {
		return timed(2000, func(int) { _, _ = key.Sign(msg) })
	}, func() time.Duration {
		return timed(2000, func(i int) {
			next := &paych.SignedVoucher{ChannelAddr: v.ChannelAddr, Lane: 3, Nonce: uint64(i), Amount: big.NewInt(int64(i) << 20), Merges: []paych.Merge{}}
			if cpaych.SignVoucher(key, next) != nil {
				b.Error("not signed")
			}
			if _, err := cpaych.EncodeVoucher(next); err != nil {
				b.Error(err)
			}
		})
	})
}

// BenchmarkCheck: the strict check of a voucher, from its bytes on, against the bare recovery of its signer.
func BenchmarkCheck(b *testing.B) {
	key, v := newBenchKey(b)
	msg, err := cpaych.SigningBytes(v)
	require.NoError(b, err)
	data, err := cpaych.EncodeVoucher(v)
	require.NoError(b, err)
	ratios(b, 9, func() time.Duration {
		return timed(1000, func(int) {
			digest := blake2b.Sum256(msg)
			_, _ = gocrypto.EcRecover(digest[:], v.Signature.Data)
		})
	}, func() time.Duration {
		return timed(1000, func(int) {
			got, err := cpaych.DecodeVoucher(data)
			if err == nil {
				err = cpaych.CheckStateless(got, v.ChannelAddr)
			}
			if err == nil {
				err = cpaych.VerifyVoucher(got, key.Address)
			}
			if err != nil {
				b.Error(err)
			}
		})
	})
}

// benchPayee is a payee over a store on the disk, with vouchers for so many lanes that are signed already.
func benchPayee(b *testing.B, ds datastore.Batching, lanes, each int) (*cpaych.Manager, [][]*paych.SignedVoucher) {
	chain := newFakeChain()
	keys, payee := newKeyring(b)
	payer, err := cpaych.NewKey()
	require.NoError(b, err)
	ch, err := address.NewActorAddress([]byte("channel"))
	require.NoError(b, err)
	chain.channels[ch] = &cpaych.ChannelInfo{Address: ch, From: payer.Address, To: payee, Balance: big.NewInt(1 << 60), ToSend: big.Zero(), Lanes: map[uint64]cpaych.LaneInfo{}}
	m, err := cpaych.Open(b.Context(), ds, chain, keys)
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, m.Close(context.WithoutCancel(b.Context()))) })
	out := make([][]*paych.SignedVoucher, lanes)
	var wg sync.WaitGroup
	for lane := range out {
		wg.Go(func() {
			for n := range each {
				v := &paych.SignedVoucher{ChannelAddr: ch, Lane: uint64(lane), Nonce: uint64(n + 1), Amount: big.NewInt(int64(n + 1)), Merges: []paych.Merge{}}
				if err := cpaych.SignVoucher(payer, v); err != nil {
					b.Error(err)
				}
				out[lane] = append(out[lane], v)
			}
		})
	}
	wg.Wait()
	return m, out
}

// BenchmarkDurable: vouchers that are accepted durably, each second, by one deal alone and by 32 at once. What the disk needs for a
// commit is in one and shared in the other.
func BenchmarkDurable(b *testing.B) {
	const rounds, each = 5, 120
	rate := func(deals int) float64 {
		ds, err := store.Open(filepath.Join(b.TempDir(), "book"))
		require.NoError(b, err)
		defer ds.Close()
		m, vouchers := benchPayee(b, ds, deals, each)
		var wg sync.WaitGroup
		begun := time.Now()
		for lane, vs := range vouchers {
			wg.Go(func() {
				for _, v := range vs {
					if _, err := m.AcceptVoucher(b.Context(), fmt.Sprint(lane), v.ChannelAddr, v, big.Zero(), 0); err != nil {
						b.Error(err)
					}
				}
			})
		}
		wg.Wait()
		took := time.Since(begun)
		require.NoError(b, m.Close(b.Context()))
		return float64(deals*each) / took.Seconds()
	}
	var one, many, all []float64
	for range rounds {
		x, y := rate(1), rate(32)
		one, many, all = append(one, x), append(many, y), append(all, y/x)
	}
	for _, l := range [][]float64{one, many, all} {
		slices.Sort(l)
	}
	b.ReportMetric(many[rounds/2]/recoveries(b), "of-bare-recovery")
	b.ReportMetric(one[rounds/2], "alone/s")
	b.ReportMetric(many[rounds/2], "32-at-once/s")
	b.ReportMetric(all[rounds/2], "times")
	b.ReportMetric(all[0], "least")
	b.ReportMetric(all[rounds-1], "greatest")
	b.ReportMetric(0, "ns/op")
}

// recoveries is how many signers all cores can recover each second, and nothing else: no way of accepting vouchers is faster.
func recoveries(b *testing.B) float64 {
	_, v := newBenchKey(b)
	msg, err := cpaych.SigningBytes(v)
	require.NoError(b, err)
	digest := blake2b.Sum256(msg)
	const each = 2000
	var wg sync.WaitGroup
	begun := time.Now()
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for range each {
				_, _ = gocrypto.EcRecover(digest[:], v.Signature.Data)
			}
		})
	}
	wg.Wait()
	return float64(each*runtime.GOMAXPROCS(0)) / time.Since(begun).Seconds()
}

// countedStore counts the bytes that are written.
type countedStore struct {
	datastore.Batching
	bytes atomic.Int64
}

func (c *countedStore) Batch(ctx context.Context) (datastore.Batch, error) {
	b, err := c.Batching.Batch(ctx)
	return &countedBatch{b, c}, err
}

type countedBatch struct {
	datastore.Batch
	c *countedStore
}

func (b *countedBatch) Put(ctx context.Context, k datastore.Key, v []byte) error {
	b.c.bytes.Add(int64(len(k.String()) + len(v)))
	return b.Batch.Put(ctx, k, v)
}

// BenchmarkLateVoucher: the vouchers around the hundred thousandth of a lane against those around the tenth, on both sides.
func BenchmarkLateVoucher(b *testing.B) {
	const late, some = 100_000, 1000
	for _, side := range []string{"payer", "payee"} {
		b.Run(side, func(b *testing.B) {
			chain := newFakeChain()
			keys, payer := newKeyring(b)
			theirs, payee := newKeyring(b)
			chain.balances[payer] = big.NewInt(1 << 40)
			ds := &countedStore{Batching: dssync.MutexWrap(datastore.NewMapDatastore())}
			pay, err := cpaych.Open(b.Context(), ds, chain, keys)
			require.NoError(b, err)
			book := &countedStore{Batching: dssync.MutexWrap(datastore.NewMapDatastore())}
			take, err := cpaych.Open(b.Context(), book, chain, theirs)
			require.NoError(b, err)
			defer func() {
				require.NoError(b, pay.Close(b.Context()))
				require.NoError(b, take.Close(b.Context()))
			}()
			r, err := pay.GetOrCreate(b.Context(), "d", payer, payee, big.NewInt(1<<30))
			require.NoError(b, err)
			ch, err := pay.WaitReady(b.Context(), r.Wait)
			require.NoError(b, err)
			lane, err := pay.AllocateLane(b.Context(), "d", ch, big.NewInt(1<<30))
			require.NoError(b, err)
			amount := int64(0)
			measure := func(n int) (took time.Duration, bytes int64) {
				counted := map[string]*countedStore{"payer": ds, "payee": book}[side]
				before := counted.bytes.Load()
				var times []time.Duration
				for range n {
					amount++
					begun := time.Now()
					v, _, err := pay.CreateVoucher(b.Context(), "d", ch, lane, big.NewInt(amount<<8), 0)
					if side == "payer" {
						times = append(times, time.Since(begun))
					}
					if err != nil {
						b.Fatal(err)
					}
					if side == "payer" {
						continue
					}
					begun = time.Now()
					if _, err := take.AcceptVoucher(b.Context(), "d", ch, v, big.Zero(), 0); err != nil {
						b.Fatal(err)
					}
					times = append(times, time.Since(begun))
				}
				slices.Sort(times)
				return times[len(times)/2], counted.bytes.Load() - before
			}
			measure(10)
			early, first := measure(some)
			for i := amount; i < late; i += some {
				measure(some)
				if side == "payee" {
					time.Sleep(200 * time.Millisecond) // below the pace of a channel
				}
			}
			last, bytes := measure(some)
			b.ReportMetric(float64(last)/float64(early), "time-ratio")
			b.ReportMetric(float64(bytes)/float64(first), "bytes-ratio")
			b.ReportMetric(0, "ns/op")
		})
	}
}
