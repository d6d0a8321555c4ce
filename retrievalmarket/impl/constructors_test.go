package retrievalimpl_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/ipfs/boxo/blockstore"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/namespace"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/libp2p/go-libp2p"
	"github.com/multiformats/go-varint"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/carstore"
	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/testutil"
	"github.com/cartage-dev/cartage/discovery"
	"github.com/cartage-dev/cartage/internal/testmarket"
	"github.com/cartage-dev/cartage/ipfsstore"
	"github.com/cartage-dev/cartage/ipfsstore/ipfstest"
	"github.com/cartage-dev/cartage/multistore"
	"github.com/cartage-dev/cartage/piecestore"
	piecestoreimpl "github.com/cartage-dev/cartage/piecestore/impl"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	retrievalimpl "github.com/cartage-dev/cartage/retrievalmarket/impl"
	"github.com/cartage-dev/cartage/retrievalmarket/impl/clientstates"
	"github.com/cartage-dev/cartage/retrievalmarket/network"
	"github.com/cartage-dev/cartage/shared"
	"github.com/cartage-dev/cartage/storedcounter"
)

// sealedNode is a provider's node over the simulated bank, with one piece in sector 7.
type sealedNode struct {
	testmarket.ProviderBook
	car     []byte
	mu      sync.Mutex
	unseals int
}

func (n *sealedNode) UnsealSector(_ context.Context, s abi.SectorNumber, _, length abi.UnpaddedPieceSize) (io.ReadCloser, error) {
	n.mu.Lock()
	n.unseals++
	n.mu.Unlock()
	if s != 7 {
		return nil, errors.New("no such sector")
	}
	return io.NopCloser(io.LimitReader(io.MultiReader(bytes.NewReader(n.car), zeros{}), int64(length))), nil
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// carOf writes a payload and everything below it as a CAR.
func carOf(t *testing.T, s *testutil.MemStore, root cid.Cid) []byte {
	t.Helper()
	out, err := carstore.V1Header(root)
	require.NoError(t, err)
	ls := carstore.Links(func(c cid.Cid) ([]byte, error) {
		data, err := s.Get(c)
		if err == nil {
			out = append(append(append(out, varint.ToUvarint(uint64(c.ByteLen()+len(data)))...), c.Bytes()...), data...)
		}
		return data, err
	})
	require.NoError(t, carstore.WalkSelector(&ls, root, shared.AllSelector(), nil))
	return out
}

// embedder is an embedding of the published constructors: a manager with a client, a provider, or both.
type embedder struct {
	*testutil.Peer
	ds     datastore.Batching
	multi  *multistore.MultiStore
	net    network.RetrievalMarketNetwork
	client rm.RetrievalClient
	seller rm.RetrievalProvider
}

func embed(t *testing.T, make func(e *embedder, m dt.Manager)) *embedder {
	t.Helper()
	h, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.DisableRelay(), libp2p.DisableMetrics())
	require.NoError(t, err)
	e := &embedder{ds: dssync.MutexWrap(datastore.NewMapDatastore()), net: network.NewFromLibp2pHost(h)}
	e.multi, err = multistore.NewMultiDstore(e.space("/stores"))
	require.NoError(t, err)
	e.Peer, err = testutil.PeerConfig{On: h, Datastore: e.space("/transfers"), Prepare: func(m dt.Manager) { make(e, m) }}.Start(t.Context())
	require.NoError(t, err)
	if e.client != nil {
		require.NoError(t, e.client.Start(t.Context()))
	}
	if e.seller != nil {
		require.NoError(t, e.seller.Start(t.Context()))
	}
	t.Cleanup(func() {
		if e.client != nil {
			require.NoError(t, e.client.(*retrievalimpl.Client).Stop(context.Background()))
		}
		if e.seller != nil {
			require.NoError(t, e.seller.Stop())
		}
		require.NoError(t, e.Close(context.Background()))
	})
	return e
}

func (e *embedder) space(name string) datastore.Batching {
	return namespace.Wrap(e.ds, datastore.NewKey(name))
}

