package paych_test

import (
	"sync"
	"testing"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/filecoin-project/go-state-types/builtin/v8/paych"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/internal/faults"
	cpaych "github.com/cartage-dev/cartage/paych"
)

// TestCrashCountUp: scenarios 45 to 47: both sides are killed at every write of a payment in three steps, opened again, and
// the steps are repeated until they work: no nonce is used for two amounts, the payee's book ends exact, and exactly one
// message of each kind is on the chain.
func TestCrashCountUp(t *testing.T) {
	for _, who := range []string{"payer", "payee"} {
		for n := 1; ; n++ {
			sw := &faults.Switch{At: n}
			crashRun(t, who, sw)
			if !sw.Crashed() {
				require.Greater(t, n, 6, who)
				break
			}
		}
	}
}

func crashRun(t *testing.T, who string, sw *faults.Switch) {
	chain, payer, payee := two(t)
	victim := map[string]*side{"payer": payer, "payee": payee}[who]
	victim.close()
	victim.open(sw)
	seen := map[uint64]abi.TokenAmount{} // nonce -> amount
	again := func(f func() error) {
		for {
			err := f()
			if err == nil {
				return
			}
			require.True(t, sw.Crashed(), "%s: %v", who, err)
			victim.reopen()
		}
	}
	var ch address.Address
	var lane uint64
	again(func() error {
		r, err := payer.GetOrCreate(t.Context(), "d", payer.addr, payee.addr, big.NewInt(100))
		if err != nil {
			return err
		}
		if ch = r.Channel; r.Wait.Defined() {
			ch, err = payer.WaitReady(t.Context(), r.Wait)
		}
		return err
	})
	again(func() (err error) {
		lane, err = payer.AllocateLane(t.Context(), "d", ch, big.NewInt(100))
		return err
	})
	for _, amount := range []int64{10, 40, 100} {
		again(func() error {
			v, _, err := payer.CreateVoucher(t.Context(), "d", ch, lane, big.NewInt(amount), 0)
			if err != nil {
				return err
			}
			if old, dup := seen[v.Nonce]; dup {
				require.True(t, old.Equals(v.Amount), "nonce %d for %s and %s", v.Nonce, old, v.Amount)
			}
			seen[v.Nonce] = v.Amount
			_, err = payee.AcceptVoucher(t.Context(), "d", ch, v, big.Zero(), 0)
			return err
		})
	}
	again(func() error { return payee.Redeem(t.Context(), ch) })
	require.Equal(t, 1, chain.sent(cpaych.OpCreate))
	require.Equal(t, 1, chain.sent(cpaych.OpRedeem))
	best, err := payee.Best(t.Context(), true, "d")
	require.NoError(t, err)
	require.EqualValues(t, 100, best.Amount.Int64())
	require.EqualValues(t, 100, chain.channels[ch].ToSend.Int64())
}

// TestListWhileTaking: looking at the channels does not stand in the way of payments that arrive.
func TestListWhileTaking(t *testing.T) {
	_, payer, payee := two(t)
	ch, lane := payer.fund("d", payee.addr, 100_000)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				if _, err := payee.List(t.Context()); err != nil {
					t.Error(err)
				}
			}
		}
	})
	for i := int64(1); i < 500; i++ {
		payee.mustTake("d", payer.pay("d", ch, lane, i), 1)
	}
	close(stop)
	wg.Wait()
}

// TestMadeUpChannels: vouchers for channels that do not exist leave nothing behind.
func TestMadeUpChannels(t *testing.T) {
	_, payer, payee := two(t)
	for i := range 50 {
		ch, err := address.NewActorAddress([]byte{byte(i)})
		require.NoError(t, err)
		_, err = payee.take("d", payer.resign(paych.SignedVoucher{ChannelAddr: ch, Nonce: 1, Amount: big.NewInt(1), Merges: []paych.Merge{}}))
		require.ErrorIs(t, err, cpaych.ErrUnknownChannel)
	}
	require.NoError(t, payee.Maintain(t.Context()), "nothing is looked after that is not there")
}
