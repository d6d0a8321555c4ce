package carstore

import (
	"bytes"
	"errors"
	"io"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"

	"github.com/cartage-dev/cartage/internal/reason"
)

// LinksBelow is LinksOf as walks follow links: a block that cannot be decoded is bytes without links, as far as anybody can see. Damaged dag-pb
// stays an error.
func LinksBelow(c cid.Cid, data []byte) ([]cid.Cid, error) {
	links, err := LinksOf(c, data)
	if err != nil && c.Prefix().Codec != cid.DagProtobuf {
		return nil, nil
	}
	return links, err
}

// Closure hears of the blocks of an archive, in any order, and tells which are linked and not there. It keeps what was linked and did not come
// yet; in the usual order that is little.
type Closure struct {
	awaited map[string]cid.Cid
	opaque  []cid.Cid
}

// maxInlined bounds identity CIDs in identity CIDs.
const maxInlined = 4

// Add notes a block and what it links.
func (c *Closure) Add(block cid.Cid, data []byte) { c.add(block, data, 0) }

func (c *Closure) add(block cid.Cid, data []byte, depth int) {
	delete(c.awaited, string(block.Hash()))
	links, err := LinksOf(block, data)
	if err != nil {
		if len(c.opaque) < maxNamed {
			c.opaque = append(c.opaque, block)
		}
		return
	}
	for _, l := range links {
		c.Await(l, depth)
	}
}

// Await notes a block that has to be there: a root, or what is linked. depth counts identity CIDs that were opened on the way to it.
func (c *Closure) Await(l cid.Cid, depth int) {
	if data, ok := Inlined(l); ok {
		if depth < maxInlined {
			c.add(l, data, depth+1)
		}
		return
	}
	if c.awaited == nil {
		c.awaited = map[string]cid.Cid{}
	}
	c.awaited[string(l.Hash())] = l
}

// maxNamed is how many blocks are named where there may be many.
const maxNamed = 8

// Opaque are the first blocks that could not be decoded: their links, if they have any, were not followed.
func (c *Closure) Opaque() []cid.Cid { return c.opaque }

// Missing are the blocks that are linked and that has does not know. What came before it was linked is asked for, too.
func (c *Closure) Missing(has func(mh.Multihash) (bool, error)) ([]cid.Cid, error) {
	var out []cid.Cid
	for _, l := range c.awaited {
		ok, err := has(l.Hash())
		if err != nil {
			return nil, err
		}
		if !ok {
			out = append(out, l)
		}
	}
	return out, nil
}

// MissingBelow are the blocks below roots that get does not find (ErrNotFound), and how many there are; at most a few are named.
func MissingBelow(roots []cid.Cid, get Getter) (named []cid.Cid, count uint64, err error) {
	m := missingBlocks{get: get, met: map[string]struct{}{}}
	for _, root := range roots {
		if err := walkTree(root, &m); err != nil {
			return nil, 0, err
		}
	}
	return m.named, m.count, nil
}

type missingBlocks struct {
	get   Getter
	met   map[string]struct{}
	named []cid.Cid
	count uint64
}

// arrive implements treeVisitor.
func (m *missingBlocks) arrive(c cid.Cid) ([]byte, bool, error) {
	key := string(append(c.Hash(), byte(c.Prefix().Codec)))
	if _, again := m.met[key]; again {
		return nil, true, nil
	}
	m.met[key] = struct{}{}
	data, err := m.get(c)
	if !errors.Is(err, ErrNotFound) {
		return data, false, err
	}
	if m.count++; len(m.named) < maxNamed {
		m.named = append(m.named, c)
	}
	return nil, true, nil
}

// leave implements treeVisitor.
func (m *missingBlocks) leave(cid.Cid) {}

// Behind looks at what lies between the last section of a CARv1 and its end: zeros are the padding of a piece. It is how many bytes are there
// that are none; another archive is an error with the reason archive-joined.
func Behind(f io.ReaderAt, l Layout, end int64) (dropped int64, err error) {
	buf := make([]byte, 1<<20)
	for at := l.Offset + end; at < l.Offset+l.Size; {
		part := buf[:min(int64(len(buf)), l.Offset+l.Size-at)]
		if _, err := f.ReadAt(part, at); err != nil {
			return 0, err
		}
		first := bytes.IndexFunc(part, func(r rune) bool { return r != 0 })
		if first < 0 {
			at += int64(len(part))
			continue
		}
		at += int64(first)
		rest := Layout{Offset: at, Size: l.Offset + l.Size - at}
		if _, _, err := readV1Header(io.NewSectionReader(f, rest.Offset, rest.Size)); err == nil {
			return 0, joinedError(at)
		}
		return rest.Size, nil
	}
	return 0, nil
}

func joinedError(at int64) error {
	return reason.ArchiveJoined.Errorf("another archive begins at offset %d", at).
		WithHint("Split the file there: each archive is a piece of its own.")
}

// startsHeader reports whether bytes look like the header of a CARv1.
func startsHeader(b []byte) bool {
	return bytes.HasPrefix(b, []byte("\xa2\x65roots")) || bytes.HasPrefix(b, []byte("\xa2\x67version"))
}
