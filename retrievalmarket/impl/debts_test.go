package retrievalimpl_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/filecoin-project/go-state-types/builtin/v8/paych"
	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/stretchr/testify/require"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/internal/port"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	retrievalimpl "github.com/cartage-dev/cartage/retrievalmarket/impl"
	"github.com/cartage-dev/cartage/retrievalmarket/network"
)

// walkOut makes a deal that takes some bytes, pays for some of them, and leaves.
func (m *market) walkOut(id uint64, bytes uint64, pays int64) {
	m.t.Helper()
	_, err := m.propose(id, func(p *rm.DealProposal) { p.UnsealPrice = big.NewInt(10) })
	require.ErrorIs(m.t, err, dt.ErrPause)
	m.manager.mu.Lock()
	m.manager.queued = bytes
	m.manager.mu.Unlock()
	if pays > 0 {
		_, err = m.pay(id, pays)
		require.True(m.t, err == nil || errors.Is(err, dt.ErrResume), err)
	}
	m.manager.sub(dt.Event{Code: dt.Cancel}, fakeState{chid: channel(id)})
	require.Eventually(m.t, func() bool { return m.deal(id).Status == rm.DealStatusCancelled }, time.Minute, time.Millisecond)
}

// TestM32Debts: whoever left with bytes unpaid gets no more credit for a day, also after a restart of the provider. Who shows money first is
// served all the same, and what is paid after all is no debt any more.
func TestM32Debts(t *testing.T) {
	const says = "bytes of earlier deals are not paid"
	inAdvance := func(p *rm.DealProposal) { p.UnsealPrice = big.NewInt(10 + 2*100) }
	for name, pays := range map[string]bool{"pays later": true, "never pays": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var cfg retrievalimpl.ProviderConfig
				m := newMarket(t, func(c *retrievalimpl.ProviderConfig) { cfg = *c })
				m.walkOut(1, 1000, 0)
				res, err := m.propose(10)
				require.NotErrorIs(t, err, dt.ErrPause)
				require.Equal(t, rm.DealStatusRejected, res.Status)
				require.Contains(t, res.Message, says)
				require.Len(t, m.Accounts().Debts(t.Context()), 1)

				again, err := retrievalimpl.NewProviderFromConfig(cfg) // over the same store
				require.NoError(t, err)
				require.NoError(t, m.Stop())
				require.NoError(t, again.Start(t.Context()))
				m.Provider = again
				res, err = m.propose(11)
				require.NotErrorIs(t, err, dt.ErrPause)
				require.Contains(t, res.Message, says)
				res, err = m.propose(12, inAdvance)
				require.ErrorIs(t, err, dt.ErrPause)
				require.Equal(t, rm.DealStatusFundsNeededUnseal, res.Status)
				require.Equal(t, "210", res.PaymentOwed.String())

				if pays {
					n, err := m.Accounts().Forgive(t.Context(), peer.ID("client").String())
					require.NoError(t, err)
					require.Equal(t, 1, n)
				} else {
					time.Sleep(24*time.Hour + time.Second)
				}
				require.Empty(t, m.Accounts().Debts(t.Context()))
				_, err = m.propose(13)
				require.ErrorIs(t, err, dt.ErrPause)
			})
		})
	}
}

// TestProviderFaultIsNoDebt: a deal that ends because a block cannot be read here bars no credit, however much of it is unpaid.
func TestProviderFaultIsNoDebt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMarket(t, func(c *retrievalimpl.ProviderConfig) { c.Pieces = brokenPieces{c.Pieces} })
		_, err := m.propose(1)
		require.ErrorIs(t, err, dt.ErrPause)
		m.manager.mu.Lock()
		m.manager.queued = 1000
		m.manager.mu.Unlock()
		_, err = m.pay(1, 10)
		require.NoError(t, err)
		require.Eventually(t, func() bool { return m.deal(1).Status == rm.DealStatusErrored }, time.Minute, time.Millisecond)
		require.Empty(t, m.Accounts().Debts(t.Context()))
	})
}

