// Package indextest is what every back-end of the index has to do: a new one passes this suite.
package indextest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	mh "github.com/multiformats/go-multihash"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/dagstore/index"
)

// Open opens the back-end that is tested; again is the same one after a restart.
type Open func(t testing.TB) (x index.Index, again func() index.Index)

// Records are seeded records of several hash functions, in the order of a CAR.
func Records(seed byte, n int) []index.Record {
	r := rand.New(rand.NewChaCha8([32]byte{seed}))
	out := make([]index.Record, n)
	off := uint64(59)
	for i := range out {
		digest := make([]byte, 32)
		for j := 0; j < 32; j += 8 {
			v := r.Uint64()
			for k := range 8 {
				digest[j+k] = byte(v >> (8 * k))
			}
		}
		code := uint64(mh.SHA2_256)
		switch r.IntN(10) {
		case 0:
			code = mh.BLAKE2B_MIN + 31
		case 1:
			code, digest = mh.SHA1, digest[:20]
		}
		h, err := mh.Encode(digest, code)
		if err != nil {
			panic(err)
		}
		size := uint64(r.IntN(1 << 20))
		out[i] = index.Record{Multihash: h, Offset: off, Size: size, Overhead: 39}
		off += size + 39
	}
	return out
}

func add(t testing.TB, x index.Index, piece uint64, recs []index.Record) index.Summary {
	t.Helper()
	sum, err := x.Add(context.WithoutCancel(t.Context()), piece, func(put func(index.Record) error) error {
		for _, r := range recs {
			if err := put(r); err != nil {
				return err
			}
		}
		return nil
	})
	require.NoError(t, err)
	return sum
}

func all(t testing.TB, x index.Index, piece uint64, from mh.Multihash) (out []index.Record) {
	t.Helper()
	for r, err := range x.Iterate(t.Context(), piece, from) {
		require.NoError(t, err)
		out = append(out, r)
	}
	return out
}

func sorted(recs []index.Record) []index.Record {
	out := slices.Clone(recs)
	slices.SortFunc(out, func(a, b index.Record) int { return slices.Compare(a.Multihash, b.Multihash) })
	return out
}

// Run is the suite.
func Run(t *testing.T, open Open) {
	t.Run("R-N2 one row for each multihash and piece", func(t *testing.T) { rows(t, open) })
	t.Run("R-N3 the order of multihashes", func(t *testing.T) { order(t, open) })
	t.Run("R-N4 an add is there wholly or not at all", func(t *testing.T) { atomic(t, open) })
	t.Run("R-N5 removal is exact", func(t *testing.T) { removal(t, open) })
	t.Run("R-N7 lookups during adds", func(t *testing.T) { busy(t, open) })
	t.Run("R-N10 whole multihashes", func(t *testing.T) { whole(t, open) })
}

func rows(t *testing.T, open Open) {
	x, again := open(t)
	a, b := Records(1, 1000), Records(2, 500)
	b = append(b, a[:100]...)
	require.EqualValues(t, 1000, add(t, x, 1, a).Records)
	sum := add(t, x, 7, append(slices.Clone(b), b[10:20]...))
	require.EqualValues(t, 600, sum.Records, "what comes twice counts once")
	var bytes uint64
	for _, r := range b {
		bytes += r.Size
	}
	require.Equal(t, bytes, sum.Bytes)
	for range 2 {
		for i, r := range a {
			got, err := x.Find(t.Context(), r.Multihash)
			require.NoError(t, err)
			want := []index.Row{{Piece: 1, Record: r}}
			if i < 100 {
				want = append(want, index.Row{Piece: 7, Record: r})
			}
			require.Equal(t, want, got)
		}
		none, err := x.Find(t.Context(), Records(9, 1)[0].Multihash)
		require.NoError(t, err)
		require.Empty(t, none)
		x = again()
	}
}