// trade is a client and a provider of one sealed piece.
type trade struct {
	t              *testing.T
	bank           *testmarket.SimulatedBank
	node           *sealedNode
	client, seller *embedder
	payer, payee   address.Address
	root           cid.Cid
	total          uint64
	accessor       *accessor
}

// accessor gives each deal the same blockstore, and remembers which ones have ended.
type accessor struct {
	bs   blockstore.Blockstore
	mu   sync.Mutex
	done []rm.DealID
}

func (a *accessor) Get(rm.DealID, cid.Cid) (blockstore.Blockstore, error) { return a.bs, nil }

func (a *accessor) Done(id rm.DealID) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.done = append(a.done, id)
	return nil
}

func newTrade(t *testing.T, options ...retrievalimpl.RetrievalProviderOption) *trade {
	t.Helper()
	return newTradeOver(t, func(m dt.Manager) dt.Manager { return m }, options...)
}

// newTradeOver is newTrade with a client over a changed manager.
func newTradeOver(t *testing.T, changed func(dt.Manager) dt.Manager, options ...retrievalimpl.RetrievalProviderOption) *trade {
	t.Helper()
	w := &trade{t: t, bank: testmarket.NewBank()}
	var err error
	w.payer, err = address.NewIDAddress(1001)
	require.NoError(t, err)
	w.payee, err = address.NewIDAddress(1002)
	require.NoError(t, err)
	content := testutil.NewMemStore()
	w.root, w.total, err = content.BuildDAG(20, 1024, 5)
	require.NoError(t, err)
	w.node = &sealedNode{ProviderBook: testmarket.ProviderBook{Provider: testmarket.Provider{SimulatedBank: w.bank}, Owner: w.payee}, car: carOf(t, content, w.root)}
	w.seller = embed(t, func(e *embedder, m dt.Manager) {
		pieces, err := piecestoreimpl.NewPieceStore(e.space("/pieces"))
		require.NoError(t, err)
		require.NoError(t, pieces.Start(t.Context()))
		require.NoError(t, pieces.AddDealForPiece(w.root, piecestore.DealInfo{DealID: 1, SectorID: 7, Length: 32 << 10}))
		require.NoError(t, pieces.AddPieceBlockLocations(w.root, map[cid.Cid]piecestore.BlockLocation{w.root: {}}))
		e.seller, err = retrievalimpl.NewProvider(w.payee, w.node, e.net, pieces, e.multi, m, e.space("/provider"), options...)
		require.NoError(t, err)
		e.client, err = retrievalimpl.NewClient(e.net, e.multi, m, w.clientNode(), discovery.Static(nil), e.space("/client"), storedcounter.New(e.ds, datastore.NewKey("/next")))
		require.NoError(t, err, "a client and a provider share a manager")
	})
	w.accessor = &accessor{bs: blockstore.NewBlockstore(dssync.MutexWrap(datastore.NewMapDatastore()))}
	w.client = embed(t, func(e *embedder, m dt.Manager) {
		e.client, err = retrievalimpl.NewClient(e.net, e.multi, changed(m), w.clientNode(), discovery.Static(nil), e.space("/client"), storedcounter.New(e.ds, datastore.NewKey("/next")),
			retrievalimpl.WithBlockstoreAccessor(w.accessor))
		require.NoError(t, err)
	})
	require.NoError(t, testutil.Connect(t.Context(), w.client.Peer, w.seller.Peer))
	w.seller.seller.SetAsk(&rm.Ask{PricePerByte: big.NewInt(2), UnsealPrice: big.NewInt(50), PaymentInterval: 4096, PaymentIntervalIncrease: 4096})
	return w
}

func (w *trade) clientNode() rm.RetrievalClientNode {
	return testmarket.ClientBook{Client: testmarket.Client{SimulatedBank: w.bank}, Owner: w.payer}
}

