package imports

import (
	"testing"

	mh "github.com/multiformats/go-multihash"
	"github.com/stretchr/testify/require"
)

func table(t testing.TB) *refs {
	t.Helper()
	r := &refs{sources: []source{{"/a", 10, 5}, {"/b", 20, -6}}}
	for i := range 5 {
		h, err := mh.Sum([]byte{byte(i)}, mh.SHA2_256, -1)
		require.NoError(t, err)
		r.rows = append(r.rows, row{h, i % 2, int64(i) << 20, i})
	}
	return r
}

func TestRefsTable(t *testing.T) {
	r := table(t)
	data := r.encodeRefs()
	got, err := decodeRefs(data)
	require.NoError(t, err)
	require.Equal(t, r, got)
	for _, x := range r.rows {
		require.Equal(t, []row{x}, got.findRows(x.hash))
	}
	for i := range data {
		bad := append([]byte(nil), data...)
		bad[i] ^= 1
		_, err := decodeRefs(bad)
		require.ErrorIs(t, err, ErrBadRefs, "byte %d", i)
		_, err = decodeRefs(data[:i])
		require.ErrorIs(t, err, ErrBadRefs, "cut at %d", i)
	}
}

func FuzzRefs(f *testing.F) {
	f.Add(table(f).encodeRefs())
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := decodeRefs(data)
		if err != nil {
			return
		}
		for _, x := range r.rows {
			if len(r.findRows(x.hash)) == 0 && len(r.rows) == 1 {
				t.Fatal("a row is not found")
			}
		}
	})
}