// brokenPieces has pieces that cannot be opened.
type brokenPieces struct{ retrievalimpl.PieceSource }

func (brokenPieces) Acquire(context.Context, cid.Cid) (retrievalimpl.Reader, error) {
	return nil, errors.New("the disk has a bad sector")
}

// slowPieces has pieces whose blocks are read for so long that the piece is closed meanwhile: as one who reads ahead does when a deal ends.
type slowPieces struct {
	retrievalimpl.PieceSource
	opened       bool
	closed, read chan struct{}
}

func (s *slowPieces) Acquire(context.Context, cid.Cid) (retrievalimpl.Reader, error) { return s, nil }

func (s *slowPieces) Get(cid.Cid) ([]byte, error) {
	if !s.opened { // the deal looks for its root
		s.opened = true
		return []byte("block"), nil
	}
	<-s.closed
	return nil, errors.New("the piece is closed")
}

// Close returns when who reads has seen it.
func (s *slowPieces) Close() error {
	close(s.closed)
	<-s.read
	return nil
}

// stores is a transport that keeps the link system of a channel.
type stores struct {
	port.Transport
	ls ipld.LinkSystem
}

func (s *stores) UseStore(_ dt.ChannelID, ls ipld.LinkSystem) error {
	s.ls = ls
	return nil
}

// TestReadAheadIsNoFault: whoever reads ahead when a client leaves finds the piece given back. That does not make it the provider's fault, and
// what is unpaid stays a debt.
func TestReadAheadIsNoFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pieces := &slowPieces{closed: make(chan struct{}), read: make(chan struct{})}
		m := newMarket(t, func(c *retrievalimpl.ProviderConfig) {
			pieces.PieceSource = c.Pieces
			c.Pieces = pieces
		})
		_, err := m.propose(1)
		require.ErrorIs(t, err, dt.ErrPause)
		_, err = m.pay(1, 10)
		require.True(t, err == nil || errors.Is(err, dt.ErrResume), err)
		synctest.Wait() // the piece is open
		transport := &stores{}
		m.manager.configure(channel(1), m.proposal(1), transport)
		go func() {
			defer close(pieces.read)
			_, _ = transport.ls.StorageReadOpener(ipld.LinkContext{Ctx: t.Context()}, cidlink.Link{Cid: m.payload})
		}()
		synctest.Wait()
		m.manager.mu.Lock()
		m.manager.queued = 1000
		m.manager.mu.Unlock()
		m.manager.sub(dt.Event{Code: dt.Cancel}, fakeState{chid: channel(1)})
		require.Eventually(t, func() bool { return m.deal(1).Status == rm.DealStatusCancelled }, time.Minute, time.Millisecond)
		require.Len(t, m.Accounts().Debts(t.Context()), 1)
	})
}

// TestM32PaidIsNoDebt: what was paid for is not owed, and another peer's debts are its own.
func TestM32PaidIsNoDebt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMarket(t)
		for i := range 4 {
			m.walkOut(uint64(i+1), 1000, int64(i+1)*(10+2*1000)) // one lane for all of them
		}
		_, err := m.propose(10)
		require.ErrorIs(t, err, dt.ErrPause)
	})
}

// queryStream is one query and its answer.
type queryStream struct {
	network.RetrievalQueryStream
	query  rm.Query
	answer rm.QueryResponse
}

func (*queryStream) RemotePeer() peer.ID { return "client" }

func (s *queryStream) ReadQuery() (rm.Query, error) { return s.query, nil }
func (s *queryStream) WriteQueryResponse(r rm.QueryResponse) error {
	s.answer = r
	return nil
}
func (s *queryStream) Close() error { return nil }

