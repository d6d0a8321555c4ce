package imports_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	mh "github.com/multiformats/go-multihash"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/blob"
	"github.com/cartage-dev/cartage/carstore"
	"github.com/cartage-dev/cartage/imports"
	"github.com/cartage-dev/cartage/internal/oddcars"
	"github.com/cartage-dev/cartage/internal/reason"
)

// room is a manager in a folder of its own.
type room struct {
	t   *testing.T
	dir string
	ds  datastore.Batching
	*imports.Manager
}

func newRoom(t *testing.T) *room {
	r := &room{t: t, dir: t.TempDir(), ds: dssync.MutexWrap(datastore.NewMapDatastore())}
	r.reopen()
	return r
}

func (r *room) reopen() {
	r.t.Helper()
	var err error
	r.Manager, err = imports.Open(r.t.Context(), blob.OS{}, filepath.Join(r.dir, "imports"), r.ds)
	require.NoError(r.t, err)
}

// file writes some bytes of the stream of the vectors.
func (r *room) file(name string, seed, n int) string {
	r.t.Helper()
	path := filepath.Join(r.dir, name)
	require.NoError(r.t, os.MkdirAll(filepath.Dir(path), 0o700))
	require.NoError(r.t, os.WriteFile(path, stream(seed, n), 0o600))
	return path
}

// bytes reads a whole import as a file.
func (r *room) bytes(id uint64) ([]byte, error) {
	r.t.Helper()
	v, err := r.View(r.t.Context(), id)
	require.NoError(r.t, err)
	defer func() { require.NoError(r.t, v.Close()) }()
	ls := v.LinkSystem()
	var b bytes.Buffer
	err = carstore.WriteFileFrom(r.t.Context(), &ls, v.Root(), &b)
	return b.Bytes(), err
}