// retrieve asks, proposes what was asked for, and waits for the end.
func (w *trade) retrieve(store *multistore.StoreID) (rm.ClientDealState, rm.QueryResponse) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 3*time.Minute)
	defer cancel()
	peer := rm.RetrievalPeer{Address: w.payee, ID: w.seller.Host.ID()}
	offer, err := w.client.client.Query(ctx, peer, w.root, rm.QueryParams{})
	require.NoError(w.t, err)
	require.Equal(w.t, rm.QueryResponseAvailable, offer.Status, offer.Message)
	params := rm.NewParamsV0(offer.MinPricePerByte, offer.MaxPaymentInterval, offer.MaxPaymentIntervalIncrease)
	params.UnsealPrice = offer.UnsealPrice
	ended := make(chan rm.ClientDealState, 1)
	unsub := w.client.client.SubscribeToEvents(func(_ rm.ClientEvent, s rm.ClientDealState) {
		if clientstates.IsFinal(s.Status) {
			select {
			case ended <- s:
			default:
			}
		}
	})
	defer unsub()
	_, err = w.client.client.Retrieve(ctx, w.root, params, big.NewInt(1<<20), peer, w.payer, w.payee, store)
	require.NoError(w.t, err)
	select {
	case s := <-ended:
		return s, offer
	case <-ctx.Done():
		w.t.Fatal("the deal did not end")
	}
	return rm.ClientDealState{}, offer
}

// TestPublishedConstructors: a sealed piece is bought into a store of the multistore, and a second time into the store of an
// accessor, with exactly the money that is due.
func TestPublishedConstructors(t *testing.T) {
	w := newTrade(t)
	id := w.client.multi.Next()
	s, offer := w.retrieve(&id)
	require.Equal(t, rm.DealStatusCompleted, s.Status, s.Message)
	require.EqualValues(t, 32<<10/128*127, offer.Size)
	st, err := w.client.multi.Get(id)
	require.NoError(t, err)
	w.holds(st.Bstore)
	due := int64(2*w.total + 50)
	w.paid(due)
	require.Equal(t, 1, w.node.unseals)
	require.Eventually(t, func() bool { return len(w.seller.multi.List()) == 0 }, waitFor, tick, "the unsealed copy is gone")

	first := s.ID
	s, _ = w.retrieve(nil)
	require.Equal(t, rm.DealStatusCompleted, s.Status, s.Message)
	require.Greater(t, s.ID, first)
	w.holds(w.accessor.bs)
	w.paid(2 * due)
	require.Eventually(t, func() bool {
		w.accessor.mu.Lock()
		defer w.accessor.mu.Unlock()
		return len(w.accessor.done) == 1 && w.accessor.done[0] == s.ID
	}, waitFor, tick)
}

func (w *trade) holds(bs blockstore.Blockstore) {
	w.t.Helper()
	var n uint64
	ls := carstore.Links(func(c cid.Cid) ([]byte, error) {
		b, err := bs.Get(w.t.Context(), c)
		if err != nil {
			return nil, err
		}
		n += uint64(len(b.RawData()))
		return b.RawData(), nil
	})
	require.NoError(w.t, carstore.WalkSelector(&ls, w.root, shared.AllSelector(), nil))
	require.Equal(w.t, w.total, n)
}

func (w *trade) paid(due int64) {
	w.t.Helper()
	made, taken := w.bank.Totals()
	require.EqualValues(w.t, due, made.Int64())
	require.EqualValues(w.t, due, taken.Int64())
}

// TestPaidOnceInASharedStore: what the store of the caller holds already is not asked for and not paid.
func TestPaidOnceInASharedStore(t *testing.T) {
	w := newTrade(t)
	s, _ := w.retrieve(nil)
	require.Equal(t, rm.DealStatusCompleted, s.Status, s.Message)
	kept := w.accessor.bs
	w.accessor.bs = blockstore.NewBlockstore(dssync.MutexWrap(datastore.NewMapDatastore()))
	some := 0
	ls := carstore.Links(func(c cid.Cid) ([]byte, error) { // the first ten blocks of the traversal
		b, err := kept.Get(t.Context(), c)
		require.NoError(t, err)
		if some++; some <= 10 {
			require.NoError(t, w.accessor.bs.Put(t.Context(), b))
		}
		return b.RawData(), nil
	})
	require.NoError(t, carstore.WalkSelector(&ls, w.root, shared.AllSelector(), nil))
	before, _ := w.bank.Totals()
	s, _ = w.retrieve(nil)
	require.Equal(t, rm.DealStatusCompleted, s.Status, s.Message)
	w.holds(w.accessor.bs)
	after, _ := w.bank.Totals()
	require.EqualValues(t, 50+2*11*1024, big.Sub(after, before).Int64(), "eleven leaves were missing")
}

