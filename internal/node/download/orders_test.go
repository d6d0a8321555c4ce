package download

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/cartage-dev/cartage/fsm"
	"github.com/cartage-dev/cartage/internal/reason"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeMarket is a provider that sells 100 bytes at 1 attoFIL, as far as script lets it.
type fakeMarket struct {
	mu     sync.Mutex
	orders *Orders
	next   Deal
	spent  map[Deal]int64
	script func(ctx context.Context, m *fakeMarket, a Attempt, d Deal) (Outcome, error)
	terms  Attempt
	left   []reason.Reason
	states []State
	errs   []error
	stall  time.Duration
	refuse error // of Deal
	all    bool  // everything is here
}

func (m *fakeMarket) Complete(context.Context, Order) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.all, nil
}

func (m *fakeMarket) Deal(ctx context.Context, a Attempt) (Deal, error) {
	m.mu.Lock()
	err := m.refuse
	m.next++
	d := m.next
	m.terms = a
	m.mu.Unlock()
	if err != nil {
		return 0, err
	}
	return d, a.Bind(ctx, d)
}

func (m *fakeMarket) Await(ctx context.Context, _ Order, d Deal, moved func()) (Outcome, error) {
	m.mu.Lock()
	a := m.terms
	m.mu.Unlock()
	return m.script(ctx, m, a, d)
}

// pay is a voucher for so much more.
func (m *fakeMarket) pay(d Deal, amount int64) error {
	if err := m.orders.MaySpend("c" + big.NewInt(int64(d)).String()); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.spent[d] += amount
	return nil
}

func (m *fakeMarket) Leave(_ context.Context, o Order, why reason.Reason) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.left = append(m.left, why)
	return nil
}

func (m *fakeMarket) Spent(_ context.Context, deals []Deal) (abi.TokenAmount, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	sum := int64(0)
	for _, d := range deals {
		sum += m.spent[d]
	}
	return big.NewInt(sum), nil
}

func (m *fakeMarket) Changed(o Order, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.states, m.errs = append(m.states, o.State), append(m.errs, err)
}

func (m *fakeMarket) Stall(Order) time.Duration { return m.stall }

// waits is a provider that says nothing.
func waits(ctx context.Context, _ *fakeMarket, _ Attempt, _ Deal) (Outcome, error) {
	<-ctx.Done()
	return Outcome{}, context.Cause(ctx)
}

type world struct {
	*Orders
	ds     datastore.Batching
	market *fakeMarket
	t      *testing.T
}

func open(t *testing.T, script func(context.Context, *fakeMarket, Attempt, Deal) (Outcome, error)) *world {
	w := &world{ds: dssync.MutexWrap(datastore.NewMapDatastore()), t: t}
	w.market = &fakeMarket{spent: map[Deal]int64{}, script: script}
	w.reopen()
	return w
}

func (w *world) reopen() {
	var err error
	w.Orders, err = Open(w.t.Context(), Config{Store: w.ds, Market: w.market})
	require.NoError(w.t, err)
	w.market.orders = w.Orders
	require.NoError(w.t, w.Start())
}

func (w *world) close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	require.NoError(w.t, w.Stop(ctx))
}

// crash ends the process without a word: what is stored is stored.
func (w *world) crash() {
	w.stop(errStopping)
	require.NoError(w.t, w.group.Close(context.Background()))
	for _, c := range w.owners() {
		require.NoError(w.t, c.machine.Stop(context.Background()))
	}
}

func (w *world) place(owner Owner, budget int64) ID {
	b := big.NewInt(budget)
	id, err := w.Place(w.t.Context(), Order{Key: "root", Want: []byte("{}"), Owner: owner, Budget: &b}, "me")
	require.NoError(w.t, err)
	return id
}

func (w *world) state(id ID) Order {
	synctest.Wait()
	o, err := w.Get(w.t.Context(), id)
	require.NoError(w.t, err)
	return o
}

