package testnet_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/internal/testnet"
)

// TestClientSettlesAndCollects: a client that settles right after its deal and collects as soon as it can takes nothing back while the
// provider is on line; a provider that is off line for all that time sees what it lost.
func TestClientSettlesAndCollects(t *testing.T) {
	for name, away := range map[string]bool{"on line": false, "off line": true} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
			defer cancel()
			net, err := testnet.New(ctx, t.TempDir())
			require.NoError(t, err)
			w := newWorldOn(t, ctx, net, 1_000_000, api.Ask{PricePerByte: "2", UnsealPrice: "0", PaymentInterval: 100_000})
			require.NoError(t, w.client.Start(ctx, nil))
			r, err := w.client.Retrieve(ctx, w.request())
			require.NoError(t, err)
			w.check(t, r, 2, 0)
			if away {
				require.NoError(t, w.provider.Stop(ctx))
			}
			list, err := w.client.API().PayChannels(ctx)
			require.NoError(t, err)
			require.Len(t, list, 1)
			require.NoError(t, w.client.API().SettlePayCh(ctx, list[0].Channel))
			require.Eventually(t, func() bool { return w.client.API().CollectPayCh(ctx, list[0].Channel) == nil }, 30*time.Second, 5*time.Millisecond)
			if away {
				require.NoError(t, w.provider.Start(ctx, nil))
			}
			e := &api.Earnings{}
			require.Eventually(t, func() bool {
				e, err = w.provider.API().Earnings(ctx)
				require.NoError(t, err)
				return len(e.Claims) == 0 && len(e.Days) == 1 && (e.Days[0].Lost != "0" || e.Redeemed != "0")
			}, 20*time.Second, 20*time.Millisecond)
			if away {
				require.Equal(t, e.Vouchered, e.Lost)
				require.Equal(t, e.Vouchered, e.Days[0].Lost)
				return
			}
			require.Equal(t, e.Vouchered, e.Redeemed)
			require.Equal(t, "0", e.Lost)
		})
	}
}
