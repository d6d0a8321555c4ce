package carstore_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-car/v2"
	"github.com/ipld/go-ipld-prime"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	mh "github.com/multiformats/go-multihash"
	"github.com/multiformats/go-varint"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/cartage-dev/cartage/blob"
	"github.com/cartage-dev/cartage/carstore"
	"github.com/cartage-dev/cartage/internal/faults"
	"github.com/cartage-dev/cartage/shared"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type rawBlock struct {
	cid  cid.Cid
	data []byte
}

// some makes n seeded raw blocks; the first is the root.
func some(t testing.TB, n, size int) []rawBlock {
	r := rand.NewChaCha8([32]byte{1})
	out := make([]rawBlock, n)
	for i := range out {
		data := make([]byte, size)
		_, err := r.Read(data)
		require.NoError(t, err)
		c, err := cid.V1Builder{Codec: cid.Raw, MhType: mh.SHA2_256}.Sum(data)
		require.NoError(t, err)
		out[i] = rawBlock{c, data}
	}
	return out
}

func fill(t testing.TB, fsys blob.FS, path string, blocks []rawBlock) *carstore.Store {
	t.Helper()
	s, err := carstore.Open(fsys, path, blocks[0].cid)
	require.NoError(t, err)
	for _, b := range blocks {
		require.NoError(t, s.Put(b.cid, b.data))
	}
	return s
}

// TestGrowAndFinalize: blocks are there after a reopen without an end, and a finalized file is a CARv2 that another reader
// accepts, index included.
func TestGrowAndFinalize(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.car")
	blocks := some(t, 20, 1000)
	s := fill(t, blob.OS{}, path, blocks[:10])
	require.NoError(t, s.Put(blocks[3].cid, blocks[3].data), "a block again is left out")
	require.NoError(t, s.Close())

	s, err := carstore.Open(blob.OS{}, path, blocks[0].cid)
	require.NoError(t, err)
	require.Equal(t, 10, s.Len())
	require.EqualValues(t, 10_000, s.Bytes())
	for _, b := range blocks[10:] {
		require.NoError(t, s.Put(b.cid, b.data))
	}
	require.NoError(t, s.Finalize())
	require.NoError(t, s.Finalize())
	require.ErrorContains(t, s.Put(some(t, 21, 1000)[20].cid, nil), "finalized")
	require.NoError(t, s.Close())

	r, err := car.OpenReader(path)
	require.NoError(t, err)
	require.EqualValues(t, 2, r.Version)
	stats, err := r.Inspect(true)
	require.NoError(t, err)
	require.EqualValues(t, 20, stats.BlockCount)
	require.True(t, stats.Header.HasIndex())
	require.NoError(t, r.Close())

	ro, err := carstore.OpenRead(path)
	require.NoError(t, err)
	defer ro.Close()
	for _, b := range blocks {
		got, err := ro.Get(b.cid)
		require.NoError(t, err)
		require.Equal(t, b.data, got.RawData())
	}
}

// TestTornTail: wherever the file was cut, the next open keeps what is whole and goes on from there.
func TestTornTail(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.car")
	blocks := some(t, 3, 40)
	require.NoError(t, fill(t, blob.OS{}, path, blocks).Close())
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	for n := range len(whole) + 1 {
		cut := filepath.Join(dir, fmt.Sprint(n))
		require.NoError(t, os.WriteFile(cut, whole[:n], 0o600))
		s, err := carstore.Open(blob.OS{}, cut, blocks[0].cid)
		require.NoError(t, err, "cut at %d", n)
		for _, b := range blocks {
			require.NoError(t, s.Put(b.cid, b.data))
		}
		require.NoError(t, s.Close())
		again, err := os.ReadFile(cut)
		require.NoError(t, err)
		require.Equal(t, whole, again, "cut at %d", n)
	}
}

// TestBadTail: a block that rotted is not believed: it is fetched again, and nothing else.
func TestBadTail(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.car")
	blocks := some(t, 3, 40)
	require.NoError(t, fill(t, blob.OS{}, path, blocks).Close())
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	data[bytes.Index(data, blocks[1].data)] ^= 1
	require.NoError(t, os.WriteFile(path, data, 0o600))
	s, err := carstore.Open(blob.OS{}, path, blocks[0].cid)
	require.NoError(t, err)
	defer s.Close()
	require.Equal(t, 2, s.Len())
	_, err = s.Get(blocks[1].cid)
	require.ErrorIs(t, err, carstore.ErrNotFound)
	_, err = s.Get(blocks[2].cid)
	require.NoError(t, err)
}