// TestLeaseOver: an order of a command runs while its holder is heard of, and is parked 15 s after; from then on nothing may be spent for it.
func TestLeaseOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := open(t, waits)
		defer w.close()
		id := w.place(Command, 100)
		require.NoError(t, w.Await(t.Context(), id, "me"))
		for range 10 {
			time.Sleep(14 * time.Second)
			w.Renew(id, "me")
		}
		require.Equal(t, Running, w.state(id).State)
		require.NoError(t, w.MaySpend("c1"))
		time.Sleep(16 * time.Second)
		o := w.state(id)
		require.Equal(t, Parked, o.State)
		require.Equal(t, reason.ParkedLease, o.Reason)
		require.Equal(t, []reason.Reason{reason.ParkedLease}, w.market.left)
		require.ErrorIs(t, w.MaySpend("c1"), reason.ParkedLease)
		require.True(t, w.Holds(1))
		time.Sleep(24 * time.Hour)
		require.Equal(t, Parked, w.state(id).State, "it waits for a person")

		require.NoError(t, w.Resume(t.Context(), id, nil, nil, "me"))
		require.NoError(t, w.Await(t.Context(), id, "me"))
		require.Equal(t, Running, w.state(id).State)
		require.NoError(t, w.MaySpend("c2"))
	})
}

// TestLastHolder: an order that two hold is parked when both have gone, by a word or by silence.
func TestLastHolder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := open(t, waits)
		defer w.close()
		id := w.place(Command, 100)
		b := big.NewInt(100)
		again, err := w.Place(t.Context(), Order{Key: "root", Want: []byte("{}"), Budget: &b}, "you")
		require.NoError(t, err)
		require.Equal(t, id, again, "an equal request attaches")
		o, err := w.Release(t.Context(), id, "me", reason.Interrupted)
		require.NoError(t, err)
		require.Equal(t, Running, o.State)
		o, err = w.Release(t.Context(), id, "you", reason.Interrupted)
		require.NoError(t, err)
		require.Equal(t, Parked, o.State)
		require.Equal(t, reason.Interrupted, o.Reason)
	})
}

// TestRestart: after the end of the process nothing goes on for a command, whatever its deals did; the daemon's own orders go on.
func TestRestart(t *testing.T) {
	for name, end := range map[string]func(*world){"stopped": (*world).close, "killed": (*world).crash} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := open(t, waits)
				mine := w.place(Command, 100)
				require.NoError(t, w.Await(t.Context(), mine, "me"))
				b := big.NewInt(7)
				own, err := w.Place(t.Context(), Order{Key: "other", Want: []byte("{}"), Owner: API, Budget: &b}, "")
				require.NoError(t, err)
				require.NoError(t, w.Await(t.Context(), own, ""))
				queued, err := w.Place(t.Context(), Order{Key: "third", Want: []byte("{}"), Owner: Queue, Budget: &b}, "")
				require.NoError(t, err)
				synctest.Wait()
				end(w)

				w.Orders, err = Open(t.Context(), Config{Store: w.ds, Market: w.market})
				require.NoError(t, err)
				w.market.orders = w.Orders
				require.True(t, w.Holds(1), "the deal of a command stands still")
				require.False(t, w.Holds(2))
				require.True(t, w.Holds(99), "a deal without an order stands still")
				require.Error(t, w.MaySpend("c1"))
				require.Error(t, w.MaySpend("c99"))
				require.Error(t, w.MaySpend(""))
				require.NoError(t, w.Start())
				time.Sleep(time.Minute)
				o := w.state(mine)
				require.Equal(t, Parked, o.State)
				require.Equal(t, reason.ParkedRestart, o.Reason)
				require.Equal(t, []Deal{1}, o.Deals)
				require.Equal(t, Running, w.state(own).State)
				require.Equal(t, Running, w.state(queued).State)
				w.close()
			})
		})
	}
}

