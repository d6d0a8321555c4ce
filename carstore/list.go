package carstore

import (
	"context"
	"fmt"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-unixfsnode/data"
	dagpb "github.com/ipld/go-codec-dagpb"
	"github.com/ipld/go-ipld-prime"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
)

// Entry is a link of a folder, or of any other node.
type Entry struct {
	Cid  cid.Cid
	Name string // of a peer or a file: untrusted, print it quoted
	Size uint64 // of the DAG below it, as the node says; of a file that is listed itself its bytes
	Kind Kind   // of what is listed itself; empty of what is in it, which is not read
}

// List returns the entries of a folder, the file itself as one entry, or the links of another dag-pb node.
func List(ctx context.Context, ls *ipld.LinkSystem, root cid.Cid) ([]Entry, error) {
	n, err := loadUnixFS(ctx, ls, root)
	if err != nil {
		return nil, err
	}
	pb, ok := n.node.(dagpb.PBNode)
	switch {
	case n.kind == KindFile, n.kind == KindSymlink:
		return []Entry{{Cid: root, Size: n.size(), Kind: n.kind}}, nil
	case n.kind == KindShards && ok:
		l := shardLister{ls: ls}
		err := l.listShard(ctx, root, pb, 0)
		return l.out, err
	case !ok:
		return nil, nil
	}
	out := make([]Entry, 0, pb.FieldLinks().Length())
	for it := pb.FieldLinks().Iterator(); !it.Done(); {
		_, l := it.Next()
		out = append(out, entryOf(l))
	}
	return out, nil
}

func entryOf(l dagpb.PBLink) Entry {
	e := Entry{}
	if cl, ok := l.FieldHash().Link().(cidlink.Link); ok {
		e.Cid = cl.Cid
	}
	if l.FieldName().Exists() {
		e.Name = l.FieldName().Must().String()
	}
	if l.FieldTsize().Exists() {
		e.Size = uint64(max(0, l.FieldTsize().Must().Int()))
	}
	return e
}

// Bounds of a sharded folder: its hash has 64 bits, of which each level takes at least one; the number of shards keeps one that is made of the
// same few blocks over and over from having no end.
const (
	maxShardDepth = 64
	maxShardWidth = 1 << 16
	maxShards     = 1 << 18
)

// shardLister gathers the entries of a sharded folder.
type shardLister struct {
	ls     *ipld.LinkSystem
	out    []Entry
	shards int
}

// listShard adds the entries of a shard and of those below it. A link has a prefix of so many digits as the width of the shard needs; what has
// nothing behind the prefix is a shard.
func (s *shardLister) listShard(ctx context.Context, at cid.Cid, pb dagpb.PBNode, depth int) error {
	prefix, err := s.prefixLength(at, pb, depth)
	if err != nil {
		return err
	}
	for it := pb.FieldLinks().Iterator(); !it.Done(); {
		_, l := it.Next()
		e := entryOf(l)
		if len(e.Name) < prefix {
			return fmt.Errorf("shard %s has an entry named %q, which is too short", at, e.Name)
		}
		if e.Name = e.Name[prefix:]; e.Name != "" {
			s.out = append(s.out, e)
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		below, err := s.ls.Load(ipld.LinkContext{Ctx: ctx}, cidlink.Link{Cid: e.Cid}, dagpb.Type.PBNode)
		if err != nil {
			return err
		}
		node, ok := below.(dagpb.PBNode)
		if !ok {
			return fmt.Errorf("%s is no shard of a folder", e.Cid)
		}
		if err := s.listShard(ctx, e.Cid, node, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// prefixLength is how many digits stand before the names of a shard.
func (s *shardLister) prefixLength(at cid.Cid, pb dagpb.PBNode, depth int) (int, error) {
	meta, err := unixfsData(pb)
	if err != nil || kindOf(meta) != KindShards || !meta.FieldFanout().Exists() {
		return 0, fmt.Errorf("%s is no shard of a folder", at)
	}
	width := meta.FieldFanout().Must().Int()
	if s.shards++; s.shards > maxShards || depth > maxShardDepth || width <= 0 || width > maxShardWidth {
		return 0, fmt.Errorf("shard %s, the %dth, has a width of %d at depth %d, which no folder has", at, s.shards, width, depth)
	}
	return shardPrefix(meta), nil
}

// shardPrefix is how many digits stand before the names of a shard: those that its width needs.
func shardPrefix(meta data.UnixFSData) int {
	width := int64(1)
	if meta.FieldFanout().Exists() {
		width = meta.FieldFanout().Must().Int()
	}
	return len(fmt.Sprintf("%X", max(width, 1)-1))
}
