package carstore_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-unixfsnode/data"
	"github.com/ipfs/go-unixfsnode/data/builder"
	dagpb "github.com/ipld/go-codec-dagpb"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/datamodel"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/storage/memstore"
	mh "github.com/multiformats/go-multihash"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/blob"
	"github.com/cartage-dev/cartage/carstore"
	"github.com/cartage-dev/cartage/internal/reason"
)

// memDAG builds UnixFS in memory.
type memDAG struct {
	t     testing.TB
	store *memstore.Store
	ls    ipld.LinkSystem
}

func newDAG(t testing.TB) *memDAG {
	d := &memDAG{t: t, store: &memstore.Store{}, ls: cidlink.DefaultLinkSystem()}
	d.ls.SetReadStorage(d.store)
	d.ls.SetWriteStorage(d.store)
	return d
}

// reading is the DAG as an export reads it.
func (d *memDAG) reading() *ipld.LinkSystem {
	ls := carstore.Links(func(c cid.Cid) ([]byte, error) { return d.store.Get(d.t.Context(), c.KeyString()) })
	return &ls
}

func (d *memDAG) file(text string) datamodel.Link {
	l, _, err := builder.BuildUnixFSFile(bytes.NewReader([]byte(text)), "size-1024", &d.ls)
	require.NoError(d.t, err)
	return l
}

func (d *memDAG) symlink(target string) datamodel.Link {
	l, _, err := builder.BuildUnixFSSymlink(target, &d.ls)
	require.NoError(d.t, err)
	return l
}

// node is a dag-pb node of any UnixFS type.
func (d *memDAG) node(links []dagpb.PBLink, fn func(*builder.Builder)) datamodel.Link {
	u, err := builder.BuildUnixFS(fn)
	require.NoError(d.t, err)
	return d.store1(links, data.EncodeUnixFSData(u))
}

func (d *memDAG) store1(links []dagpb.PBLink, meta []byte) datamodel.Link {
	nb := dagpb.Type.PBNode.NewBuilder()
	n, err := nb.BeginMap(2)
	require.NoError(d.t, err)
	if meta != nil {
		e, err := n.AssembleEntry("Data")
		require.NoError(d.t, errors.Join(err, e.AssignBytes(meta)))
	}
	e, err := n.AssembleEntry("Links")
	require.NoError(d.t, err)
	list, err := e.BeginList(int64(len(links)))
	require.NoError(d.t, err)
	for _, l := range links {
		require.NoError(d.t, list.AssembleValue().AssignNode(l))
	}
	require.NoError(d.t, errors.Join(list.Finish(), n.Finish()))
	out, err := d.ls.Store(ipld.LinkContext{}, cidlink.LinkPrototype{Prefix: cid.Prefix{Version: 1, Codec: cid.DagProtobuf, MhType: mh.SHA2_256, MhLength: 32}}, nb.Build())
	require.NoError(d.t, err)
	return out
}

type entry struct {
	name string
	size int64
	link datamodel.Link
}

func (d *memDAG) links(list []entry) (out []dagpb.PBLink) {
	for _, e := range list {
		l, err := builder.BuildUnixFSDirectoryEntry(e.name, e.size, e.link)
		require.NoError(d.t, err)
		out = append(out, l)
	}
	return out
}

func (d *memDAG) folder(list ...entry) datamodel.Link {
	l, _, err := builder.BuildUnixFSDirectory(d.links(list), &d.ls)
	require.NoError(d.t, err)
	return l
}

func of(l datamodel.Link) cid.Cid { return l.(cidlink.Link).Cid }

// export writes a DAG into a new place.
func (d *memDAG) export(root datamodel.Link) (string, carstore.Exported, error) {
	d.t.Helper()
	out := filepath.Join(d.t.TempDir(), "out")
	dest, err := carstore.ClaimDest(blob.OS{}, out, false)
	require.NoError(d.t, err)
	done, err := dest.Export(d.t.Context(), d.reading(), of(root), nil)
	require.NoError(d.t, dest.Release())
	return out, done, err
}

