package imports

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-unixfsnode/data/builder"
	dagpb "github.com/ipld/go-codec-dagpb"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/linking"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	mh "github.com/multiformats/go-multihash"
	"google.golang.org/protobuf/encoding/protowire"
)

// Profile says how bytes become a DAG.
type Profile struct {
	Name      string
	ChunkSize int
	Width     int
	HashCode  uint64
	// InlineBelow puts blocks of at most that many bytes into their CID; 0 is off.
	InlineBelow int
}

// UnixFS2025 is the default profile: sha2-256, 1 MiB chunks, 1024 links a node, raw leaves, no inlining.
func UnixFS2025() Profile {
	return Profile{Name: "unixfs-v1-2025", ChunkSize: 1 << 20, Width: 1024, HashCode: mh.SHA2_256}
}

// Lotus is the profile of the reference node: blake2b-256 with inlining up to 126 bytes.
func Lotus() Profile {
	return Profile{Name: "lotus", ChunkSize: 1 << 20, Width: 1024, HashCode: mh.BLAKE2B_MIN + 31, InlineBelow: 126}
}

// ProfileByName is the profile of a name; no name is the default.
func ProfileByName(name string) (Profile, error) {
	for _, p := range []Profile{UnixFS2025(), Lotus()} {
		if name == p.Name {
			return p, nil
		}
	}
	if name == "" {
		return UnixFS2025(), nil
	}
	return Profile{}, fmt.Errorf("profile %q is unknown: use %s or %s", name, UnixFS2025().Name, Lotus().Name)
}

// shardAbove is the size of a directory node from which on it becomes a HAMT.
const shardAbove = 256 << 10

// Leaf says where a leaf lies in its source.
type Leaf struct {
	Path   string
	Offset int64
}

// Sink takes blocks; data is valid during the call only.
type Sink interface {
	Leaf(c cid.Cid, data []byte, at Leaf) error
	Node(c cid.Cid, data []byte) error
}

// Builder builds DAGs. It is for one goroutine.
type Builder struct {
	Profile  Profile
	Sink     Sink
	Progress func(bytes int64)
	buf      []byte
}

// ref is a finished subtree.
type ref struct {
	cid  cid.Cid
	file uint64 // bytes of the file below it
	size uint64 // bytes of all blocks below it
}

// Add builds the DAG of a file or a folder. Links, devices and other special files are refused by name.
func (b *Builder) Add(ctx context.Context, path string) (cid.Cid, error) {
	r, err := b.add(ctx, path)
	return r.cid, err
}

func (b *Builder) add(ctx context.Context, path string) (ref, error) {
	st, err := os.Lstat(path)
	if err != nil {
		return ref{}, err
	}
	switch {
	case st.IsDir():
		return b.folder(ctx, path)
	case st.Mode().IsRegular():
		f, err := os.Open(path)
		if err != nil {
			return ref{}, err
		}
		defer f.Close()
		return b.file(ctx, f, path)
	}
	return ref{}, fmt.Errorf("%s is neither a file nor a folder (%s)", path, st.Mode().Type())
}

// AddReader builds the DAG of a stream.
func (b *Builder) AddReader(ctx context.Context, r io.Reader) (cid.Cid, error) {
	out, err := b.file(ctx, r, "")
	return out.cid, err
}

// file is a balanced tree: leaves in groups of Width, groups in groups, until one is left.
func (b *Builder) file(ctx context.Context, r io.Reader, path string) (ref, error) {
	if b.buf == nil {
		b.buf = make([]byte, b.Profile.ChunkSize)
	}
	levels := [][]ref{nil}
	for off := int64(0); ; {
		if err := ctx.Err(); err != nil {
			return ref{}, err
		}
		n, err := io.ReadFull(r, b.buf)
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return ref{}, fmt.Errorf("read %s: %w", path, err)
		}
		if n == 0 && off > 0 {
			break
		}
		leaf, lerr := b.leaf(b.buf[:n], Leaf{path, off})
		if lerr != nil {
			return ref{}, lerr
		}
		if levels, lerr = b.push(levels, 0, leaf); lerr != nil {
			return ref{}, lerr
		}
		off += int64(n)
		if b.Progress != nil {
			b.Progress(int64(n))
		}
		if err != nil {
			break
		}
	}
	return b.close(levels)
}

func (b *Builder) leaf(data []byte, at Leaf) (ref, error) {
	c, err := b.cid(cid.Raw, data)
	if err != nil {
		return ref{}, err
	}
	return ref{c, uint64(len(data)), uint64(len(data))}, b.Sink.Leaf(c, data, at)
}

func (b *Builder) cid(codec uint64, data []byte) (cid.Cid, error) {
	code := b.Profile.HashCode
	if len(data) <= b.Profile.InlineBelow && b.Profile.InlineBelow > 0 {
		code = mh.IDENTITY
	}
	return cid.V1Builder{Codec: codec, MhType: code}.Sum(data)
}

