package carstore

import (
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"
	dagpb "github.com/ipld/go-codec-dagpb"

	"github.com/cartage-dev/cartage/internal/reason"
)

// Held are blocks that are here, in whatever files.
type Held interface {
	// Has tells whether there is a block; reading it may still show that it is damaged.
	Has(c cid.Cid) bool
	// Get reads a block and checks it: the error wraps ErrNotFound or ErrBadHash for one that is not here.
	Get(c cid.Cid) ([]byte, error)
}

// Span are bytes of a file, both included.
type Span struct{ First, Last int64 }

// Gap is a block that is not here, with what is wanted below it.
type Gap struct {
	Cid    cid.Cid
	Bytes  *Span   // of the file at Cid; nil: everything below it
	Parent cid.Cid // the block here that links it; undefined for the root
	Index  int     // of the link in Parent
}

// Missing is what is not here of a DAG.
type Missing struct {
	Gaps []Gap
	// Behind is how many blocks are here that a traversal comes to behind the first gap.
	Behind int
	// Met is how many different blocks are here.
	Met int
}

// FindGaps looks for what is missing below a root, or of the bytes of the file there. Blocks without links are looked up and not read.
func FindGaps(root cid.Cid, bytes *Span, held Held) (Missing, error) {
	g := gapFinder{held: held, follow: linksWanted}
	return g.findGaps(wantedLink{cid: root, bytes: bytes})
}

// FindShards looks for the blocks that a sharded folder is spread over, and that are not here. What is missing below one that is missing is
// not known.
func FindShards(folder cid.Cid, held Held) (Missing, error) {
	g := gapFinder{held: held, follow: shardsWanted}
	return g.findGaps(wantedLink{cid: folder})
}

func (g *gapFinder) findGaps(root wantedLink) (Missing, error) {
	g.whole = map[string]bool{}
	g.stack = []wanted{{links: []wantedLink{root}}}
	for len(g.stack) > 0 {
		top := &g.stack[len(g.stack)-1]
		if len(top.links) == 0 {
			*top = wanted{}
			g.stack = g.stack[:len(g.stack)-1]
			continue
		}
		l := top.links[0]
		top.links = top.links[1:]
		g.open--
		if err := g.visitLink(top.parent, l); err != nil {
			return g.out, err
		}
	}
	return g.out, nil
}

// wanted are links of a block that are still to be looked at.
type wanted struct {
	parent cid.Cid
	links  []wantedLink
}

type wantedLink struct {
	cid   cid.Cid
	index int
	bytes *Span
}

type gapFinder struct {
	held     Held
	follow   func(l wantedLink, data []byte) ([]wantedLink, error)
	out      Missing
	stack    []wanted
	whole    map[string]bool // by hash: what was looked at with everything below it; true if it is here
	followed uint64
	open     int
}

func (g *gapFinder) visitLink(parent cid.Cid, l wantedLink) error {
	g.followed++
	if err := CheckLinks(g.followed, len(g.whole)+len(g.out.Gaps)); err != nil {
		return err
	}
	k := hashString(l.cid)
	if _, met := g.whole[k]; met {
		return nil
	}
	data, here, err := g.readBlock(l.cid)
	if err != nil {
		return err
	}
	if l.bytes == nil || !here {
		g.whole[k] = here
	}
	if !here {
		g.out.Gaps = append(g.out.Gaps, Gap{l.cid, l.bytes, parent, l.index})
		return nil
	}
	g.out.Met++
	if len(g.out.Gaps) > 0 {
		g.out.Behind++
	}
	links, err := g.follow(l, data)
	if err != nil {
		return fmt.Errorf("block %s: %w", l.cid, err)
	}
	if g.open += len(links); g.open > maxOpenLinks {
		return reason.DAGTooDeep.Errorf("more than %d links wait on the path to block %s", maxOpenLinks, l.cid)
	}
	if len(links) > 0 {
		g.stack = append(g.stack, wanted{l.cid, links})
	}
	return nil
}