func order(t *testing.T, open Open) {
	x, again := open(t)
	a := Records(1, 3000)
	add(t, x, 1, a)
	want := sorted(a)
	for range 2 {
		require.Equal(t, want, all(t, x, 1, nil))
		for _, i := range []int{0, 1, 255, 256, 257, 1500, 2999} {
			require.Equal(t, want[i:], all(t, x, 1, want[i].Multihash), "from %d", i)
		}
		require.Empty(t, all(t, x, 1, mh.Multihash{0xff, 0xff}))
		x = again()
	}
	for range x.Iterate(t.Context(), 1, nil) { // who stops early leaves nothing open
		break
	}
	for _, err := range x.Iterate(t.Context(), 99, nil) {
		require.ErrorIs(t, err, index.ErrUnknownPiece)
	}
	twice := []index.Record{a[5], a[3], a[5]}
	twice[0].Offset = 1 << 40
	add(t, x, 2, twice)
	require.Equal(t, sorted([]index.Record{a[3], a[5]}), all(t, x, 2, nil), "the lowest offset counts")
}

func atomic(t *testing.T, open Open) {
	x, again := open(t)
	a := Records(1, 300)
	add(t, x, 1, a)
	broken := errors.New("broken CAR")
	_, err := x.Add(t.Context(), 1, func(put func(index.Record) error) error {
		require.NoError(t, put(Records(2, 1)[0]))
		return broken
	})
	require.ErrorIs(t, err, broken)
	_, err = x.Add(t.Context(), 2, func(func(index.Record) error) error { return broken })
	require.ErrorIs(t, err, broken)
	for range 2 {
		require.Equal(t, sorted(a), all(t, x, 1, nil), "an error leaves what was there")
		none, err := x.Find(t.Context(), Records(2, 1)[0].Multihash)
		require.NoError(t, err)
		require.Empty(t, none)
		x = again()
	}
	_, err = x.Add(t.Context(), 3, func(put func(index.Record) error) error {
		return put(index.Record{Multihash: make([]byte, 300)})
	})
	require.ErrorContains(t, err, "300 bytes")
	b := Records(3, 50)
	add(t, x, 1, b)
	require.Equal(t, sorted(b), all(t, x, 1, nil), "an add replaces")
	none, err := x.Find(t.Context(), a[0].Multihash)
	require.NoError(t, err)
	require.Empty(t, none)
	require.Zero(t, add(t, x, 4, nil).Records)
}

func removal(t *testing.T, open Open) {
	x, again := open(t)
	a := Records(1, 500)
	add(t, x, 1, a)
	add(t, x, 2, a)
	require.NoError(t, x.Remove(t.Context(), 1))
	require.NoError(t, x.Remove(t.Context(), 1), "what is not there is removed")
	for range 2 {
		for _, r := range a {
			got, err := x.Find(t.Context(), r.Multihash)
			require.NoError(t, err)
			require.Equal(t, []index.Row{{Piece: 2, Record: r}}, got)
		}
		x = again()
	}
}

func busy(t *testing.T, open Open) {
	x, _ := open(t)
	a := Records(1, 2000)
	add(t, x, 1, a)
	var adds, finds sync.WaitGroup
	done := make(chan struct{})
	for p := range 4 {
		adds.Go(func() { add(t, x, uint64(10+p), Records(byte(10+p), 5000)) })
	}
	for f := range 4 {
		finds.Go(func() {
			for i := f; ; i++ {
				select {
				case <-done:
					return
				default:
				}
				r := a[i%len(a)]
				got, err := x.Find(context.WithoutCancel(t.Context()), r.Multihash)
				if err != nil || len(got) != 1 || got[0].Offset != r.Offset {
					t.Errorf("find: %v %v", got, err)
					return
				}
			}
		})
	}
	adds.Wait()
	close(done)
	finds.Wait()
	for p := range 4 {
		require.Len(t, all(t, x, uint64(10+p), nil), 5000)
	}
}

// whole: a multihash that begins like another is another.
func whole(t *testing.T, open Open) {
	x, _ := open(t)
	r := Records(1, 1)[0]
	var recs []index.Record
	for n := 1; n <= 20; n++ {
		h := append(mh.Multihash{0x00, 0x10}, slices.Repeat([]byte{7}, n)...)
		recs = append(recs, index.Record{Multihash: h, Offset: uint64(n), Size: r.Size})
	}
	add(t, x, 1, recs)
	for _, want := range recs {
		got, err := x.Find(t.Context(), want.Multihash)
		require.NoError(t, err)
		require.Equal(t, []index.Row{{Piece: 1, Record: want}}, got, fmt.Sprint(len(want.Multihash)))
	}
}
