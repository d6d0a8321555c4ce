package impl_test

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/stretchr/testify/require"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/testutil"
)

// sequence is a row of section 4.8: what each side sees, as expressions over the names of the events without those of blocks.
type sequence struct {
	name     string
	pull     bool
	meter    *testutil.Meter
	validate func(bool, dt.ChannelID, dt.Voucher) (dt.VoucherResult, error)
	run      func(t *testing.T, d *trade)
	i, r     string
}

const (
	payI = `NewVoucherResult PauseResponder NewVoucher NewVoucherResult ResumeResponder `
	payR = payI
	last = `NewVoucherResult ResponderBeginsFinalization PauseResponder NewVoucher `
	// A recipient that is paused asks anew when it goes on: its sender finishes once more for each time.
	asksAgain = `(Opened )?`
)

func accepts(result string, err error) func(bool, dt.ChannelID, dt.Voucher) (dt.VoucherResult, error) {
	return func(bool, dt.ChannelID, dt.Voucher) (dt.VoucherResult, error) {
		return testutil.NewFakeDTType(result), err
	}
}

func done(t *testing.T, d *trade) {
	d.open(t)
	d.completed(t)
}

func paid(voucher string) func(*testing.T, *trade) {
	return func(t *testing.T, d *trade) {
		d.pay(voucher)
		done(t, d)
	}
}

// failed waits for the end of the initiator, and of the responder if it has a channel.
func failed(status dt.Status, responder bool) func(*testing.T, *trade) {
	return func(t *testing.T, d *trade) {
		d.open(t)
		require.Equal(t, status, d.ta.wait(t).Status())
		if responder {
			require.Equal(t, status, d.tb.wait(t).Status())
		}
	}
}

// between does something while the sender waits before a block in the middle.
func between(f func(t *testing.T, d *trade, chid dt.ChannelID)) func(*testing.T, *trade) {
	return func(t *testing.T, d *trade) {
		reached, open := d.gate(12)
		chid := d.open(t)
		<-reached
		d.ta.saw(t, dt.ResumeResponder, 1)
		d.tb.saw(t, dt.Accept, 1)
		time.AfterFunc(500*time.Millisecond, open) // what a graphsync call waits for
		f(t, d, chid)
		open()
	}
}

func pausedBy(initiator bool) func(*testing.T, *trade) {
	return between(func(t *testing.T, d *trade, chid dt.ChannelID) {
		who, pause, resume := d.b.Manager, dt.PauseResponder, dt.ResumeResponder
		if initiator {
			who, pause, resume = d.a.Manager, dt.PauseInitiator, dt.ResumeInitiator
		}
		require.NoError(t, who.PauseDataTransferChannel(d.ctx, chid))
		d.ta.saw(t, pause, 1)
		d.tb.saw(t, pause, 1)
		require.NoError(t, who.ResumeDataTransferChannel(d.ctx, chid))
		times := 1
		if !initiator {
			times = 2 // the acceptance was one
		}
		d.ta.saw(t, resume, times)
		d.completed(t)
	})
}

func cancelledBy(initiator bool) func(*testing.T, *trade) {
	return between(func(t *testing.T, d *trade, chid dt.ChannelID) {
		who := d.b.Manager
		if initiator {
			who = d.a.Manager
		}
		require.NoError(t, who.CloseDataTransferChannel(d.ctx, chid))
		require.Equal(t, dt.Cancelled, d.ta.wait(t).Status())
		require.Equal(t, dt.Cancelled, d.tb.wait(t).Status())
	})
}