// readBlock reads a block if it has links; of a leaf it is enough that it is there.
func (g *gapFinder) readBlock(c cid.Cid) (data []byte, here bool, err error) {
	if data, ok := Inlined(c); ok {
		return data, true, nil
	}
	if c.Prefix().Codec == cid.Raw {
		return nil, g.held.Has(c) || Verify(c, nil) == nil, nil
	}
	data, err = g.held.Get(c)
	if errors.Is(err, ErrNotFound) || errors.Is(err, ErrBadHash) {
		return nil, Verify(c, nil) == nil, nil
	}
	return data, err == nil, err
}

// linksWanted are the links of a block that lead to what is wanted.
func linksWanted(l wantedLink, data []byte) ([]wantedLink, error) {
	links, err := LinksBelow(l.cid, data)
	if err != nil {
		return nil, err
	}
	var sizes []int64
	start := int64(0)
	if l.bytes != nil {
		start, sizes = blockSizes(l.cid, data)
	}
	out := make([]wantedLink, 0, len(links))
	for i, c := range links {
		next := wantedLink{cid: c, index: i}
		if len(sizes) == len(links) {
			size := sizes[i]
			part, some := overlapOf(*l.bytes, start, size)
			start += size
			if !some {
				continue
			}
			if part.First > 0 || part.Last < size-1 {
				next.bytes = &part
			}
		}
		out = append(out, next)
	}
	return out, nil
}

// shardsWanted are the links of a shard that lead to other shards: their names are prefixes, and nothing behind them.
func shardsWanted(l wantedLink, data []byte) (out []wantedLink, err error) {
	pb, err := pbNode(l.cid, data)
	if pb == nil || err != nil {
		return nil, err
	}
	meta, err := unixfsData(pb)
	if err != nil || kindOf(meta) != KindShards {
		return nil, nil
	}
	prefix := shardPrefix(meta)
	for it := pb.FieldLinks().Iterator(); !it.Done(); {
		i, link := it.Next()
		if e := entryOf(link); len(e.Name) == prefix && e.Cid.Defined() {
			out = append(out, wantedLink{cid: e.Cid, index: int(i)})
		}
	}
	return out, nil
}

// pbNode decodes a block; nil if it is of another codec.
func pbNode(c cid.Cid, data []byte) (dagpb.PBNode, error) {
	if c.Prefix().Codec != cid.DagProtobuf {
		return nil, nil
	}
	b := dagpb.Type.PBNode.NewBuilder()
	if err := dagpb.DecodeBytes(b, data); err != nil {
		return nil, err
	}
	pb, _ := b.Build().(dagpb.PBNode)
	return pb, nil
}

// overlapOf is what a part of a file that begins at a byte has of a span, counted from the beginning of the part.
func overlapOf(of Span, start, size int64) (Span, bool) {
	first, last := max(of.First-start, 0), min(of.Last-start, size-1)
	return Span{first, last}, size > 0 && first <= last
}

// blockSizes are the numbers of bytes that a block of a file says are below its links, and how many it holds itself. They are a claim.
func blockSizes(c cid.Cid, data []byte) (own int64, sizes []int64) {
	pb, err := pbNode(c, data)
	if pb == nil || err != nil {
		return 0, nil
	}
	meta, err := unixfsData(pb)
	if err != nil || kindOf(meta) != KindFile {
		return 0, nil
	}
	if meta.FieldData().Exists() {
		own = int64(len(meta.FieldData().Must().Bytes()))
	}
	for it := meta.FieldBlockSizes().Iterator(); !it.Done(); {
		_, n := it.Next()
		size := n.Int()
		if size < 0 || size > 1<<60 || len(sizes) > maxOpenLinks {
			return 0, nil
		}
		sizes = append(sizes, size)
	}
	return own, sizes
}
