package paych_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/filecoin-project/go-state-types/big"
	"github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/stretchr/testify/require"

	cpaych "github.com/cartage-dev/cartage/paych"
)

// raceScenarios are the rows in which many things happen at once, and a store that fails.
func raceScenarios() []scenario {
	return []scenario{
		{55, "MR", "100 requests for one pair", func(w *world) {
			const n = 100
			var wg sync.WaitGroup
			for i := range n {
				wg.Go(func() {
					r, err := w.payer.GetOrCreate(w.t.Context(), fmt.Sprint(i), w.payer.addr, w.payee.addr, big.NewInt(int64(i+1)))
					if err == nil && r.Wait.Defined() {
						_, err = w.payer.WaitReady(w.t.Context(), r.Wait)
					}
					if err != nil {
						w.t.Error(err)
					}
				})
			}
			wg.Wait()
			ch := w.payer.channel("last", w.payee.addr, 1)
			list, err := w.payer.List(w.t.Context())
			require.NoError(w.t, err)
			require.Len(w.t, list, 1, "one create")
			require.EqualValues(w.t, n*(n+1)/2+1, w.info(ch).Balance.Int64())
			require.Zero(w.t, w.payer.Free(w.payer.addr, w.payee.addr).Sign(), "all of it is reserved")
		}},
		{56, "ML", "64 lanes at once until nothing is left", func(w *world) {
			const lanes, deposit = 64, 6400
			ch, first := w.payer.fund("0", w.payee.addr, deposit)
			ids := []uint64{first}
			for i := 1; i < lanes; i++ {
				lane, err := w.payer.AllocateLane(w.t.Context(), fmt.Sprint(i), ch, big.Zero())
				require.NoError(w.t, err)
				ids = append(ids, lane)
			}
			require.NoError(w.t, w.payer.ReleaseDeal(w.t.Context(), "0"))
			var wg sync.WaitGroup
			for i, lane := range ids[1:] {
				wg.Go(func() {
					nonce, amount := uint64(0), int64(0)
					for {
						amount += int64(i%7) + 1
						v, _, err := w.payer.CreateVoucher(w.t.Context(), fmt.Sprint(i+1), ch, lane, big.NewInt(amount), 0)
						var short *cpaych.ShortfallError
						if errors.As(err, &short) {
							return
						}
						if err != nil || v.Nonce != nonce+1 {
							w.t.Errorf("lane %d: nonce %v after %d, %v", lane, v, nonce, err)
							return
						}
						nonce++
						if _, err := w.payee.take(fmt.Sprint(i+1), v); err != nil {
							w.t.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			f, err := w.payer.Available(w.t.Context(), ch)
			require.NoError(w.t, err)
			require.True(w.t, f.Promised.LessThanEqual(big.NewInt(deposit)), "%s", f.Promised)
			require.Greater(w.t, f.Promised.Int64(), int64(deposit-8))
			require.NoError(w.t, w.payee.Redeem(w.t.Context(), ch))
			if w.on == "L" {
				require.Equal(w.t, f.Promised.String(), w.info(ch).ToSend.String())
			}
		}},
		{57, "M", "waiting requests that are cancelled", func(w *world) { TestCancelledRequests(w.t) }},
		{62, "M", "store that cannot be written", func(w *world) {
			ch, lane := w.deal()
			before := storedKeys(w.t, w.payee)
			v := w.payer.pay("d", ch, lane, 150)
			full := &fullStore{Batching: w.payee.ds}
			w.payee.close()
			w.payee.ds = full
			w.payee.open(nil)
			full.set(errFull)
			for range 3 {
				_, err := w.payee.take("d", v)
				require.ErrorIs(w.t, err, errFull)
				require.False(w.t, cpaych.IsVoucherFault(err), "it is not the payer's fault: the transfer waits")
			}
			require.Equal(w.t, before, storedKeys(w.t, w.payee))
			full.set(nil)
			w.payee.mustTake("d", v, 50)
			w.payee.mustTake("d", v, 0)
		}},
	}
}

var errFull = errors.New("no space left on device")

// fullStore is a store whose writes fail for a while.
type fullStore struct {
	datastore.Batching
	mu  sync.Mutex
	err error
}

func (f *fullStore) set(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

func (f *fullStore) Batch(ctx context.Context) (datastore.Batch, error) {
	b, err := f.Batching.Batch(ctx)
	return &fullBatch{b, f}, err
}

type fullBatch struct {
	datastore.Batch
	f *fullStore
}

func (b *fullBatch) Commit(ctx context.Context) error {
	b.f.mu.Lock()
	defer b.f.mu.Unlock()
	if b.f.err != nil {
		return b.f.err
	}
	return b.Batch.Commit(ctx)
}

// restored is a store with what a backup holds.
func restored(t *testing.T, backup []query.Entry) datastore.Batching {
	t.Helper()
	ds := dssync.MutexWrap(datastore.NewMapDatastore())
	for _, e := range backup {
		require.NoError(t, ds.Put(t.Context(), datastore.NewKey(e.Key), e.Value))
	}
	return ds
}