// TestPricingFunc: the price is that of the function, in the answer to a query and for the deal.
func TestPricingFunc(t *testing.T) {
	price := int64(5)
	w := newTrade(t, retrievalimpl.PricingFuncOpt(func(_ context.Context, in retrievalimpl.PricingInput) (rm.Ask, error) {
		require.EqualValues(t, 32<<10/128*127, in.PieceSize)
		in.CurrentAsk.PricePerByte, in.CurrentAsk.UnsealPrice = big.NewInt(price), big.Zero()
		return in.CurrentAsk, nil
	}))
	s, offer := w.retrieve(nil)
	require.Equal(t, rm.DealStatusCompleted, s.Status, s.Message)
	require.EqualValues(t, 5, offer.MinPricePerByte.Int64())
	require.Zero(t, offer.UnsealPrice.Sign())
	w.paid(int64(5 * w.total))
	free, err := retrievalimpl.DefaultPricingFunc(true)(t.Context(), retrievalimpl.PricingInput{Unsealed: true, VerifiedDeal: true,
		CurrentAsk: rm.Ask{PricePerByte: big.NewInt(3), UnsealPrice: big.NewInt(4)}})
	require.NoError(t, err)
	require.Zero(t, free.PricePerByte.Sign()+free.UnsealPrice.Sign())
	asIs, err := retrievalimpl.DefaultPricingFunc(false)(t.Context(), retrievalimpl.PricingInput{VerifiedDeal: true, CurrentAsk: rm.Ask{PricePerByte: big.NewInt(3), UnsealPrice: big.NewInt(4)}})
	require.NoError(t, err)
	require.EqualValues(t, 7, asIs.PricePerByte.Int64()+asIs.UnsealPrice.Int64())
}

// TestDealDeciderOpt: who decides is asked, and the reason is told.
func TestDealDeciderOpt(t *testing.T) {
	w := newTrade(t, retrievalimpl.DealDeciderOpt(func(context.Context, rm.ProviderDealState) (bool, string, error) { return false, "not today", nil }))
	s, _ := w.retrieve(nil)
	require.Equal(t, rm.DealStatusRejected, s.Status)
	require.Equal(t, "deal rejected: not today", s.Message)
}

// TestT_S1 : the same retrieval into a store in memory and into an IPFS node gives the same bytes for the same money.
func TestT_S1(t *testing.T) {
	w := newTrade(t)
	s, _ := w.retrieve(nil)
	require.Equal(t, rm.DealStatusCompleted, s.Status, s.Message)
	w.holds(w.accessor.bs)
	due := int64(2*w.total + 50)
	w.paid(due)

	node, url := ipfstest.Start(t)
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	bs, err := ipfsstore.New(url, &http.Client{Transport: tr})
	require.NoError(t, err)
	w.accessor.bs = bs
	s, _ = w.retrieve(nil)
	require.Equal(t, rm.DealStatusCompleted, s.Status, s.Message)
	w.holds(bs)
	w.paid(2 * due)
	require.Equal(t, 21, node.Calls("put"), "each block once")
}

// TestSharedStore: a store that holds blocks of a payload out of its order, of other payloads, gets the whole of it. What is sent is paid, also
// the blocks that were there: nobody can leave out what is in the middle.
func TestSharedStore(t *testing.T) {
	w := newTrade(t)
	f, err := carstore.Inspect(bytes.NewReader(w.node.car), int64(len(w.node.car)))
	require.NoError(t, err)
	n := 0
	require.NoError(t, carstore.Batches(bytes.NewReader(w.node.car), f, 1, func(list []blocks.Block) error {
		if n++; n > 1 && n%3 == 0 { // not the root
			return w.accessor.bs.PutMany(t.Context(), list)
		}
		return nil
	}))
	s, _ := w.retrieve(nil)
	require.Equal(t, rm.DealStatusCompleted, s.Status, s.Message)
	w.holds(w.accessor.bs)
	w.paid(int64(2*w.total + 50))
}
