package paych_test

import (
	"errors"
	"testing"
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/filecoin-project/go-state-types/builtin/v8/paych"
	"github.com/filecoin-project/go-state-types/exitcode"
	"github.com/ipfs/go-datastore/query"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/internal/faults"
	cpaych "github.com/cartage-dev/cartage/paych"
	"github.com/cartage-dev/cartage/paych/lotus"
	"github.com/cartage-dev/cartage/paych/paychtest"
)

// chainScenarios are the rows in which somebody closes a channel, and those of the Lotus node.
func chainScenarios() []scenario {
	return []scenario{
		{23, "R", "payer that nobody can authenticate", func(w *world) {
			f4, err := address.NewDelegatedAddress(10, make([]byte, 20))
			require.NoError(w.t, err)
			w.node.Fund(f4, big.NewInt(1000), true)
			_, err = w.payer.chain.ResolveKey(w.t.Context(), f4)
			require.ErrorIs(w.t, err, cpaych.ErrBadSignature)
		}},
		{24, "R", "T21 channel that is not deep enough, then gone", shallowChannel},
		{27, "LR", "T20 payer settles in the middle", func(w *world) {
			ch, lane := w.deal()
			settle(w, w.payer, ch)
			require.Eventually(w.t, func() bool {
				_, err := w.payee.take("d", w.voucher(ch, lane, func(v *paych.SignedVoucher) { v.Nonce, v.Amount = 9, big.NewInt(150) }))
				require.NoError(w.t, err)
				return w.info(ch).ToSend.Int64() == 150
			}, 10*time.Second, 200*time.Millisecond, "redeemed at once, within the time that a state is trusted")
			w.ends(ch, 150)
		}},
		{28, "LR", "voucher after the settle, before the payee sees it", func(w *world) {
			ch, lane := w.deal()
			settle(w, w.payer, ch)
			late := w.voucher(ch, lane, nil)
			w.payee.mustTake("d", late, 50)
			require.NoError(w.t, w.payee.Maintain(w.t.Context()))
			require.NoError(w.t, w.payee.Maintain(w.t.Context()))
			require.EqualValues(w.t, 150, w.info(ch).ToSend.Int64())
			w.ends(ch, 150)
		}},
		{29, "LR", "T20 settled while the payee is off line, not for too long", func(w *world) { w.offLine(settleDelay-400, 100) }},
		{29, "LR", "T20 settled while the payee is off line, for too long", func(w *world) { w.offLine(settleDelay+20, 0) }},
		{30, "L", "collect too early, and in time", func(w *world) {
			ch, _ := w.deal()
			settle(w, w.payer, ch)
			w.advance(settleDelay - 1)
			r := w.do(w.payer, cpaych.Op{Kind: cpaych.OpCollect, Channel: ch})
			require.Equal(w.t, exitcode.ErrForbidden, r.ExitCode)
			require.Contains(w.t, r.Message, cpaych.ErrNotSettled.Error())
			w.advance(1)
			require.Zero(w.t, w.do(w.payer, cpaych.Op{Kind: cpaych.OpCollect, Channel: ch}).ExitCode)
		}},
		{41, "LR", "one voucher redeemed twice", func(w *world) {
			ch, lane := w.deal()
			one, two := w.voucher(ch, lane, nil), w.voucher(ch, lane+1, func(v *paych.SignedVoucher) { v.Nonce = 1 })
			for _, v := range []*paych.SignedVoucher{one, two} {
				require.Zero(w.t, w.redeem(v, nil).ExitCode)
				w.chainRefuses(v, nil, cpaych.ErrStaleNonce)
			}
			require.EqualValues(w.t, 300, w.info(ch).ToSend.Int64())
		}},
		{42, "LR", "T67 an old voucher first, then the best", func(w *world) {
			ch, lane := w.deal()
			for _, amount := range []int64{50, 150} {
				require.Zero(w.t, w.redeem(w.voucher(ch, lane, func(v *paych.SignedVoucher) { v.Nonce, v.Amount = uint64(amount), big.NewInt(amount) }), nil).ExitCode)
				require.EqualValues(w.t, amount, w.info(ch).ToSend.Int64())
			}
			forged := w.payee.resign(*w.voucher(ch, lane, func(v *paych.SignedVoucher) { v.Nonce, v.Amount = 999, big.NewInt(900) }))
			w.chainRefuses(forged, nil, cpaych.ErrBadSignature)
			f, err := w.payer.Available(w.t.Context(), ch)
			require.NoError(w.t, err)
			require.LessOrEqual(w.t, w.info(ch).ToSend.Int64(), max(f.Promised.Int64(), 150), "the chain has no more than was signed")
		}},
		{24, "R", "T21 redeem taken back, at every depth", redeemTakenBack},
		{43, "LR", "payee settles after the first voucher", func(w *world) {
			ch, lane := w.deal()
			require.NoError(w.t, w.payee.Settle(w.t.Context(), ch))
			require.NoError(w.t, w.payer.Maintain(w.t.Context()))
			_, _, err := w.payer.CreateVoucher(w.t.Context(), "d", ch, lane, big.NewInt(150), 0)
			require.ErrorIs(w.t, err, cpaych.ErrChannelSettling)
			next, _ := w.payer.fund("next", w.payee.addr, 10)
			require.NotEqual(w.t, ch, next)
			w.ends(ch, 100)
		}},
		{45, "M", "payer killed before, after and between store and send", func(w *world) { countUp(w, "payer") }},
		{46, "M", "payee killed before, after and between store and answer", func(w *world) { countUp(w, "payee") }},
		{47, "LR", "killed between intent, push and CID", killedInBetween},
		{49, "ML", "restore of an old backup of the payer's book", oldBackup},
		{50, "R", "answer to a deposit lost", func(w *world) { lostAnswers(w, "MpoolPushMessage") }},
		{51, "R", "answers to waiting and reading lost", func(w *world) { lostAnswers(w, "StateWaitMsg", "StateReadState", "ChainReadObj", "ChainHead") }},
		{52, "R", "node behind, and a head that goes back", nodeBehind},
		{53, "R", "tokens that may not sign", func(w *world) {
			for _, token := range []string{paychtest.TokenRead, "stolen"} {
				c, hangup, err := lotus.Dial(w.t.Context(), lotus.Config{URL: w.node.URL, Token: token})
				require.NoError(w.t, err)
				before := w.node.Requests("MpoolPushMessage")
				s := newSideOn(w.t, c, w.payer.keys, w.payer.addr)
				_, err = s.GetOrCreate(w.t.Context(), "d", s.addr, w.payee.addr, big.NewInt(100))
				require.ErrorIs(w.t, err, lotus.ErrAuth)
				require.NotContains(w.t, err.Error(), token)
				time.Sleep(300 * time.Millisecond) // a message of unknown fate is sent again after 100 ms
				require.LessOrEqual(w.t, w.node.Requests("MpoolPushMessage"), before+1, "it is not tried again and again")
				hangup()
			}
		}},
		{54, "R", "redeem that runs out of gas", func(w *world) {
			ch, _ := w.deal()
			w.node.OutOfGas(1)
			require.ErrorContains(w.t, w.payee.Redeem(w.t.Context(), ch), "SysErrOutOfGas")
			require.Zero(w.t, w.info(ch).ToSend.Int64())
			require.NoError(w.t, w.payee.Redeem(w.t.Context(), ch))
			require.EqualValues(w.t, 100, w.info(ch).ToSend.Int64())
		}},
	}
}

