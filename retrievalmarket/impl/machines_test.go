package retrievalimpl_test

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/fsm"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
	retrievalimpl "github.com/cartage-dev/cartage/retrievalmarket/impl"
	"github.com/cartage-dev/cartage/retrievalmarket/impl/clientstates"
)

// TestMachinesAreDrawn: the published names describe the machines that run, and what draws them says what is wrong with one.
func TestMachinesAreDrawn(t *testing.T) {
	var client, provider bytes.Buffer
	states := []fsm.StateKey{rm.DealStatusNew, rm.DealStatusCancelling, rm.DealStatusCancelled}
	require.NoError(t, fsm.GenerateUML(&client, retrievalimpl.ClientFSMParameterSpec, states))
	require.Contains(t, client.String(), "s1 --> s2: ClientEventCancelComplete")
	require.NoError(t, fsm.GenerateUML(&provider, retrievalimpl.ProviderFSMParameterSpec, states))
	require.Contains(t, provider.String(), "s1 --> s2: ProviderEventCancelComplete")
	bad := retrievalimpl.ClientFSMParameterSpec
	bad.Events = append(fsm.Events{bad.Events[0]}, bad.Events...)
	require.ErrorContains(t, fsm.GenerateUML(&client, bad, states), "declared twice")
	for s := range rm.DealStatuses {
		require.Equal(t, clientstates.IsFinal(s), clientstates.IsFinalityState(s))
	}
	require.True(t, clientstates.IsFinalityState(rm.DealStatusCompleted))
	require.False(t, clientstates.IsFinalityState(rm.DealStatusOngoing))
}