func (r *room) health() (imports.Health, string) {
	r.t.Helper()
	var log bytes.Buffer
	h, err := r.Check(r.t.Context(), slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	require.NoError(r.t, err)
	return h, log.String()
}

func ours(t *testing.T, dir string) (names []string) {
	t.Helper()
	files, err := os.ReadDir(filepath.Join(dir, "imports"))
	require.NoError(t, err)
	for _, f := range files {
		names = append(names, f.Name())
	}
	return names
}

// TestR_I1 : an import is a valid CARv2 of the inner nodes, and a table of leaves; nothing of the file is copied.
func TestR_I1(t *testing.T) {
	r := newRoom(t)
	path := r.file("data", 1, 5<<20)
	i, err := r.Add(t.Context(), path, imports.UnixFS2025(), nil)
	require.NoError(t, err)
	require.Equal(t, map[string]string{"source": "import", "root": i.Root().String(), "filename": path, "car_path": filepath.Join(r.dir, "imports", fmt.Sprint(i.ID, ".car")),
		"car_owner": "importmgr", "bytes": "5242880"}, i.Labels)
	s, err := carstore.OpenRead(i.Labels[imports.LabelCARPath])
	require.NoError(t, err)
	require.Equal(t, 1, s.Len(), "the root only")
	require.Equal(t, i.Root(), s.Root())
	require.NoError(t, s.Close())
	r.reopen()
	got, err := r.bytes(i.ID)
	require.NoError(t, err)
	require.Equal(t, stream(1, 5<<20), got)
	require.NoError(t, r.Drop(t.Context(), i.ID))
	require.Empty(t, ours(t, r.dir))
	require.FileExists(t, path)
	require.ErrorIs(t, r.Drop(t.Context(), i.ID), imports.ErrUnknownImport)
	_, err = r.View(t.Context(), i.ID)
	require.ErrorIs(t, err, imports.ErrUnknownImport)
}

// TestR_I3 : a source that is gone, changed or cut is named with the import and the offset, and never served as what it was.
func TestR_I3(t *testing.T) {
	r := newRoom(t)
	path := r.file("data", 1, 3<<20)
	i, err := r.Add(t.Context(), path, imports.UnixFS2025(), nil)
	require.NoError(t, err)
	for _, tc := range []struct {
		kind   imports.SourceKind
		offset int64
		change func()
	}{
		{imports.SourceChanged, 1 << 20, func() {
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			require.NoError(t, err)
			_, err = f.WriteAt([]byte("x"), 1<<20+5)
			require.NoError(t, errors.Join(err, f.Close()))
		}},
		{imports.SourceChanged, 2 << 20, func() {
			r.file("data", 1, 3<<20)
			require.NoError(t, os.Truncate(path, 2<<20+100))
		}},
		{imports.SourceMissing, 0, func() { require.NoError(t, os.Remove(path)) }},
	} {
		tc.change()
		_, err := r.bytes(i.ID)
		var bad *imports.SourceError
		require.ErrorAs(t, err, &bad)
		require.Equal(t, tc.kind, bad.Kind)
		require.Equal(t, tc.offset, bad.Offset)
		require.Equal(t, i.ID, bad.Import)
		require.Equal(t, path, bad.Path)
		list, err := r.List(t.Context())
		require.NoError(t, err)
		require.ErrorContains(t, list[0].Err, "import source changed or missing")
	}
}

// TestR_I4 : the check at the start says what is broken and what is stale, in the words that operators know.
func TestR_I4(t *testing.T) {
	r := newRoom(t)
	var ids []uint64
	for n := range 4 {
		i, err := r.Add(t.Context(), r.file(fmt.Sprint("f", n), n, 2<<20), imports.UnixFS2025(), nil)
		require.NoError(t, err)
		ids = append(ids, i.ID)
	}
	h, log := r.health()
	require.Equal(t, imports.Health{Total: 4}, h)
	require.Contains(t, log, "sanity checking imports")
	require.Contains(t, log, "import ok")
	require.Contains(t, log, "broken=0 stale=0 total=4")
	require.NoError(t, os.Remove(filepath.Join(r.dir, "imports", fmt.Sprint(ids[0], ".car"))))
	require.NoError(t, os.Remove(filepath.Join(r.dir, "f1")))
	later := time.Now().Add(time.Hour)
	require.NoError(t, os.Chtimes(filepath.Join(r.dir, "f2"), later, later))
	require.NoError(t, r.ds.Put(t.Context(), datastore.NewKey("/stores/7"), []byte("{")))
	require.NoError(t, r.ds.Put(t.Context(), datastore.NewKey("/stores/8"), []byte(`{"Labels":{"source":"unknown"}}`)))
	h, log = r.health()
	require.Equal(t, imports.Health{Total: 6, Broken: 2, Stale: 2}, h)
	for _, says := range []string{"import has missing/broken carv2; please reimport", "import source changed or missing; data will not be served until reimported or repointed",
		"failed to query metadata for import; skipping", "import lacks carv2 path; import will not work; please reimport", "sanity check completed"} {
		require.Contains(t, log, says)
	}
}

// TestR_I5 : an import is pointed at where its file is now, if every byte is the same.
func TestR_I5(t *testing.T) {
	r := newRoom(t)
	r.file("old/a", 1, 2<<20)
	r.file("old/b/c", 2, 100)
	i, err := r.Add(t.Context(), filepath.Join(r.dir, "old"), imports.UnixFS2025(), nil)
	require.NoError(t, err)
	require.NoError(t, os.Rename(filepath.Join(r.dir, "old"), filepath.Join(r.dir, "new")))
	_, ok, err := r.Find(t.Context(), i.Root())
	require.NoError(t, err)
	require.False(t, ok)
	_, err = r.Repoint(t.Context(), i.ID, filepath.Join(r.dir, "nowhere"))
	require.ErrorIs(t, err, os.ErrNotExist)
	now, err := r.Repoint(t.Context(), i.ID, filepath.Join(r.dir, "new"))
	require.NoError(t, err)
	require.Equal(t, filepath.Join(r.dir, "new"), now.Labels[imports.LabelFilename])
	_, ok, err = r.Find(t.Context(), i.Root())
	require.NoError(t, err)
	require.True(t, ok)

	one, err := r.Add(t.Context(), r.file("one", 3, 2<<20), imports.UnixFS2025(), nil)
	require.NoError(t, err)
	other := r.file("other", 3, 2<<20)
	f, err := os.OpenFile(other, os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = f.WriteAt([]byte("x"), 1<<20+7)
	require.NoError(t, errors.Join(err, f.Close()))
	_, err = r.Repoint(t.Context(), one.ID, other)
	require.ErrorIs(t, err, imports.ErrNotSame)
	require.ErrorContains(t, err, fmt.Sprintf("differs at offset %d", 1<<20))
	_, err = r.Repoint(t.Context(), one.ID, r.file("short", 3, 100))
	require.ErrorContains(t, err, "has 100 bytes, it had 2097152")
}

// TestR_I6 : files that fit into their CID can be imported, read and exported.
func TestR_I6(t *testing.T) {
	r := newRoom(t)
	for _, n := range []int{0, 1, 126, 127, 1<<20 + 1} {
		for _, stdin := range []bool{false, true} {
			var i imports.Import
			var err error
			if stdin {
				i, err = r.AddReader(t.Context(), bytes.NewReader(stream(5, n)), imports.Lotus(), nil)
			} else {
				i, err = r.Add(t.Context(), r.file("small", 5, n), imports.Lotus(), nil)
			}
			require.NoError(t, err, n)
			require.Equal(t, n < 127 || n == 1<<20+1, i.Root().Prefix().MhType == mh.IDENTITY, n)
			got, err := r.bytes(i.ID)
			require.NoError(t, err, n)
			require.Equal(t, n, len(got))
			require.True(t, bytes.Equal(stream(5, n), got), n)
		}
	}
}

// TestR_I7 : CARs of version 1 and 2 are imported where they lie; one that is refused leaves nothing.
func TestR_I7(t *testing.T) {
	r := newRoom(t)
	v1, v2 := filepath.Join(r.dir, "one.car"), filepath.Join(r.dir, "two.car")
	root, err := imports.WriteCAR(t.Context(), blob.OS{}, r.file("data", 1, 3<<20), v1, imports.UnixFS2025(), nil)
	require.NoError(t, err)
	dst, err := carstore.Open(blob.OS{}, v2, root)
	require.NoError(t, err)
	in, err := blob.OS{}.Open(v1)
	require.NoError(t, err)
	size, err := in.Size()
	require.NoError(t, err)
	l, err := carstore.Inspect(in, size)
	require.NoError(t, err)
	require.NoError(t, carstore.Walk(in, l, func(b carstore.Block) error { return dst.Put(b.Cid, bytes.Clone(b.Data)) }))
	require.NoError(t, errors.Join(dst.Finalize(), dst.Close(), in.Close()))
	for _, path := range []string{v1, v2} {
		i, err := r.AddCAR(t.Context(), path)
		require.NoError(t, err)
		require.Equal(t, root, i.Root())
		require.Equal(t, "user", i.Labels[imports.LabelCAROwner])
		got, err := r.bytes(i.ID)
		require.NoError(t, err)
		require.Equal(t, stream(1, 3<<20), got)
		require.NoError(t, r.Drop(t.Context(), i.ID))
		require.FileExists(t, path)
	}
	data, err := os.ReadFile(v1)
	require.NoError(t, err)
	data[len(data)-1] ^= 1
	require.NoError(t, os.WriteFile(v1, data, 0o600))
	_, err = r.AddCAR(t.Context(), v1)
	require.ErrorIs(t, err, carstore.ErrBadHash)
	_, err = r.AddCAR(t.Context(), filepath.Join(r.dir, "data"))
	require.ErrorContains(t, err, "not a CAR")
	list, err := r.List(t.Context())
	require.NoError(t, err)
	require.Empty(t, list)
	require.Empty(t, ours(t, r.dir))
}

// TestR_I8 : of several imports of one root the newest usable one is taken; absence is no error (R-F1).
func TestR_I8(t *testing.T) {
	r := newRoom(t)
	first, err := r.Add(t.Context(), r.file("a", 1, 2<<20), imports.UnixFS2025(), nil)
	require.NoError(t, err)
	second, err := r.Add(t.Context(), r.file("b", 1, 2<<20), imports.UnixFS2025(), nil)
	require.NoError(t, err)
	require.Equal(t, first.Root(), second.Root())
	require.Greater(t, second.ID, first.ID)
	i, ok, err := r.Find(t.Context(), first.Root())
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, second.ID, i.ID)
	require.NoError(t, os.Remove(filepath.Join(r.dir, "b")))
	i, ok, err = r.Find(t.Context(), first.Root())
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, first.ID, i.ID)
	c, err := cid.V1Builder{Codec: cid.Raw, MhType: mh.SHA2_256}.Sum([]byte("nothing"))
	require.NoError(t, err)
	_, ok, err = r.Find(t.Context(), c)
	require.NoError(t, err)
	require.False(t, ok)
}