func restarted(initiator bool) func(*testing.T, *trade) {
	return func(t *testing.T, d *trade) {
		reached, open := d.gate(12)
		chid := d.open(t)
		<-reached
		d.ta.saw(t, dt.ResumeResponder, 1)
		require.NoError(t, d.a.Host.Network().ClosePeer(d.b.Host.ID()))
		lost := func(e []dt.EventCode) bool { return has(dt.Disconnected, 1)(e) || has(dt.ReceiveDataError, 1)(e) }
		require.True(t, d.ta.until(20*time.Second, lost) && d.tb.until(20*time.Second, lost))
		open()
		require.Eventually(t, func() bool { // both may dial at once
			return d.a.Host.Connect(d.ctx, peer.AddrInfo{ID: d.b.Host.ID(), Addrs: d.b.Host.Addrs()}) == nil
		}, 10*time.Second, 10*time.Millisecond)
		who := d.b.Manager
		if initiator {
			who = d.a.Manager
		}
		require.NoError(t, who.RestartDataTransferChannel(d.ctx, chid))
		d.completed(t)
	}
}

func missing(t *testing.T, d *trade) {
	d.sender().Store.Forget(5)
	failed(dt.Failed, true)(t, d)
}

func allLocal(t *testing.T, d *trade) {
	_, _, err := d.recipient().Store.BuildDAG(d.blocks-1, 1024, 7)
	require.NoError(t, err)
	d.open(t)
	require.Equal(t, dt.Completed, d.ta.wait(t).Status())
	require.Zero(t, d.ta.state().Received())
	if !d.pull {
		d.tb.wait(t)
	}
}

func resumedLater(t *testing.T, d *trade) {
	chid := d.open(t)
	d.ta.saw(t, dt.PauseResponder, 1)
	d.tb.saw(t, dt.PauseResponder, 1)
	require.NoError(t, d.b.Manager.ResumeDataTransferChannel(d.ctx, chid))
	d.completed(t)
}

var broken = regexp.MustCompile(`(ReceiveDataError|SendDataError|Disconnected|RequestCancelled) `)

