// Package oddcars makes archives as the field has them and as nobody should: deep chains, diamonds, large blocks, roots that are not inside,
// bytes behind the last section. Tests read them; it writes its bytes itself, so that a fault of the code under test does not hide in it.
package oddcars

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"
)

// ErrAbsent says that an archive does not hold a block.
var ErrAbsent = errors.New("the archive does not hold the block")

// Block is one section of an archive.
type Block struct {
	CID  cid.Cid
	Data []byte
}

// Archive is a CARv1 as it is to be written. Its blocks need not be those that its roots need.
type Archive struct {
	Roots  []cid.Cid
	Blocks []Block
	Tail   []byte // behind the last section
}

// Root is the first root.
func (a Archive) Root() cid.Cid { return a.Roots[0] }

// Bytes are the file.
func (a Archive) Bytes() []byte {
	out := header(a.Roots)
	for _, b := range a.Blocks {
		out = binary.AppendUvarint(out, uint64(b.CID.ByteLen()+len(b.Data)))
		out = append(append(out, b.CID.Bytes()...), b.Data...)
	}
	return append(out, a.Tail...)
}

// header is a CARv1 header with its length.
func header(roots []cid.Cid) []byte {
	h := []byte{0xa2, 0x65, 'r', 'o', 'o', 't', 's'}
	h = append(h, head(0x80, len(roots))...)
	for _, r := range roots {
		h = append(append(h, 0xd8, 42), head(0x40, r.ByteLen()+1)...)
		h = append(append(h, 0), r.Bytes()...)
	}
	h = append(h, 0x67, 'v', 'e', 'r', 's', 'i', 'o', 'n', 0x01)
	return append(binary.AppendUvarint(nil, uint64(len(h))), h...)
}

// head is the head of a CBOR item.
func head(major byte, n int) []byte {
	switch {
	case n < 24:
		return []byte{major | byte(n)}
	case n < 256:
		return []byte{major | 24, byte(n)}
	}
	return []byte{major | 25, byte(n >> 8), byte(n)}
}

// Getter reads the blocks of an archive.
func (a Archive) Getter() func(cid.Cid) ([]byte, error) {
	index := make(map[string][]byte, len(a.Blocks))
	for _, b := range a.Blocks {
		index[string(b.CID.Hash())] = b.Data
	}
	return func(c cid.Cid) ([]byte, error) {
		if data, ok := index[string(c.Hash())]; ok {
			return data, nil
		}
		return nil, fmt.Errorf("%w: %s", ErrAbsent, c)
	}
}

// Only is the archive with the first n of its blocks.
func (a Archive) Only(n int) Archive {
	a.Blocks = a.Blocks[:n]
	return a
}

// With is the archive with other roots in its header.
func (a Archive) With(roots ...cid.Cid) Archive {
	a.Roots = roots
	return a
}

// Behind is the archive with bytes behind its last section.
func (a Archive) Behind(tail []byte) Archive {
	a.Tail = tail
	return a
}

// Sum is the CID of bytes under a codec.
func Sum(codec uint64, data []byte) cid.Cid {
	sum := sha256.Sum256(data)
	hash, err := mh.Encode(sum[:], mh.SHA2_256)
	if err != nil {
		panic(err) // the digest has the length of its function
	}
	return cid.NewCidV1(codec, hash)
}

// Raw is a leaf.
func Raw(data []byte) Block { return Block{Sum(cid.Raw, data), data} }

// Zeros is a leaf of a size, whose first bytes are a number.
func Zeros(size, number int) Block {
	data := make([]byte, size)
	if size >= 8 {
		binary.BigEndian.PutUint64(data, uint64(number))
	}
	return Raw(data)
}

// Node is a dag-pb node with links without names, and data.
func Node(data []byte, links ...cid.Cid) Block {
	b := NodeBytes(data, links...)
	return Block{Sum(cid.DagProtobuf, b), b}
}