// TestSymlinks: links that stay inside are made, after the files, so that none is written through; the others are left out and named.
func TestSymlinks(t *testing.T) {
	d := newDAG(t)
	deep := d.folder(entry{"up", 0, d.symlink("../a")}, entry{"top", 0, d.symlink("..")}, entry{"out", 0, d.symlink("../..")}, entry{"f", 0, d.file("deep")})
	root := d.folder(entry{"a", 0, d.file("hello")}, entry{"abs", 0, d.symlink("/etc/passwd")}, entry{"dangling", 0, d.symlink("none/here")}, entry{"deep", 0, deep},
		entry{"empty", 0, d.symlink("")}, entry{"here", 0, d.symlink(".")}, entry{"over", 0, d.symlink("here/../../etc")}, entry{"parent", 0, d.symlink("../x")},
		entry{"same", 0, d.symlink("./deep//f")}, entry{"zero", 0, d.symlink("a\x00b")})
	out, done, err := d.export(root)
	require.NoError(t, err)
	require.Equal(t, 5, done.Symlinks)
	require.Equal(t, 2, done.Files)
	require.Equal(t, []carstore.LeftOut{
		{"abs", `symbolic link to "/etc/passwd", which is absolute`}, {"deep/out", `symbolic link to "../..", which leads out of the output`},
		{"empty", `symbolic link to "", which is empty`}, {"over", `symbolic link to "here/../../etc", which climbs after it went down`},
		{"parent", `symbolic link to "../x", which leads out of the output`}, {"zero", `symbolic link to "a\x00b", which has a zero byte`},
	}, done.LeftOut)
	for name, target := range map[string]string{"deep/up": "../a", "deep/top": "..", "dangling": "none/here", "here": ".", "same": "./deep//f"} {
		got, err := os.Readlink(filepath.Join(out, name))
		require.NoError(t, err)
		require.Equal(t, target, got)
	}
	got, err := os.ReadFile(filepath.Join(out, "same"))
	require.NoError(t, err)
	require.Equal(t, "deep", string(got))
}

// TestNothingThroughALink: a folder that has the name of a link before it is refused, and what the link points to stays untouched.
func TestNothingThroughALink(t *testing.T) {
	d := newDAG(t)
	root := d.node(d.links([]entry{{"a", 0, d.symlink("b")}, {"b", 0, d.folder()}, {"a", 0, d.folder(entry{"f", 0, d.file("x")})}}), func(b *builder.Builder) { builder.DataType(b, data.Data_Directory) })
	out, _, err := d.export(root)
	require.ErrorIs(t, err, fs.ErrExist)
	require.Empty(t, names(t, filepath.Dir(out)))
}

// TestKeptAttributes: mode and time are restored from inside out, without setuid, setgid and sticky; odd times are not.
func TestKeptAttributes(t *testing.T) {
	d := newDAG(t)
	kept := func(kind int64, links []dagpb.PBLink, mode int, sec int64) datamodel.Link {
		return d.node(links, func(b *builder.Builder) {
			builder.DataType(b, kind)
			builder.Permissions(b, mode)
			builder.Mtime(b, func(tb builder.TimeBuilder) { builder.Seconds(tb, sec) })
			if kind == data.Data_File {
				builder.Data(b, []byte("x"))
			}
		})
	}
	file := kept(data.Data_File, nil, 0o6754, 1e9)
	odd := kept(data.Data_File, nil, 0o600, 1<<62)
	locked := kept(data.Data_Directory, d.links([]entry{{"f", 0, file}, {"odd", 0, odd}}), 0o1555, 1e9+1)
	out, _, err := d.export(kept(data.Data_Directory, d.links([]entry{{"locked", 0, locked}}), 0o700, 1e9+2))
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.Chmod(filepath.Join(out, "locked"), 0o700) })
	for name, want := range map[string]struct {
		mode fs.FileMode
		sec  int64
	}{"locked/f": {0o754, 1e9}, "locked": {fs.ModeDir | 0o555, 1e9 + 1}, "": {fs.ModeDir | 0o700, 1e9 + 2}} {
		st, err := os.Stat(filepath.Join(out, name))
		require.NoError(t, err)
		require.Equal(t, want.mode, st.Mode(), name)
		require.Equal(t, want.sec, st.ModTime().Unix(), name)
	}
	st, err := os.Stat(filepath.Join(out, "locked/odd"))
	require.NoError(t, err)
	require.Less(t, time.Since(st.ModTime()), time.Hour)
	alone, _, err := d.export(file)
	require.NoError(t, err)
	st, err = os.Stat(alone)
	require.NoError(t, err)
	require.Equal(t, fs.FileMode(0o754), st.Mode())
}