// TestT28QuoteIsHonoured: a price that rises between the answer to a query and the proposal does not count for a minute (4.1, T28).
func TestT28QuoteIsHonoured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMarket(t)
		dearer := &rm.Ask{PricePerByte: big.NewInt(3), UnsealPrice: big.NewInt(10), PaymentInterval: 1 << 20, PaymentIntervalIncrease: 1 << 20}
		m.SetAsk(dearer)
		res, _ := m.propose(1)
		require.Equal(t, "Price per byte too low", res.Message, "nobody was told the old price")

		m.SetAsk(&rm.Ask{PricePerByte: big.NewInt(2), UnsealPrice: big.NewInt(10), PaymentInterval: 1 << 20, PaymentIntervalIncrease: 1 << 20})
		s := &queryStream{query: rm.Query{PayloadCID: m.payload}}
		m.HandleQueryStream(s)
		require.Equal(t, rm.QueryResponseAvailable, s.answer.Status)
		m.SetAsk(dearer)
		time.Sleep(59 * time.Second)
		_, err := m.propose(2)
		require.ErrorIs(t, err, dt.ErrPause)
		time.Sleep(2 * time.Second)
		res, _ = m.propose(3)
		require.Equal(t, "Price per byte too low", res.Message)
	})
}

// bookedNode is a node that has a voucher of a deal in its book.
type bookedNode struct {
	*fakeNode
	best *rm.DealVoucher
}

var _ rm.ProviderBook = (*bookedNode)(nil)

func (n *bookedNode) SaveDealVoucher(_ context.Context, _ string, _ address.Address, v *paych.SignedVoucher, _ uint64) (abi.TokenAmount, rm.Outcome, error) {
	return v.Amount, rm.Applied, nil
}

func (n *bookedNode) BestForDeal(context.Context, string) (*rm.DealVoucher, error) {
	return n.best, nil
}

// TestStartLooksIntoBook: a voucher that was booked, and not told to its deal before the end of the process, counts at the next start.
func TestStartLooksIntoBook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var cfg retrievalimpl.ProviderConfig
		node := &bookedNode{}
		m := newMarket(t, func(c *retrievalimpl.ProviderConfig) {
			node.fakeNode = c.Node.(*fakeNode)
			c.Node = node
			cfg = *c
		})
		_, err := m.propose(1)
		require.ErrorIs(t, err, dt.ErrPause)
		synctest.Wait()
		require.NoError(t, m.Stop())
		node.best = &rm.DealVoucher{Amount: big.NewInt(10 + 2*1000)}
		again, err := retrievalimpl.NewProviderFromConfig(cfg)
		require.NoError(t, err)
		require.NoError(t, again.Start(t.Context()))
		m.Provider = again
		synctest.Wait()
		require.Equal(t, "2010", m.deal(1).FundsReceived.String())
	})
}

// TestStartComparesEndedDealsWithBook: a loss of power takes the record of a payment that came when its deal ended, and leaves the book.
func TestStartComparesEndedDealsWithBook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var cfg retrievalimpl.ProviderConfig
		node := &bookedNode{}
		m := newMarket(t, func(c *retrievalimpl.ProviderConfig) {
			node.fakeNode = c.Node.(*fakeNode)
			c.Node = node
			cfg = *c
		})
		m.walkOut(1, 1000, 0)
		require.Len(t, m.Accounts().Debts(t.Context()), 1)
		require.NoError(t, m.Stop())
		node.best = &rm.DealVoucher{Amount: big.NewInt(10 + 2*1000), Voucher: &paych.SignedVoucher{ChannelAddr: cfg.Address}}
		again, err := retrievalimpl.NewProviderFromConfig(cfg)
		require.NoError(t, err)
		require.NoError(t, again.Start(t.Context()))
		m.Provider = again
		require.Equal(t, "2010", m.deal(1).FundsReceived.String())
		require.Equal(t, rm.DealStatusCancelled, m.deal(1).Status)
		require.Empty(t, m.Accounts().Debts(t.Context()), "what the book has is paid")
	})
}
