package imports

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-unixfsnode/data/builder"
	dagpb "github.com/ipld/go-codec-dagpb"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/linking"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	mh "github.com/multiformats/go-multihash"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/cartage-dev/cartage/internal/reason"
)

// shardAbove is the size of a directory node from which on it becomes a HAMT.
const shardAbove = 256 << 10

// addFolder is a basic directory, or a HAMT when its node would be large.
func (b *Builder) addFolder(ctx context.Context, path string, st fs.FileInfo) (ref, error) {
	if b.symlinkMode() == SymlinksFollow {
		for _, up := range b.above {
			if os.SameFile(up, st) {
				return ref{}, reason.Usage.Errorf("%s leads back to a folder that it is in, by a symbolic link", path).WithHint("Take the links with --symlinks store or skip.")
			}
		}
		b.above = append(b.above, st)
		defer func() { b.above = b.above[:len(b.above)-1] }()
	}
	entries, err := os.ReadDir(path) // sorted by name
	if err != nil {
		return ref{}, err
	}
	names, children, estimate := make([]string, 0, len(entries)), make([]ref, 0, len(entries)), 0
	for _, e := range entries {
		child, there, err := b.addEntry(ctx, filepath.Join(path, e.Name()))
		if err != nil {
			return ref{}, err
		}
		if there {
			names, children = append(names, e.Name()), append(children, child)
			estimate += len(e.Name()) + len(child.cid.Bytes())
		}
	}
	kept := b.Options.keptAttributes(st)
	if estimate > shardAbove {
		return b.addShard(names, children, kept)
	}
	var out ref
	var pb []byte
	for i, c := range children {
		out.file += c.file
		out.size += c.size
		pb = appendLink(pb, names[i], c)
	}
	meta := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 1)
	pb = protowire.AppendBytes(protowire.AppendTag(pb, 1, protowire.BytesType), append(meta, kept...))
	return b.emitBlock(pb, out)
}

// addShard is a folder as a HAMT.
func (b *Builder) addShard(names []string, children []ref, kept []byte) (ref, error) {
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
	// The root is written last: it waits for what is kept with the folder.
	var last []byte
	var lastCid cid.Cid
	emit := func() error {
		if last == nil {
			return nil
		}
		out.size += uint64(len(last))
		return b.Sink.Node(lastCid, last)
	}
	ls := cidlink.DefaultLinkSystem()
	ls.StorageWriteOpener = func(linking.LinkContext) (io.Writer, linking.BlockWriteCommitter, error) {
		var buf bytes.Buffer
		return &buf, func(l ipld.Link) error {
			err := emit()
			last, lastCid = buf.Bytes(), l.(cidlink.Link).Cid
			return err
		}, nil
	}
	root, _, err := builder.BuildUnixFSShardedDirectory(256, mh.MURMUR3X64_64, links, &ls)
	if err != nil {
		return ref{}, err
	}
	if out.cid = root.(cidlink.Link).Cid; out.cid != lastCid {
		return ref{}, fmt.Errorf("shard %s was written after the root %s", lastCid, out.cid)
	}
	if kept == nil {
		return out, emit()
	}
	node, err := withAttributes(last, kept)
	if err != nil {
		return ref{}, err
	}
	if out.cid, err = lastCid.Prefix().Sum(node); err != nil {
		return ref{}, err
	}
	out.size += uint64(len(node))
	return out, b.Sink.Node(out.cid, node)
}