// TestNotAFile: what is no file is refused with its kind where a file is needed; what cannot be written at all, in an export too.
func TestNotAFile(t *testing.T) {
	d := newDAG(t)
	cbor, err := d.ls.Store(ipld.LinkContext{}, cidlink.LinkPrototype{Prefix: cid.Prefix{Version: 1, Codec: cid.DagCBOR, MhType: mh.SHA2_256, MhLength: 32}}, d.folderNode())
	require.NoError(t, err)
	for want, l := range map[string]datamodel.Link{
		"it is a folder":          d.folder(entry{"a", 0, d.file("x")}),
		"it is a sharded folder":  d.shards(2000),
		"it is a symbolic link":   d.symlink("a"),
		"it is a UnixFS metadata": d.node(nil, func(b *builder.Builder) { builder.DataType(b, data.Data_Metadata) }),
		"node without UnixFS":     d.store1(nil, []byte("none of it")),
		"without UnixFS":          d.store1(nil, nil),
		"it is a dag-cbor node":   cbor,
	} {
		err := carstore.WriteFileFrom(t.Context(), d.reading(), of(l), &bytes.Buffer{})
		require.ErrorIs(t, err, reason.NotAFile, want)
		require.ErrorContains(t, err, want)
		if want == "it is a folder" || want == "it is a sharded folder" {
			continue
		}
		_, _, err = d.export(l)
		require.ErrorIs(t, err, reason.NotAFile, want)
	}
}

func (d *memDAG) folderNode() datamodel.Node {
	n, err := d.ls.Load(ipld.LinkContext{}, d.folder(), dagpb.Type.PBNode)
	require.NoError(d.t, err)
	return n
}

func (d *memDAG) shards(n int) datamodel.Link {
	var list []entry
	for i := range n {
		list = append(list, entry{fmt.Sprint("name ", i), int64(1000 + i), d.file("x")})
	}
	l, _, err := builder.BuildUnixFSShardedDirectory(16, mh.MURMUR3X64_64, d.links(list), &d.ls)
	require.NoError(d.t, err)
	return l
}

// TestList: a folder has its entries with the sizes of their links, however it is stored; a file and a link list as themselves.
func TestList(t *testing.T) {
	d := newDAG(t)
	list, err := carstore.List(t.Context(), d.reading(), of(d.shards(2000)))
	require.NoError(t, err)
	require.Len(t, list, 2000)
	for _, e := range list {
		var n int
		_, err := fmt.Sscanf(e.Name, "name %d", &n)
		require.NoError(t, err)
		require.EqualValues(t, 1000+n, e.Size)
	}
	large := d.file(string(make([]byte, 5000)))
	for _, tc := range []struct {
		link datamodel.Link
		kind carstore.Kind
		size uint64
	}{{large, carstore.KindFile, 5000}, {d.file("small"), carstore.KindFile, 5}, {d.symlink("a"), carstore.KindSymlink, 0}} {
		list, err := carstore.List(t.Context(), d.reading(), of(tc.link))
		require.NoError(t, err)
		require.Equal(t, []carstore.Entry{{Cid: of(tc.link), Size: tc.size, Kind: tc.kind}}, list)
	}
	list, err = carstore.List(t.Context(), d.reading(), of(d.folder(entry{"big", 5014, large})))
	require.NoError(t, err)
	require.Equal(t, []carstore.Entry{{Cid: of(large), Name: "big", Size: 5014}}, list)
}

