package retrievalimpl_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/ipld/go-ipld-prime"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/stretchr/testify/require"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/impl"
	"github.com/cartage-dev/cartage/datatransfer/testutil"
	"github.com/cartage-dev/cartage/internal/testmarket"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	retrievalimpl "github.com/cartage-dev/cartage/retrievalmarket/impl"
	"github.com/cartage-dev/cartage/retrievalmarket/network"
	"github.com/cartage-dev/cartage/shared"
)

// TestDisableNewDeals: the client proposes once more in the first generation, and hears the answer even if it is here before the call that
// proposed has returned.
func TestDisableNewDeals(t *testing.T) {
	for name, changed := range map[string]func(dt.Manager) dt.Manager{
		"at once":          func(m dt.Manager) dt.Manager { return m },
		"answered earlier": func(m dt.Manager) dt.Manager { return slowToReturn{m.(*impl.Manager)} },
	} {
		t.Run(name, func(t *testing.T) {
			w := newTradeOver(t, changed, retrievalimpl.DisableNewDeals())
			s, _ := w.retrieve(nil)
			require.Equal(t, rm.DealStatusCompleted, s.Status, s.Message)
			require.True(t, s.LegacyProtocol)
			w.paid(int64(2*w.total + 50))
		})
	}
}

// slowToReturn opens a channel and returns after its answer was told.
type slowToReturn struct{ *impl.Manager }

func (m slowToReturn) OpenPullDataChannel(ctx context.Context, to peer.ID, v dt.Voucher, root cid.Cid, sel ipld.Node) (dt.ChannelID, error) {
	answered := make(chan dt.ChannelID, 1000)
	defer m.SubscribeToEvents(func(e dt.Event, s dt.ChannelState) {
		if e.Code == dt.NewVoucherResult || e.Code == dt.Error {
			answered <- s.ChannelID()
		}
	})()
	chid, err := m.Manager.OpenPullDataChannel(ctx, to, v, root, sel)
	for err == nil && <-answered != chid {
	}
	return chid, err
}

// answers is a manager of which the first channel is lost, and the second is answered before the call that opens it has returned.
type answers struct {
	fakeManager
	opened  []dt.ChannelID
	voucher dt.Voucher
	answer  rm.DealStatus
}

// noAddresses is a network that is asked for nothing else.
type noAddresses struct {
	network.RetrievalMarketNetwork
}

func (noAddresses) AddAddrs(peer.ID, []ma.Multiaddr) {}

// said is a channel with the last word of the other side.
type said struct {
	fakeState
	voucher dt.Voucher
	result  dt.VoucherResult
}

func (s said) Voucher() dt.Voucher                 { return s.voucher }
func (s said) LastVoucherResult() dt.VoucherResult { return s.result }
func (s said) Received() uint64                    { return 0 }
func (s said) OtherPeer() peer.ID                  { return s.chid.Responder }

func (a *answers) OpenPullDataChannel(_ context.Context, to peer.ID, v dt.Voucher, _ cid.Cid, _ ipld.Node) (dt.ChannelID, error) {
	chid := dt.ChannelID{Initiator: "us", Responder: to, ID: dt.TransferID(len(a.opened) + 1)}
	a.opened = append(a.opened, chid)
	p := v.(*rm.DealProposal)
	if len(a.opened) > 1 {
		a.sub(dt.Event{Code: dt.NewVoucherResult}, said{fakeState: fakeState{chid: chid}, voucher: v, result: &rm.DealResponse{ID: p.ID, Status: a.answer}})
	}
	a.voucher = v
	return chid, nil
}

// TestProposedAgain: a proposal whose connection was lost is made once more, and its answer counts for the new channel, however early it is.
func TestProposedAgain(t *testing.T) {
	for answer, ends := range map[rm.DealStatus]rm.DealStatus{rm.DealStatusAccepted: rm.DealStatusOngoing, rm.DealStatusRejected: rm.DealStatusRejected} {
		t.Run(rm.DealStatuses[answer], func(t *testing.T) {
			m := &answers{answer: answer}
			hub, err := retrievalimpl.NewHub(m, "us")
			require.NoError(t, err)
			defer hub.Close()
			c, err := retrievalimpl.NewClientFromConfig(retrievalimpl.ClientConfig{Hub: hub, Network: noAddresses{}, Node: testmarket.Client{SimulatedBank: testmarket.NewBank()},
				Store: dssync.MutexWrap(datastore.NewMapDatastore()), Log: slog.New(slog.DiscardHandler)})
			require.NoError(t, err)
			require.NoError(t, c.Start(t.Context()))
			defer func() { require.NoError(t, c.Stop(context.Background())) }()
			root, _, err := testutil.NewMemStore().BuildDAG(1, 10, 1)
			require.NoError(t, err)
			params, err := rm.NewParamsV1(big.Zero(), 1, 0, shared.AllSelector(), nil, big.Zero())
			require.NoError(t, err)
			wallet, err := address.NewIDAddress(1)
			require.NoError(t, err)
			id, err := c.Retrieve(t.Context(), root, params, big.Zero(), rm.RetrievalPeer{ID: "them"}, wallet, wallet, nil)
			require.NoError(t, err)
			var d rm.ClientDealState
			is := func(want rm.DealStatus) func() bool {
				return func() bool {
					d, err = c.GetDeal(id)
					return err == nil && d.Status == want
				}
			}
			require.Eventually(t, is(rm.DealStatusWaitForAcceptance), 10*time.Second, time.Millisecond)
			lost := said{fakeState: fakeState{chid: m.opened[0]}, voucher: m.voucher}
			m.sub(dt.Event{Code: dt.Disconnected}, lost)
			m.sub(dt.Event{Code: dt.Error}, lost)
			require.Eventually(t, is(ends), 10*time.Second, time.Millisecond)
			require.Len(t, m.opened, 2)
			require.Equal(t, m.opened[1], d.ChannelID)
		})
	}
}
