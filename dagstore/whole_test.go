package dagstore_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/carstore"
	"github.com/cartage-dev/cartage/dagstore"
	"github.com/cartage-dev/cartage/internal/oddcars"
	"github.com/cartage-dev/cartage/internal/reason"
)

// odd registers an archive.
func (w *world) odd(name string, a oddcars.Archive, src dagstore.Source) (dagstore.Shard, error) {
	w.t.Helper()
	src.Path = filepath.Join(w.dir, name+".car")
	require.NoError(w.t, os.WriteFile(src.Path, a.Bytes(), 0o600))
	return w.Register(w.t.Context(), src)
}

// TestWholeFirst: a piece that lacks blocks never hides one that has them.
func TestWholeFirst(t *testing.T) {
	w := newWorld(t)
	a := oddcars.Wide(20, 100)
	part, err := w.odd("part", a.Only(1), dagstore.Source{})
	require.NoError(t, err)
	require.EqualValues(t, 20, part.Missing)
	require.Len(t, part.Lacks, 8)
	require.False(t, part.Whole())
	whole, err := w.odd("whole", a, dagstore.Source{Whole: true})
	require.NoError(t, err)
	require.True(t, whole.Whole())
	for range 2 {
		list, err := w.Lookup(a.Root())
		require.NoError(t, err)
		require.Len(t, list, 2)
		require.Equal(t, whole.Piece, list[0].Piece)
		require.Equal(t, part.Missing, list[1].Missing)
		w.restart()
	}
}

// TestIncomplete: what an archive lacks is said when it is to be sold; what other pieces have is not lacked.
func TestIncomplete(t *testing.T) {
	w := newWorld(t)
	a := oddcars.Wide(5, 100)
	_, err := w.odd("part", a.Only(3), dagstore.Source{Whole: true})
	require.ErrorIs(t, err, reason.ArchiveIncomplete)
	require.ErrorContains(t, err, "lacks 3 blocks")
	require.ErrorContains(t, err, a.Blocks[5].CID.String())
	rest := oddcars.Archive{Roots: []cid.Cid{a.Blocks[3].CID, a.Blocks[4].CID, a.Blocks[5].CID}, Blocks: a.Blocks[3:]}
	_, err = w.odd("rest", rest, dagstore.Source{Whole: true})
	require.NoError(t, err)
	_, err = w.odd("part", a.Only(3), dagstore.Source{Whole: true})
	require.NoError(t, err)

	// Blocks that nothing leads to may lack what they like.
	stray := oddcars.Node(nil, oddcars.Raw([]byte("nowhere")).CID)
	b := oddcars.Wide(2, 50)
	b.Blocks = append(b.Blocks, stray)
	sh, err := w.odd("stray", b, dagstore.Source{Whole: true})
	require.NoError(t, err)
	require.True(t, sh.Whole())
}

// TestRoots: an archive is sold by the roots that it names, or that the seller names.
func TestRoots(t *testing.T) {
	w := newWorld(t)
	a, b := oddcars.Wide(3, 100), oddcars.Chain(4)
	both := oddcars.Archive{Blocks: append(append([]oddcars.Block{}, a.Blocks...), b.Blocks...)}
	_, err := w.odd("none", both, dagstore.Source{Whole: true})
	require.ErrorIs(t, err, reason.ArchiveRoot)
	sh, err := w.odd("none", both, dagstore.Source{Whole: true, Roots: []cid.Cid{b.Root(), a.Root(), b.Root()}})
	require.NoError(t, err)
	require.Equal(t, []cid.Cid{b.Root(), a.Root()}, sh.Roots())
	w.restart()
	sh, err = w.Info(sh.Piece)
	require.NoError(t, err)
	require.Equal(t, []cid.Cid{b.Root(), a.Root()}, sh.Roots())

	sh, err = w.odd("several", both.With(a.Root(), b.Root()), dagstore.Source{Whole: true})
	require.NoError(t, err)
	require.Equal(t, []cid.Cid{a.Root(), b.Root()}, sh.Roots())
	_, err = w.odd("absent", a.With(b.Root()), dagstore.Source{Whole: true})
	require.ErrorIs(t, err, reason.ArchiveRoot)
	require.ErrorContains(t, err, b.Root().String())
	sh, err = w.odd("absent", a.With(b.Root()), dagstore.Source{Whole: true, Roots: []cid.Cid{a.Root()}})
	require.NoError(t, err)
	require.Equal(t, a.Root(), sh.Root)
	_, err = w.odd("absent", a.With(b.Root()), dagstore.Source{Partial: true})
	require.NoError(t, err)
}