func settle(w *world, s *side, ch address.Address) {
	w.t.Helper()
	require.Zero(w.t, w.do(s, cpaych.Op{Kind: cpaych.OpSettle, Channel: ch}).ExitCode)
	require.NotZero(w.t, w.info(ch).SettlingAt)
}

// ends tends a settling channel until it is collected, and checks that the payee has got exactly so much.
func (w *world) ends(ch address.Address, amount int64) {
	w.t.Helper()
	require.NoError(w.t, w.payee.Maintain(w.t.Context()))
	before, rest := w.balance(w.payee), w.balance(w.payer)
	balance := w.info(ch).Balance.Int64()
	w.advance(settleDelay)
	require.NoError(w.t, w.payee.Maintain(w.t.Context()))
	require.NoError(w.t, w.payer.Maintain(w.t.Context()))
	require.True(w.t, w.info(ch).Collected)
	require.Equal(w.t, before+amount, w.balance(w.payee))
	require.Equal(w.t, rest+balance-amount, w.balance(w.payer))
	e, err := w.payee.Earnings(w.t.Context())
	require.NoError(w.t, err)
	require.Len(w.t, e.Days, 1)
	require.EqualValues(w.t, amount, e.Days[0].Redeemed.Int64())
	require.Empty(w.t, e.Claims)
}

// offLine: the payer settles while the payee is away for so long; it has so much in the end.
func (w *world) offLine(epochs int, amount int64) {
	ch, _ := w.deal()
	w.payee.close()
	settle(w, w.payer, ch)
	w.advance(epochs)
	w.payee.open(nil)
	err := w.payee.Maintain(w.t.Context())
	if amount == 0 {
		require.ErrorIs(w.t, err, cpaych.ErrLost)
		require.ErrorContains(w.t, err, "100 attoFIL")
	} else {
		require.NoError(w.t, err)
		require.EqualValues(w.t, amount, w.info(ch).ToSend.Int64())
	}
	w.advance(settleDelay)
	require.NoError(w.t, w.payee.Maintain(w.t.Context()))
	require.True(w.t, w.info(ch).Collected)
	e, err := w.payee.Earnings(w.t.Context())
	require.NoError(w.t, err)
	require.Len(w.t, e.Deals, 1)
	require.EqualValues(w.t, amount, e.Deals[0].Redeemed.Int64())
	require.True(w.t, e.Deals[0].Redeemable.IsZero())
}