var sequences = []sequence{
	{"push", false, nil, nil, done, `Open TransferRequestQueued Accept ResumeResponder CleanupComplete `,
		`Open Accept Opened Complete CleanupComplete `},
	{"push with a result", false, nil, accepts("yes", nil), done,
		`Open TransferRequestQueued NewVoucherResult Accept ResumeResponder CleanupComplete `,
		`Open NewVoucherResult Accept Opened Complete CleanupComplete `},
	{"pull", true, nil, nil, done, `Open Opened Accept ResumeResponder CleanupComplete `,
		`Open Accept TransferRequestQueued Complete CleanupComplete `},
	{"pull with a result", true, nil, accepts("yes", nil), done,
		`Open Opened NewVoucherResult Accept ResumeResponder CleanupComplete `,
		`Open NewVoucherResult Accept TransferRequestQueued Complete CleanupComplete `},
	{"pull, accepted paused, later resumed", true, nil, accepts("yes", dt.ErrPause), resumedLater,
		`Open Opened NewVoucherResult Accept PauseResponder ResumeResponder CleanupComplete `,
		`Open NewVoucherResult Accept PauseResponder TransferRequestQueued ResumeResponder Complete CleanupComplete `},
	{"push, accepted paused, later resumed", false, nil, accepts("yes", dt.ErrPause), resumedLater,
		`Open TransferRequestQueued NewVoucherResult Accept PauseResponder (ResumeResponder )?CleanupComplete `,
		`Open NewVoucherResult Accept (PauseResponder Opened |Opened PauseResponder )(Opened ResumeResponder |ResumeResponder Opened |ResumeResponder )Complete CleanupComplete `},
	{"pull with one payment", true, &testutil.Meter{Every: 14 << 10}, nil, paid("payment"),
		`Open Opened Accept ResumeResponder NewVoucherResult PauseResponder NewVoucher NewVoucherResult (ResumeResponder NewVoucherResult |NewVoucherResult ResumeResponder )CleanupComplete `,
		`Open Accept TransferRequestQueued ` + payR + `NewVoucherResult Complete CleanupComplete `},
	{"push with one payment", false, &testutil.Meter{Every: 14 << 10}, nil, paid("payment"),
		`Open TransferRequestQueued Accept ResumeResponder NewVoucherResult PauseResponder NewVoucher NewVoucherResult (ResumeResponder NewVoucherResult |NewVoucherResult ResumeResponder )CleanupComplete `,
		`Open Accept Opened NewVoucherResult PauseResponder NewVoucher NewVoucherResult (Opened ResumeResponder |ResumeResponder ` + asksAgain + `)NewVoucherResult Complete CleanupComplete `},
	{"pull with final payment", true, &testutil.Meter{Every: 1 << 20, Last: true}, nil, func(t *testing.T, d *trade) {
		d.pay("payment")
		between(func(*testing.T, *trade, dt.ChannelID) {})(t, d)
		d.completed(t)
	}, `Open Opened Accept ResumeResponder ` + last + `NewVoucherResult CleanupComplete `,
		`Open Accept TransferRequestQueued NewVoucherResult BeginFinalizing NewVoucher NewVoucherResult ResumeResponder CleanupComplete `},
	{"rejected pull", true, nil, accepts("no", dt.ErrRejected), failed(dt.Failed, false),
		`Open Opened NewVoucherResult Error CleanupComplete `, ``},
	{"rejected push", false, nil, accepts("no", dt.ErrRejected), failed(dt.Failed, false),
		`Open NewVoucherResult Error CleanupComplete `, ``},
	{"second voucher refused", true, &testutil.Meter{Every: 8 << 10}, nil, func(t *testing.T, d *trade) {
		d.pay("bad")
		failed(dt.Failed, true)(t, d)
	}, `Open Opened Accept ResumeResponder NewVoucherResult PauseResponder NewVoucher NewVoucherResult Error CleanupComplete `,
		`Open Accept TransferRequestQueued NewVoucherResult PauseResponder NewVoucher NewVoucherResult Error CleanupComplete `},
	{"cancel of a pull by the initiator", true, nil, nil, cancelledBy(true),
		`Open Opened Accept ResumeResponder (RequestCancelled )?Cancel CleanupComplete `,
		`Open Accept TransferRequestQueued Cancel CleanupComplete `},
	{"cancel of a pull by the responder", true, nil, nil, cancelledBy(false),
		`Open Opened Accept ResumeResponder Cancel CleanupComplete `,
		`Open Accept TransferRequestQueued Cancel CleanupComplete `},
	{"cancel of a push by the initiator", false, nil, nil, cancelledBy(true),
		`Open TransferRequestQueued Accept ResumeResponder Cancel CleanupComplete `, `Open Accept Opened Cancel CleanupComplete `},
	{"cancel of a push by the responder", false, nil, nil, cancelledBy(false),
		`Open TransferRequestQueued Accept ResumeResponder Cancel CleanupComplete `,
		`Open Accept Opened (RequestCancelled )?Cancel CleanupComplete `},
	{"a block that the sender misses", true, nil, nil, missing,
		`Open Opened Accept ResumeResponder Error CleanupComplete `, `Open Accept TransferRequestQueued Error CleanupComplete `},
	{"pull, paused by the initiator", true, nil, nil, pausedBy(true),
		`Open Opened Accept ResumeResponder PauseInitiator (Opened )?ResumeInitiator (Opened )?CleanupComplete `,
		`Open Accept TransferRequestQueued PauseInitiator ResumeInitiator Complete CleanupComplete `},
	{"pull, paused by the responder", true, nil, nil, pausedBy(false),
		`Open Opened Accept ResumeResponder PauseResponder ResumeResponder CleanupComplete `,
		`Open Accept TransferRequestQueued PauseResponder ResumeResponder Complete CleanupComplete `},
	{"push, paused by the initiator", false, nil, nil, pausedBy(true),
		`Open TransferRequestQueued Accept ResumeResponder PauseInitiator ResumeInitiator CleanupComplete `,
		`Open Accept Opened PauseInitiator ResumeInitiator Complete CleanupComplete `},
	{"push, paused by the responder", false, nil, nil, pausedBy(false),
		`Open TransferRequestQueued Accept ResumeResponder PauseResponder ResumeResponder CleanupComplete `,
		`Open Accept Opened PauseResponder (Opened ResumeResponder |ResumeResponder Opened |ResumeResponder )Complete CleanupComplete `},
	{"pull, everything local", true, nil, nil, allLocal, `Open Opened CleanupComplete `, ``},
	{"push, everything local", false, nil, nil, allLocal, `Open CleanupComplete `,
		`Open Accept Opened Complete CleanupComplete `},
	{"restart of a pull by the initiator", true, nil, nil, restarted(true),
		`Open Opened Accept ResumeResponder Opened Restart ResumeResponder CleanupComplete `,
		`Open Accept TransferRequestQueued Restart Complete CleanupComplete `},
	{"restart of a push by the initiator", false, nil, nil, restarted(true),
		`Open TransferRequestQueued Accept ResumeResponder Restart ResumeResponder CleanupComplete `,
		`Open Accept Opened Restart Opened Complete CleanupComplete `},
	{"restart of a pull asked for by the responder", true, nil, nil, restarted(false),
		`Open Opened Accept ResumeResponder Opened Restart ResumeResponder CleanupComplete `,
		`Open Accept TransferRequestQueued Restart Complete CleanupComplete `},
	{"restart of a push asked for by the responder", false, nil, nil, restarted(false),
		`Open TransferRequestQueued Accept ResumeResponder Restart ResumeResponder CleanupComplete `,
		`Open Accept Opened Restart Opened Complete CleanupComplete `},
}