// TestBudgetOfAll: the budget is that of all deals together, over attempts, restarts and resumptions; a later one replaces the total.
func TestBudgetOfAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := open(t, func(_ context.Context, m *fakeMarket, a Attempt, d Deal) (Outcome, error) {
			if a.Left.LessThan(big.NewInt(30)) {
				return Outcome{}, reason.BudgetUsed
			}
			if err := m.pay(d, 30); err != nil {
				return Outcome{}, err
			}
			return Outcome{Moved: true}, reason.PeerUnreachable
		})
		id := w.place(Command, 100)
		time.Sleep(10 * time.Second)
		o := w.state(id)
		require.Equal(t, Parked, o.State)
		require.Equal(t, reason.BudgetUsed, o.Reason)
		sum, _ := w.market.Spent(t.Context(), o.Deals)
		require.Equal(t, "90", sum.String())
		w.crash()
		w.reopen()
		require.NoError(t, w.Resume(t.Context(), id, nil, nil, "me"))
		time.Sleep(10 * time.Second)
		require.Equal(t, reason.BudgetUsed, w.state(id).Reason)
		more := big.NewInt(130)
		require.NoError(t, w.Resume(t.Context(), id, &more, nil, "me"))
		time.Sleep(10 * time.Second)
		o = w.state(id)
		sum, _ = w.market.Spent(t.Context(), o.Deals)
		require.Equal(t, "120", sum.String())
		w.close()
	})
}

// TestAttempts: what cannot pass is not tried again; what can is, a few times, with pauses; a deal that found a quote too low is
// given more while there is budget.
func TestAttempts(t *testing.T) {
	for name, tc := range map[string]struct {
		err   error
		moved bool
		owner Owner
		deals int
		state State
	}{
		"missing data":            {reason.DataMissing, true, Command, 1, Failed},
		"refused":                 {reason.PeerRefused, false, Command, 1, Failed},
		"words do not count":      {errors.New("nothing happened, is not reachable, rejected for unknown reasons"), false, Command, 1, Failed},
		"away":                    {reason.PeerUnreachable, false, Command, maxFailures, Parked},
		"away, of the queue":      {reason.PeerUnreachable, false, Queue, maxFailures, Waiting},
		"lost by the provider":    {reason.DealLost, false, Command, maxFailures, Parked},
		"a wrong block, of queue": {reason.HashMismatch, true, Queue, 1, Failed},
		"wallet":                  {reason.WalletShort, false, Command, 1, Parked},
		"cancelled":               {reason.Cancelled, false, Command, 1, Cancelled},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := open(t, func(context.Context, *fakeMarket, Attempt, Deal) (Outcome, error) {
					return Outcome{Moved: tc.moved}, tc.err
				})
				defer w.close()
				id := w.place(tc.owner, 100)
				time.Sleep(4 * time.Second)
				o := w.state(id)
				require.Equal(t, tc.state, o.State)
				require.Len(t, o.Deals, tc.deals)
				require.Equal(t, reason.From(tc.err), o.Reason)
			})
		})
	}
}

// TestWaiting: an order of the queue tries again after 5 s, 10 s, 20 s ... and never pays meanwhile.
func TestWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		var at []time.Duration
		w := open(t, func(context.Context, *fakeMarket, Attempt, Deal) (Outcome, error) {
			at = append(at, time.Since(begin).Round(time.Second))
			return Outcome{}, reason.PeerUnreachable
		})
		defer w.close()
		id := w.place(Queue, 100)
		time.Sleep(5 * time.Second)
		o := w.state(id)
		require.Equal(t, Waiting, o.State)
		require.Error(t, w.MaySpend("c1"))
		require.True(t, w.Holds(1))
		time.Sleep(60 * time.Second)
		synctest.Wait()
		require.Greater(t, len(at), 3*maxFailures-1)
		require.Less(t, len(at), 5*maxFailures, "%v", at)
		_, err := w.Cancel(t.Context(), id)
		require.NoError(t, err)
		require.Equal(t, Cancelled, w.state(id).State)
	})
}

