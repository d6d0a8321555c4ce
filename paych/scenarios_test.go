package paych_test

import (
	"context"
	"fmt"
	"math"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/filecoin-project/go-state-types/builtin/v8/paych"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	cpaych "github.com/cartage-dev/cartage/paych"
	"github.com/cartage-dev/cartage/paych/ledger"
	"github.com/cartage-dev/cartage/paych/lotus"
	"github.com/cartage-dev/cartage/paych/paychtest"
)

// settleDelay is that of all chains here, in epochs.
const settleDelay = 1440

// world is a payer and a payee on a chain: the manager alone over a chain of maps, the embedded ledger, or a simulated Lotus node.
type world struct {
	t            *testing.T
	on           string
	payer, payee *side
	fake         *fakeChain
	node         *paychtest.SimulatedLotus
	advance      func(epochs int)
	more         func() *side // another account with money
}

// newWorld makes a world: M, L or R.
func newWorld(t *testing.T, on string) *world {
	w := &world{t: t, on: on}
	switch on {
	case "M":
		w.fake = newFakeChain()
		w.more = func() *side { return newSide(t, w.fake) }
		w.advance = func(n int) { w.fake.set(func() { w.fake.epoch += abi.ChainEpoch(n) }) }
	case "L":
		w.onLedger()
	case "R":
		w.onLotus()
	}
	w.payer, w.payee = w.more(), w.more()
	return w
}

func (w *world) onLedger() {
	t := w.t
	home := t.TempDir()
	require.NoError(t, ledger.Init(home, ledger.Options{Epoch: time.Second, SettleDelay: settleDelay, Dev: true}))
	var mu sync.Mutex
	now := time.Now()
	l, err := ledger.Open(t.Context(), home, ledger.WithClock(func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return now
	}))
	require.NoError(t, err)
	w.advance = func(n int) {
		mu.Lock()
		defer mu.Unlock()
		now = now.Add(time.Duration(n) * time.Second)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- l.Serve(ctx, ln, "t") }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-served)
		require.NoError(t, l.Verify())
		require.NoError(t, l.Close())
	})
	w.more = func() *side {
		keys, addr := newKeyring(t)
		_, err := l.Mint(t.Context(), addr, big.NewInt(1_000_000))
		require.NoError(t, err)
		c, hangup, err := ledger.Dial(t.Context(), "http://"+ln.Addr().String(), "t", keys)
		require.NoError(t, err)
		t.Cleanup(hangup)
		return newSideOn(t, c, keys, addr)
	}
}

func (w *world) onLotus() {
	t := w.t
	w.node = paychtest.NewSimulatedLotus()
	w.node.Advance(10)
	stop := w.node.Mine(6 * time.Millisecond)
	t.Cleanup(func() {
		stop()
		w.node.Close()
	})
	w.advance = w.node.Advance
	w.more = func() *side {
		keys, addr := newKeyring(t)
		w.node.Fund(addr, big.NewInt(1_000_000), true)
		c, hangup, err := lotus.Dial(t.Context(), lotus.Config{URL: w.node.URL, Token: paychtest.TokenSign, CallTime: 5 * time.Second, Rest: 2 * time.Millisecond})
		require.NoError(t, err)
		t.Cleanup(hangup)
		return newSideOn(t, c, keys, addr)
	}
}

// deal opens a channel of 1000 and pays 50 and 100 on its lane.
func (w *world) deal() (ch address.Address, lane uint64) {
	w.t.Helper()
	ch, lane = w.payer.fund("d", w.payee.addr, 1000)
	w.payee.mustTake("d", w.payer.pay("d", ch, lane, 50), 50)
	w.payee.mustTake("d", w.payer.pay("d", ch, lane, 100), 50)
	return ch, lane
}

// refuses checks that the payee refuses a voucher for a reason, and that its book stays.
func (w *world) refuses(v *paych.SignedVoucher, reason error) {
	w.t.Helper()
	before, err := w.payee.Best(w.t.Context(), true, "d")
	require.NoError(w.t, err)
	_, err = w.payee.AcceptVoucher(w.t.Context(), "d", v.ChannelAddr, v, big.Zero(), 0)
	require.ErrorIs(w.t, err, reason)
	require.True(w.t, cpaych.IsVoucherFault(err), "the payer is told so, and asked again: %v", err)
	after, err := w.payee.Best(w.t.Context(), true, "d")
	require.NoError(w.t, err)
	require.Equal(w.t, before, after, "the book stays")
}

