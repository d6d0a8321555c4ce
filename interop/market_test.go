package interop

import (
	"bytes"
	"context"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	v2 "github.com/filecoin-project/go-data-transfer/v2"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-unixfsnode"
	"github.com/ipfs/go-unixfsnode/data/builder"
	dagpb "github.com/ipld/go-codec-dagpb"
	"github.com/ipld/go-ipld-prime/codec/dagcbor"
	"github.com/ipld/go-ipld-prime/datamodel"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	sb "github.com/ipld/go-ipld-prime/traversal/selector/builder"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/stretchr/testify/require"
	cbg "github.com/whyrusleeping/cbor-gen"

	"github.com/cartage-dev/cartage/internal/testmarket"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	"github.com/cartage-dev/cartage/shared"
)

const (
	proposalType = v2.TypeIdentifier("RetrievalDealProposal/1")
	accepted     = int64(rm.DealStatusAccepted)
	completed    = int64(rm.DealStatusCompleted)
)

// freeClient fetches as a client does that pays nothing: a proposal in which every amount is zero, and no piece.
type freeClient struct {
	*theirs
	mu    sync.Mutex
	said  map[v2.TransferID][]int64 // statuses of the deal, in order
	ended map[v2.TransferID]v2.Status
	more  chan struct{}
}

func newFreeClient(ctx context.Context, t *testing.T) *freeClient {
	c := &freeClient{theirs: newTheirs(ctx, t).(*theirs), said: map[v2.TransferID][]int64{}, ended: map[v2.TransferID]v2.Status{}, more: make(chan struct{}, 1)}
	c.mgr.SubscribeToEvents(func(e v2.Event, s v2.ChannelState) {
		c.mu.Lock()
		defer c.mu.Unlock()
		switch e.Code {
		case v2.NewVoucherResult:
			if n, err := s.LastVoucherResult().Voucher.LookupByString("Status"); err == nil {
				if i, err := n.AsInt(); err == nil {
					c.said[s.TransferID()] = append(c.said[s.TransferID()], i)
				}
			}
		case v2.CleanupComplete:
			c.ended[s.TransferID()] = s.Status()
			select {
			case c.more <- struct{}{}:
			default:
			}
		}
	})
	return c
}

func selectorBytes(t *testing.T, n datamodel.Node) *cbg.Deferred {
	var out bytes.Buffer
	require.NoError(t, dagcbor.Encode(n, &out))
	return &cbg.Deferred{Raw: out.Bytes()}
}

// fetch makes a deal and returns what its provider said of it.
func (c *freeClient) fetch(ctx context.Context, t *testing.T, id uint64, from peer.ID, root cid.Cid, sel datamodel.Node) (v2.Status, []int64) {
	t.Helper()
	p := rm.DealProposal{PayloadCID: root, ID: rm.DealID(id), Params: rm.Params{Selector: selectorBytes(t, sel), PricePerByte: big.Zero(), UnsealPrice: big.Zero()}}
	var raw bytes.Buffer
	require.NoError(t, p.MarshalCBOR(&raw))
	nb := basicnode.Prototype.Any.NewBuilder()
	require.NoError(t, dagcbor.Decode(nb, &raw))
	chid, err := c.mgr.OpenPullDataChannel(ctx, from, v2.TypedVoucher{Voucher: nb.Build(), Type: proposalType}, root, sel)
	require.NoError(t, err)
	deadline := time.After(20 * time.Second)
	for {
		c.mu.Lock()
		status, over := c.ended[chid.ID]
		said := c.said[chid.ID]
		c.mu.Unlock()
		if over {
			return status, said
		}
		select {
		case <-c.more:
		case <-deadline:
			t.Fatalf("deal %d does not end: the provider said %v", id, said)
		}
	}
}

// inARow is how many one-block deals follow each other; make soak sets more.
func inARow(t *testing.T) int {
	if s := os.Getenv("CARTAGE_SOAK"); s != "" {
		n, err := strconv.Atoi(s)
		require.NoError(t, err)
		return n
	}
	return 500
}