// TestCrashCountUp: killed at each write of filling and finalizing a file, the next run ends with the same file.
func TestCrashCountUp(t *testing.T) {
	dir := t.TempDir()
	blocks := some(t, 5, 100)
	want := filepath.Join(dir, "want")
	s := fill(t, blob.OS{}, want, blocks)
	require.NoError(t, s.Finalize())
	require.NoError(t, s.Close())
	whole, err := os.ReadFile(want)
	require.NoError(t, err)
	run := func(path string, sw *faults.Switch) error {
		s, err := carstore.Open(faults.FS{FS: blob.OS{}, Switch: sw}, path, blocks[0].cid)
		if err != nil {
			return err
		}
		defer s.Close()
		for _, b := range blocks {
			if err := s.Put(b.cid, b.data); err != nil && err.Error() != "CAR file is finalized" {
				return err
			}
		}
		return s.Finalize()
	}
	n := 1
	for ; ; n++ {
		path := filepath.Join(dir, fmt.Sprint(n))
		sw := &faults.Switch{At: n}
		if err := run(path, sw); err == nil {
			break
		}
		require.NoError(t, run(path, &faults.Switch{}), "after a crash at write %d", n)
		got, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, whole, got, "after a crash at write %d", n)
	}
	require.Greater(t, n, 8)
}

func section(c cid.Cid, data []byte) []byte {
	return append(append(varint.ToUvarint(uint64(len(c.Bytes())+len(data))), c.Bytes()...), data...)
}

func v1(t testing.TB, root cid.Cid, sections ...[]byte) []byte {
	h, err := carstore.V1Header(root)
	require.NoError(t, err)
	return append(h, bytes.Join(sections, nil)...)
}

// TestLies: CARs that are cut or lie are refused with what is wrong; nothing is allocated on their word.
func TestLies(t *testing.T) {
	b := some(t, 2, 100)
	good := v1(t, b[0].cid, section(b[0].cid, b[0].data), section(b[1].cid, b[1].data))
	v2 := func(offset, size uint64) []byte {
		out := append([]byte{0x0a, 0xa1, 0x67, 'v', 'e', 'r', 's', 'i', 'o', 'n', 0x02}, make([]byte, 40)...)
		binary.LittleEndian.PutUint64(out[27:], offset)
		binary.LittleEndian.PutUint64(out[35:], size)
		return append(out, good...)
	}
	for name, tc := range map[string]struct {
		data []byte
		says string
	}{
		"empty":                       {nil, "not a CAR"},
		"text":                        {[]byte("hello, this is not a CAR at all, whatever its name says"), "not a CAR"},
		"cut in the header":           {good[:20], "not a CAR"},
		"cut in a block":              {good[:len(good)-1], "is cut or lies"},
		"huge header":                 {append(varint.ToUvarint(1<<40), good...), "does not fit"},
		"huge section":                {append(bytes.Clone(good), varint.ToUvarint(1<<60)...), "is cut or lies"},
		"wrong block":                 {v1(t, b[0].cid, section(b[0].cid, b[1].data)), "does not match"},
		"v2 header cut":               {v2(51, uint64(len(good)))[:30], "not a CAR"},
		"v2 data beyond the end":      {v2(51, uint64(len(good))+1), "CARv2 header"},
		"v2 offset beyond the end":    {v2(1<<62, 10), "CARv2 header"},
		"v2 offset in the header":     {v2(11, 10), "CARv2 header"},
		"v2 offset and size overflow": {v2(60, 1<<64-1), "CARv2 header"},
		"section without a CID":       {append(bytes.Clone(good), 3, 0xff, 0xff, 0xff), "section at offset"},
	} {
		t.Run(name, func(t *testing.T) {
			r := bytes.NewReader(tc.data)
			l, err := carstore.Inspect(r, r.Size())
			if err == nil {
				err = carstore.Walk(r, l, func(carstore.Block) error { return nil })
			}
			require.ErrorContains(t, err, tc.says)
		})
	}
	t.Run("zero padding ends it", func(t *testing.T) {
		r := bytes.NewReader(append(bytes.Clone(good), make([]byte, 500)...))
		l, err := carstore.Inspect(r, r.Size())
		require.NoError(t, err)
		n := 0
		require.NoError(t, carstore.Walk(r, l, func(carstore.Block) error { n++; return nil }))
		require.Equal(t, 2, n)
	})
	t.Run("v2 is read", func(t *testing.T) {
		r := bytes.NewReader(v2(51, uint64(len(good))))
		l, err := carstore.Inspect(r, r.Size())
		require.NoError(t, err)
		require.Equal(t, 2, l.Version)
		require.Equal(t, []cid.Cid{b[0].cid}, l.Roots)
	})
}

