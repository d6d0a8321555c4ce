package imports

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/cartage-dev/cartage/internal/reason"
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
	Profile Profile
	Sink    Sink
	Options *Options // nil for the usual ones
	buf     []byte
	above   []fs.FileInfo // the folders that are being read, when links are followed
}

// ref is a finished subtree.
type ref struct {
	cid  cid.Cid
	file uint64 // bytes of the file below it
	size uint64 // bytes of all blocks below it
}

// Add builds the DAG of a file or a folder. Devices and other special files are refused by name, links as the options say.
func (b *Builder) Add(ctx context.Context, path string) (cid.Cid, error) {
	st, err := os.Lstat(path)
	if err == nil && st.Mode().Type() == fs.ModeSymlink {
		if b.symlinkMode() == SymlinksRefuse {
			return cid.Undef, refusedLink(path)
		}
		st, err = os.Stat(path)
	}
	if err != nil {
		return cid.Undef, err
	}
	r, err := b.addPath(ctx, path, st)
	return r.cid, err
}

func (b *Builder) symlinkMode() Symlinks {
	if b.Options == nil || b.Options.Symlinks == "" {
		return SymlinksStore
	}
	return b.Options.Symlinks
}

// addEntry builds what a folder has; there is nothing of a link that is skipped.
func (b *Builder) addEntry(ctx context.Context, path string) (out ref, there bool, err error) {
	st, err := os.Lstat(path)
	if err != nil {
		return ref{}, false, err
	}
	if st.Mode().Type() == fs.ModeSymlink {
		switch b.symlinkMode() {
		case SymlinksStore:
			out, err := b.addSymlink(path)
			return out, err == nil, err
		case SymlinksSkip:
			if b.Options.LeftOut != nil {
				b.Options.LeftOut(path)
			}
			return ref{}, false, nil
		case SymlinksRefuse:
			return ref{}, false, refusedLink(path)
		}
		if st, err = os.Stat(path); err != nil {
			return ref{}, false, fmt.Errorf("follow the symbolic link %s: %w", path, err)
		}
	}
	out, err = b.addPath(ctx, path, st)
	return out, err == nil, err
}

func refusedLink(path string) error {
	return reason.Usage.Errorf("%s is a symbolic link, which --symlinks refuse does not take", path).WithHint("Take it with --symlinks store, follow or skip.")
}

func (b *Builder) addPath(ctx context.Context, path string, st fs.FileInfo) (ref, error) {
	switch {
	case st.IsDir():
		return b.addFolder(ctx, path, st)
	case st.Mode().IsRegular():
		f, err := os.Open(path)
		if err != nil {
			return ref{}, err
		}
		defer f.Close()
		return b.addFile(ctx, f, path, b.Options.keptAttributes(st))
	}
	return ref{}, reason.Usage.Errorf("%s is neither a file, a folder nor a symbolic link (%s)", path, st.Mode().Type())
}

// addSymlink is a node with the target of a symbolic link.
func (b *Builder) addSymlink(path string) (ref, error) {
	target, err := os.Readlink(path)
	if err != nil {
		return ref{}, err
	}
	meta := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 4)
	meta = protowire.AppendString(protowire.AppendTag(meta, 2, protowire.BytesType), filepath.ToSlash(target))
	return b.emitBlock(protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), meta), ref{})
}

// AddReader builds the DAG of a stream.
func (b *Builder) AddReader(ctx context.Context, r io.Reader) (cid.Cid, error) {
	out, err := b.addFile(ctx, r, "", nil)
	return out.cid, err
}

// addFile is a balanced tree: leaves in groups of Width, groups in groups, until one is left. What is kept beside its content is in its root, which
// is no leaf then.
func (b *Builder) addFile(ctx context.Context, r io.Reader, path string, kept []byte) (ref, error) {
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
		leaf, lerr := b.addLeaf(b.buf[:n], Leaf{path, off})
		if lerr != nil {
			return ref{}, lerr
		}
		if levels, lerr = b.pushNode(levels, 0, leaf); lerr != nil {
			return ref{}, lerr
		}
		off += int64(n)
		if b.Options != nil && b.Options.Progress != nil {
			b.Options.Progress(int64(n))
		}
		if err != nil {
			break
		}
	}
	return b.closeLevels(levels, kept)
}

func (b *Builder) addLeaf(data []byte, at Leaf) (ref, error) {
	c, err := b.cidOfBlock(cid.Raw, data)
	if err != nil {
		return ref{}, err
	}
	return ref{c, uint64(len(data)), uint64(len(data))}, b.Sink.Leaf(c, data, at)
}

func (b *Builder) cidOfBlock(codec uint64, data []byte) (cid.Cid, error) {
	code := b.Profile.HashCode
	if len(data) <= b.Profile.InlineBelow && b.Profile.InlineBelow > 0 {
		code = mh.IDENTITY
	}
	return cid.V1Builder{Codec: codec, MhType: code}.Sum(data)
}

// pushNode adds a subtree to a level; a full level becomes a node of the next when one more comes.
func (b *Builder) pushNode(levels [][]ref, l int, r ref) ([][]ref, error) {
	if len(levels[l]) == b.Profile.Width {
		n, err := b.addNode(levels[l], nil)
		if err != nil {
			return nil, err
		}
		levels[l] = nil
		if len(levels) == l+1 {
			levels = append(levels, nil)
		}
		if levels, err = b.pushNode(levels, l+1, n); err != nil {
			return nil, err
		}
	}
	levels[l] = append(levels[l], r)
	return levels, nil
}

func (b *Builder) closeLevels(levels [][]ref, kept []byte) (ref, error) {
	for l := 0; ; l++ {
		if l == len(levels)-1 {
			if len(levels[l]) == 1 && kept == nil {
				return levels[l][0], nil
			}
			return b.addNode(levels[l], kept)
		}
		n, err := b.addNode(levels[l], nil)
		if err != nil {
			return ref{}, err
		}
		if levels, err = b.pushNode(levels, l+1, n); err != nil {
			return ref{}, err
		}
	}
}

// addNode is a dag-pb node of a UnixFS file over its children.
func (b *Builder) addNode(children []ref, kept []byte) (ref, error) {
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
	pb = protowire.AppendBytes(protowire.AppendTag(pb, 1, protowire.BytesType), append(meta, kept...))
	return b.emitBlock(pb, out)
}

func appendLink(pb []byte, name string, r ref) []byte {
	var l []byte
	l = protowire.AppendBytes(protowire.AppendTag(l, 1, protowire.BytesType), r.cid.Bytes())
	l = protowire.AppendString(protowire.AppendTag(l, 2, protowire.BytesType), name)
	l = protowire.AppendVarint(protowire.AppendTag(l, 3, protowire.VarintType), r.size)
	return protowire.AppendBytes(protowire.AppendTag(pb, 2, protowire.BytesType), l)
}

func (b *Builder) emitBlock(pb []byte, out ref) (ref, error) {
	c, err := b.cidOfBlock(cid.DagProtobuf, pb)
	if err != nil {
		return ref{}, err
	}
	out.cid = c
	out.size += uint64(len(pb))
	return out, b.Sink.Node(c, pb)
}