// TestTwoArchives: an archive behind another is named, wherever the second begins.
func TestTwoArchives(t *testing.T) {
	w := newWorld(t)
	first, second := oddcars.Wide(2, 100), oddcars.Chain(3)
	for name, tail := range map[string][]byte{
		"at once":      second.Bytes(),
		"behind zeros": append(make([]byte, 1000), second.Bytes()...),
	} {
		_, err := w.odd("joined", first.Behind(tail), dagstore.Source{})
		require.ErrorIs(t, err, reason.ArchiveJoined, name)
		require.ErrorContains(t, err, "offset", name)
	}
	sh, err := w.odd("garbage", first.Behind(append(make([]byte, 10), "words"...)), dagstore.Source{})
	require.NoError(t, err)
	require.EqualValues(t, 5, sh.Dropped)
	sh, err = w.odd("padded", first.Behind(make([]byte, 5000)), dagstore.Source{})
	require.NoError(t, err)
	require.Zero(t, sh.Dropped)
}

// TestLargeBlock: a block that no transport carries is refused when it is to be sold, by its true reason; the largest that they carry is not.
func TestLargeBlock(t *testing.T) {
	w := newWorld(t)
	_, err := w.odd("largest", oddcars.OneLarge(carstore.MaxBlock), dagstore.Source{Whole: true})
	require.NoError(t, err)
	for _, size := range []int{carstore.MaxBlock + 1, 4 << 20, 6 << 20} {
		a := oddcars.OneLarge(size)
		_, err = w.odd("larger", a, dagstore.Source{Whole: true})
		require.ErrorIs(t, err, reason.BlockTooLarge)
		require.ErrorContains(t, err, a.Blocks[1].CID.String())
	}
}

// TestReplaced: a file that is another one now is found out before a deal is made of it.
func TestReplaced(t *testing.T) {
	w := newWorld(t)
	a := oddcars.Wide(3, 1000)
	sh, err := w.odd("a", a, dagstore.Source{})
	require.NoError(t, err)
	require.NoError(t, w.Present(t.Context(), sh))
	later := time.Now().Add(time.Hour)
	require.NoError(t, os.Chtimes(sh.Path, later, later))
	require.NoError(t, w.Present(t.Context(), sh), "the same bytes again")
	other := oddcars.Wide(3, 1001).Bytes()
	require.NoError(t, os.WriteFile(sh.Path, other, 0o600))
	require.ErrorIs(t, w.Present(t.Context(), sh), reason.PieceDamaged)
	require.NoError(t, os.WriteFile(sh.Path, a.Bytes(), 0o600))
	require.NoError(t, w.Present(t.Context(), sh))
}

// TestOpaque: blocks that nobody can decode are bytes, and are named.
func TestOpaque(t *testing.T) {
	w := newWorld(t)
	for codec, data := range map[uint64][]byte{0x90: []byte("a header of a block"), 0x0200: []byte("{}"), cid.DagCBOR: {0xc3, 0x41, 1}} {
		a := oddcars.Coded(codec, data)
		sh, err := w.odd("coded", a, dagstore.Source{Whole: true})
		require.NoError(t, err)
		require.Equal(t, []cid.Cid{a.Blocks[1].CID}, sh.Opaque)
	}
}
