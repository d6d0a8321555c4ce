package clientstates_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/filecoin-project/go-state-types/builtin/v8/paych"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	mh "github.com/multiformats/go-multihash"
	"github.com/stretchr/testify/require"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/fsm"
	"github.com/cartage-dev/cartage/internal/accounting"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	"github.com/cartage-dev/cartage/retrievalmarket/impl/clientstates"
	"github.com/cartage-dev/cartage/shared"
)

// fakeEnv is a client without network and chain: it notes the vouchers that leave.
type fakeEnv struct {
	rm.RetrievalClientNode

	mu       sync.Mutex
	vouchers []int64
	attempts int
	funds    []rm.ChannelAvailableFunds
	short    []int64 // shortfall of the next vouchers
	rechecks int
	quiet    bool
	openErr  error
	openWait bool // OpenDataTransfer waits for its context
	closed   int
	waited   []cid.Cid
	away     time.Time // until when the ledger cannot be reached
}

func (e *fakeEnv) Node() rm.RetrievalClientNode { return e }

func (e *fakeEnv) OpenDataTransfer(ctx context.Context, _ peer.ID, _ *rm.DealProposal, _ bool) (dt.ChannelID, error) {
	if e.openWait {
		<-ctx.Done()
		return dt.ChannelID{}, ctx.Err()
	}
	return dt.ChannelID{Initiator: "c", Responder: "p", ID: 1}, e.openErr
}

func (e *fakeEnv) SendDataTransferVoucher(_ context.Context, _ dt.ChannelID, p *rm.DealPayment, _ bool) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.vouchers = append(e.vouchers, p.PaymentVoucher.Amount.Int64())
	return nil
}

func (e *fakeEnv) CloseDataTransfer(context.Context, dt.ChannelID) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed++
	return nil
}

func (e *fakeEnv) GetChainHead(context.Context) (shared.TipSetToken, abi.ChainEpoch, error) {
	return nil, 0, nil
}

func (e *fakeEnv) CreatePaymentVoucher(_ context.Context, ch address.Address, amount abi.TokenAmount, lane uint64, _ shared.TipSetToken) (*paych.SignedVoucher, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.attempts++
	if err := e.ledger(); err != nil {
		return nil, err
	}
	if len(e.short) > 0 {
		s := e.short[0]
		if len(e.short) > 1 {
			e.short = e.short[1:]
		}
		if s > 0 {
			return nil, rm.NewShortfallError(big.NewInt(s))
		}
	}
	return &paych.SignedVoucher{ChannelAddr: ch, Lane: lane, Amount: amount}, nil
}

func (e *fakeEnv) CheckAvailableFunds(context.Context, address.Address) (rm.ChannelAvailableFunds, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.ledger(); err != nil {
		return rm.ChannelAvailableFunds{}, err
	}
	f := e.funds[0]
	if len(e.funds) > 1 {
		e.funds = e.funds[1:]
	}
	return f, nil
}

func (e *fakeEnv) WaitForPaymentChannelReady(_ context.Context, msg cid.Cid) (address.Address, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.waited = append(e.waited, msg)
	return payCh, e.ledger()
}

// Facts implements clientstates.BuyerFacts.
func (e *fakeEnv) Facts(d rm.ClientDealState) accounting.BuyerFacts {
	f := clientstates.RecordFacts(&d)
	e.mu.Lock()
	defer e.mu.Unlock()
	f.Quiet, f.Repeats = e.quiet, len(e.vouchers)-len(slices.Compact(slices.Clone(e.vouchers)))
	return f
}

// Rechecks implements clientstates.BuyerFacts.
func (e *fakeEnv) Rechecks(rm.DealID) bool {
	e.rechecks++
	return e.rechecks <= accounting.MaxRepeats
}

// Completed implements clientstates.BuyerFacts.
func (e *fakeEnv) Completed(rm.DealID) bool { return false }

var payCh, _ = address.NewActorAddress([]byte("channel"))

func sentinel(t *testing.T, s string) *cid.Cid {
	c, err := cid.V1Builder{Codec: cid.Raw, MhType: mh.SHA2_256}.Sum([]byte(s))
	require.NoError(t, err)
	return &c
}

// run is a deal machine over the fake environment.
type run struct {
	*fsm.Machine[rm.ClientDealState]
	t   *testing.T
	env *fakeEnv
}

// start makes a deal in a state with P, I, p and U.
func start(t *testing.T, status rm.DealStatus, interval, increase uint64, price, unseal int64, change ...func(*rm.ClientDealState, *fakeEnv)) *run {
	table, err := fsm.Compile(clientstates.Spec(clientstates.Deadlines(0, 0, 0, 0)))
	require.NoError(t, err)
	zero := big.Zero()
	d := rm.ClientDealState{
		DealProposal: rm.DealProposal{ID: 5, Params: rm.Params{PricePerByte: big.NewInt(price), PaymentInterval: interval, PaymentIntervalIncrease: increase, UnsealPrice: big.NewInt(unseal)}},
		Status:       status, CurrentInterval: interval, TotalFunds: big.NewInt(1 << 50), PaymentRequested: zero, FundsSpent: zero, UnsealFundsPaid: zero,
		VoucherShortfall: zero, PaymentInfo: &rm.PaymentInfo{PayCh: payCh, Lane: 1}, ChannelID: dt.ChannelID{Initiator: "c", Responder: "p", ID: 1},
	}
	env := &fakeEnv{}
	for _, c := range change {
		c(&d, env)
	}
	return &run{fsm.NewMachine[rm.ClientDealState](t.Context(), table, d, clientstates.ClientDealEnvironment(env), fsm.Hooks[rm.ClientDealState]{
		Failed: func(_ rm.ClientDealState, err error) (fsm.EventName, []any) {
			return rm.ClientEventDataTransferError, []any{err}
		},
	}), t, env}
}

func (r *run) send(e rm.ClientEvent, args ...any) rm.ClientDealState {
	r.t.Helper()
	require.NoError(r.t, r.Send(e, args...))
	return r.settle()
}

func (r *run) settle() rm.ClientDealState {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
	defer cancel()
	require.NoError(r.t, r.Wait(ctx))
	d, _ := r.State()
	return d
}

// blocks says that so many bytes have arrived in all.
func (r *run) blocks(total uint64) { r.send(rm.ClientEventBlocksReceived, total) }

// row compares a deal with a row of a worked example.
func (r *run) row(d rm.ClientDealState, spent int64, paidFor, interval uint64, vouchers ...int64) {
	r.t.Helper()
	require.Equal(r.t, vouchers, r.env.vouchers, "vouchers")
	require.EqualValues(r.t, spent, d.FundsSpent.Int64(), "funds spent")
	require.Equal(r.t, paidFor, d.BytesPaidFor, "bytes paid for")
	require.Equal(r.t, interval, d.CurrentInterval, "current interval")
	require.True(r.t, d.PaymentRequested.IsZero(), "payment requested")
}

func (r *run) asked(owed int64) rm.ClientDealState {
	return r.send(rm.ClientEventPaymentRequested, big.NewInt(owed))
}

func (r *run) askedLast(owed int64) rm.ClientDealState {
	return r.send(rm.ClientEventLastPaymentRequested, big.NewInt(owed))
}