// descriptors is how many files the process has open.
func descriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("no /proc")
	}
	return len(list)
}

// TestOddCARs: an archive that cannot be read back is refused when it is imported, by what is wrong with it.
func TestOddCARs(t *testing.T) {
	r := newRoom(t)
	a, b := oddcars.Wide(3, 100), oddcars.Chain(3)
	for name, tc := range map[string]struct {
		car  oddcars.Archive
		want reason.Reason
	}{
		"only a header":   {a.Only(0), reason.ArchiveRoot},
		"root not inside": {a.With(b.Root()), reason.ArchiveRoot},
		"no root":         {a.With(), reason.ArchiveRoot},
		"two roots":       {a.With(a.Root(), a.Blocks[1].CID), reason.ArchiveRoot},
		"a leaf missing":  {a.Only(3), reason.ArchiveIncomplete},
		"two archives":    {a.Behind(b.Bytes()), reason.ArchiveJoined},
		"a large block":   {oddcars.OneLarge(6 << 20), reason.BlockTooLarge},
		"whole":           {a, reason.None},
		"padded":          {a.Behind(make([]byte, 1000)), reason.None},
		"identity root":   {oddcars.Inlined(2), reason.None},
	} {
		path := filepath.Join(r.dir, name+".car")
		require.NoError(t, os.WriteFile(path, tc.car.Bytes(), 0o600))
		_, err := r.AddCAR(t.Context(), path)
		require.Equal(t, tc.want, reason.From(err), "%s: %v", name, err)
	}
}
