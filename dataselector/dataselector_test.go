package dataselector_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-unixfsnode/data/builder"
	carv2 "github.com/ipld/go-car/v2"
	dagpb "github.com/ipld/go-codec-dagpb"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/datamodel"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/storage/memstore"
	"github.com/multiformats/go-multihash"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/carstore"
	"github.com/cartage-dev/cartage/dataselector"
	"github.com/cartage-dev/cartage/internal/reason"
)

// tree is docs/a.bin of ten blocks and docs/b.txt, below a root.
type tree struct {
	store *memstore.Store
	ls    ipld.LinkSystem
	root  cid.Cid
	docs  cid.Cid
	a, b  cid.Cid
	bytes []byte // of a.bin
}

func newTree(t *testing.T) *tree {
	tr := &tree{store: &memstore.Store{}, bytes: make([]byte, 10<<10)}
	tr.ls = cidlink.DefaultLinkSystem()
	tr.ls.SetReadStorage(tr.store)
	tr.ls.SetWriteStorage(tr.store)
	for i := range tr.bytes {
		tr.bytes[i] = byte(rand.New(rand.NewPCG(1, uint64(i))).Uint32())
	}
	file := func(data []byte) datamodel.Link {
		l, _, err := builder.BuildUnixFSFile(bytes.NewReader(data), "size-1024", &tr.ls)
		require.NoError(t, err)
		return l
	}
	folder := func(names []string, links ...datamodel.Link) datamodel.Link {
		var list []dagpb.PBLink
		for i, n := range names {
			e, err := builder.BuildUnixFSDirectoryEntry(n, 1, links[i])
			require.NoError(t, err)
			list = append(list, e)
		}
		l, _, err := builder.BuildUnixFSDirectory(list, &tr.ls)
		require.NoError(t, err)
		return l
	}
	a, b := file(tr.bytes), file([]byte("hello, part"))
	docs := folder([]string{"a.bin", "b.txt"}, a, b)
	root := folder([]string{"docs", "other.txt"}, docs, file([]byte("other")))
	of := func(l datamodel.Link) cid.Cid { return l.(cidlink.Link).Cid }
	tr.root, tr.docs, tr.a, tr.b = of(root), of(docs), of(a), of(b)
	tr.ls = carstore.Links(func(c cid.Cid) ([]byte, error) { return tr.store.Get(t.Context(), c.KeyString()) })
	return tr
}

// fetched is the DAG as a recipient has it who asked for a selection only.
func (tr *tree) fetched(t *testing.T, s dataselector.Selection) (ipld.LinkSystem, int) {
	have := map[string][]byte{}
	ls := carstore.Links(func(c cid.Cid) ([]byte, error) {
		data, err := tr.store.Get(t.Context(), c.KeyString())
		have[c.KeyString()] = data
		return data, err
	})
	require.NoError(t, carstore.WalkSelector(&ls, tr.root, s.Node(), nil))
	return carstore.Links(func(c cid.Cid) ([]byte, error) {
		if data, ok := have[c.KeyString()]; ok {
			return data, nil
		}
		return nil, carstore.ErrNotFound
	}), len(have)
}

func parse(t *testing.T, text string) dataselector.Selection {
	s, err := dataselector.Parse(text)
	require.NoError(t, err)
	return s
}

func unixfs(t *testing.T, path, bytes string) dataselector.Selection {
	var r *dataselector.Range
	var err error
	if bytes != "" {
		r, err = dataselector.ParseRange(bytes)
		require.NoError(t, err)
	}
	s, err := dataselector.UnixFS(path, r)
	require.NoError(t, err)
	return s
}

