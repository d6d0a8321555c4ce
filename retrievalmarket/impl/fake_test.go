package retrievalimpl_test

import (
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/filecoin-project/go-state-types/builtin/v8/paych"
	"github.com/filecoin-project/go-state-types/crypto"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	mh "github.com/multiformats/go-multihash"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/internal/accounting"
	"github.com/cartage-dev/cartage/internal/port"
	"github.com/cartage-dev/cartage/piecestore"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	retrievalimpl "github.com/cartage-dev/cartage/retrievalmarket/impl"
	"github.com/cartage-dev/cartage/retrievalmarket/impl/askstore"
	"github.com/cartage-dev/cartage/retrievalmarket/network"
	"github.com/cartage-dev/cartage/shared"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeManager is a data-transfer manager of which the test says how much was sent.
type fakeManager struct {
	port.PlainManager
	mu        sync.Mutex
	queued    uint64
	closed    []dt.ChannelID
	resumed   int
	status    dt.Status // of every channel
	sub       dt.Subscriber
	configure dt.TransportConfigurer
	open      map[dt.ChannelID]dt.ChannelState // what a start finds
	counted   func()                           // called once, after a count of what was sent was read
}

func (f *fakeManager) RegisterVoucherType(dt.Voucher, dt.RequestValidator) error { return nil }
func (f *fakeManager) RegisterRevalidator(dt.Voucher, dt.Revalidator) error      { return nil }
func (f *fakeManager) RegisterVoucherResultType(dt.VoucherResult) error          { return nil }
func (f *fakeManager) RegisterTransportConfigurer(_ dt.Voucher, c dt.TransportConfigurer) error {
	f.configure = c
	return nil
}
func (f *fakeManager) SubscribeToProgress(s dt.Subscriber) dt.Unsubscribe {
	f.sub = s
	return func() {}
}

func (f *fakeManager) InProgressChannels(context.Context) (map[dt.ChannelID]dt.ChannelState, error) {
	return f.open, nil
}

type fakeState struct {
	dt.ChannelState
	voucher dt.Voucher
	queued  uint64
	chid    dt.ChannelID
	status  dt.Status
}

func (s fakeState) Voucher() dt.Voucher     { return s.voucher }
func (s fakeState) ChannelID() dt.ChannelID { return s.chid }
func (s fakeState) Message() string         { return "refused" }
func (s fakeState) Queued() uint64          { return s.queued }
func (s fakeState) Status() dt.Status       { return s.status }

func (f *fakeManager) ChannelState(context.Context, dt.ChannelID) (dt.ChannelState, error) {
	f.mu.Lock()
	s, then := fakeState{queued: f.queued, status: f.status}, f.counted
	f.counted = nil
	f.mu.Unlock()
	if then != nil {
		then()
	}
	return s, nil
}

func (f *fakeManager) ResumeDataTransferChannel(context.Context, dt.ChannelID) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.resumed++
	return nil
}

func (f *fakeManager) CloseDataTransferChannel(_ context.Context, chid dt.ChannelID) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = append(f.closed, chid)
	return nil
}

// fakeNode keeps vouchers as a book does, or fails as told.
type fakeNode struct {
	mu    sync.Mutex
	total abi.TokenAmount
	errs  []error
	head  error
}

func (n *fakeNode) GetChainHead(context.Context) (shared.TipSetToken, abi.ChainEpoch, error) {
	return nil, 0, n.head
}

func (n *fakeNode) GetMinerWorkerAddress(_ context.Context, a address.Address, _ shared.TipSetToken) (address.Address, error) {
	return address.Undef, nil
}

func (n *fakeNode) UnsealSector(context.Context, abi.SectorNumber, abi.UnpaddedPieceSize, abi.UnpaddedPieceSize) (io.ReadCloser, error) {
	return nil, errors.New("no sectors")
}

func (n *fakeNode) SavePaymentVoucher(_ context.Context, _ address.Address, v *paych.SignedVoucher, _ []byte, _ abi.TokenAmount, _ shared.TipSetToken) (abi.TokenAmount, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.errs) > 0 {
		err := n.errs[0]
		n.errs = n.errs[1:]
		if err != nil {
			return big.Zero(), err
		}
	}
	grown := big.Max(big.Zero(), big.Sub(v.Amount, n.total))
	n.total = big.Max(n.total, v.Amount)
	return grown, nil
}

// fakePieces has one piece with one payload.
type fakePieces struct {
	payload cid.Cid
	err     error
}

type fakeReader struct{}

func (fakeReader) Get(cid.Cid) ([]byte, error) { return []byte("block"), nil }
func (fakeReader) Close() error                { return nil }

func (p fakePieces) Find(_ context.Context, c cid.Cid, _ *cid.Cid) (retrievalimpl.Found, error) {
	if p.err != nil {
		return retrievalimpl.Found{}, p.err
	}
	if !c.Equals(p.payload) {
		return retrievalimpl.Found{}, rm.ErrNotFound
	}
	return retrievalimpl.Found{Info: piecestore.PieceInfo{PieceCID: c}, Size: 100}, nil
}

