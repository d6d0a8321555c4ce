package blockunsealing_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/filecoin-project/go-state-types/abi"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/namespace"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/multiformats/go-varint"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/cartage-dev/cartage/carstore"
	"github.com/cartage-dev/cartage/internal/oddcars"
	"github.com/cartage-dev/cartage/internal/reason"
	"github.com/cartage-dev/cartage/multistore"
	"github.com/cartage-dev/cartage/piecestore"
	piecestoreimpl "github.com/cartage-dev/cartage/piecestore/impl"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	"github.com/cartage-dev/cartage/retrievalmarket/impl/blockunsealing"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sealed is a node whose sectors take an hour to unseal.
type sealed struct {
	mu      sync.Mutex
	sectors map[abi.SectorNumber][]byte
	asked   []abi.SectorNumber
	copies  map[abi.SectorNumber]bool
	hangs   bool
}

func (s *sealed) UnsealSector(ctx context.Context, n abi.SectorNumber, offset, length abi.UnpaddedPieceSize) (io.ReadCloser, error) {
	s.mu.Lock()
	s.asked = append(s.asked, n)
	data, ok := s.sectors[n]
	hangs := s.hangs
	s.mu.Unlock()
	if hangs {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	time.Sleep(time.Hour)
	if !ok {
		return nil, errors.New("the sector is faulty")
	}
	return io.NopCloser(bytes.NewReader(append(data[offset:len(data):len(data)], make([]byte, length)...))), nil
}

func (s *sealed) IsUnsealed(_ context.Context, n abi.SectorNumber, _, _ abi.UnpaddedPieceSize) (bool, error) {
	return s.copies[n], nil
}

type fixture struct {
	*sealed
	source  *blockunsealing.Source
	stores  *multistore.MultiStore
	ds      datastore.Batching
	pieces  piecestore.PieceStore
	payload cid.Cid
}

func some(s string) cid.Cid { return blocks.NewBlock([]byte(s)).Cid() }

func setup(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{sealed: &sealed{sectors: map[abi.SectorNumber][]byte{}, copies: map[abi.SectorNumber]bool{}}, ds: dssync.MutexWrap(datastore.NewMapDatastore())}
	body := blocks.NewBlock([]byte("payload"))
	f.payload = body.Cid()
	car, err := carstore.V1Header(f.payload)
	require.NoError(t, err)
	section := append(f.payload.Bytes(), body.RawData()...)
	car = append(append(car, varint.ToUvarint(uint64(len(section)))...), section...)
	f.sectors[2], f.sectors[3] = car, car
	f.pieces, err = piecestoreimpl.NewPieceStore(namespace.Wrap(f.ds, datastore.NewKey("pieces")))
	require.NoError(t, err)
	require.NoError(t, f.pieces.Start(t.Context()))
	for piece, sectors := range map[string][]abi.SectorNumber{"one": {1, 2}, "two": {3}} {
		for _, n := range sectors {
			require.NoError(t, f.pieces.AddDealForPiece(some(piece), piecestore.DealInfo{DealID: abi.DealID(n), SectorID: n, Length: 2048}))
		}
		require.NoError(t, f.pieces.AddPieceBlockLocations(some(piece), map[cid.Cid]piecestore.BlockLocation{f.payload: {}}))
	}
	f.stores, err = multistore.NewMultiDstore(namespace.Wrap(f.ds, datastore.NewKey("stores")))
	require.NoError(t, err)
	f.open(t)
	return f
}

func (f *fixture) open(t *testing.T) {
	t.Helper()
	var err error
	f.source, err = blockunsealing.New(t.Context(), f.pieces, f.stores, f.sealed, namespace.Wrap(f.ds, datastore.NewKey("unsealed")))
	require.NoError(t, err)
}

// TestM20UnsealedOnce: many deals that wait for one piece unseal it once, out of the first sector that works, and its store is gone
// after the last.
func TestM20UnsealedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := setup(t)
		var wg sync.WaitGroup
		var handles [20]*blockunsealing.Handle
		for i := range handles {
			wg.Go(func() {
				h, err := f.source.Acquire(t.Context(), some("one"))
				require.NoError(t, err)
				data, err := h.Get(f.payload)
				require.NoError(t, err)
				require.Equal(t, "payload", string(data))
				_, err = h.Get(some("else"))
				require.ErrorContains(t, err, "of piece")
				handles[i] = h
			})
		}
		wg.Wait()
		require.Equal(t, []abi.SectorNumber{1, 2}, f.asked)
		require.Len(t, f.stores.List(), 1)
		for _, h := range handles {
			require.NoError(t, h.Close())
			require.NoError(t, h.Close(), "closing twice gives back once")
		}
		require.Empty(t, f.stores.List())
		require.NoError(t, f.source.Close(t.Context()))
	})
}

