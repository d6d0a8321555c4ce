package node_test

import (
	"context"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/internal/testnet"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("go.opencensus.io/stats/view.(*worker).start"),
		goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"), goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"),
		// A client of go-jsonrpc that hangs up while a message arrives leaves the goroutine that read it.
		goleak.IgnoreTopFunction("github.com/filecoin-project/go-jsonrpc.(*wsConn).nextMessage"))
}

// TestNodeEnds: a node that served calls leaves nothing when it ends, however often it is closed and opened.
func TestNodeEnds(t *testing.T) {
	ctx := t.Context()
	tn, err := testnet.New(ctx, t.TempDir())
	require.NoError(t, err)
	p, err := tn.Peer(ctx, "peer", true)
	require.NoError(t, err)
	for range 3 {
		require.NoError(t, p.Start(ctx, nil))
		info, err := p.API().Info(ctx)
		require.NoError(t, err)
		require.True(t, info.Providing)
		require.NoError(t, p.Stop(context.WithoutCancel(ctx)))
	}
	require.NoError(t, tn.Close())
}

// TestAPIErrors: what a user types wrong is named, with the code that scripts rely on.
func TestAPIErrors(t *testing.T) {
	ctx := t.Context()
	tn, err := testnet.New(ctx, t.TempDir())
	require.NoError(t, err)
	p, err := tn.Peer(ctx, "peer", true)
	require.NoError(t, err)
	require.NoError(t, p.Start(ctx, nil))
	defer func() {
		require.NoError(t, p.Stop(context.WithoutCancel(ctx)))
		require.NoError(t, tn.Close())
	}()
	a := p.API()
	for name, tc := range map[string]struct {
		call func() error
		code int
	}{
		"no such file": {func() error { _, err := a.Provide(ctx, "/no/such/file"); return err }, api.CodeNotFound},
		"unknown profile": {func() error {
			_, err := a.Import(ctx, api.ImportRequest{Path: os.Args[0], Profile: "none"})
			return err
		}, api.CodeUsage},
		"price is no number":  {func() error { _, err := a.SetAsk(ctx, api.Ask{PricePerByte: "x", UnsealPrice: "0"}); return err }, api.CodeUsage},
		"price without bytes": {func() error { _, err := a.SetAsk(ctx, api.Ask{PricePerByte: "1", UnsealPrice: "0"}); return err }, api.CodeUsage},
		"not a deal":          {func() error { return a.CancelDeal(ctx, "x1") }, api.CodeUsage},
		"deal that is not":    {func() error { return a.CancelDeal(ctx, "c1") }, api.CodeNotFound},
		"not a channel":       {func() error { return a.SettlePayCh(ctx, "f2") }, api.CodeUsage},
		"channel that is not": {func() error { return a.CollectPayCh(ctx, "f2o4cxmvojgftxbfdn6aszlw5yup3geewljyv7fyq") }, api.CodeNotFound},
		"find without anybody": {func() error {
			_, err := a.Find(ctx, "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi", nil)
			return err
		}, api.CodeUsage},
	} {
		t.Run(name, func(t *testing.T) {
			err := tc.call()
			require.Error(t, err)
			require.Equal(t, tc.code, api.CodeOf(err), "%v", err)
		})
	}
}