func (p fakePieces) Acquire(context.Context, cid.Cid) (retrievalimpl.Reader, error) {
	return fakeReader{}, nil
}

type noNetwork struct{}

func (noNetwork) NewQueryStream(context.Context, peer.ID) (network.RetrievalQueryStream, error) {
	return nil, errors.New("none")
}
func (noNetwork) SetDelegate(network.RetrievalReceiver) error { return nil }
func (noNetwork) StopHandlingRequests() error                 { return nil }
func (noNetwork) ID() peer.ID                                 { return "provider" }
func (noNetwork) AddAddrs(peer.ID, []ma.Multiaddr)            {}

// market is a provider over fakes, with an ask of 2 per byte, an interval of 1 MiB and an unseal price of 10.
type market struct {
	*retrievalimpl.Provider
	t       *testing.T
	hub     *retrievalimpl.Hub
	manager *fakeManager
	node    *fakeNode
	payload cid.Cid
	self    address.Address
}

func newMarket(t *testing.T, change ...func(*retrievalimpl.ProviderConfig)) *market {
	t.Helper()
	return newMarketOver(t, &fakeManager{status: dt.Ongoing}, change...)
}

func newMarketOver(t *testing.T, manager *fakeManager, change ...func(*retrievalimpl.ProviderConfig)) *market {
	t.Helper()
	payload, err := cid.V1Builder{Codec: cid.Raw, MhType: mh.SHA2_256}.Sum([]byte("payload"))
	require.NoError(t, err)
	self, err := address.NewIDAddress(1001)
	require.NoError(t, err)
	m := &market{t: t, manager: manager, node: &fakeNode{total: big.Zero()}, payload: payload, self: self}
	m.hub, err = retrievalimpl.NewHub(m.manager, "provider")
	require.NoError(t, err)
	ds := dssync.MutexWrap(datastore.NewMapDatastore())
	asks, err := askstore.NewAskStore(ds, datastore.NewKey("/ask"))
	require.NoError(t, err)
	require.NoError(t, asks.SetAsk(&rm.Ask{PricePerByte: big.NewInt(2), UnsealPrice: big.NewInt(10), PaymentInterval: 1 << 20, PaymentIntervalIncrease: 1 << 20}))
	cfg := retrievalimpl.ProviderConfig{Hub: m.hub, Network: noNetwork{}, Node: m.node, Address: self, Pieces: fakePieces{payload: payload}, Asks: asks,
		Store: dssync.MutexWrap(datastore.NewMapDatastore())}
	cfg.Credit = &accounting.CreditLimits{Allowance: 1 << 30, PerPeer: 1 << 30, Memory: 24 * time.Hour} // deals side by side
	for _, c := range change {
		c(&cfg)
	}
	m.Provider, err = retrievalimpl.NewProviderFromConfig(cfg)
	require.NoError(t, err)
	require.NoError(t, m.Start(t.Context()))
	t.Cleanup(func() {
		require.NoError(t, m.Stop())
		m.hub.Close()
	})
	return m
}

func (m *market) proposal(id uint64) *rm.DealProposal {
	return &rm.DealProposal{PayloadCID: m.payload, ID: rm.DealID(id), Params: rm.Params{PricePerByte: big.NewInt(2), PaymentInterval: 1 << 20,
		PaymentIntervalIncrease: 1 << 20, UnsealPrice: big.NewInt(10)}}
}

func channel(id uint64) dt.ChannelID {
	return dt.ChannelID{Initiator: "client", Responder: "provider", ID: dt.TransferID(id)}
}

func (m *market) propose(id uint64, change ...func(*rm.DealProposal)) (*rm.DealResponse, error) {
	p := m.proposal(id)
	for _, c := range change {
		c(p)
	}
	res, err := m.hub.ValidatePull(false, channel(id), "client", p, p.PayloadCID, shared.AllSelector())
	if res == nil {
		return nil, err
	}
	return res.(*rm.DealResponse), err
}

func (m *market) pay(id uint64, amount int64, change ...func(*rm.DealPayment)) (*rm.DealResponse, error) {
	ch, err := address.NewActorAddress([]byte("channel"))
	require.NoError(m.t, err)
	p := &rm.DealPayment{ID: rm.DealID(id), PaymentChannel: ch, PaymentVoucher: &paych.SignedVoucher{ChannelAddr: ch, Nonce: 1, Amount: big.NewInt(amount),
		Signature: &crypto.Signature{Type: crypto.SigTypeSecp256k1, Data: make([]byte, 65)}}}
	for _, c := range change {
		c(p)
	}
	res, err := m.hub.Revalidate(channel(id), p)
	if err != nil && !errors.Is(err, dt.ErrPause) && !errors.Is(err, dt.ErrResume) { // a manager fails the channel then
		m.manager.sub(dt.Event{Code: dt.Error}, fakeState{chid: channel(id)})
	}
	if res == nil {
		return nil, err
	}
	return res.(*rm.DealResponse), err
}

func (m *market) deal(id uint64) rm.ProviderDealState {
	return m.ListDeals()[rm.ProviderDealIdentifier{Receiver: "client", DealID: rm.DealID(id)}]
}