// unreadable is a file system whose files cannot be read beyond a place.
type unreadable struct {
	blob.OS
	from int64
}

type unreadableFile struct {
	blob.File
	from int64
}

func (u unreadable) OpenRW(name string) (blob.File, error) {
	f, err := u.OS.OpenRW(name)
	return unreadableFile{f, u.from}, err
}

func (f unreadableFile) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > f.from {
		return 0, errors.New("input/output error")
	}
	return f.File.ReadAt(p, off)
}

// TestUnreadableDisk: a disk that cannot be read is not a torn tail: what was paid for stays in the file.
func TestUnreadableDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.car")
	blocks := some(t, 5, 1000)
	require.NoError(t, fill(t, blob.OS{}, path, blocks).Close())
	before, err := os.ReadFile(path)
	require.NoError(t, err)
	_, err = carstore.Open(unreadable{from: 200}, path, blocks[0].cid)
	require.ErrorContains(t, err, "input/output error")
	after, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, before, after)
}

// TestForceReplacesFiles: never a folder, never a device.
func TestForceReplacesFiles(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "keep"), nil, 0o600))
	s := fill(t, blob.OS{}, filepath.Join(t.TempDir(), "a.car"), some(t, 1, 100))
	defer s.Close()
	for _, dest := range []string{dir, os.DevNull} {
		require.ErrorContains(t, s.Export(t.Context(), blob.OS{}, dest, true), "replaces files only")
	}
	require.FileExists(t, filepath.Join(dir, "keep"))
}

// TestLocate: the position is what is there in order, whatever else is.
func TestLocate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.car")
	blocks := some(t, 2, 100)
	s := fill(t, blob.OS{}, path, blocks)
	defer s.Close()
	pos, err := s.Locate(shared.AllSelector())
	require.NoError(t, err)
	require.Equal(t, carstore.Position{Blocks: 1, Bytes: 100, Complete: true, Last: blocks[0].cid}, pos)
}

// TestExportAside: an export that fails leaves the destination as it was and nothing beside it.
func TestExportAside(t *testing.T) {
	dir := t.TempDir()
	blocks := some(t, 1, 100)
	s := fill(t, blob.OS{}, filepath.Join(dir, "a.car"), blocks)
	defer s.Close()
	dest := filepath.Join(dir, "out")
	require.NoError(t, s.Export(t.Context(), blob.OS{}, dest, false))
	require.ErrorIs(t, s.Export(t.Context(), blob.OS{}, dest, false), carstore.ErrExists)
	for n := 1; ; n++ {
		require.NoError(t, os.WriteFile(dest, []byte("old"), 0o600))
		err := s.Export(t.Context(), faults.FS{FS: blob.OS{}, Switch: &faults.Switch{At: n}}, dest, true)
		if err == nil {
			break
		}
		if got, rerr := os.ReadFile(dest); rerr == nil {
			require.Contains(t, []string{"old", string(blocks[0].data)}, string(got))
		}
	}
	require.NoError(t, s.Export(t.Context(), blob.OS{}, dest, true))
	names, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, names, 2)
	for _, no := range []string{filepath.Join(dir, "none", "x"), filepath.Join(dest, "x")} {
		_, err := carstore.ClaimDest(blob.OS{}, no, false)
		require.ErrorContains(t, err, "cannot write to")
	}
}

