package imports_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/blob"
	"github.com/cartage-dev/cartage/carstore"
	"github.com/cartage-dev/cartage/imports"
	"github.com/cartage-dev/cartage/internal/faults"
)

// TestR_I9 : imports that are opened and closed a thousand times at once leave no file open.
func TestR_I9(t *testing.T) {
	r := newRoom(t)
	i, err := r.Add(t.Context(), r.file("data", 1, 2<<20), imports.UnixFS2025(), nil)
	require.NoError(t, err)
	before := descriptors(t)
	var wg sync.WaitGroup
	for range 1000 {
		wg.Go(func() {
			v, err := r.View(context.WithoutCancel(t.Context()), i.ID)
			if err == nil {
				_, err = v.Get(i.Root())
				err = errors.Join(err, v.Close(), v.Close())
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	require.Equal(t, before, descriptors(t))
}

// TestFolder: a folder is imported with all below it, and exported as it was.
func TestFolder(t *testing.T) {
	r := newRoom(t)
	for n := range 70 { // more files than stay open
		r.file(fmt.Sprintf("set/%02d/f", n), n, 1000+n)
	}
	i, err := r.Add(t.Context(), filepath.Join(r.dir, "set"), imports.UnixFS2025(), nil)
	require.NoError(t, err)
	v, err := r.View(t.Context(), i.ID)
	require.NoError(t, err)
	defer v.Close()
	ls := v.LinkSystem()
	out := filepath.Join(r.dir, "out")
	d, err := carstore.ClaimDest(blob.OS{}, out, false)
	require.NoError(t, err)
	done, err := d.Export(t.Context(), &ls, v.Root(), nil)
	require.NoError(t, errors.Join(err, d.Release()))
	require.Equal(t, carstore.Exported{Files: 70, Folders: 71, Bytes: 70*1000 + 69*35}, done)
	for n := range 70 {
		got, err := os.ReadFile(filepath.Join(out, fmt.Sprintf("%02d/f", n)))
		require.NoError(t, err)
		require.Equal(t, stream(n, 1000+n), got)
	}
	list, err := carstore.List(t.Context(), &ls, v.Root())
	require.NoError(t, err)
	require.Len(t, list, 70)
	require.Equal(t, "03", list[3].Name)
	var a, b bytes.Buffer
	require.NoError(t, carstore.WriteCARFrom(t.Context(), &ls, v.Root(), &a))
	car := filepath.Join(r.dir, "set.car")
	_, err = imports.WriteCAR(t.Context(), blob.OS{}, filepath.Join(r.dir, "set"), car, imports.UnixFS2025(), nil)
	require.NoError(t, err)
	data, err := os.ReadFile(car)
	require.NoError(t, err)
	b.Write(data)
	require.True(t, bytes.Equal(a.Bytes(), b.Bytes()), "the archive of an import is that of generate-car")
}

// TestCrash: an import that dies at any write is there wholly after a start, or not at all.
func TestCrash(t *testing.T) {
	for name, add := range map[string]func(m *imports.Manager, path string) (imports.Import, error){
		"file": func(m *imports.Manager, path string) (imports.Import, error) {
			return m.Add(context.Background(), path, imports.UnixFS2025(), nil)
		},
		"stream": func(m *imports.Manager, path string) (imports.Import, error) {
			f, err := os.Open(path)
			if err != nil {
				return imports.Import{}, err
			}
			defer f.Close()
			return m.AddReader(context.Background(), io.Reader(f), imports.UnixFS2025(), nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			for at := 1; ; at++ {
				r := newRoom(t)
				path := r.file("data", 1, 2<<20)
				sw := &faults.Switch{At: at}
				m, err := imports.Open(t.Context(), faults.FS{FS: blob.OS{}, Switch: sw}, filepath.Join(r.dir, "imports"), faults.Store{Batching: r.ds, Switch: sw})
				if err == nil {
					_, err = add(m, path)
				}
				if !sw.Crashed() {
					require.NoError(t, err)
					require.Greater(t, at, 5)
					return
				}
				require.Error(t, err)
				r.reopen()
				list, err := r.List(t.Context())
				require.NoError(t, err)
				if len(list) == 0 {
					require.Empty(t, ours(t, r.dir), "write %d", at)
					continue
				}
				require.NoError(t, list[0].Err)
				got, err := r.bytes(list[0].ID)
				require.NoError(t, err)
				require.Equal(t, stream(1, 2<<20), got)
				for _, f := range ours(t, r.dir) {
					require.True(t, strings.HasPrefix(f, fmt.Sprint(list[0].ID, ".")), f)
				}
			}
		})
	}
}

// TestDropWhileRead: who reads an import reads it to the end; its files go then.
func TestDropWhileRead(t *testing.T) {
	r := newRoom(t)
	i, err := r.AddReader(t.Context(), bytes.NewReader(stream(1, 2<<20)), imports.UnixFS2025(), nil)
	require.NoError(t, err)
	v, err := r.View(t.Context(), i.ID)
	require.NoError(t, err)
	require.NoError(t, r.Drop(t.Context(), i.ID))
	ls := v.LinkSystem()
	var b bytes.Buffer
	require.NoError(t, carstore.WriteFileFrom(t.Context(), &ls, v.Root(), &b))
	require.Equal(t, 2<<20, b.Len())
	require.NotEmpty(t, ours(t, r.dir))
	require.NoError(t, v.Close())
	require.Empty(t, ours(t, r.dir))
	done, cancel := context.WithCancel(t.Context())
	cancel()
	i, err = r.Add(t.Context(), r.file("data", 1, 2<<20), imports.UnixFS2025(), nil)
	require.NoError(t, err)
	v, err = r.View(t.Context(), i.ID)
	require.NoError(t, err)
	defer v.Close()
	ls = v.LinkSystem()
	require.ErrorIs(t, carstore.WriteFileFrom(done, &ls, v.Root(), io.Discard), context.Canceled)
	require.ErrorContains(t, carstore.WriteCARFrom(done, &ls, v.Root(), io.Discard), "context canceled") // the traversal does not wrap it
}

// TestRepointInterrupted: a repoint that died between its two writes leaves an import that the check survives, and that can be
// repointed again.
func TestRepointInterrupted(t *testing.T) {
	r := newRoom(t)
	old, now := filepath.Join(r.dir, "old.car"), filepath.Join(r.dir, "now.car")
	_, err := imports.WriteCAR(t.Context(), blob.OS{}, r.file("data", 1, 2<<20), old, imports.UnixFS2025(), nil)
	require.NoError(t, err)
	i, err := r.AddCAR(t.Context(), old)
	require.NoError(t, err)
	require.NoError(t, os.Rename(old, now))
	sw := &faults.Switch{}
	m, err := imports.Open(t.Context(), blob.OS{}, filepath.Join(r.dir, "imports"), faults.Store{Batching: r.ds, Switch: sw})
	require.NoError(t, err)
	sw.At = sw.Count() + 1
	_, err = m.Repoint(t.Context(), i.ID, now)
	require.ErrorIs(t, err, faults.ErrCrashed)
	r.reopen()
	_, _ = r.health()
	_, err = r.Repoint(t.Context(), i.ID, now)
	require.NoError(t, err)
	got, err := r.bytes(i.ID)
	require.NoError(t, err)
	require.Equal(t, stream(1, 2<<20), got)
}
