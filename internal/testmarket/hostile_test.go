package testmarket_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/filecoin-project/go-state-types/builtin/v8/paych"
	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/stretchr/testify/require"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/testutil"
	"github.com/cartage-dev/cartage/internal/accounting"
	"github.com/cartage-dev/cartage/internal/testmarket"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	retrievalimpl "github.com/cartage-dev/cartage/retrievalmarket/impl"
	"github.com/cartage-dev/cartage/retrievalmarket/impl/clientstates"
	"github.com/cartage-dev/cartage/shared"
)

// liar is a provider that says what a test wants. Its answers are deal responses; a nil one is no answer.
type liar struct {
	*testutil.Peer
	accept   func(p *rm.DealProposal) (*rm.DealResponse, error)
	sent     func(total uint64) (*rm.DealResponse, error)
	paid     func(v *rm.DealPayment) (*rm.DealResponse, error)
	complete func() (*rm.DealResponse, error)

	mu    sync.Mutex
	total uint64
	best  abi.TokenAmount
	deal  rm.DealID
	fell  bool // a voucher was below one before
}

func result(r *rm.DealResponse, err error) (dt.VoucherResult, error) {
	if r == nil {
		return nil, err
	}
	return r, err
}

func (l *liar) ValidatePush(bool, dt.ChannelID, peer.ID, dt.Voucher, cid.Cid, ipld.Node) (dt.VoucherResult, error) {
	return nil, errors.New("no")
}

func (l *liar) ValidatePull(_ bool, _ dt.ChannelID, _ peer.ID, v dt.Voucher, _ cid.Cid, _ ipld.Node) (dt.VoucherResult, error) {
	p := v.(*rm.DealProposal)
	l.mu.Lock()
	l.deal = p.ID
	l.mu.Unlock()
	if l.accept != nil {
		return result(l.accept(p))
	}
	return &rm.DealResponse{ID: p.ID, Status: rm.DealStatusAccepted, PaymentOwed: big.Zero()}, nil
}

func (l *liar) Revalidate(_ dt.ChannelID, v dt.Voucher) (dt.VoucherResult, error) {
	p := v.(*rm.DealPayment)
	l.mu.Lock()
	if l.best.Nil() || p.PaymentVoucher.Amount.GreaterThan(l.best) {
		l.best = p.PaymentVoucher.Amount
	}
	l.mu.Unlock()
	if l.paid == nil {
		return nil, dt.ErrResume
	}
	return result(l.paid(p))
}

func (l *liar) OnPullDataSent(_ dt.ChannelID, n uint64) (bool, dt.VoucherResult, error) {
	l.mu.Lock()
	l.total += n
	total := l.total
	l.mu.Unlock()
	if l.sent == nil {
		return true, nil, nil
	}
	r, err := result(l.sent(total))
	return true, r, err
}

func (l *liar) OnPushDataReceived(dt.ChannelID, uint64) (bool, dt.VoucherResult, error) {
	return false, nil, nil
}

func (l *liar) OnComplete(dt.ChannelID) (bool, dt.VoucherResult, error) {
	if l.complete == nil {
		return true, &rm.DealResponse{ID: l.deal, Status: rm.DealStatusCompleted, PaymentOwed: big.Zero()}, nil
	}
	r, err := result(l.complete())
	return true, r, err
}

func (l *liar) demand(status rm.DealStatus, owed int64) (*rm.DealResponse, error) {
	return &rm.DealResponse{ID: l.deal, Status: status, PaymentOwed: big.NewInt(owed)}, dt.ErrPause
}

// either says that a deal may end well or not.
const either = rm.DealStatusNew

const hostileLeaves, hostileSize = 4, 2048