func FuzzInspect(f *testing.F) {
	b := some(f, 2, 50)
	f.Add(v1(f, b[0].cid, section(b[0].cid, b[0].data), section(b[1].cid, b[1].data)))
	path := filepath.Join(f.TempDir(), "a.car")
	s := fill(f, blob.OS{}, path, b)
	require.NoError(f, s.Finalize())
	require.NoError(f, s.Close())
	whole, err := os.ReadFile(path)
	require.NoError(f, err)
	f.Add(whole)
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bytes.NewReader(data)
		l, err := carstore.Inspect(r, r.Size())
		if err != nil {
			return
		}
		_ = carstore.Walk(r, l, func(b carstore.Block) error {
			if b.Cid.Prefix().MhType == mh.IDENTITY {
				return nil
			}
			got, err := carstore.ReadSection(r, l.Offset+b.Offset, b.Section, b.Cid)
			require.NoError(t, err)
			require.Equal(t, b.Data, got)
			return nil
		})
	})
}

// failing is a file system whose writes fail while it is told to.
type failing struct {
	blob.OS
	now *bool
}

type failingFile struct {
	blob.File
	now *bool
}

func (f failing) Create(name string, mode os.FileMode) (blob.File, error) {
	file, err := f.OS.Create(name, mode)
	return failingFile{file, f.now}, err
}

func (f failingFile) WriteAt(p []byte, off int64) (int, error) {
	if *f.now {
		n, _ := f.File.WriteAt(p[:len(p)/2], off)
		return n, errors.New("disk full")
	}
	return f.File.WriteAt(p, off)
}

// TestWriteAgain: a block whose write failed is written with the next try, and a file with failed writes in it is whole at its end.
func TestWriteAgain(t *testing.T) {
	for name, size := range map[string]int{"small": 1000, "large": 100_000} {
		t.Run(name, func(t *testing.T) {
			path, broken := filepath.Join(t.TempDir(), "a.car"), false
			blocks := some(t, 12, size)
			s := fill(t, failing{now: &broken}, path, blocks[:4])
			broken = true
			for _, b := range blocks[4:7] {
				require.ErrorContains(t, s.Put(b.cid, b.data), "disk full")
			}
			broken = false
			for _, b := range blocks[4:] {
				require.NoError(t, s.Put(b.cid, b.data))
			}
			for _, b := range blocks {
				got, err := s.Get(b.cid)
				require.NoError(t, err)
				require.Equal(t, b.data, got.RawData())
			}
			require.NoError(t, s.Finalize())
			require.NoError(t, s.Close())
			r, err := carstore.OpenRead(path)
			require.NoError(t, err)
			require.Equal(t, len(blocks), r.Len())
			require.NoError(t, r.Close())
		})
	}
}

// TestGather: blocks that are gathered are read at once, are in the file after a flush, and all of them together cost few writes.
func TestGather(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.car")
	sw := &faults.Switch{}
	blocks := some(t, 1000, 1000)
	s, err := carstore.Open(faults.FS{FS: blob.OS{}, Switch: sw}, path, blocks[0].cid)
	require.NoError(t, err)
	var g carstore.Gathered
	require.NoError(t, g.Flush(), "nothing was gathered")
	ls, before := s.LinkSystem(), sw.Count()
	lc := ipld.LinkContext{Ctx: carstore.Gather(t.Context(), &g)}
	for _, b := range blocks {
		w, commit, err := ls.StorageWriteOpener(lc)
		require.NoError(t, err)
		_, err = w.Write(b.data)
		require.NoError(t, err)
		require.NoError(t, commit(cidlink.Link{Cid: b.cid}))
	}
	require.Less(t, sw.Count()-before, 10)
	require.Less(t, s.DataSize(), int64(1_000_000), "the rest is not written")
	got, err := s.Get(blocks[999].cid)
	require.NoError(t, err)
	require.Equal(t, blocks[999].data, got.RawData())
	require.NoError(t, g.Flush())
	require.Greater(t, s.DataSize(), int64(1_000_000))
	require.NoError(t, s.Close())
	again, err := carstore.Open(blob.OS{}, path, blocks[0].cid)
	require.NoError(t, err)
	require.Equal(t, 1000, again.Len())
	require.NoError(t, again.Close())
}
