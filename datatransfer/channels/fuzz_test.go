package channels

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	dt "github.com/cartage-dev/cartage/datatransfer"
)

// FuzzEvents feeds sequences of events into the table: nothing panics, counters only grow, cleanup states are left only by
// CleanupComplete, and final ones by nothing.
func FuzzEvents(f *testing.F) {
	f.Add([]byte{0, 1, 3, 24, 14, 15, 7})
	f.Add([]byte{0, 30, 10, 12, 11, 13, 14, 16, 13, 7})
	table, err := NewTable()
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, events []byte) {
		r := Record{Static: &Static{}}
		for _, e := range events {
			code := dt.EventCode(e % 31)
			before := r
			_, err := table.Apply(&r, code, args(code, uint64(e))...)
			if err != nil {
				require.Equal(t, before.Status, r.Status)
				continue
			}
			require.False(t, IsChannelTerminated(before.Status), "%s left %s", dt.Events[code], dt.Statuses[before.Status])
			if IsChannelCleaningUp(before.Status) && r.Status != before.Status {
				require.Equal(t, dt.CleanupComplete, code)
				require.True(t, IsChannelTerminated(r.Status))
			}
			for _, c := range [][2]uint64{{before.Queued, r.Queued}, {before.Sent, r.Sent}, {before.Received, r.Received},
				{before.QueuedTotal, r.QueuedTotal}, {before.SentTotal, r.SentTotal}, {before.ReceivedTotal, r.ReceivedTotal}} {
				require.LessOrEqual(t, c[0], c[1])
			}
		}
	})
}

// args are what an event takes.
func args(code dt.EventCode, n uint64) []any {
	switch code {
	case dt.Error:
		return []any{errors.New("it broke")}
	case dt.Disconnected, dt.SendDataError, dt.ReceiveDataError, dt.RequestCancelled:
		return []any{"it broke"}
	case dt.DataReceived, dt.DataSent, dt.DataQueued, dt.DataReceivedProgress, dt.DataSentProgress, dt.DataQueuedProgress:
		return []any{n}
	}
	return nil
}

// TestTable compares the table with the rows of section 3.4 that requirements change.
func TestTable(t *testing.T) {
	table, err := NewTable()
	require.NoError(t, err)
	for _, tc := range []struct {
		rule  string
		event dt.EventCode
		from  dt.Status
		to    dt.Status
	}{
		{"R-35", dt.ResponderCompletes, dt.ResponderPaused, dt.ResponderCompleted},
		{"R-36", dt.Accept, dt.InitiatorPaused, dt.InitiatorPaused}, {"R-36", dt.Accept, dt.ResponderPaused, dt.ResponderPaused},
		{"R-36", dt.Accept, dt.BothPaused, dt.BothPaused}, {"R-61", dt.Accept, dt.ResponderCompleted, dt.ResponderCompleted},
		{"3.4", dt.Accept, dt.Requested, dt.Ongoing}, {"3.4", dt.PauseInitiator, dt.ResponderPaused, dt.BothPaused},
		{"3.4", dt.PauseResponder, dt.InitiatorPaused, dt.BothPaused}, {"3.4", dt.ResumeInitiator, dt.BothPaused, dt.ResponderPaused},
		{"3.4", dt.ResumeResponder, dt.BothPaused, dt.InitiatorPaused}, {"3.4", dt.ResumeResponder, dt.Finalizing, dt.Completing},
		{"3.4", dt.FinishTransfer, dt.Ongoing, dt.TransferFinished}, {"3.4", dt.FinishTransfer, dt.ResponderCompleted, dt.Completing},
		{"3.4", dt.FinishTransfer, dt.ResponderFinalizing, dt.ResponderFinalizingTransferFinished}, {"3.4", dt.FinishTransfer, dt.Requested, dt.Completing},
		{"3.4", dt.ResponderBeginsFinalization, dt.TransferFinished, dt.ResponderFinalizingTransferFinished},
		{"R-103", dt.ResponderBeginsFinalization, dt.ResponderFinalizing, dt.ResponderFinalizing},
		{"R-103", dt.ResponderBeginsFinalization, dt.ResponderFinalizingTransferFinished, dt.ResponderFinalizingTransferFinished},
		{"3.4", dt.ResponderCompletes, dt.ResponderFinalizingTransferFinished, dt.Completing}, {"3.4", dt.BeginFinalizing, dt.Ongoing, dt.Finalizing},
		{"3.4", dt.Complete, dt.Finalizing, dt.Completing}, {"R-34", dt.FinishTransfer, dt.Completing, dt.Completing},
		{"R-34", dt.ResponderCompletes, dt.Failing, dt.Failing},
	} {
		r := Record{Static: &Static{}, Hot: Hot{Status: tc.from}}
		_, err := table.Apply(&r, tc.event)
		require.NoError(t, err, "%s: %s in %s", tc.rule, dt.Events[tc.event], dt.Statuses[tc.from])
		require.Equal(t, dt.Statuses[tc.to], dt.Statuses[r.Status], "%s: %s in %s", tc.rule, dt.Events[tc.event], dt.Statuses[tc.from])
	}
	for _, e := range []dt.EventCode{dt.Cancel, dt.Complete, dt.BeginFinalizing, dt.Open} {
		r := Record{Static: &Static{}, Hot: Hot{Status: dt.Completing}}
		_, err := table.Apply(&r, e)
		require.Error(t, err, "R-34: %s in Completing", dt.Events[e])
	}
	for _, e := range []dt.EventCode{dt.DataSentProgress, dt.DataQueuedProgress, dt.DataReceivedProgress} {
		for _, s := range []dt.Status{dt.TransferFinished, dt.Finalizing, dt.ResponderFinalizingTransferFinished} {
			r := Record{Static: &Static{}, Hot: Hot{Status: s}}
			_, err := table.Apply(&r, e, uint64(5))
			require.NoError(t, err)
			require.Equal(t, uint64(5), r.Sent+r.Queued+r.Received)
		}
	}
}

// TestSkipped: what was left out on the word of a recipient counts when it is asked for, whatever the order.
func TestSkipped(t *testing.T) {
	var s Spans
	s.sent(0, 48, 47) // the first 47 were skipped
	require.Equal(t, Spans{{1, 47}}, s)
	s.sent(49, 1, 0) // from the front again
	require.Equal(t, Spans{{2, 47}}, s)
	s.sent(49, 20, 15) // with another skip: 16 to 19 are repeated blocks
	require.Equal(t, Spans{{2, 15}, {21, 47}}, s)
	require.True(t, s.has(10) && s.has(30))
	require.False(t, s.has(18) || s.has(48))
	for i := range uint64(40) { // a claim cannot make it grow
		s.add(span{100 + 2*i, 100 + 2*i})
	}
	require.Len(t, s, maxSpans)
	require.True(t, s.has(178))
}
