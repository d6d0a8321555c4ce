package cartargets_test

import (
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/blob"
	"github.com/cartage-dev/cartage/carstore"
	"github.com/cartage-dev/cartage/datatransfer/testutil"
	"github.com/cartage-dev/cartage/internal/cartargets"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	"github.com/cartage-dev/cartage/shared"
)

// dag is a root with leaves, and its blocks in the order of the traversal.
func dag(t *testing.T, leaves int) (store *testutil.MemStore, root cid.Cid, order []cid.Cid) {
	t.Helper()
	store = testutil.NewMemStore()
	root, _, err := store.BuildDAG(leaves, 1000, 3)
	require.NoError(t, err)
	_, err = carstore.LocateIn(root, shared.AllSelector(), func(c cid.Cid) ([]byte, error) {
		order = append(order, c)
		return store.Get(c)
	})
	require.NoError(t, err)
	return store, root, order
}

// TestBaseSurvivesPowerLoss: what a deal claims to have had before it began is on stable storage before it is claimed. A loss of power that took of it
// left a deal that counted less than its provider, which sends such blocks again and wants money for them.
func TestBaseSurvivesPowerLoss(t *testing.T) {
	store, root, first := dag(t, 5)
	fs, ds := blob.NewMem(), datastore.NewMapDatastore()
	open := func() *cartargets.Files {
		files, err := cartargets.New(fs, "/retrievals", ds)
		require.NoError(t, err)
		return files
	}
	before := &rm.ClientDealState{DealProposal: rm.DealProposal{PayloadCID: root, ID: 1}}
	deal := &rm.ClientDealState{DealProposal: rm.DealProposal{PayloadCID: root, ID: 2}}
	put := func(target *cartargets.Target, list []cid.Cid) {
		for _, c := range list {
			data, err := store.Get(c)
			require.NoError(t, err)
			require.NoError(t, target.Put(c, data))
		}
	}
	files := open()
	target, err := files.Receive(t.Context(), before)
	require.NoError(t, err)
	require.Zero(t, target.Base())
	put(target, first[:3])
	require.NoError(t, files.EndDeal(before.ID))
	target, err = files.Receive(t.Context(), deal)
	require.NoError(t, err)
	base := target.Base()
	require.Positive(t, base)
	put(target, first[3:5])
	require.NoError(t, files.Close())

	fs.PowerLoss(func(string, int64) bool { return false }) // all that is not synced
	files = open()
	target, err = files.Receive(t.Context(), deal)
	require.NoError(t, err)
	require.Equal(t, base, target.Base())
	require.Equal(t, base, target.Bytes(), "and nothing that the deal had not synced")

	// Damage may take it all the same: then it is less, also at the next start.
	path := target.Path
	require.NoError(t, files.Close())
	f, err := fs.OpenRW(path)
	require.NoError(t, err)
	require.NoError(t, f.Truncate(200))
	require.NoError(t, f.Close())
	files = open()
	target, err = files.Receive(t.Context(), deal)
	require.NoError(t, err)
	require.Zero(t, target.Base())
	put(target, first)
	require.NoError(t, files.Close())
	files = open()
	target, err = files.Receive(t.Context(), deal)
	require.NoError(t, err)
	require.Zero(t, target.Base(), "the deal brought it")
	require.NoError(t, files.Close())
}
