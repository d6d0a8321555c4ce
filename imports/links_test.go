package imports_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/blob"
	"github.com/cartage-dev/cartage/carstore"
	"github.com/cartage-dev/cartage/imports"
	"github.com/cartage-dev/cartage/internal/reason"
)

// exported imports a path and exports it again beside.
func (r *room) exported(path string, o *imports.Options) (cid.Cid, string, carstore.Exported) {
	r.t.Helper()
	i, err := r.Add(r.t.Context(), path, imports.UnixFS2025(), o)
	require.NoError(r.t, err)
	root, err := imports.WriteCARTo(r.t.Context(), path, io.Discard, imports.UnixFS2025(), o)
	require.NoError(r.t, err)
	require.Equal(r.t, i.Root(), root, "by reference and as an archive")
	v, err := r.View(r.t.Context(), i.ID)
	require.NoError(r.t, err)
	defer v.Close()
	ls := v.LinkSystem()
	out := filepath.Join(r.t.TempDir(), "out")
	d, err := carstore.ClaimDest(blob.OS{}, out, false)
	require.NoError(r.t, err)
	done, err := d.Export(r.t.Context(), &ls, v.Root(), nil)
	require.NoError(r.t, errors.Join(err, d.Release()))
	return root, out, done
}

// TestSymlinks: a link is stored as itself, followed, skipped and named, or refused.
func TestSymlinks(t *testing.T) {
	r := newRoom(t)
	r.file("set/a", 1, 1000)
	r.file("set/dir/b", 2, 2000)
	set := filepath.Join(r.dir, "set")
	for name, target := range map[string]string{"to-a": "a", "dir/up": "../a", "to-dir": "dir", "dangling": "none"} {
		require.NoError(t, os.Symlink(target, filepath.Join(set, name)))
	}
	_, out, done := r.exported(set, nil)
	require.Equal(t, carstore.Exported{Files: 2, Folders: 2, Symlinks: 4, Bytes: 3000}, done)
	for name, target := range map[string]string{"to-a": "a", "dir/up": "../a", "to-dir": "dir", "dangling": "none"} {
		got, err := os.Readlink(filepath.Join(out, name))
		require.NoError(t, err)
		require.Equal(t, target, got)
	}

	var left []string
	_, out, done = r.exported(set, &imports.Options{Symlinks: imports.SymlinksSkip, LeftOut: func(p string) { left = append(left, p) }})
	require.Equal(t, carstore.Exported{Files: 2, Folders: 2, Bytes: 3000}, done)
	require.ElementsMatch(t, []string{filepath.Join(set, "dangling"), filepath.Join(set, "dir/up"), filepath.Join(set, "to-a"), filepath.Join(set, "to-dir")}, left[:4])
	require.NoFileExists(t, filepath.Join(out, "to-a"))

	_, err := r.Add(t.Context(), set, imports.UnixFS2025(), &imports.Options{Symlinks: imports.SymlinksRefuse})
	require.ErrorIs(t, err, reason.Usage)
	require.ErrorContains(t, err, "is a symbolic link")
	_, err = r.Add(t.Context(), set, imports.UnixFS2025(), &imports.Options{Symlinks: imports.SymlinksFollow})
	require.ErrorIs(t, err, os.ErrNotExist)
	require.ErrorContains(t, err, "dangling")
	require.NoError(t, os.Remove(filepath.Join(set, "dangling")))
	_, out, done = r.exported(set, &imports.Options{Symlinks: imports.SymlinksFollow})
	require.Equal(t, carstore.Exported{Files: 6, Folders: 3, Bytes: 3*1000 + 2*2000 + 1000}, done)
	got, err := os.ReadFile(filepath.Join(out, "to-dir/up"))
	require.NoError(t, err)
	require.Equal(t, stream(1, 1000), got)
	require.NoError(t, os.Symlink("..", filepath.Join(set, "dir/back")))
	_, err = r.Add(t.Context(), set, imports.UnixFS2025(), &imports.Options{Symlinks: imports.SymlinksFollow})
	require.ErrorContains(t, err, "leads back")

	// The path itself is what it points to.
	for _, s := range []imports.Symlinks{"", imports.SymlinksFollow, imports.SymlinksSkip} {
		root, _, _ := r.exported(filepath.Join(set, "to-a"), &imports.Options{Symlinks: s})
		want, _, _ := r.exported(filepath.Join(set, "a"), nil)
		require.Equal(t, want, root)
	}
	_, err = r.Add(t.Context(), filepath.Join(set, "to-a"), imports.UnixFS2025(), &imports.Options{Symlinks: imports.SymlinksRefuse})
	require.ErrorIs(t, err, reason.Usage)
	for text, want := range map[string]imports.Symlinks{"": imports.SymlinksStore, "skip": imports.SymlinksSkip} {
		got, err := imports.ParseSymlinks(text)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	_, err = imports.ParseSymlinks("keep")
	require.ErrorIs(t, err, reason.Usage)
}

// TestLinkVector: a link has the CID that other implementations give it.
func TestLinkVector(t *testing.T) {
	r := newRoom(t)
	require.NoError(t, os.Mkdir(filepath.Join(r.dir, "set"), 0o700))
	require.NoError(t, os.Symlink("a.txt", filepath.Join(r.dir, "set/l")))
	i, err := r.Add(t.Context(), filepath.Join(r.dir, "set"), imports.UnixFS2025(), nil)
	require.NoError(t, err)
	v, err := r.View(t.Context(), i.ID)
	require.NoError(t, err)
	defer v.Close()
	ls := v.LinkSystem()
	list, err := carstore.List(t.Context(), &ls, v.Root())
	require.NoError(t, err)
	want, err := cid.V1Builder{Codec: cid.DagProtobuf, MhType: 0x12}.Sum([]byte("\x0a\x09\x08\x04\x12\x05a.txt"))
	require.NoError(t, err)
	require.Equal(t, want, list[0].Cid)
}

// TestPreserve: permissions and times come back, of files of one block and of many, of folders and of folders in shards; the bits beyond
// permissions do not.
func TestPreserve(t *testing.T) {
	r := newRoom(t)
	wide := filepath.Join(r.dir, "set/wide")
	for n := range 3000 {
		r.file(fmt.Sprintf("set/wide/%s-%d", strings.Repeat("long", 20), n), 1, 10)
	}
	r.file("set/small", 1, 10)
	r.file("set/empty", 1, 0)
	large := r.file("set/large", 2, 3<<20)
	before, _, _ := r.exported(filepath.Join(r.dir, "set"), nil)
	when := time.Unix(1234567890, 123456789)
	paths := map[string]fs.FileMode{"small": 0o640, "empty": 0o444, "large": 0o711, "wide": fs.ModeDir | 0o750, "": fs.ModeDir | 0o755}
	require.NoError(t, os.Chmod(large, 0o711|fs.ModeSetuid|fs.ModeSetgid))
	for name, mode := range paths {
		if name != "large" {
			require.NoError(t, os.Chmod(filepath.Join(r.dir, "set", name), mode))
		}
	}
	for _, name := range []string{"small", "empty", "large", "wide", ""} {
		require.NoError(t, os.Chtimes(filepath.Join(r.dir, "set", name), when, when))
	}
	plain, _, _ := r.exported(filepath.Join(r.dir, "set"), nil)
	require.Equal(t, before, plain, "nothing is kept unasked")
	root, out, done := r.exported(filepath.Join(r.dir, "set"), &imports.Options{Preserve: true})
	require.NotEqual(t, before, root)
	require.Equal(t, 3003, done.Files)
	for name, mode := range paths {
		st, err := os.Stat(filepath.Join(out, name))
		require.NoError(t, err)
		require.Equal(t, mode, st.Mode(), name)
		require.True(t, when.Equal(st.ModTime()), name)
	}
	got, err := os.ReadFile(filepath.Join(out, "large"))
	require.NoError(t, err)
	require.Equal(t, stream(2, 3<<20), got)
	entries, err := os.ReadDir(wide)
	require.NoError(t, err)
	copied, err := os.ReadDir(filepath.Join(out, "wide"))
	require.NoError(t, err)
	require.Len(t, copied, len(entries))
}