// shallowChannel: a create that is taken back and forgotten leaves nothing that data is given for.
func shallowChannel(w *world) {
	still := paychtest.NewSimulatedLotus() // its time stands still
	defer still.Close()
	two := make([]*side, 2)
	for i := range two {
		keys, addr := newKeyring(w.t)
		still.Fund(addr, big.NewInt(1000), true)
		c, hangup, err := lotus.Dial(w.t.Context(), lotus.Config{URL: still.URL, Token: paychtest.TokenSign, Rest: time.Millisecond})
		require.NoError(w.t, err)
		defer hangup()
		two[i] = newSideOn(w.t, c, keys, addr)
		defer func(s *side) { s.reopenClosed() }(two[i])
	}
	still.Advance(20)
	payer, payee := two[0], two[1]
	r, err := payer.GetOrCreate(w.t.Context(), "d", payer.addr, payee.addr, big.NewInt(500))
	require.NoError(w.t, err)
	require.Eventually(w.t, func() bool { return still.Pool() == 1 }, 5*time.Second, time.Millisecond)
	still.Advance(6)
	ch, err := payer.WaitReady(w.t.Context(), r.Wait)
	require.NoError(w.t, err)
	lane, err := payer.AllocateLane(w.t.Context(), "d", ch, big.NewInt(500))
	require.NoError(w.t, err)
	v := payer.pay("d", ch, lane, 100)
	still.Reorganise(7, false)
	still.Advance(2)
	_, err = payee.take("d", v)
	require.ErrorIs(w.t, err, cpaych.ErrUnconfirmed)
	still.Reorganise(3, true)
	still.Advance(20)
	_, err = payee.take("d", v)
	require.True(w.t, errors.Is(err, cpaych.ErrUnknownChannel) || errors.Is(err, cpaych.ErrUnconfirmed), "%v", err)
	b, err := payee.Best(w.t.Context(), true, "d")
	require.NoError(w.t, err)
	require.Nil(w.t, b)
}

// redeemTakenBack: reorganisations of depth 1 to 20 right after a redeem: it is on the chain again in the end, once.
func redeemTakenBack(w *world) {
	ch, lane := w.deal()
	amount := int64(100)
	for depth := 1; depth <= 20; depth++ {
		amount += 10
		w.advance(2 * depth) // so that no depth reaches back to the create
		w.payee.mustTake("d", w.payer.pay("d", ch, lane, amount), 10)
		require.NoError(w.t, w.payee.Redeem(w.t.Context(), ch))
		w.node.Reorganise(depth, depth%2 == 0)
		require.Eventually(w.t, func() bool {
			if err := w.payee.Redeem(w.t.Context(), ch); err != nil {
				return false // the channel itself is being mined again
			}
			i, err := w.payee.chain.Channel(w.t.Context(), ch)
			return err == nil && i.ToSend.Int64() == amount
		}, 10*time.Second, time.Millisecond, "depth %d", depth)
	}
	require.EqualValues(w.t, 1000, w.info(ch).Balance.Int64())
}

// reopenClosed leaves a side open for its cleanup over a chain that is gone by then.
func (s *side) reopenClosed() {
	s.close()
	s.chain = newFakeChain()
	s.open(nil)
}

// countUp kills a side at each of its writes of a payment.
func countUp(w *world, who string) {
	for n := 1; ; n++ {
		sw := &faults.Switch{At: n}
		crashRun(w.t, who, sw)
		if !sw.Crashed() {
			require.Greater(w.t, n, 6)
			return
		}
	}
}