// TestChecklist02 is number 2 of the checklist, over each transport: the event sequences of section 4.8, for both roles.
// TestChecklist02Fakes has them over fakes.
func TestChecklist02(t *testing.T) { testutil.EachDecision(t, checklist02) }

func checklist02(t *testing.T) {
	for _, s := range sequences {
		t.Run(s.name, func(t *testing.T) {
			v := &testutil.Validator{Push: s.validate, Pull: s.validate}
			var r dt.Revalidator
			if s.meter != nil {
				r = s.meter.Fresh()
			}
			d := newTrade(t, s.pull, 20, 1024, v, r)
			s.run(t, d)
			// The end comes on a stream of its own: it is not ordered with what comes with the data. TestChecklist02Fakes has
			// its orders, one by one.
			i := regexp.MustCompile(`(FinishTransfer|ResponderCompletes) `).ReplaceAllString(d.ta.String(), "")
			rs := d.tb.String()
			if strings.HasPrefix(s.name, "restart") { // what a broken connection tells, and when, is not ordered either
				i, rs = broken.ReplaceAllString(i, ""), broken.ReplaceAllString(rs, "")
			}
			require.Regexp(t, regexp.MustCompile(`^(`+s.i+`)$`), i, "initiator")
			if d.ta.state().Status() == dt.Completed {
				require.NotZero(t, d.ta.count(dt.FinishTransfer))
			}
			require.Regexp(t, regexp.MustCompile(`^(`+s.r+`)$`), rs, "responder")
			for _, tr := range []*trace{d.ta, d.tb} {
				tr.checkBlocks(t)
			}
		})
	}
}

// checkBlocks: progress comes before the plain event of its block, the last event is the only CleanupComplete, and nothing is
// sent or received after the data is finished.
func (t *trace) checkBlocks(tb testing.TB) {
	tb.Helper()
	t.mu.Lock()
	defer t.mu.Unlock()
	pairs := map[dt.EventCode]dt.EventCode{
		dt.DataQueuedProgress: dt.DataQueued, dt.DataSentProgress: dt.DataSent, dt.DataReceivedProgress: dt.DataReceived,
	}
	open := map[dt.EventCode]int{}
	for i, e := range t.events {
		if plain, ok := pairs[e]; ok {
			open[plain]++
			require.LessOrEqual(tb, open[plain], 1, "event %d", i)
		}
		if open[e] > 0 {
			open[e]--
		}
		if e == dt.CleanupComplete {
			require.Equal(tb, len(t.events)-1, i, "CleanupComplete is the last event")
		}
	}
}
