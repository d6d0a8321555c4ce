package impl_test

import (
	"testing"

	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/stretchr/testify/require"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/message"
	"github.com/cartage-dev/cartage/datatransfer/testutil"
)

// account is a revalidator that lets something happen while it looks.
type account struct {
	paid                 bool // all that is due
	duringVoucher, atEnd func()
	ends                 int
}

func happen(f *func()) {
	if then := *f; then != nil {
		*f = nil
		then()
	}
}

func (a *account) Revalidate(dt.ChannelID, dt.Voucher) (dt.VoucherResult, error) {
	defer happen(&a.duringVoucher)
	return nil, dt.ErrResume
}

func (a *account) OnPullDataSent(dt.ChannelID, uint64) (bool, dt.VoucherResult, error) {
	return true, nil, nil
}

func (a *account) OnPushDataReceived(dt.ChannelID, uint64) (bool, dt.VoucherResult, error) {
	return true, nil, nil
}

func (a *account) OnComplete(dt.ChannelID) (bool, dt.VoucherResult, error) {
	a.ends++
	paid := a.paid
	happen(&a.atEnd)
	if paid {
		return true, testutil.NewFakeDTType("paid"), nil
	}
	return true, testutil.NewFakeDTType("pay"), dt.ErrPause
}

// TestEndMeetsVoucher: the end of data and a voucher are decided on at the same time. What was paid is not waited for, and what was not
// paid is not let go.
func TestEndMeetsVoucher(t *testing.T) {
	setup := func(t *testing.T) (*faked, *account, func(t *testing.T) dt.Response) {
		a := &account{}
		f := fakedWith(t, dssync.MutexWrap(datastore.NewMapDatastore()), func(m dt.Manager) {
			require.NoError(t, m.RegisterVoucherType(testutil.NewFakeDTType(""), &testutil.Validator{}))
			require.NoError(t, m.RegisterVoucherResultType(testutil.NewFakeDTType("")))
			require.NoError(t, m.RegisterRevalidator(testutil.NewFakeDTType(""), a))
		})
		requested(true)(t, f)
		return f, a, func(t *testing.T) dt.Response {
			v, err := message.VoucherRequest(asked().ID, "FakeDTType", testutil.NewFakeDTType("voucher"))
			require.NoError(t, err)
			resp, err := f.transport.EventHandler().OnRequestReceived(asked(), v)
			if resp == nil {
				require.NoError(t, err)
			}
			return resp
		}
	}
	status := func(t *testing.T, f *faked) dt.Status {
		s, err := f.manager.ChannelState(t.Context(), asked())
		require.NoError(t, err)
		return s.Status()
	}
	t.Run("a voucher from before the end", func(t *testing.T) {
		f, a, pay := setup(t)
		a.duringVoucher = func() { finished(nil)(t, f, asked()) }
		resp := pay(t)
		require.True(t, resp.IsPaused(), "the last payment is still asked for")
		require.Equal(t, 2, a.ends)
		require.Equal(t, dt.Statuses[dt.Finalizing], dt.Statuses[status(t, f)])
		a.paid = true
		require.False(t, pay(t).IsPaused())
		f.trace.wait(t)
		require.Equal(t, dt.Statuses[dt.Completed], dt.Statuses[status(t, f)])
	})
	t.Run("a voucher from before the end that pays for all", func(t *testing.T) {
		f, a, pay := setup(t)
		a.duringVoucher = func() {
			finished(nil)(t, f, asked())
			a.paid = true
		}
		require.False(t, pay(t).IsPaused())
		f.trace.wait(t)
		require.Equal(t, dt.Statuses[dt.Completed], dt.Statuses[status(t, f)])
	})
	t.Run("a voucher while the end is decided on", func(t *testing.T) {
		f, a, pay := setup(t)
		a.atEnd = func() {
			a.paid = true
			_ = pay(t)
		}
		finished(nil)(t, f, asked())
		f.trace.wait(t)
		require.Equal(t, 2, a.ends)
		require.Equal(t, dt.Statuses[dt.Completed], dt.Statuses[status(t, f)])
	})
}