func freeSeller(ctx context.Context, t *testing.T) *testmarket.Peer {
	p, err := testmarket.NewPeer(testmarket.NewBank(), 1)
	require.NoError(t, err)
	p.Foreign = true
	require.NoError(t, p.Start(ctx))
	require.NoError(t, p.Asks.SetAsk(&rm.Ask{PricePerByte: big.Zero(), UnsealPrice: big.Zero()}))
	t.Cleanup(func() { require.NoError(t, p.Stop(context.Background())) })
	return p
}

// TestFreeDeals: one-block deals in a row, each accepted first and then completed (interop.md, provider checklist).
func TestFreeDeals(t *testing.T) {
	n := inARow(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute+time.Duration(n)*100*time.Millisecond)
	defer cancel()
	p := freeSeller(ctx, t)
	c := newFreeClient(ctx, t)
	require.NoError(t, c.h.Connect(ctx, peer.AddrInfo{ID: p.Host.ID(), Addrs: p.Host.Addrs()}))
	matcher := sb.NewSelectorSpecBuilder(basicnode.Prototype.Any).Matcher().Node()
	for i := range n {
		if i > 0 && i%1000 == 0 {
			t.Logf("%d deals", i)
		}
		root, _, err := p.Store.BuildDAG(1, 64, uint64(i))
		require.NoError(t, err)
		status, said := c.fetch(ctx, t, uint64(i+1), p.Host.ID(), root, matcher)
		require.Equal(t, v2.Completed, status, "deal %d", i)
		require.Equal(t, []int64{accepted, completed}, said, "deal %d", i)
	}
	require.Equal(t, n, c.mem.Len(), "one block each")
}

// TestFreeSelectors: the selectors that clients of today send.
func TestFreeSelectors(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	p := freeSeller(ctx, t)
	ls := p.Store.LinkSystem()
	ls.TrustedStorage = true
	data := bytes.Repeat([]byte("0123456789abcdef"), 64<<10/16*10) // ten chunks
	for i := range data {
		data[i] += byte(i >> 16)
	}
	file, _, err := builder.BuildUnixFSFile(bytes.NewReader(data), "size-65536", &ls)
	require.NoError(t, err)
	entry, err := builder.BuildUnixFSDirectoryEntry("file", int64(len(data)), file)
	require.NoError(t, err)
	dir, _, err := builder.BuildUnixFSDirectory([]dagpb.PBLink{entry}, &ls)
	require.NoError(t, err)
	ssb := sb.NewSelectorSpecBuilder(basicnode.Prototype.Any)
	entity := ssb.ExploreInterpretAs("unixfs", ssb.Matcher())
	ranged := ssb.ExploreInterpretAs("unixfs", ssb.MatcherSubset(100_000, 200_000))
	const all = 1 + 10 // the file's root and chunks
	for i, tc := range []struct {
		name   string
		root   datamodel.Link
		sel    datamodel.Node
		blocks int
	}{
		{"everything", dir, shared.AllSelector(), 1 + all},
		{"a bare matcher", dir, ssb.Matcher().Node(), 1},
		{"entity", file, ssb.ExploreInterpretAs("unixfs-preload", ssb.Matcher()).Node(), all},
		{"path to an entity", dir, unixfsnode.UnixFSPathSelectorBuilder("file", ssb.ExploreInterpretAs("unixfs-preload", ssb.Matcher()), false), 1 + all},
		{"byte range", file, ranged.Node(), 1 + 3},
		{"byte range below a path", dir, unixfsnode.UnixFSPathSelectorBuilder("file", ranged, false), 1 + 1 + 3},
		{"a path that does not exist", dir, unixfsnode.UnixFSPathSelectorBuilder("no/such/file", entity, false), 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := newFreeClient(ctx, t)
			require.NoError(t, c.h.Connect(ctx, peer.AddrInfo{ID: p.Host.ID(), Addrs: p.Host.Addrs()}))
			status, said := c.fetch(ctx, t, uint64(i+1), p.Host.ID(), tc.root.(cidlink.Link).Cid, tc.sel)
			require.Equal(t, v2.Completed, status)
			require.Equal(t, []int64{accepted, completed}, said)
			require.Equal(t, tc.blocks, c.mem.Len())
		})
	}
}