// killedInBetween: the payer dies at each write while it creates, funds and settles: there is one message of each kind, and one deposit.
func killedInBetween(w *world) {
	for n := 1; ; n++ {
		sw := &faults.Switch{At: n}
		payer, payee := w.more(), w.more()
		payer.close()
		payer.open(sw)
		again := func(f func() error) {
			for range 5 {
				if err := f(); err == nil {
					return
				} else if !sw.Crashed() {
					require.NoError(w.t, err)
				}
				payer.reopen()
			}
			w.t.Fatal("it does not get on after a crash")
		}
		var ch address.Address
		fund := func(deal string, amount int64) {
			again(func() error {
				r, err := payer.GetOrCreate(w.t.Context(), deal, payer.addr, payee.addr, big.NewInt(amount))
				if err != nil {
					return err
				}
				if ch = r.Channel; r.Wait.Defined() {
					ch, err = payer.WaitReady(w.t.Context(), r.Wait)
				}
				if err == nil {
					_, err = payer.AllocateLane(w.t.Context(), deal, ch, big.NewInt(amount))
				}
				return err
			})
		}
		fund("d", 100)
		fund("e", 30)
		again(func() error { return payer.Settle(w.t.Context(), ch) })
		deposited := w.info(ch).Balance.Int64()
		require.LessOrEqual(w.t, deposited, int64(130), "crash at write %d", n)
		require.GreaterOrEqual(w.t, deposited, int64(130), "crash at write %d", n)
		require.Equal(w.t, 1_000_000-deposited, w.balance(payer), "crash at write %d: one channel, nothing paid twice", n)
		if !sw.Crashed() {
			require.Greater(w.t, n, 6)
			return
		}
	}
}

// oldBackup: what was signed since the backup is not known any more, and is not signed again for something else.
func oldBackup(w *world) {
	ch, lane := w.deal()
	res, err := w.payer.ds.Query(w.t.Context(), query.Query{})
	require.NoError(w.t, err)
	backup, err := res.Rest()
	require.NoError(w.t, err)
	w.payee.mustTake("d", w.payer.pay("d", ch, lane, 200), 100)
	_, second := w.payer.fund("e", w.payee.addr, 10)
	w.payee.mustTake("e", w.payer.pay("e", ch, second, 10), 10)
	require.NoError(w.t, w.payee.Redeem(w.t.Context(), ch))

	w.payer.close()
	w.payer.ds = restored(w.t, backup)
	require.NoError(w.t, cpaych.MarkRestored(w.t.Context(), w.payer.ds))
	w.payer.open(nil)
	w.payer.reopen() // it jumps once
	_, _, err = w.payer.CreateVoucher(w.t.Context(), "d", ch, lane, big.NewInt(150), 0)
	require.ErrorIs(w.t, err, cpaych.ErrAmountNotIncreasing, "the chain has redeemed 200")
	v := w.payer.pay("d", ch, lane, 300)
	require.Greater(w.t, v.Nonce, uint64(3))
	require.Less(w.t, v.Nonce, uint64(2<<20))
	w.payee.mustTake("d", v, 100)
	_, f := w.payer.fund("f", w.payee.addr, 10)
	require.NotEqual(w.t, second, f, "a lane is not given away twice")
	w.payee.mustTake("f", w.payer.pay("f", ch, f, 10), 10)
}

// lostAnswers: answers of the node get lost, before and after it acted: one deposit, one voucher, one redeem.
func lostAnswers(w *world, methods ...string) {
	for _, m := range methods {
		w.node.Fail(m, paychtest.DropAfter, paychtest.BadGateway, paychtest.DropBefore, paychtest.Garbage)
	}
	ch, _ := w.deal()
	for _, m := range methods {
		w.node.Fail(m, paychtest.DropAfter, paychtest.DropBefore)
	}
	require.NoError(w.t, w.payee.Redeem(w.t.Context(), ch))
	require.EqualValues(w.t, 1_000_000-1000, w.balance(w.payer))
	info := w.info(ch)
	require.EqualValues(w.t, 1000, info.Balance.Int64())
	require.EqualValues(w.t, 100, info.ToSend.Int64())
}

// nodeBehind: nothing new is begun on a node whose head is old; what runs goes on. A head that goes back does not confuse.
func nodeBehind(w *world) {
	ch, lane := w.deal()
	w.node.Age(time.Hour)
	_, err := w.payer.GetOrCreate(w.t.Context(), "new", w.payer.addr, w.payee.addr, big.NewInt(5000))
	require.ErrorIs(w.t, err, lotus.ErrNodeBehind)
	w.payee.mustTake("d", w.payer.pay("d", ch, lane, 150), 50)
	w.node.Age(0)
	w.node.Reorganise(3, false)
	w.payee.mustTake("d", w.payer.pay("d", ch, lane, 200), 50)
	require.NoError(w.t, w.payee.Maintain(w.t.Context()))
	require.NoError(w.t, w.payee.Redeem(w.t.Context(), ch))
	require.EqualValues(w.t, 200, w.info(ch).ToSend.Int64())
}

// storedKeys counts the records of a side.
func storedKeys(t *testing.T, s *side) int {
	res, err := s.ds.Query(t.Context(), query.Query{KeysOnly: true})
	require.NoError(t, err)
	all, err := res.Rest()
	require.NoError(t, err)
	return len(all)
}
