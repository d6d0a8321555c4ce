package carstore_test

import (
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/blob"
	"github.com/cartage-dev/cartage/carstore"
)

// TestPowerLossWhileGrowing: whatever pages of a file that grows survive a loss of power, also without the first, the next open takes what is
// whole and goes on.
func TestPowerLossWhileGrowing(t *testing.T) {
	list := some(t, 40, 1000)
	for seed := range uint64(50) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		fs := blob.NewMem()
		require.NoError(t, fs.MkdirAll("/d", 0o700))
		for run := range 4 {
			s := fill(t, fs, "/d/f.car", list[:10*(run+1)])
			for _, b := range list[:10*(run+1)] {
				got, err := s.Get(b.cid)
				require.NoError(t, err)
				require.Equal(t, b.data, got.RawData())
			}
			fs.PowerLoss(func(string, int64) bool { return rnd.IntN(2) == 0 })
		}
	}
}

// TestFinalizedIsDurable: a file that was finalized is there after a loss of power that takes everything else, its name too.
func TestFinalizedIsDurable(t *testing.T) {
	list := some(t, 10, 1000)
	fs := blob.NewMem()
	require.NoError(t, fs.MkdirAll("/d", 0o700))
	s := fill(t, fs, "/d/f.car", list)
	require.NoError(t, s.Finalize())
	fs.PowerLoss(nil)
	s, err := carstore.Open(fs, "/d/f.car", list[0].cid)
	require.NoError(t, err)
	require.True(t, s.Final())
	require.Equal(t, len(list), s.Len())
	require.NoError(t, s.Close())
}

// TestHeadTornTwice: the first page of a file is lost, and the disk is full when its head is to be written again.
func TestHeadTornTwice(t *testing.T) {
	list := some(t, 40, 1000)
	for n := range 100 {
		fs := blob.NewMem()
		require.NoError(t, fs.MkdirAll("/d", 0o700))
		s := fill(t, fs, "/d/f.car", list)
		require.NoError(t, s.Close())
		f, err := fs.OpenRW("/d/f.car")
		require.NoError(t, err)
		_, err = f.WriteAt(make([]byte, 4096-n), int64(n))
		require.NoError(t, err)
		require.NoError(t, f.Close())
		s, err = carstore.Open(fs, "/d/f.car", list[0].cid)
		require.NoError(t, err, "%d bytes of the head were written", n)
		for i, b := range list {
			_, err := s.Get(b.cid)
			if i < 3 {
				require.ErrorIs(t, err, carstore.ErrNotFound, "block %d was in the page that was lost", i)
			} else if i > 4 {
				require.NoError(t, err, "block %d was not", i)
			}
		}
		require.NoError(t, s.Close())
	}
}

// unnamed is a file system that fails to make names durable.
type unnamed struct{ blob.FS }

func (unnamed) SyncDir(string) error { return errors.New("no sync") }

// TestFinalizedTwice: a process that ended between the header of a file and the sync of its name leaves a file that the next one makes durable.
func TestFinalizedTwice(t *testing.T) {
	list := some(t, 10, 1000)
	fs := blob.NewMem()
	require.NoError(t, fs.MkdirAll("/d", 0o700))
	s := fill(t, unnamed{fs}, "/d/f.car", list)
	require.Error(t, s.Finalize())
	require.NoError(t, s.Close())
	s, err := carstore.Open(fs, "/d/f.car", list[0].cid)
	require.NoError(t, err)
	require.True(t, s.Final())
	require.NoError(t, s.Finalize())
	fs.PowerLoss(nil)
	s, err = carstore.Open(fs, "/d/f.car", list[0].cid)
	require.NoError(t, err)
	require.Equal(t, len(list), s.Len())
	require.NoError(t, s.Close())
}