// push adds a subtree to a level; a full level becomes a node of the next when one more comes.
func (b *Builder) push(levels [][]ref, l int, r ref) ([][]ref, error) {
	if len(levels[l]) == b.Profile.Width {
		n, err := b.node(levels[l])
		if err != nil {
			return nil, err
		}
		levels[l] = nil
		if len(levels) == l+1 {
			levels = append(levels, nil)
		}
		if levels, err = b.push(levels, l+1, n); err != nil {
			return nil, err
		}
	}
	levels[l] = append(levels[l], r)
	return levels, nil
}

func (b *Builder) close(levels [][]ref) (ref, error) {
	for l := 0; ; l++ {
		if l == len(levels)-1 && len(levels[l]) == 1 {
			return levels[l][0], nil
		}
		n, err := b.node(levels[l])
		if err != nil {
			return ref{}, err
		}
		if l == len(levels)-1 {
			return n, nil
		}
		if levels, err = b.push(levels, l+1, n); err != nil {
			return ref{}, err
		}
	}
}

// node is a dag-pb node of a UnixFS file over its children.
func (b *Builder) node(children []ref) (ref, error) {
	var out ref
	var meta, pb []byte
	meta = protowire.AppendVarint(protowire.AppendTag(meta, 1, protowire.VarintType), 2)
	for _, c := range children {
		out.file += c.file
		out.size += c.size
		pb = appendLink(pb, "", c)
	}
	meta = protowire.AppendVarint(protowire.AppendTag(meta, 3, protowire.VarintType), out.file)
	for _, c := range children {
		meta = protowire.AppendVarint(protowire.AppendTag(meta, 4, protowire.VarintType), c.file)
	}
	pb = protowire.AppendBytes(protowire.AppendTag(pb, 1, protowire.BytesType), meta)
	return b.emit(pb, out)
}

func appendLink(pb []byte, name string, r ref) []byte {
	var l []byte
	l = protowire.AppendBytes(protowire.AppendTag(l, 1, protowire.BytesType), r.cid.Bytes())
	l = protowire.AppendString(protowire.AppendTag(l, 2, protowire.BytesType), name)
	l = protowire.AppendVarint(protowire.AppendTag(l, 3, protowire.VarintType), r.size)
	return protowire.AppendBytes(protowire.AppendTag(pb, 2, protowire.BytesType), l)
}

func (b *Builder) emit(pb []byte, out ref) (ref, error) {
	c, err := b.cid(cid.DagProtobuf, pb)
	if err != nil {
		return ref{}, err
	}
	out.cid = c
	out.size += uint64(len(pb))
	return out, b.Sink.Node(c, pb)
}

// folder is a basic directory, or a HAMT when its node would be large.
func (b *Builder) folder(ctx context.Context, path string) (ref, error) {
	entries, err := os.ReadDir(path)
	if err != nil {
		return ref{}, err
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		names = append(names, e.Name())
	}
	sort.Strings(names)
	children := make([]ref, len(names))
	estimate := 0
	for i, n := range names {
		if children[i], err = b.add(ctx, filepath.Join(path, n)); err != nil {
			return ref{}, err
		}
		estimate += len(n) + len(children[i].cid.Bytes())
	}
	if estimate > shardAbove {
		return b.shard(names, children)
	}
	var out ref
	var pb []byte
	for i, c := range children {
		out.file += c.file
		out.size += c.size
		pb = appendLink(pb, names[i], c)
	}
	meta := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 1)
	pb = protowire.AppendBytes(protowire.AppendTag(pb, 1, protowire.BytesType), meta)
	return b.emit(pb, out)
}

func (b *Builder) shard(names []string, children []ref) (ref, error) {
	var out ref
	links := make([]dagpb.PBLink, len(names))
	for i, c := range children {
		out.file += c.file
		out.size += c.size
		l, err := builder.BuildUnixFSDirectoryEntry(names[i], int64(c.size), cidlink.Link{Cid: c.cid})
		if err != nil {
			return ref{}, err
		}
		links[i] = l
	}
	ls := cidlink.DefaultLinkSystem()
	ls.StorageWriteOpener = func(linking.LinkContext) (io.Writer, linking.BlockWriteCommitter, error) {
		var buf bytes.Buffer
		return &buf, func(l ipld.Link) error {
			out.size += uint64(buf.Len())
			return b.Sink.Node(l.(cidlink.Link).Cid, buf.Bytes())
		}, nil
	}
	root, _, err := builder.BuildUnixFSShardedDirectory(256, mh.MURMUR3X64_64, links, &ls)
	if err != nil {
		return ref{}, err
	}
	out.cid = root.(cidlink.Link).Cid
	return out, nil
}
