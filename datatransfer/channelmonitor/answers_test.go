package channelmonitor_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	dt "github.com/cartage-dev/cartage/datatransfer"
	"github.com/cartage-dev/cartage/datatransfer/channelmonitor"
)

// TestALostRestartIsMadeAgain: a request that is written to a stream which the other side has just closed is lost without an error. Blocks of the request
// before it and the answer to a payment do not show that it arrived.
func TestALostRestartIsMadeAgain(t *testing.T) {
	for name, tc := range map[string]struct {
		event dt.EventCode
		again bool
	}{
		"nothing comes":            {dt.Opened, true},
		"a block before it":        {dt.DataReceivedProgress, true},
		"a payment was answered":   {dt.NewVoucherResult, true},
		"a payment let it go on":   {dt.ResumeResponder, true},
		"a demand":                 {dt.PauseResponder, true},
		"it was taken":             {dt.Restart, false},
		"it was the first request": {dt.Accept, false},
		"everything was there":     {dt.FinishTransfer, false},
		"it is done":               {dt.ResponderCompletes, false},
		"the last payment":         {dt.ResponderBeginsFinalization, false},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := config()
			cfg.CompleteTimeout = 0
			run(t, cfg, func(t *testing.T, m *channelmonitor.Monitor, mgr *fakeManager) {
				see(m, dt.Accept, dt.Ongoing)
				m.Asked(chid)
				time.Sleep(time.Second)
				see(m, tc.event, dt.Ongoing)
				time.Sleep(35 * time.Second)
				synctest.Wait()
				n, _ := mgr.counts()
				require.Equal(t, tc.again, n > 0)
			})
		})
	}
}

// TestARestartThatMovesDataIsLeftAlone: whatever the other side says to a restart, or does not say.
func TestARestartThatMovesDataIsLeftAlone(t *testing.T) {
	run(t, config(), func(t *testing.T, m *channelmonitor.Monitor, mgr *fakeManager) {
		see(m, dt.Accept, dt.Ongoing)
		m.Asked(chid)
		for range 10 {
			time.Sleep(20 * time.Second)
			see(m, dt.DataReceived, dt.Ongoing)
		}
		n, _ := mgr.counts()
		require.Zero(t, n)
		time.Sleep(45 * time.Second)
		synctest.Wait()
		n, _ = mgr.counts()
		require.Equal(t, 1, n, "it stands still, and was never answered")
	})
}
