package store_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/internal/reason"
	"github.com/cartage-dev/cartage/internal/store"
)

const damagedRecords = 2000

func recordKey(i int) datastore.Key { return datastore.NewKey(fmt.Sprintf("/deals/%04d", i)) }

// filled is a folder with records that were committed and closed in order, so that they are in tables.
func filled(t *testing.T) string {
	dir := t.TempDir()
	ds, err := store.Open(dir)
	require.NoError(t, err)
	b, err := ds.Batch(t.Context())
	require.NoError(t, err)
	value := make([]byte, 300)
	rng := rand.NewChaCha8([32]byte{1})
	for i := range damagedRecords {
		_, _ = rng.Read(value)
		require.NoError(t, b.Put(t.Context(), recordKey(i), value))
	}
	require.NoError(t, store.Commit(t.Context(), ds, b))
	require.NoError(t, ds.Close())
	return dir
}

// flip changes one bit of a file.
func flip(t *testing.T, name string, at int64) {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	require.NoError(t, err)
	defer f.Close()
	b := make([]byte, 1)
	_, err = f.ReadAt(b, at)
	require.NoError(t, err)
	b[0] ^= 1
	_, err = f.WriteAt(b, at)
	require.NoError(t, err)
}

func only(t *testing.T, pattern string) string {
	m, err := filepath.Glob(pattern)
	require.NoError(t, err)
	require.Len(t, m, 1, pattern)
	return m[0]
}

// readAll lists a store and gets each record: how many were listed, and the first error.
func readAll(ctx context.Context, ds datastore.Batching) (n int, err error) {
	res, err := ds.Query(ctx, query.Query{Prefix: "/deals"})
	if err != nil {
		return 0, err
	}
	defer res.Close()
	for e := range res.Next() {
		if e.Error != nil {
			return n, e.Error
		}
		n++
	}
	for i := range damagedRecords {
		if _, err := ds.Get(ctx, recordKey(i)); err != nil {
			return n, err
		}
	}
	return n, nil
}

// TestDamagedTable: wherever a bit of a table is wrong, all that is read is right, or a sentence names the file; a list is never short
// without an error, and nothing panics.
func TestDamagedTable(t *testing.T) {
	clean := filled(t)
	table := only(t, filepath.Join(clean, "*.sst"))
	st, err := os.Stat(table)
	require.NoError(t, err)
	named := 0
	const places = 40
	for i := range int64(places) {
		dir := t.TempDir()
		require.NoError(t, os.CopyFS(dir, os.DirFS(clean)))
		flip(t, filepath.Join(dir, filepath.Base(table)), i*(st.Size()-1)/(places-1))
		ds, err := store.Open(dir)
		if err == nil {
			var n int
			if n, err = readAll(t.Context(), ds); err == nil {
				require.Equal(t, damagedRecords, n)
			}
			require.NoError(t, ds.Close())
		}
		if err != nil {
			named++
			require.ErrorIs(t, err, reason.StoreFailed)
			require.ErrorContains(t, err, dir)
		}
	}
	require.Greater(t, named, places/2)
}
