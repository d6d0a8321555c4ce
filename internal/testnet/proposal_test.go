package testnet_test

import (
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/internal/reason"
	rm "github.com/cartage-dev/cartage/retrievalmarket"
)

// withoutQueries makes the provider one that only takes proposals of deals.
func (w *world) withoutQueries(t *testing.T) {
	t.Helper()
	w.provider.Host.RemoveStreamHandler(rm.QueryProtocolID)
	w.provider.Host.RemoveStreamHandler(rm.OldQueryProtocolID)
}

// TestProposalsOnly: a piece is bought of a provider that answers no queries, on the terms of the request and within its budget.
func TestProposalsOnly(t *testing.T) {
	w := newWorld(t, 1_000_000, paid)
	require.NoError(t, w.client.Start(w.ctx, nil))
	w.withoutQueries(t)
	pieces, err := w.provider.API().Pieces(w.ctx)
	require.NoError(t, err)
	info, err := w.provider.API().Info(w.ctx)
	require.NoError(t, err)

	req := w.request()
	_, err = w.client.Retrieve(w.ctx, req)
	require.Equal(t, api.CodeUnreachable, api.CodeOf(err), "who names neither a piece nor a price is told: %v", err)

	req.Piece = pieces[0].PieceCID
	r, err := w.client.Retrieve(w.ctx, req)
	require.NoError(t, err)
	require.False(t, r.OK, "it is not free")
	require.Equal(t, "0", w.vouchered(t, w.client.API()).String())

	req.PricePerByte = paid.PricePerByte
	_, err = w.client.Retrieve(w.ctx, req)
	require.Equal(t, api.CodeUsage, api.CodeOf(err), "where it is paid is not known: %v", err)

	req.PaidTo, req.PaymentInterval = info.Wallet, paid.PaymentInterval
	req.Budget = "1000"
	r, err = w.client.Retrieve(w.ctx, req)
	if err == nil {
		err = r.Failure()
	}
	require.Equal(t, api.CodeFunds, api.CodeOf(err), "%v", err)
	require.Equal(t, "0", w.vouchered(t, w.client.API()).String())

	req.Budget = "100000000"
	r, err = w.client.Retrieve(w.ctx, req)
	require.NoError(t, err)
	require.True(t, r.OK, "%s %s", r.Status, r.Message)
	require.Equal(t, w.bytes, r.Bytes)
	due := 2 * w.bytes
	require.Equal(t, due, w.vouchered(t, w.client.API()).Uint64())
}

// TestQueryFailures: why a query has no answer is told as it is: only a peer that takes none is no provider.
func TestQueryFailures(t *testing.T) {
	w := newWorld(t, 100_000, paid)
	require.NoError(t, w.client.Start(w.ctx, nil))
	for what, f := range map[string]struct {
		handle func(network.Stream)
		why    reason.Reason
	}{
		"reset":         {func(s network.Stream) { _ = s.Reset() }, reason.PeerFailed},
		"limited":       {func(s network.Stream) { _ = s.ResetWithError(network.StreamResourceLimitExceeded) }, reason.PeerLimit},
		"closed":        {func(s network.Stream) { _ = s.Close() }, reason.PeerFailed},
		"something":     {func(s network.Stream) { _, _ = s.Write([]byte("hello")); _ = s.Close() }, reason.PeerFailed},
		"disconnecting": {func(s network.Stream) { _ = s.Conn().Close() }, reason.PeerUnreachable},
	} {
		t.Run(what, func(t *testing.T) {
			w.provider.Host.SetStreamHandler(rm.QueryProtocolID, f.handle)
			_, err := w.client.API().Find(w.ctx, w.root, []string{w.provider.Address()})
			require.Equal(t, f.why.String(), api.ErrorOf(err).Reason, "%v", err)
		})
	}
	w.withoutQueries(t)
	require.Eventually(t, func() bool {
		_, err := w.client.API().Find(w.ctx, w.root, []string{w.provider.Address()})
		return api.ErrorOf(err).Reason == reason.PeerNotProvider.String()
	}, 20*time.Second, 10*time.Millisecond)
}
