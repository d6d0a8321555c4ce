package stream_test

import (
	"errors"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	dt "github.com/cartage-dev/cartage/datatransfer"
)

// TestCleanedUpWhileDeciding: a channel that ends while its question is decided on does not come back.
func TestCleanedUpWhileDeciding(t *testing.T) {
	onLink(t, func(l *link) {
		l.lb.decide = func(dt.Request) error {
			l.b.CleanupChannel(l.chid)
			return nil
		}
		l.open()
		synctest.Wait()
		received, _, _ := l.la.state()
		require.Zero(t, received)
		require.ErrorIs(t, l.b.PauseChannel(t.Context(), l.chid), dt.ErrChannelNotFound)
	})
}

// TestRefused: a refusal ends the question, and nothing of it stays.
func TestRefused(t *testing.T) {
	onLink(t, func(l *link) {
		l.lb.decide = func(dt.Request) error { return errors.New("the store is at /home/secret") }
		l.open()
		synctest.Wait()
		_, ends, _ := l.la.state()
		require.Len(t, ends, 1)
		require.ErrorContains(t, ends[0], "the question was refused")
		require.NotContains(t, ends[0].Error(), "secret")
		require.ErrorIs(t, l.b.PauseChannel(t.Context(), l.chid), dt.ErrChannelNotFound)
	})
}

// TestCleanedUpAtTheEnd: a sender that waits behind its last block and is done for another reason, as after a restart in which only the
// last payment was open, leaves a recipient that has everything.
func TestCleanedUpAtTheEnd(t *testing.T) {
	onLink(t, func(l *link) {
		l.lb.onQueue = func(n int) (dt.Message, error) {
			if n == leaves+1 {
				return nil, dt.ErrPause
			}
			return nil, nil
		}
		l.open()
		synctest.Wait()
		received, ends, _ := l.la.state()
		require.Equal(t, leaves+1, received)
		require.Empty(t, ends, "the sender has not ended yet")
		l.b.CleanupChannel(l.chid)
		synctest.Wait()
		_, ends, cut := l.la.state()
		require.Empty(t, cut)
		require.Equal(t, []error{nil}, ends)
	})
}
