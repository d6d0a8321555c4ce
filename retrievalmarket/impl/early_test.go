package retrievalimpl_test

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
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
	"github.com/cartage-dev/cartage/retrievalmarket/impl/clientstates"
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
	// proposing, if set, is told of the second proposal, which goes nowhere.
	proposing chan struct{}
}

func (*answers) InProgressChannels(context.Context) (map[dt.ChannelID]dt.ChannelState, error) {
	return nil, nil
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

func (a *answers) OpenPullDataChannel(ctx context.Context, to peer.ID, v dt.Voucher, _ cid.Cid, _ ipld.Node) (dt.ChannelID, error) {
	chid := dt.ChannelID{Initiator: "us", Responder: to, ID: dt.TransferID(len(a.opened) + 1)}
	a.opened = append(a.opened, chid)
	p := v.(*rm.DealProposal)
	if len(a.opened) == 2 && a.proposing != nil {
		close(a.proposing)
		<-ctx.Done()
		return dt.ChannelID{}, ctx.Err()
	}
	if len(a.opened) > 1 {
		a.sub(dt.Event{Code: dt.NewVoucherResult}, said{fakeState: fakeState{chid: chid}, voucher: v, result: &rm.DealResponse{ID: p.ID, Status: a.answer}})
	}
	a.voucher = v
	return chid, nil
}

// again is a client over such a manager.
func again(t *testing.T, m *answers, store datastore.Batching) (*retrievalimpl.Client, func()) {
	t.Helper()
	hub, err := retrievalimpl.NewHub(m, "us")
	require.NoError(t, err)
	c, err := retrievalimpl.NewClientFromConfig(retrievalimpl.ClientConfig{Hub: hub, Network: noAddresses{}, Node: testmarket.Client{SimulatedBank: testmarket.NewBank()},
		Store: store, Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	require.NoError(t, c.Start(t.Context()))
	return c, func() {
		require.NoError(t, c.Stop(context.Background()))
		hub.Close()
	}
}

// lose makes a free deal whose first channel is lost before it was answered.
func lose(t *testing.T, m *answers, c *retrievalimpl.Client) rm.DealID {
	t.Helper()
	root, _, err := testutil.NewMemStore().BuildDAG(1, 10, 1)
	require.NoError(t, err)
	params, err := rm.NewParamsV1(big.Zero(), 1, 0, shared.AllSelector(), nil, big.Zero())
	require.NoError(t, err)
	wallet, err := address.NewIDAddress(1)
	require.NoError(t, err)
	id, err := c.Retrieve(t.Context(), root, params, big.Zero(), rm.RetrievalPeer{ID: "them"}, wallet, wallet, nil)
	require.NoError(t, err)
	comes(t, c, id, rm.DealStatusWaitForAcceptance)
	lost := said{fakeState: fakeState{chid: m.opened[0]}, voucher: m.voucher}
	m.sub(dt.Event{Code: dt.Disconnected}, lost)
	m.sub(dt.Event{Code: dt.Error}, lost)
	return id
}

// comes waits for a state of a deal.
func comes(t *testing.T, c *retrievalimpl.Client, id rm.DealID, want rm.DealStatus) (d rm.ClientDealState) {
	t.Helper()
	require.Eventually(t, func() bool {
		var err error
		d, err = c.GetDeal(id)
		return err == nil && d.Status == want
	}, 10*time.Second, time.Millisecond)
	return d
}

// TestProposedAgain: a proposal whose connection was lost is made once more, and its answer counts for the new channel, however early it is.
func TestProposedAgain(t *testing.T) {
	for answer, ends := range map[rm.DealStatus]rm.DealStatus{rm.DealStatusAccepted: rm.DealStatusOngoing, rm.DealStatusRejected: rm.DealStatusRejected} {
		t.Run(rm.DealStatuses[answer], func(t *testing.T) {
			m := &answers{answer: answer}
			c, stop := again(t, m, dssync.MutexWrap(datastore.NewMapDatastore()))
			defer stop()
			d := comes(t, c, lose(t, m, c), ends)
			require.Len(t, m.opened, 2)
			require.Equal(t, m.opened[1], d.ChannelID)
		})
	}
}

// TestProposedAtTheNextStart: a client that stops while it proposes once more does so when it starts.
func TestProposedAtTheNextStart(t *testing.T) {
	store := dssync.MutexWrap(datastore.NewMapDatastore())
	m := &answers{proposing: make(chan struct{})}
	c, stop := again(t, m, store)
	id := lose(t, m, c)
	<-m.proposing
	stop()
	next := &answers{answer: rm.DealStatusAccepted, opened: m.opened}
	next.status = dt.Failed
	c, stop = again(t, next, store)
	defer stop()
	d := comes(t, c, id, rm.DealStatusOngoing)
	require.Len(t, next.opened, 3)
	require.Equal(t, next.opened[2], d.ChannelID)
}

// asking is a manager that notes when a channel is restarted.
type asking struct {
	answers
	restarts []time.Duration
	began    time.Time
}

func (*asking) ConnectTo(context.Context, peer.ID) error { return nil }

func (a *asking) RestartDataTransferChannel(context.Context, dt.ChannelID) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.restarts = append(a.restarts, time.Since(a.began))
	return nil
}

// TestBlocksLostOnTheirWay: a provider says that it is done, or asks for nothing, its last message was lost without an error, and nobody else would do
// anything: the deal asks again, a few times. One that may still unseal is left alone.
func TestBlocksLostOnTheirWay(t *testing.T) {
	for name, tc := range map[string]struct {
		ours, done bool
		restarts   []time.Duration
	}{
		"of a deal that is complete":    {true, true, []time.Duration{8 * time.Second, 24 * time.Second, 56 * time.Second}},
		"of a deal that goes on":        {true, false, []time.Duration{1 * time.Minute, 3 * time.Minute, 7 * time.Minute}},
		"of a provider of another kind": {false, false, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := &asking{answers: answers{answer: rm.DealStatusAccepted}}
				hub, err := retrievalimpl.NewHub(m, "us")
				require.NoError(t, err)
				c, err := retrievalimpl.NewClientFromConfig(retrievalimpl.ClientConfig{Hub: hub, Network: noAddresses{}, Node: testmarket.Client{SimulatedBank: testmarket.NewBank()},
					Store: dssync.MutexWrap(datastore.NewMapDatastore()), Log: slog.New(slog.DiscardHandler), Deadlines: clientstates.Deadlines(0, 0, 0, 0),
					SupportsAhead: func(peer.ID) bool { return tc.ours }})
				require.NoError(t, err)
				require.NoError(t, c.Start(t.Context()))
				defer func() {
					require.NoError(t, c.Stop(context.Background()))
					hub.Close()
				}()
				m.began = time.Now()
				id := lose(t, &m.answers, c)
				d := comes(t, c, id, rm.DealStatusOngoing)
				if tc.done {
					m.sub(dt.Event{Code: dt.NewVoucherResult}, said{fakeState: fakeState{chid: d.ChannelID}, voucher: m.voucher,
						result: &rm.DealResponse{ID: id, Status: rm.DealStatusCompleted}})
				}
				time.Sleep(20 * time.Minute)
				synctest.Wait()
				for i := range m.restarts {
					m.restarts[i] = m.restarts[i].Truncate(time.Second) // the deal took milliseconds to begin
				}
				require.Equal(t, tc.restarts, m.restarts)
			})
		})
	}
}
