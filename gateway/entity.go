package gateway

import (
	"fmt"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-unixfsnode/data"
	dagpb "github.com/ipld/go-codec-dagpb"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"

	"github.com/cartage-dev/cartage/dataselector"
)

// unixfsNode is a dag-pb block read as UnixFS.
type unixfsNode struct {
	pb   dagpb.PBNode
	meta data.UnixFSData
}

// decodeUnixFS reads a block; nil if it is none of UnixFS.
func decodeUnixFS(block []byte) *unixfsNode {
	b := dagpb.Type.PBNode.NewBuilder()
	if dagpb.DecodeBytes(b, block) != nil {
		return nil
	}
	pb, ok := b.Build().(dagpb.PBNode)
	if !ok || !pb.FieldData().Exists() {
		return nil
	}
	meta, err := data.DecodeUnixFSData(pb.FieldData().Must().Bytes())
	if err != nil {
		return nil
	}
	return &unixfsNode{pb, meta}
}

func (n *unixfsNode) isFile() bool {
	t := n.meta.FieldDataType().Int()
	return t == data.Data_File || t == data.Data_Raw
}

// fileSize is how many bytes a file says it has.
func (n *unixfsNode) fileSize() int64 {
	if n.meta.FieldFileSize().Exists() {
		return max(0, n.meta.FieldFileSize().Must().Int())
	}
	if n.meta.FieldData().Exists() && n.pb.FieldLinks().Length() == 0 {
		return int64(len(n.meta.FieldData().Must().Bytes()))
	}
	var sum int64
	for _, size := range n.blockSizes() {
		sum = saturate(sum, size)
	}
	return sum
}

// blockSizes are how many bytes of the file lie below each link, as the node says; negative numbers are lies and count as nothing.
func (n *unixfsNode) blockSizes() []int64 {
	var out []int64
	for it := n.meta.FieldBlockSizes().Iterator(); !it.Done(); {
		_, size := it.Next()
		out = append(out, max(0, size.Int()))
	}
	return out
}

func (n *unixfsNode) links() []dagpb.PBLink {
	out := make([]dagpb.PBLink, 0, n.pb.FieldLinks().Length())
	for it := n.pb.FieldLinks().Iterator(); !it.Done(); {
		_, l := it.Next()
		out = append(out, l)
	}
	return out
}

func linkCID(l dagpb.PBLink) cid.Cid {
	if cl, ok := l.FieldHash().Link().(cidlink.Link); ok {
		return cl.Cid
	}
	return cid.Undef
}

func saturate(a, b int64) int64 {
	if a > (1<<63-1)-b {
		return 1<<63 - 1
	}
	return a + b
}

// entity visits what belongs to the file or folder at a block that was met already: the blocks of a file, or those of a range of it; the shards of
// a sharded folder. Anything else is its block.
func (w *walk) entity(c cid.Cid, place Place, r *dataselector.Range) error {
	if c.Prefix().Codec != cid.DagProtobuf {
		return nil
	}
	block, err := w.read(c, place)
	if err != nil {
		return err
	}
	n := decodeUnixFS(block)
	switch {
	case n == nil:
		return nil
	case n.meta.FieldDataType().Int() == data.Data_HAMTShard:
		return w.shards(n, 1)
	case !n.isFile():
		return nil
	case r == nil:
		return w.tree(c, place)
	}
	first, size, err := r.Within(n.fileSize())
	if err != nil || size == 0 { // wholly outside
		return nil
	}
	return w.fileRange(c, place, span{first, saturate(first, size)}, 1)
}

// span is bytes of a file: from is included, to is not.
type span struct{ from, to int64 }

// fileRange visits the blocks of a file that a span of its bytes needs. The span counts from the first byte below the block, which was met
// already.
func (w *walk) fileRange(c cid.Cid, place Place, s span, depth int) error {
	if c.Prefix().Codec != cid.DagProtobuf {
		return nil
	}
	if err := w.deep(depth); err != nil {
		return err
	}
	block, err := w.read(c, place)
	if err != nil {
		return err
	}
	n := decodeUnixFS(block)
	if n == nil {
		return nil
	}
	sizes, links := n.blockSizes(), n.links()
	if len(sizes) != len(links) { // it does not say where what lies
		return w.tree(c, place)
	}
	at := int64(0)
	for i, l := range links {
		from, to := at, saturate(at, sizes[i])
		if at = to; to <= s.from || from >= s.to {
			continue
		}
		child := linkCID(l)
		below, _, err := w.meet(child)
		if err != nil {
			return err
		}
		if err := w.fileRange(child, below, span{max(0, s.from-from), s.to - from}, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// Bounds of a sharded folder: its hash has 64 bits, of which each level takes at least one.
const (
	maxShardDepth = 64
	maxShardWidth = 1 << 16
)

// shards visits the shards below one, and none of the entries. What has nothing behind the digits of a shard is a shard.
func (w *walk) shards(n *unixfsNode, depth int) error {
	width := int64(0)
	if n.meta.FieldFanout().Exists() {
		width = n.meta.FieldFanout().Must().Int()
	}
	if width <= 0 || width > maxShardWidth || depth > maxShardDepth {
		return nil
	}
	prefix := len(fmt.Sprintf("%X", width-1))
	for _, l := range n.links() {
		if !l.FieldName().Exists() || len(l.FieldName().Must().String()) != prefix {
			continue
		}
		c := linkCID(l)
		place, known, err := w.meet(c)
		if err != nil {
			return err
		}
		if c.Prefix().Codec != cid.DagProtobuf || known && !w.dups {
			continue
		}
		block, err := w.read(c, place)
		if err != nil {
			return err
		}
		below := decodeUnixFS(block)
		if below == nil || below.meta.FieldDataType().Int() != data.Data_HAMTShard {
			continue
		}
		if err := w.shards(below, depth+1); err != nil {
			return err
		}
	}
	return nil
}
