package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/codec/dagcbor"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/fluent/qp"
	"github.com/ipld/go-ipld-prime/linking"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	mh "github.com/multiformats/go-multihash"

	"github.com/cartage-dev/cartage/carstore"
)

// dag is content of seeded random leaves below lists of links, in memory.
type dag struct {
	name   string
	leaf   int
	fanout int
	most   int // leaves, whatever size is asked for; 0 is no bound
}

// dags are what is moved. All have the same number of bytes, unless that makes too many blocks.
var dags = []dag{{"1 MiB leaves", 1 << 20, 1024, 0}, {"256 KiB leaves", 256 << 10, 1024, 0}, {"1 KiB leaves", 1 << 10, 256, 100_000}}

// size is how many bytes of leaves a DAG has where so many are asked for.
func (d dag) size(asked int) int {
	if d.most > 0 {
		return min(asked, d.most*d.leaf)
	}
	return asked
}

type memory struct {
	blocks map[string][]byte // by CID
	order  []cid.Cid         // of the traversal
	bytes  uint64
	root   cid.Cid
	leaves []cid.Cid
}

func (m *memory) put(codec uint64, data []byte) (cid.Cid, error) {
	c, err := cid.V1Builder{Codec: codec, MhType: mh.SHA2_256}.Sum(data)
	m.blocks[c.KeyString()] = data
	m.bytes += uint64(len(data))
	return c, err
}

// build makes so many bytes of leaves.
func (d dag) build(size int) (*memory, error) {
	m := &memory{blocks: map[string][]byte{}}
	rnd := rand.NewChaCha8([32]byte{byte(d.leaf >> 8)})
	var level []cid.Cid
	for range max(1, d.size(size)/d.leaf) {
		data := make([]byte, d.leaf)
		_, _ = rnd.Read(data)
		c, err := m.put(cid.Raw, data)
		if err != nil {
			return nil, err
		}
		level = append(level, c)
	}
	m.leaves = level
	for first := true; first || len(level) > 1; first = false {
		var up []cid.Cid
		for len(level) > 0 {
			n := min(d.fanout, len(level))
			c, err := m.list(level[:n])
			if err != nil {
				return nil, err
			}
			up, level = append(up, c), level[n:]
		}
		level = up
	}
	m.root = level[0]
	return m, nil
}

func (m *memory) list(links []cid.Cid) (cid.Cid, error) {
	n, err := qp.BuildList(basicnode.Prototype.Any, int64(len(links)), func(la datamodel.ListAssembler) {
		for _, c := range links {
			qp.ListEntry(la, qp.Link(cidlink.Link{Cid: c}))
		}
	})
	if err != nil {
		return cid.Undef, err
	}
	var b bytes.Buffer
	if err := dagcbor.Encode(n, &b); err != nil {
		return cid.Undef, err
	}
	return m.put(cid.DagCBOR, b.Bytes())
}

func (m *memory) get(c cid.Cid) ([]byte, error) {
	data, ok := m.blocks[c.KeyString()]
	if !ok {
		return nil, fmt.Errorf("%s: %w", c, carstore.ErrNotFound)
	}
	return data, nil
}

// header begins an archive of it.
func (m *memory) header() ([]byte, error) { return carstore.V1Header(m.root) }

// links is the store of a server.
func (m *memory) links() ipld.LinkSystem { return carstore.Links(m.get) }

// discard is the store of a client: what comes was verified, and is thrown away.
func discard() ipld.LinkSystem {
	ls := carstore.Links(func(cid.Cid) ([]byte, error) { return nil, carstore.ErrNotFound })
	ls.StorageWriteOpener = func(linking.LinkContext) (io.Writer, linking.BlockWriteCommitter, error) {
		return io.Discard, func(ipld.Link) error { return nil }, nil
	}
	return ls
}

var errBytes = errors.New("not all bytes came")