// TestStall: an order without a byte for too long is parked, with the reason of a stall.
func TestStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := open(t, waits)
		w.market.stall = 10 * time.Second
		defer w.close()
		id := w.place(Command, 100)
		time.Sleep(11 * time.Second)
		o := w.state(id)
		require.Equal(t, Parked, o.State)
		require.Equal(t, reason.ParkedStall, o.Reason)
		require.Equal(t, []reason.Reason{reason.ParkedStall}, w.market.left)
	})
}

// TestNothingIsKeptOfNothing: what could not begin is said to who asked, and leaves no record.
func TestNothingIsKeptOfNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := open(t, waits)
		defer w.close()
		w.market.refuse = reason.PriceAbove.Errorf("too dear")
		id := w.place(Command, 1)
		require.ErrorIs(t, w.Await(t.Context(), id, "me"), reason.PriceAbove)
		synctest.Wait()
		all, err := w.List(t.Context())
		require.NoError(t, err)
		require.Empty(t, all)
		require.Equal(t, []State{Failed}, w.market.states)
	})
}

// TestOneOutput: two orders do not write to one output.
func TestOneOutput(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := open(t, waits)
		defer w.close()
		_, err := w.Place(t.Context(), Order{Key: "a", Want: []byte("{}"), Output: "/x"}, "me")
		require.NoError(t, err)
		_, err = w.Place(t.Context(), Order{Key: "b", Want: []byte("{}"), Output: "/x"}, "you")
		require.ErrorIs(t, err, reason.OutputBusy)
		_, err = w.Place(t.Context(), Order{Key: "b", Want: []byte("{}"), Output: "/y"}, "you")
		require.NoError(t, err)
	})
}

// TestRecord: the record reads back, refuses what is no record, and one of another version.
func TestRecord(t *testing.T) {
	b := big.NewInt(12345)
	o := Order{ID: 7, Key: "root-x", Want: []byte(`{"cid":"x"}`), Providers: []string{"/ip4/1.2.3.4/tcp/1"}, Transport: "auto", Budget: &b, Asset: "FIL", MaxExposure: 9, Owner: API,
		Token: "t", State: Parked, Reason: reason.ParkedStall, Created: now(), Changed: now(), Deals: []Deal{3, 4}, Output: "/out"}
	data, err := o.encode()
	require.NoError(t, err)
	back, err := decode(7, data)
	require.NoError(t, err)
	require.Equal(t, o, back)
	o.Budget, o.Providers, o.Deals = nil, nil, nil
	data, err = o.encode()
	require.NoError(t, err)
	back, err = decode(7, data)
	require.NoError(t, err)
	require.Equal(t, o, back)
	for i := range data {
		_, err := decode(7, data[:i])
		require.ErrorIs(t, err, reason.StoreFailed)
	}
	newer := slices.Clone(data)
	newer[1] = 2
	_, err = decode(7, newer)
	require.ErrorIs(t, err, reason.HomeNewer)
	o.Want = make([]byte, maxRecord+1)
	_, err = o.encode()
	require.Error(t, err)
}

// TestTable: every state that is not final has a deadline or says why not, and ends can be reached.
func TestTable(t *testing.T) {
	tab, err := fsm.Compile(Spec(Lease, firstWait))
	require.NoError(t, err)
	for s := Running; s <= Cancelled; s++ {
		d, ok := tab.Deadline(s)
		require.Equal(t, !s.Final(), ok, s.String())
		require.True(t, s.Final() || d.After > 0 || d.Reason != "")
		require.Equal(t, s.Final(), tab.Final(s))
		n, ok := ParseID(ID(s).String())
		require.True(t, ok)
		require.Equal(t, ID(s), n)
	}
	for _, bad := range []string{"", "o", "c1", "o-1", "o0", "17"} {
		_, ok := ParseID(bad)
		require.False(t, ok, bad)
	}
}
