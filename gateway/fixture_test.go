package gateway_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-unixfsnode/data/builder"
	carv2 "github.com/ipld/go-car/v2"
	dagpb "github.com/ipld/go-codec-dagpb"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/fluent/qp"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/ipld/go-ipld-prime/storage/memstore"
	mh "github.com/multiformats/go-multihash"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/cartage-dev/cartage/carstore"
	"github.com/cartage-dev/cartage/gateway"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memory is Blocks in memory. It counts the leaves that are read.
type memory struct {
	store  *memstore.Store
	absent map[cid.Cid]bool
	leaves atomic.Int64
	reads  atomic.Int64
}

var _ gateway.Blocks = (*memory)(nil)

func (m *memory) Find(ctx context.Context, c cid.Cid) (gateway.Place, error) {
	data, err := m.store.Get(ctx, c.KeyString())
	if err != nil || m.absent[c] {
		return gateway.Place{}, gateway.ErrNotFound
	}
	return gateway.Place{Piece: 1, Size: uint32(len(data))}, nil
}

func (m *memory) Read(ctx context.Context, c cid.Cid, _ gateway.Place, buf []byte) ([]byte, error) {
	m.reads.Add(1)
	if c.Prefix().Codec == cid.Raw {
		m.leaves.Add(1)
	}
	data, err := m.store.Get(ctx, c.KeyString())
	if err != nil || m.absent[c] {
		return nil, gateway.ErrNotFound
	}
	return append(buf, data...), nil
}

// tree is a DAG of everything that a gateway serves: files, folders, a sharded folder, dag-cbor.
type tree struct {
	t      *testing.T
	blocks *memory
	ls     ipld.LinkSystem

	root, docs, big, small, sharded, node cid.Cid
	bytes                                 []byte // of big
	last                                  cid.Cid
}

func of(l datamodel.Link) cid.Cid { return l.(cidlink.Link).Cid }

// leafSize is that of the leaves of big, which has fifty.
const leafSize = 1024

func newTree(t *testing.T) *tree {
	tr := &tree{t: t, blocks: &memory{store: &memstore.Store{}, absent: map[cid.Cid]bool{}}, bytes: make([]byte, 50*leafSize)}
	tr.ls = cidlink.DefaultLinkSystem()
	tr.ls.SetReadStorage(tr.blocks.store)
	tr.ls.SetWriteStorage(tr.blocks.store)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range tr.bytes {
		tr.bytes[i] = byte(r.Uint32())
	}
	big, small := tr.file(tr.bytes), tr.file([]byte("hello, gateway"))
	var entries []dagpb.PBLink
	for i := range 400 {
		l := tr.file([]byte(fmt.Sprint("entry ", i)))
		entries = append(entries, tr.entry(fmt.Sprintf("file-%d.txt", i), l))
		tr.last = of(l)
	}
	sharded, _, err := builder.BuildUnixFSShardedDirectory(16, mh.MURMUR3X64_64, entries, &tr.ls)
	require.NoError(t, err)
	node := tr.cbor(map[string]datamodel.Link{"big": big, "small": small})
	docs := tr.folder(tr.entry("big.bin", big), tr.entry("small.txt", small), tr.entry("again.bin", big))
	root := tr.folder(tr.entry("docs", docs), tr.entry("shards", sharded), tr.entry("node", node), tr.entry("ü b", small))
	tr.root, tr.docs, tr.big, tr.small, tr.sharded, tr.node = of(root), of(docs), of(big), of(small), of(sharded), of(node)
	return tr
}

func (tr *tree) file(data []byte) datamodel.Link {
	l, _, err := builder.BuildUnixFSFile(bytes.NewReader(data), fmt.Sprint("size-", leafSize), &tr.ls)
	require.NoError(tr.t, err)
	return l
}

func (tr *tree) entry(name string, l datamodel.Link) dagpb.PBLink {
	e, err := builder.BuildUnixFSDirectoryEntry(name, 1, l)
	require.NoError(tr.t, err)
	return e
}

func (tr *tree) folder(entries ...dagpb.PBLink) datamodel.Link {
	l, _, err := builder.BuildUnixFSDirectory(entries, &tr.ls)
	require.NoError(tr.t, err)
	return l
}

func (tr *tree) cbor(links map[string]datamodel.Link) datamodel.Link {
	n, err := qp.BuildMap(basicnode.Prototype.Any, -1, func(ma datamodel.MapAssembler) {
		for _, name := range []string{"big", "small"} {
			if l, ok := links[name]; ok {
				qp.MapEntry(ma, name, qp.Link(l))
			}
		}
		if l, ok := links["small"]; ok {
			qp.MapEntry(ma, "inside", qp.Map(-1, func(ma datamodel.MapAssembler) { qp.MapEntry(ma, "deep", qp.Link(l)) }))
		}
	})
	require.NoError(tr.t, err)
	l, err := tr.ls.Store(ipld.LinkContext{}, cidlink.LinkPrototype{Prefix: cid.Prefix{Version: 1, Codec: cid.DagCBOR, MhType: mh.SHA2_256, MhLength: 32}}, n)
	require.NoError(tr.t, err)
	return l
}

// serve starts a gateway over the tree behind a real socket.
func (tr *tree) serve(change func(*gateway.Config)) *client {
	cfg := gateway.Config{Blocks: tr.blocks, Limits: gateway.Limits{Requests: 1e6, AllRequests: 1e6}}
	if change != nil {
		change(&cfg)
	}
	g, err := gateway.New(cfg)
	require.NoError(tr.t, err)
	srv := httptest.NewServer(g)
	tr.t.Cleanup(func() {
		srv.Client().CloseIdleConnections()
		srv.Close()
		require.NoError(tr.t, g.Close(context.WithoutCancel(tr.t.Context())))
	})
	return &client{t: tr.t, url: srv.URL, http: srv.Client(), gateway: g}
}

// client is what curl does.
type client struct {
	t       *testing.T
	url     string
	http    *http.Client
	gateway *gateway.Gateway
}

// answer is a response with its body.
type answer struct {
	*http.Response
	body []byte
}

// do sends a request; headers are pairs of name and value.
func (c *client) do(method, path string, headers ...string) answer {
	c.t.Helper()
	a, err := c.try(method, path, headers...)
	require.NoError(c.t, err)
	return a
}

func (c *client) try(method, path string, headers ...string) (answer, error) {
	r, err := http.NewRequestWithContext(c.t.Context(), method, c.url+path, nil)
	if err != nil {
		return answer{}, err
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	resp, err := c.http.Do(r)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return answer{resp, body}, err
}

func (c *client) get(path string, headers ...string) answer {
	c.t.Helper()
	return c.do(http.MethodGet, path, headers...)
}

// cids reads a CAR, checking each block.
func cids(t *testing.T, data []byte) (roots []cid.Cid, out []cid.Cid) {
	t.Helper()
	r, err := carv2.NewBlockReader(bytes.NewReader(data))
	require.NoError(t, err)
	for {
		b, err := r.Next()
		if errors.Is(err, io.EOF) {
			return r.Roots, out
		}
		require.NoError(t, err)
		require.NoError(t, carstore.Verify(b.Cid(), b.RawData()))
		out = append(out, b.Cid())
	}
}
