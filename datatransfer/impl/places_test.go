package impl_test

import (
	"context"
	"errors"
	"testing"

	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/datatransfer/impl"
	"github.com/cartage-dev/cartage/datatransfer/testutil"
)

// TestPlacesAtLimit: a peer, and all together, have as many channels as the limits say, and not one beyond; each refusal is told once, and what
// it says is the answer. A place that is given back is there again.
func TestPlacesAtLimit(t *testing.T) {
	refused := map[bool]int{}
	told := errors.New("told")
	dm, err := impl.NewDataTransfer(dssync.MutexWrap(datastore.NewMapDatastore()), testutil.NewFakeNetwork("us"), testutil.NewFakeTransport(),
		impl.ChannelLimits(impl.Limits{ChannelsPerPeer: 2, Channels: 3, Refused: func(ofPeer bool) error {
			refused[ofPeer]++
			return told
		}}))
	require.NoError(t, err)
	ready := make(chan error, 1)
	dm.OnReady(func(err error) { ready <- err })
	require.NoError(t, dm.Start(t.Context()))
	require.NoError(t, <-ready)
	defer func() { require.NoError(t, dm.Stop(context.WithoutCancel(t.Context()))) }()
	m := dm.(*impl.Manager)
	first, err := m.Admit("a")
	require.NoError(t, err)
	_, err = m.Admit("a")
	require.NoError(t, err)
	_, err = m.Admit("a")
	require.ErrorIs(t, err, told)
	require.Equal(t, map[bool]int{true: 1}, refused)
	_, err = m.Admit("b")
	require.NoError(t, err)
	_, err = m.Admit("c")
	require.ErrorIs(t, err, told)
	require.Equal(t, map[bool]int{true: 1, false: 1}, refused)
	first()
	_, err = m.Admit("c")
	require.NoError(t, err)
}