// redeem puts a voucher into the channel past the manager; the receipt says how the chain took it. Not on M, whose chain knows no rules.
func (w *world) redeem(v *paych.SignedVoucher, secret []byte) *cpaych.Receipt {
	w.t.Helper()
	return w.do(w.payee, cpaych.Op{Kind: cpaych.OpRedeem, Channel: v.ChannelAddr, Voucher: v, Secret: secret})
}

func (w *world) do(s *side, op cpaych.Op) *cpaych.Receipt {
	w.t.Helper()
	op.From, op.Intent = s.addr, uuid.New()
	msg, err := s.chain.Submit(w.t.Context(), op)
	require.NoError(w.t, err)
	r, err := s.chain.Wait(w.t.Context(), msg)
	require.NoError(w.t, err)
	return r
}

// chainRefuses checks that the chain takes no voucher for a reason (which Lotus does not name), and moves nothing.
func (w *world) chainRefuses(v *paych.SignedVoucher, secret []byte, reason error) {
	w.t.Helper()
	if w.on == "M" {
		return
	}
	before := w.info(v.ChannelAddr)
	r := w.redeem(v, secret)
	require.NotZero(w.t, r.ExitCode)
	if w.on == "L" && reason != nil {
		require.Contains(w.t, r.Message, reason.Error())
	}
	require.Equal(w.t, before.ToSend, w.info(v.ChannelAddr).ToSend)
}

func (w *world) info(ch address.Address) *cpaych.ChannelInfo {
	w.t.Helper()
	i, err := w.payee.chain.Channel(w.t.Context(), ch)
	require.NoError(w.t, err)
	return i
}

func (w *world) balance(s *side) int64 {
	w.t.Helper()
	b, err := s.chain.Balance(w.t.Context(), s.addr)
	require.NoError(w.t, err)
	return b.Int64()
}

// voucher is one after those of deal, of 150, changed and signed by the payer.
func (w *world) voucher(ch address.Address, lane uint64, change func(v *paych.SignedVoucher)) *paych.SignedVoucher {
	v := paych.SignedVoucher{ChannelAddr: ch, Lane: lane, Nonce: 3, Amount: big.NewInt(150), Merges: []paych.Merge{}}
	if change != nil {
		change(&v)
	}
	return w.payer.resign(v)
}

// scenario is a row of payments.md 6.
type scenario struct {
	n    int
	on   string
	name string
	run  func(w *world)
}

// TestScenarios: the rows of payments.md 6, each on the chains that it names: M the manager alone, L the embedded ledger, R a simulated
// Lotus node.
func TestScenarios(t *testing.T) {
	for _, s := range allScenarios() {
		for _, on := range s.on {
			t.Run(fmt.Sprintf("S%02d %s/%c", s.n, s.name, on), func(t *testing.T) {
				if s.n != 13 { // which measures what it allocates
					t.Parallel()
				}
				s.run(newWorld(t, string(on)))
			})
		}
	}
}

func allScenarios() []scenario {
	return append(append(voucherScenarios(), chainScenarios()...), raceScenarios()...)
}

// TestAllRows: each of the 62 rows has a test whose name carries its number, here or where its subject is; and so has each threat of a
// payer or a provider (T01 to T28, T50 to T68 of the threats).
func TestAllRows(t *testing.T) {
	rows, threats := map[int]bool{}, map[int]bool{}
	for _, s := range allScenarios() {
		rows[s.n] = true
	}
	named(t, rows, regexp.MustCompile(`(?:\bS|Scenario)(\d\d)`))
	named(t, threats, regexp.MustCompile(`T(\d\d)`))
	for n := 1; n <= 62; n++ {
		require.True(t, rows[n], "row %d of payments.md 6 has no test", n)
	}
	for n := 1; n <= 68; n++ {
		require.True(t, threats[n] || n > 28 && n < 50, "threat T%02d has no test", n)
	}
}

// named adds the numbers that the names of tests and their rows carry, in the whole repository.
func named(t *testing.T, have map[int]bool, number *regexp.Regexp) {
	t.Helper()
	name := regexp.MustCompile(`func Test\w+\(|"[STM]-?\d\d [^"\n]*"`)
	err := filepath.WalkDir("..", func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		data, err := os.ReadFile(path)
		for _, n := range name.FindAll(data, -1) {
			for _, m := range number.FindAllSubmatch(n, -1) {
				i, _ := strconv.Atoi(string(m[1]))
				have[i] = true
			}
		}
		return err
	})
	require.NoError(t, err)
}

// none is a nonce that no lane of a test reaches.
const none = math.MaxUint64
