package testnet_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/internal/testnet"
)

// TestRefusals: what cannot work is said before anything is paid, with the exit code that scripts rely on.
func TestRefusals(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(w *world, r *api.RetrieveRequest)
		code   int
		says   string
	}{
		"budget below the first interval": {func(_ *world, r *api.RetrieveRequest) { r.Budget = "10" }, api.CodeFunds, "budget"},
		"no such payload": {func(_ *world, r *api.RetrieveRequest) {
			r.CID = "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi"
		}, api.CodeNotFound, "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi"},
		"not a CID":         {func(_ *world, r *api.RetrieveRequest) { r.CID = "bafy" }, api.CodeUsage, "bafy"},
		"not an address":    {func(_ *world, r *api.RetrieveRequest) { r.Provider = "localhost:1" }, api.CodeUsage, "localhost:1"},
		"nobody listens":    {func(w *world, _ *api.RetrieveRequest) { require.NoError(t, w.provider.Stop(w.ctx)) }, api.CodeUnreachable, "not reachable"},
		"exposure too wide": {func(_ *world, r *api.RetrieveRequest) { r.MaxExposure = 1 << 10 }, api.CodeRejected, "may be at risk"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 1<<20, paid)
			require.NoError(t, w.client.Start(w.ctx, nil))
			req := w.request()
			tc.change(w, &req)
			r, err := w.client.Retrieve(w.ctx, req)
			if err != nil {
				require.Equal(t, tc.code, api.CodeOf(err), "%v", err)
				require.ErrorContains(t, err, tc.says)
			} else {
				require.False(t, r.OK)
				require.Contains(t, r.Message, tc.says)
				require.Equal(t, tc.code, r.Code)
			}
			channels, err := w.client.API().PayChannels(w.ctx)
			require.NoError(t, err)
			require.Empty(t, channels)
		})
	}
}

// TestScenario44 of payments.md 6: the client pays the address of the offer that it took, whatever the provider's wallet says later, and the
// offer shows it.
func TestScenario44(t *testing.T) {
	w := newWorld(t, 5<<19, paid)
	require.NoError(t, w.client.Start(w.ctx, nil))
	offers, err := w.client.API().Find(w.ctx, w.root, []string{w.provider.Address()})
	require.NoError(t, err)
	require.Len(t, offers, 1)
	old, err := w.provider.API().WalletList(w.ctx)
	require.NoError(t, err)
	require.Equal(t, old[0].Address, offers[0].PaidTo)
	other, err := w.provider.API().WalletNew(w.ctx, "secp256k1")
	require.NoError(t, err)
	_, err = w.provider.API().WalletDefault(w.ctx, other.Address)
	require.NoError(t, err)
	offers, err = w.client.API().Find(w.ctx, w.root, []string{w.provider.Address()})
	require.NoError(t, err)
	require.Equal(t, other.Address, offers[0].PaidTo)
	r, err := w.client.Retrieve(w.ctx, w.request())
	require.NoError(t, err)
	w.check(t, r, 2, 0)
	for _, p := range []*testnet.Peer{w.client, w.provider} {
		list, err := p.API().PayChannels(w.ctx)
		require.NoError(t, err)
		require.Len(t, list, 1)
		require.Equal(t, other.Address, list[0].To)
	}
}