// TestHostileProvider: rows T55 to T66 of the threats that concern the market. Whatever a provider says, the client pays for
// verified bytes at the agreed price and no more, and does not wait for ever.
func TestHostileProvider(t *testing.T) {
	free := func(uint64) (*rm.DealResponse, error) { return nil, nil }
	for _, tc := range []struct {
		name   string
		unseal int64
		liar   func(l *liar)
		status rm.DealStatus
		says   string
		spent  func(received uint64, total uint64) int64 // exact; nil is any amount that is due
	}{
		{"T55 raises the price in mid-deal", 0, func(l *liar) {
			l.sent = func(n uint64) (*rm.DealResponse, error) {
				if n < 4096 {
					return nil, nil
				}
				return l.demand(rm.DealStatusFundsNeeded, int64(n)*20)
			}
			l.paid = func(*rm.DealPayment) (*rm.DealResponse, error) { return l.demand(rm.DealStatusFundsNeeded, 10*1024*20) }
		}, rm.DealStatusErrored, "", nil},
		{"T55 raises the price in mid-deal and gives in", 0, func(l *liar) {
			l.sent = func(n uint64) (*rm.DealResponse, error) {
				if n < 4096 {
					return nil, nil
				}
				return l.demand(rm.DealStatusFundsNeeded, int64(n)*20)
			}
		}, either, "", nil},
		{"T56 S35 demands more than is there", 0, func(l *liar) {
			l.sent = func(n uint64) (*rm.DealResponse, error) { return l.demand(rm.DealStatusFundsNeeded, 1<<60) }
		}, either, "", nil}, // if it goes on for what is due, all is well
		{"T57 S36 asks for more unsealing money than agreed", 5, func(l *liar) {
			l.accept = func(p *rm.DealProposal) (*rm.DealResponse, error) { return l.demand(rm.DealStatusFundsNeededUnseal, 6) }
		}, rm.DealStatusErrored, "too much money requested", func(uint64, uint64) int64 { return 0 }},
		{"T58 S37 takes the unsealing money and sends nothing", 5, func(l *liar) {
			l.accept = func(p *rm.DealProposal) (*rm.DealResponse, error) { return l.demand(rm.DealStatusFundsNeededUnseal, 5) }
			l.paid = func(*rm.DealPayment) (*rm.DealResponse, error) { return nil, nil }
		}, rm.DealStatusErrored, "nothing happened", func(uint64, uint64) int64 { return 5 }},
		{"T59 stalls after a payment", 0, func(l *liar) {
			l.sent = func(n uint64) (*rm.DealResponse, error) {
				if n < 4096 {
					return nil, nil
				}
				return l.demand(rm.DealStatusFundsNeeded, int64(n)*2)
			}
			l.paid = func(*rm.DealPayment) (*rm.DealResponse, error) { return nil, nil }
		}, rm.DealStatusErrored, "nothing happened", func(got, _ uint64) int64 { return int64(got) * 2 }},
		{"T60 stalls before the interval ends", 0, func(l *liar) {
			l.sent = func(n uint64) (*rm.DealResponse, error) {
				if n < 4095 {
					return nil, nil
				}
				return nil, dt.ErrPause
			}
		}, rm.DealStatusErrored, "nothing happened", func(uint64, uint64) int64 { return 0 }},
		{"T64 accepts and serves nothing", 0, func(l *liar) {
			l.accept = func(p *rm.DealProposal) (*rm.DealResponse, error) {
				return &rm.DealResponse{ID: p.ID, Status: rm.DealStatusAccepted, PaymentOwed: big.Zero()}, dt.ErrPause
			}
		}, rm.DealStatusErrored, "nothing happened", func(uint64, uint64) int64 { return 0 }},
		{"T66 asks again for an older total", 0, func(l *liar) {
			l.sent = func(n uint64) (*rm.DealResponse, error) {
				switch {
				case n < 4096:
					return nil, nil
				case n < 8192:
					return l.demand(rm.DealStatusFundsNeeded, int64(n)*2)
				}
				return l.demand(rm.DealStatusFundsNeeded, 2)
			}
			l.paid = func(v *rm.DealPayment) (*rm.DealResponse, error) {
				l.mu.Lock()
				defer l.mu.Unlock()
				if v.PaymentVoucher.Amount.LessThan(l.best) {
					l.fell = true
				}
				return nil, dt.ErrResume
			}
		}, either, "", nil},
		{"T61 never says that it is done", 0, func(l *liar) {
			l.sent = free
			l.complete = func() (*rm.DealResponse, error) { return nil, dt.ErrPause }
		}, rm.DealStatusCompleted, "", func(got, _ uint64) int64 { return int64(got) * 2 }}, // a deal that is complete is paid
		{"T62 claims to be done early", 0, func(l *liar) {
			l.sent = func(n uint64) (*rm.DealResponse, error) {
				if n < 4096 {
					return nil, nil
				}
				return &rm.DealResponse{ID: l.deal, Status: rm.DealStatusCompleted, PaymentOwed: big.Zero()}, dt.ErrPause
			}
		}, rm.DealStatusErrored, "", func(uint64, uint64) int64 { return 0 }},
		{"T65 S40 denies that it was paid", 0, func(l *liar) {
			again := func() (*rm.DealResponse, error) { return l.demand(rm.DealStatusFundsNeeded, 5*1024*2) }
			l.sent = func(n uint64) (*rm.DealResponse, error) {
				if n < 4096 {
					return nil, nil
				}
				return again()
			}
			l.paid = func(*rm.DealPayment) (*rm.DealResponse, error) { return again() }
		}, rm.DealStatusErrored, "", func(got, _ uint64) int64 { return int64(got) * 2 }},
		{"a negative demand", 0, func(l *liar) {
			l.sent = func(n uint64) (*rm.DealResponse, error) { return l.demand(rm.DealStatusFundsNeeded, -1) }
		}, rm.DealStatusErrored, "", func(uint64, uint64) int64 { return 0 }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
			defer cancel()
			bank := testmarket.NewBank()
			c, err := testmarket.NewPeer(bank, 1)
			require.NoError(t, err)
			c.Idle = 3 * time.Second
			require.NoError(t, c.Start(ctx))
			l := &liar{}
			tc.liar(l)
			l.Peer, err = testutil.PeerConfig{Prepare: func(m dt.Manager) {
				require.NoError(t, m.RegisterVoucherType(&rm.DealProposal{}, l))
				require.NoError(t, m.RegisterRevalidator(&rm.DealPayment{}, l))
				require.NoError(t, m.RegisterVoucherResultType(&rm.DealResponse{}))
			}}.Start(ctx)
			require.NoError(t, err)
			t.Cleanup(func() {
				require.NoError(t, c.Stop(context.Background()))
				require.NoError(t, l.Close(context.Background()))
			})
			c.Host.Peerstore().AddAddrs(l.Host.ID(), l.Host.Addrs(), time.Hour)
			root, total, err := l.Store.BuildDAG(hostileLeaves, hostileSize, 3)
			require.NoError(t, err)
			params := terms(2, tc.unseal, 4096, 0)
			id, err := c.Client.Retrieve(ctx, root, params, big.NewInt(1<<40), rm.RetrievalPeer{ID: l.Host.ID()}, c.Address, c.Address, nil)
			require.NoError(t, err)
			var d rm.ClientDealState
			require.Eventually(t, func() bool {
				d, err = c.Client.GetDeal(id)
				return err == nil && clientstates.IsFinal(d.Status)
			}, 40*time.Second, 10*time.Millisecond, "the client waits for ever")
			if tc.status != either {
				require.Equal(t, tc.status, d.Status, d.Message)
			}
			require.Contains(t, d.Message, tc.says)
			due := clientstates.Terms(&d).Due(d.TotalReceived)
			require.True(t, d.FundsSpent.LessThanEqual(due), "%s for %d bytes", d.FundsSpent, d.TotalReceived)
			if tc.spent != nil {
				require.Equal(t, tc.spent(d.TotalReceived, total), d.FundsSpent.Int64(), "for %d bytes", d.TotalReceived)
			}
			require.False(t, l.fell, "the total of a lane fell")
			made, _ := bank.Totals()
			require.Equal(t, made.String(), d.FundsSpent.String(), "what was signed is what the deal knows of")
		})
	}
}