// TestListHostileShards: shards that are none, or that are the same few blocks over and over, end the list with an error.
func TestListHostileShards(t *testing.T) {
	d := newDAG(t)
	shard := func(fanout uint64, list ...entry) datamodel.Link {
		return d.node(d.links(list), func(b *builder.Builder) {
			builder.DataType(b, data.Data_HAMTShard)
			builder.HashType(b, mh.MURMUR3X64_64)
			builder.Fanout(b, fanout)
		})
	}
	many := shard(256)
	for range 25 { // 2^25 ways
		many = shard(256, entry{"00", 0, many}, entry{"01", 0, many})
	}
	deep := shard(256)
	for range 70 {
		deep = shard(256, entry{"00", 0, deep})
	}
	for _, l := range []datamodel.Link{many, deep, shard(0), shard(1 << 40), shard(256, entry{"0", 0, d.file("x")}), shard(256, entry{"00", 0, d.folder()})} {
		_, err := carstore.List(t.Context(), d.reading(), of(l))
		require.Error(t, err)
	}
}

// counted counts what an export asks of a file system.
type counted struct {
	blob.FS
	syncs, trees *atomic.Int64
}

type countedFile struct {
	blob.File
	syncs *atomic.Int64
}

func (f countedFile) Sync() error {
	f.syncs.Add(1)
	return f.File.Sync()
}

func (c counted) Create(name string, mode fs.FileMode) (blob.File, error) {
	f, err := c.FS.Create(name, mode)
	return countedFile{f, c.syncs}, err
}

func (c counted) SyncTree(dir string) error {
	c.trees.Add(1)
	return c.FS.SyncTree(dir)
}

// manyFiles is a tree of n files of a few hundred bytes, and what they have together.
func (d *memDAG) manyFiles(n int) (datamodel.Link, uint64) {
	var folders []entry
	var total uint64
	for i := 0; i < n; i += 100 {
		var list []entry
		for j := range 100 {
			text := bytes.Repeat([]byte{byte(i), byte(j)}, 100+j)
			total += uint64(len(text))
			list = append(list, entry{fmt.Sprintf("%05d", i+j), 0, d.file(string(text))})
		}
		folders = append(folders, entry{fmt.Sprintf("%05d", i), 0, d.folder(list...)})
	}
	return d.folder(folders...), total
}

// TestExportOfManyFiles: small files cost no sync and no buffer each, a folder is durable as a whole, and progress is told on the way.
func TestExportOfManyFiles(t *testing.T) {
	d := newDAG(t)
	root, total := d.manyFiles(2000)
	c := counted{blob.OS{}, &atomic.Int64{}, &atomic.Int64{}}
	dest, err := carstore.ClaimDest(c, filepath.Join(t.TempDir(), "out"), false)
	require.NoError(t, err)
	told := 0
	done, err := dest.Export(t.Context(), d.reading(), of(root), func(e carstore.Exported) { told = e.Files })
	require.NoError(t, errors.Join(err, dest.Release()))
	require.Equal(t, carstore.Exported{Files: 2000, Folders: 21, Bytes: total}, done)
	require.Equal(t, 2000, told)
	require.Zero(t, c.syncs.Load(), "no file is synced alone")
	require.EqualValues(t, 1, c.trees.Load())
	a, err := carstore.ClaimDest(c, filepath.Join(t.TempDir(), "alone"), false)
	require.NoError(t, err)
	_, err = a.Export(t.Context(), d.reading(), of(d.file(string(make([]byte, 5000)))), nil)
	require.NoError(t, errors.Join(err, a.Release()))
	require.EqualValues(t, 1, c.syncs.Load(), "a file alone is synced")
}

// BenchmarkExport writes 20,000 small files, and copies them with cp -r: the ratio is what an export costs.
func BenchmarkExport(b *testing.B) {
	d := newDAG(b)
	root, _ := d.manyFiles(20_000)
	for b.Loop() {
		dir := b.TempDir()
		dest, err := carstore.ClaimDest(blob.OS{}, filepath.Join(dir, "out"), false)
		require.NoError(b, err)
		start := time.Now()
		_, err = dest.Export(b.Context(), d.reading(), of(root), nil)
		require.NoError(b, errors.Join(err, dest.Release()))
		export := time.Since(start)
		start = time.Now()
		require.NoError(b, exec.Command("cp", "-r", filepath.Join(dir, "out"), filepath.Join(dir, "copy")).Run())
		cp := time.Since(start)
		b.ReportMetric(export.Seconds(), "s/export")
		b.ReportMetric(cp.Seconds(), "s/cp")
		b.ReportMetric(export.Seconds()/cp.Seconds(), "x")
	}
}