// TestFiles: what a selection fetches is enough to write what it selects, and not much more.
func TestFiles(t *testing.T) {
	tr := newTree(t)
	for _, tc := range []struct {
		name   string
		s      dataselector.Selection
		blocks int
		want   []byte
	}{
		{"a path of names", unixfs(t, "docs/b.txt", ""), 3, []byte("hello, part")},
		{"with slashes", unixfs(t, "/docs/b.txt/", ""), 3, []byte("hello, part")},
		{"a large file", unixfs(t, "docs/a.bin", ""), 13, tr.bytes},
		{"a range in one block", unixfs(t, "docs/a.bin", "100:199"), 4, tr.bytes[100:200]},
		{"a range over a boundary", unixfs(t, "docs/a.bin", "1023:2048"), 6, tr.bytes[1023:2049]},
		{"the rest", unixfs(t, "docs/a.bin", "9000:*"), 5, tr.bytes[9000:]},
		{"a range beyond the end", unixfs(t, "docs/a.bin", "9000:99999"), 5, tr.bytes[9000:]},
		{"the last bytes", unixfs(t, "docs/a.bin", "-100:*"), 4, tr.bytes[len(tr.bytes)-100:]},
		{"to before the end", unixfs(t, "docs/a.bin", "-100:-51"), 4, tr.bytes[len(tr.bytes)-100 : len(tr.bytes)-50]},
		{"open", unixfs(t, "docs/a.bin", "9000:"), 5, tr.bytes[9000:]},
		{"from the beginning", unixfs(t, "docs/a.bin", ":99"), 4, tr.bytes[:100]},
		{"more than there is at the end", unixfs(t, "docs/b.txt", "-1000:"), 3, []byte("hello, part")},
		{"a path of fields", parse(t, "Links/0/Hash/Links/1/Hash"), 3, []byte("hello, part")},
		{"with a slash before it", parse(t, "/Links/0/Hash/Links/0/Hash"), 13, tr.bytes},
		{"JSON", parse(t, `{"f":{"f>":{"Links":{"f":{"f>":{"0":{"f":{"f>":{"Hash":{"f":{"f>":{"Links":{"f":{"f>":{"1":{"f":{"f>":{"Hash":{".":{}}}}}}}}}}}}}}}}}}}}`), 3, []byte("hello, part")},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ls, blocks := tr.fetched(t, tc.s)
			require.Equal(t, tc.blocks, blocks)
			var out bytes.Buffer
			require.NoError(t, tc.s.WriteFile(t.Context(), &ls, tr.root, &out))
			require.Equal(t, tc.want, out.Bytes())
		})
	}
}

// TestArchives: the parts are the roots, and with a proof the root of the DAG leads to them by blocks that are there.
func TestArchives(t *testing.T) {
	tr := newTree(t)
	for _, tc := range []struct {
		name  string
		s     dataselector.Selection
		roots []cid.Cid
		proof bool
		has   []cid.Cid
		not   []cid.Cid
		n     int
	}{
		{"a part", unixfs(t, "docs", ""), []cid.Cid{tr.docs}, false, []cid.Cid{tr.docs, tr.a, tr.b}, []cid.Cid{tr.root}, 13},
		{"with its proof", unixfs(t, "docs/b.txt", ""), []cid.Cid{tr.b}, true, []cid.Cid{tr.root, tr.docs, tr.b}, []cid.Cid{tr.a}, 3},
		{"a path of fields with its proof", parse(t, "Links/0/Hash/Links/1/Hash"), []cid.Cid{tr.b}, true, []cid.Cid{tr.root, tr.docs, tr.b}, []cid.Cid{tr.a}, 3},
		{"without", parse(t, "Links/0/Hash/Links/1/Hash"), []cid.Cid{tr.b}, false, []cid.Cid{tr.b}, []cid.Cid{tr.root, tr.docs}, 1},
		{"a range proves itself", unixfs(t, "docs/a.bin", "0:10"), []cid.Cid{tr.a}, false, []cid.Cid{tr.root, tr.docs, tr.a}, nil, 4},
		{"everything", dataselector.Selection{}, []cid.Cid{tr.root}, false, []cid.Cid{tr.root, tr.docs, tr.a, tr.b}, nil, 15},
		{"a selector that only explores", parse(t, `{"R":{"l":{"none":{}},":>":{"a":{">":{"@":{}}}}}}`), []cid.Cid{tr.root}, false, []cid.Cid{tr.root, tr.a}, nil, 15},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ls, _ := tr.fetched(t, tc.s)
			var out bytes.Buffer
			require.NoError(t, tc.s.WriteCAR(t.Context(), &ls, tr.root, &out, tc.proof))
			r, err := carv2.NewBlockReader(&out)
			require.NoError(t, err)
			require.Equal(t, tc.roots, r.Roots)
			got := cid.NewSet()
			for {
				b, err := r.Next()
				if errors.Is(err, io.EOF) {
					break
				}
				require.NoError(t, err)
				require.True(t, got.Visit(b.Cid()), "each block once")
			}
			for _, c := range tc.has {
				require.True(t, got.Has(c))
			}
			for _, c := range tc.not {
				require.False(t, got.Has(c))
			}
			require.Equal(t, tc.n, got.Len())
		})
	}
}