// TestT03ManyNames: what all clients together that never paid have on credit is bounded; who has paid is served.
func TestT03ManyNames(t *testing.T) {
	m := newPair(t, terms(2, 0, 4096, 0), 30, 1024, func(m *pair) {
		m.p.Config = func(c *retrievalimpl.ProviderConfig) {
			c.Credit = &accounting.CreditLimits{Allowance: 2*4096 + 100, PerPeer: 1, Memory: time.Hour}
		}
	})
	var names []*testmarket.Peer
	var ids []rm.DealID
	for i := range 4 {
		c, err := testmarket.NewPeer(m.bank, uint64(10+i))
		require.NoError(t, err)
		c.ClientConfig = func(cfg *retrievalimpl.ClientConfig) { cfg.Node = forgetful{testmarket.Client{SimulatedBank: m.bank}} }
		require.NoError(t, c.Start(m.ctx))
		t.Cleanup(func() { require.NoError(t, c.Stop(context.Background())) })
		testmarket.Know(c, m.p)
		id, err := c.Client.Retrieve(m.ctx, m.root, m.params, m.funds, m.p.As(), c.Address, m.p.Address, nil)
		require.NoError(t, err)
		names, ids = append(names, c), append(ids, id)
		require.Eventually(t, func() bool {
			s, err := c.Client.GetDeal(id)
			return err == nil && (s.Status == rm.DealStatusRejected || s.Status == rm.DealStatusSendFunds)
		}, 20*time.Second, 5*time.Millisecond)
	}
	for i, c := range names {
		s, err := c.Client.GetDeal(ids[i])
		require.NoError(t, err)
		if i < 2 {
			require.Equal(t, rm.DealStatusSendFunds, s.Status)
			require.NoError(t, c.Client.CancelDeal(ids[i]))
			continue
		}
		require.Equal(t, "deal rejected: no credit for 4096 bytes at the moment: pay them in advance: ask for an offer and propose its unseal price", s.Message)
	}
	require.Eventually(t, func() bool {
		for _, d := range m.p.Provider.ListDeals() {
			if !clientstates.IsFinal(d.Status) {
				return false
			}
		}
		return true
	}, 20*time.Second, 5*time.Millisecond)
	m.tp.forget()
	offer, err := m.c.Client.Query(m.ctx, m.p.As(), m.root, rm.QueryParams{})
	require.NoError(t, err)
	require.Equal(t, "8192", offer.UnsealPrice.String(), "one interval in advance")
	m.params.UnsealPrice, m.funds = offer.UnsealPrice, big.Add(m.funds, offer.UnsealPrice)
	m.retrieve()
	m.completed(m.due())
}