// TestM20Cancelled: one who stops to wait takes nothing from the others, and the last one ends the work.
func TestM20Cancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := setup(t)
		f.hangs = true
		first, cancelFirst := context.WithCancel(t.Context())
		second, cancelSecond := context.WithCancel(t.Context())
		errs := make(chan error, 2)
		for _, ctx := range []context.Context{first, second} {
			go func() {
				_, err := f.source.Acquire(ctx, some("one"))
				errs <- err
			}()
		}
		synctest.Wait()
		cancelFirst()
		require.ErrorIs(t, <-errs, context.Canceled)
		require.Len(t, f.asked, 1, "still at work")
		cancelSecond()
		require.ErrorIs(t, <-errs, context.Canceled)
		require.Empty(t, f.stores.List())

		f.mu.Lock()
		f.hangs = false
		f.mu.Unlock()
		h, err := f.source.Acquire(t.Context(), some("one"))
		require.NoError(t, err, "the next one tries again")
		require.NoError(t, h.Close())
		require.NoError(t, f.source.Close(t.Context()))
		_, err = f.source.Acquire(t.Context(), some("one"))
		require.ErrorContains(t, err, "closed")
	})
}

// TestFaulty: no sector works, a piece is no CAR, a piece is not known.
func TestFaulty(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := setup(t)
		delete(f.sectors, 2)
		f.sectors[3] = []byte("this is no CAR")
		_, err := f.source.Acquire(t.Context(), some("one"))
		require.ErrorContains(t, err, "sector 1: the sector is faulty\nsector 2: the sector is faulty")
		_, err = f.source.Acquire(t.Context(), some("two"))
		require.ErrorContains(t, err, fmt.Sprintf("unseal piece %s: sector 3", some("two")))
		_, err = f.source.Acquire(t.Context(), some("three"))
		require.ErrorIs(t, err, rm.ErrNotFound)
		require.Empty(t, f.stores.List())
		require.NoError(t, f.source.Close(t.Context()))
	})
}

// TestFind: the named piece, or one that needs no unsealing.
func TestFind(t *testing.T) {
	f := setup(t)
	one, two, three := some("one"), some("two"), some("three")
	f.copies[3] = true
	for _, tc := range []struct {
		named *cid.Cid
		want  cid.Cid
	}{{nil, two}, {&one, one}, {&two, two}, {&three, cid.Undef}} {
		p, size, err := f.source.Find(t.Context(), f.payload, tc.named)
		if !tc.want.Defined() {
			require.ErrorIs(t, err, rm.ErrNotFound)
			continue
		}
		require.NoError(t, err)
		require.Equal(t, tc.want, p.PieceCID)
		require.EqualValues(t, 2032, size)
	}
	_, _, err := f.source.Find(t.Context(), some("else"), nil)
	require.ErrorIs(t, err, rm.ErrNotFound)
	require.NoError(t, f.source.Close(t.Context()))
}

// TestLeftOver: what a crash left is dropped at the next start.
func TestLeftOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := setup(t)
		_, err := f.source.Acquire(t.Context(), some("two"))
		require.NoError(t, err)
		require.Len(t, f.stores.List(), 1)
		require.NoError(t, f.source.Close(t.Context()))
		f.open(t) // no Close of the handle before
		require.Empty(t, f.stores.List())
		require.NoError(t, f.source.Close(t.Context()))
	})
}

// TestTogether: what a piece lacks is unsealed out of another one that has it, and given back with the handle.
func TestTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := setup(t)
		a := oddcars.Wide(2, 100)
		for piece, archive := range map[string]oddcars.Archive{"front": a.Only(2), "rest": {Roots: []cid.Cid{a.Blocks[2].CID}, Blocks: a.Blocks[2:]}} {
			n := abi.SectorNumber(10 + len(piece))
			f.sectors[n] = archive.Bytes()
			require.NoError(t, f.pieces.AddDealForPiece(some(piece), piecestore.DealInfo{DealID: abi.DealID(n), SectorID: n, Length: 2048}))
			at := map[cid.Cid]piecestore.BlockLocation{}
			for _, b := range archive.Blocks {
				at[b.CID] = piecestore.BlockLocation{}
			}
			require.NoError(t, f.pieces.AddPieceBlockLocations(some(piece), at))
		}
		h, err := f.source.Acquire(t.Context(), some("front"))
		require.NoError(t, err)
		for _, b := range a.Blocks {
			data, err := h.Get(b.CID)
			require.NoError(t, err)
			require.Equal(t, b.Data, data)
		}
		_, err = h.Get(some("nowhere"))
		require.ErrorContains(t, err, "of piece")
		require.Len(t, f.asked, 2)
		require.NoError(t, h.Close())
		require.Empty(t, f.stores.List())
		require.NoError(t, f.source.Close(t.Context()))
	})
}

// TestUnsealedLargeBlock: a block that no transport carries is refused by name.
func TestUnsealedLargeBlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := setup(t)
		a := oddcars.OneLarge(carstore.MaxBlock + 1)
		f.sectors[20] = a.Bytes()
		require.NoError(t, f.pieces.AddDealForPiece(some("large"), piecestore.DealInfo{DealID: 20, SectorID: 20, Length: 8 << 20}))
		_, err := f.source.Acquire(t.Context(), some("large"))
		require.ErrorIs(t, err, reason.BlockTooLarge)
		require.NoError(t, f.source.Close(t.Context()))
	})
}