// NodeBytes encodes a dag-pb node.
func NodeBytes(data []byte, links ...cid.Cid) []byte {
	var out []byte
	for _, l := range links {
		body := append([]byte{0x0a}, binary.AppendUvarint(nil, uint64(l.ByteLen()))...)
		body = append(append(body, l.Bytes()...), 0x12, 0)
		out = append(out, 0x12)
		out = append(binary.AppendUvarint(out, uint64(len(body))), body...)
	}
	if data != nil {
		out = append(out, 0x0a)
		out = append(binary.AppendUvarint(out, uint64(len(data))), data...)
	}
	return out
}

// Chain is n dag-pb nodes, each of which links the next; the last is empty.
func Chain(n int) Archive {
	blocks := make([]Block, n)
	blocks[n-1] = Node([]byte("end"))
	for i := n - 2; i >= 0; i-- {
		blocks[i] = Node(nil, blocks[i+1].CID)
	}
	return Archive{Roots: []cid.Cid{blocks[0].CID}, Blocks: blocks}
}

// ChainCBOR is Chain of dag-cbor lists.
func ChainCBOR(n int) Archive {
	blocks := make([]Block, n)
	blocks[n-1] = List(0)
	for i := n - 2; i >= 0; i-- {
		blocks[i] = List(0, blocks[i+1].CID)
	}
	return Archive{Roots: []cid.Cid{blocks[0].CID}, Blocks: blocks}
}

// List is a dag-cbor list of links and a number below 24.
func List(number byte, links ...cid.Cid) Block {
	data := head(0x80, len(links)+1)
	for _, l := range links {
		data = append(append(data, 0xd8, 42), head(0x40, l.ByteLen()+1)...)
		data = append(append(data, 0), l.Bytes()...)
	}
	data = append(data, number)
	return Block{Sum(cid.DagCBOR, data), data}
}

// Diamond is levels of nodes that link the next one ways times: ways^levels paths lead to the last block.
func Diamond(levels, ways int) Archive {
	blocks := make([]Block, levels+1)
	blocks[levels] = Raw([]byte("deep inside"))
	for i := levels - 1; i >= 0; i-- {
		links := make([]cid.Cid, ways)
		for j := range links {
			links[j] = blocks[i+1].CID
		}
		blocks[i] = Node(nil, links...)
	}
	return Archive{Roots: []cid.Cid{blocks[0].CID}, Blocks: blocks}
}

// OneLarge is a root and one leaf of a size.
func OneLarge(size int) Archive {
	leaf := Zeros(size, 1)
	root := Node(nil, leaf.CID)
	return Archive{Roots: []cid.Cid{root.CID}, Blocks: []Block{root, leaf}}
}

// Wide is a root over leaves of a size.
func Wide(leaves, size int) Archive {
	blocks := make([]Block, leaves+1)
	links := make([]cid.Cid, leaves)
	for i := range links {
		blocks[i+1] = Zeros(size, i)
		links[i] = blocks[i+1].CID
	}
	blocks[0] = Node(nil, links...)
	return Archive{Roots: []cid.Cid{blocks[0].CID}, Blocks: blocks}
}

// Inlined is an archive whose root is an identity CID of a node that links leaves: the root's bytes are in no section.
func Inlined(leaves int) Archive {
	a := Wide(leaves, 100)
	hash, err := mh.Encode(a.Blocks[0].Data, mh.IDENTITY)
	if err != nil {
		panic(err) // identity takes any bytes
	}
	a.Roots, a.Blocks = []cid.Cid{cid.NewCidV1(cid.DagProtobuf, hash)}, a.Blocks[1:]
	return a
}

// Coded is a root over a leaf of any codec and bytes, and a usual one behind it.
func Coded(codec uint64, data []byte) Archive {
	leaf, last := Block{Sum(codec, data), data}, Raw([]byte("behind it"))
	root := Node(nil, leaf.CID, last.CID)
	return Archive{Roots: []cid.Cid{root.CID}, Blocks: []Block{root, leaf, last}}
}