// TestRefused: what cannot be selected is said, with what was asked for.
func TestRefused(t *testing.T) {
	tr := newTree(t)
	for text, want := range map[string]string{
		`{"Q":{}}`:                   "data selector",
		`{`:                          "data selector",
		string(make([]byte, 17<<10)): "above the limit",
		"a" + string(bytes.Repeat([]byte("/a"), 400)): "segments",
	} {
		_, err := dataselector.Parse(text)
		require.ErrorContains(t, err, want)
	}
	for _, text := range []string{"", "5", "a:b", "3:2", "-1:-4", "1:2:3", ":", "*", "*:5", "1.5:2", "+1:2", "0x1:2", "-9223372036854775809:*", "0:9223372036854775808", "99999999999999999999:"} {
		_, err := dataselector.ParseRange(text)
		require.ErrorContains(t, err, "no range of bytes", text)
		require.ErrorIs(t, err, reason.Usage, text)
		require.NotContains(t, err.Error(), "strconv")
	}
	for _, s := range []dataselector.Selection{unixfs(t, "docs/none", ""), unixfs(t, "docs/b.txt/deeper", ""), parse(t, "Links/7/Hash"), parse(t, "Nothing")} {
		_, err := s.Parts(t.Context(), &tr.ls, tr.root)
		require.ErrorIs(t, err, dataselector.ErrNoMatch)
		require.ErrorIs(t, err, reason.PathUnknown)
		require.NotContains(t, err.Error(), "typeinfo")
		require.ErrorContains(t, err, s.String())
	}
	s := parse(t, "Links/0/Name")
	require.ErrorContains(t, s.WriteFile(t.Context(), &tr.ls, tr.root, io.Discard), "unsupported selection path 'Links/0/Name' does not correspond to a block boundary")
	s = unixfs(t, "docs", "")
	require.ErrorContains(t, s.WriteFile(t.Context(), &tr.ls, tr.root, io.Discard), "is a folder")
}

// TestRangeOutside: a range that has none of the bytes of the file is refused, with what the file has.
func TestRangeOutside(t *testing.T) {
	tr := newTree(t)
	for _, text := range []string{"10240:", "10240:20000", "9223372036854775807:", "5:-10240", "-5:3", "0:-10241"} {
		s := unixfs(t, "docs/a.bin", text)
		ls, blocks := tr.fetched(t, s)
		require.LessOrEqual(t, blocks, 3, "the way to the file alone")
		err := s.WriteFile(t.Context(), &ls, tr.root, io.Discard)
		require.ErrorIs(t, err, reason.RangeOutside, text)
		require.ErrorContains(t, err, "which has 10240")
	}
	for _, tc := range []struct {
		r        dataselector.Range
		size     int64
		first, n int64
	}{{dataselector.Range{0, -1}, 0, 0, 0}, {dataselector.Range{-5, -1}, 0, 0, 0}, {dataselector.Range{0, 1<<63 - 1}, 10, 0, 10}, {dataselector.Range{-1 << 63, -1}, 10, 0, 10},
		{dataselector.Range{9, 9}, 10, 9, 1}, {dataselector.Range{-3, 8}, 10, 7, 2}, {dataselector.Range{1<<63 - 2, -1}, 1<<63 - 1, 1<<63 - 2, 1}} {
		first, n, err := tc.r.Within(tc.size)
		require.NoError(t, err, tc.r)
		require.Equal(t, []int64{tc.first, tc.n}, []int64{first, n}, tc.r)
	}
	_, _, err := dataselector.Range{0, 0}.Within(0)
	require.ErrorIs(t, err, reason.RangeOutside)
}

// FuzzParse: no text panics, and what is read can be asked for.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"", "Links/0/Hash", "/a//b/../c", `{".":{}}`, `{"R":{"l":{"depth":3},":>":{"@":{}}}}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := dataselector.Parse(text)
		if err == nil {
			require.NotNil(t, s.Node())
		}
		if r, err := dataselector.ParseRange(text); err == nil {
			again, err := dataselector.ParseRange(r.String())
			require.NoError(t, err)
			require.Equal(t, r, again)
		}
	})
}

// TestShardMissing: a shard of a large folder that is not here is missing, and not a sign that there is no such name.
func TestShardMissing(t *testing.T) {
	store := &memstore.Store{}
	ls := cidlink.DefaultLinkSystem()
	ls.SetReadStorage(store)
	ls.SetWriteStorage(store)
	var list []dagpb.PBLink
	for i := range 2000 {
		l, _, err := builder.BuildUnixFSFile(strings.NewReader(fmt.Sprint("file ", i)), "size-1024", &ls)
		require.NoError(t, err)
		e, err := builder.BuildUnixFSDirectoryEntry(fmt.Sprint("name ", i), 1, l)
		require.NoError(t, err)
		list = append(list, e)
	}
	l, _, err := builder.BuildUnixFSShardedDirectory(16, multihash.MURMUR3X64_64, list, &ls)
	require.NoError(t, err)
	root := l.(cidlink.Link).Cid
	get := func(c cid.Cid) ([]byte, error) { return store.Get(t.Context(), c.KeyString()) }
	for _, name := range []string{"name 7", "no such name"} {
		s := unixfs(t, name, "")
		p, err := carstore.LocateIn(root, s.Node(), get)
		require.NoError(t, err)
		require.True(t, p.Complete)
		require.Greater(t, p.Blocks, int64(1))
		p, err = carstore.LocateIn(root, s.Node(), func(c cid.Cid) ([]byte, error) {
			if c.Equals(root) {
				return get(c)
			}
			return nil, carstore.ErrNotFound
		})
		require.NoError(t, err)
		require.False(t, p.Complete, name)
	}
}