// TestT63LieAboutSize: a size that was too small in the offer limits what the client spends; the rest is not paid.
func TestT63LieAboutSize(t *testing.T) {
	for name, claimed := range map[string]int64{"a tenth": 1024, "nothing": 0, "ten times": 102400} {
		t.Run(name, func(t *testing.T) {
			m := newPair(t, terms(2, 0, 2048, 0), 10, 1024)
			m.funds = big.NewInt(2 * claimed)
			id := m.retrieve()
			if claimed > int64(m.total) {
				m.completed(m.due())
				return
			}
			require.Eventually(t, func() bool {
				s, err := m.c.Client.GetDeal(id)
				return err == nil && (s.Status == rm.DealStatusInsufficientFunds || clientstates.IsFinal(s.Status))
			}, 20*time.Second, 10*time.Millisecond)
			made, _ := m.bank.Totals()
			require.True(t, made.LessThanEqual(m.funds), "%s of %s", made, m.funds)
			_ = m.c.Client.CancelDeal(id)
			require.Eventually(t, func() bool {
				s, err := m.c.Client.GetDeal(id)
				return err == nil && clientstates.IsFinal(s.Status)
			}, 20*time.Second, 10*time.Millisecond)
		})
	}
}

// forgetful is a client's node that never signs.
type forgetful struct{ testmarket.Client }

func (f forgetful) CreatePaymentVoucher(ctx context.Context, _ address.Address, _ abi.TokenAmount, _ uint64, _ shared.TipSetToken) (*paych.SignedVoucher, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}
