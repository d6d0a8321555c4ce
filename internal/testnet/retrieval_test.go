package testnet_test

import (
	"context"
	"crypto/sha256"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/filecoin-project/go-state-types/big"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/blob"
	"github.com/cartage-dev/cartage/carstore"
	"github.com/cartage-dev/cartage/internal/faults"
	"github.com/cartage-dev/cartage/internal/testnet"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreTopFunction("go.opencensus.io/stats/view.(*worker).start"),
		goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"), goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"))
}

// world is a ledger, a provider with a file for sale, and a client.
type world struct {
	ctx              context.Context
	net              *testnet.Net
	provider, client *testnet.Peer
	root             string
	file             string
	bytes            uint64
	buyers           int
}

func newWorld(t *testing.T, size int, ask api.Ask) *world {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	t.Cleanup(cancel)
	net, err := testnet.New(ctx, t.TempDir())
	require.NoError(t, err)
	return newWorldOn(t, ctx, net, size, ask)
}

// newWorldOn is a world on a chain that is there.
func newWorldOn(t *testing.T, ctx context.Context, net *testnet.Net, size int, ask api.Ask) *world {
	t.Helper()
	w := &world{ctx: ctx, net: net}
	var err error
	w.provider, err = net.Peer(ctx, "provider", true)
	require.NoError(t, err)
	w.client, err = net.Peer(ctx, "client", false)
	require.NoError(t, err)
	require.NoError(t, w.provider.Start(ctx, nil))
	data := make([]byte, size)
	chacha := rand.NewChaCha8(sha256.Sum256([]byte("testnet")))
	_, _ = chacha.Read(data)
	w.file = filepath.Join(t.TempDir(), "file.bin")
	require.NoError(t, os.WriteFile(w.file, data, 0o600))
	p, err := w.provider.API().Provide(ctx, w.file)
	require.NoError(t, err)
	w.root, w.bytes = p.Root, p.Bytes
	_, err = w.provider.API().SetAsk(ctx, ask)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, w.client.Stop(context.Background()))
		require.NoError(t, w.provider.Stop(context.Background()))
		require.NoError(t, net.Close())
	})
	return w
}

func (w *world) request() api.RetrieveRequest { return w.requestFrom(w.provider.Address()) }

func (w *world) requestFrom(provider string) api.RetrieveRequest {
	return api.RetrieveRequest{CID: w.root, Provider: provider, Budget: "100000000000", MaxExposure: 1 << 30}
}

// check compares what was promised and accepted, and the file, with what is due.
func (w *world) check(t *testing.T, r *api.Retrieval, price, unseal int64) {
	t.Helper()
	require.True(t, r.OK, "%s %s", r.Status, r.Message)
	due := big.Add(big.Mul(big.NewInt(price), big.NewIntUnsigned(w.bytes)), big.NewInt(unseal)).String()
	for _, p := range []*testnet.Peer{w.client, w.provider} {
		require.Equal(t, due, w.vouchered(t, p.API()).String(), "vouchered")
	}
	s, err := carstore.OpenRead(r.CarPath)
	require.NoError(t, err)
	defer s.Close()
	out := filepath.Join(t.TempDir(), "out")
	require.NoError(t, s.Export(w.ctx, blob.OS{}, out, false))
	want, err := os.ReadFile(w.file)
	require.NoError(t, err)
	got, err := os.ReadFile(out)
	require.NoError(t, err)
	require.Equal(t, sha256.Sum256(want), sha256.Sum256(got))
	if w.net.Ledger == nil {
		return
	}
	a, err := w.net.Ledger.Audit()
	require.NoError(t, err)
	require.True(t, a.Conserved)
}

var paid = api.Ask{PricePerByte: "2", UnsealPrice: "0", PaymentInterval: 1 << 20}

func TestPaidRetrieval(t *testing.T) {
	for name, tc := range map[string]struct {
		ask           api.Ask
		price, unseal int64
	}{
		"several payments": {paid, 2, 0},
		"unseal price":     {api.Ask{PricePerByte: "3", UnsealPrice: "777", PaymentInterval: 1 << 20}, 3, 777},
		"free":             {api.Ask{PricePerByte: "0", UnsealPrice: "0"}, 0, 0},
		"unseal only":      {api.Ask{PricePerByte: "0", UnsealPrice: "777"}, 0, 777},
		"growing interval": {api.Ask{PricePerByte: "2", UnsealPrice: "0", PaymentInterval: 1 << 20, PaymentIntervalIncrease: 1 << 20}, 2, 0},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 5<<19, tc.ask)
			require.NoError(t, w.client.Start(w.ctx, nil))
			r, err := w.client.Retrieve(w.ctx, w.request())
			require.NoError(t, err)
			w.check(t, r, tc.price, tc.unseal)
			again, err := w.client.Retrieve(w.ctx, w.request())
			require.NoError(t, err)
			require.True(t, again.OK)
			w.check(t, again, tc.price, tc.unseal) // the second time is free
		})
	}
}

// TestCountUp crashes one side at its first write, its second, and so on until a run needs no crash. The deal survives each:
// after starting again, retrieving with the same arguments ends it with exactly what is due.
func TestCountUp(t *testing.T) {
	for _, side := range []string{"client", "provider"} {
		t.Run(side, func(t *testing.T) { countUp(t, crashed{side: side, ask: paid, price: 2, transport: api.TransportAuto}) })
	}
}

// TestCountUpFree is TestCountUp for a deal that costs nothing, over graphsync: its provider is done when the last block has left,
// and the client may have none of them.
func TestCountUpFree(t *testing.T) {
	for _, side := range []string{"client", "provider"} {
		t.Run(side, func(t *testing.T) {
			countUp(t, crashed{side: side, ask: api.Ask{PricePerByte: "0", UnsealPrice: "0"}, transport: api.TransportGraphsync})
		})
	}
}

// crashed is a deal with a crash of one side.
type crashed struct {
	side      string
	ask       api.Ask
	price     int64
	transport string
}

func countUp(t *testing.T, c crashed) {
	step := 1
	if testing.Short() { // the race detector's run: the same places, every ninth
		step = 9
	}
	for n := 1; ; n += step {
		if !c.at(t, n) {
			t.Logf("%s: %d crash points", c.side, n-1)
			require.Greater(t, n, 10)
			return
		}
	}
}

func (c crashed) at(t *testing.T, n int) (crashed bool) {
	t.Run("", func(t *testing.T) {
		side := c.side
		w := newWorld(t, 5<<19, c.ask)
		dead := make(chan struct{})
		victim := w.client
		if side == "provider" {
			victim = w.provider
			require.NoError(t, w.provider.Stop(w.ctx))
		}
		sw := &faults.Switch{At: n, AtCrash: victim.Silence, OnCrash: func() { close(dead) }}
		started := victim.Start(w.ctx, sw) == nil
		if side == "provider" && started {
			require.NoError(t, w.client.Start(w.ctx, nil))
		}
		ended := make(chan *api.Retrieval, 1)
		if started {
			req := w.request()
			req.Transport = c.transport
			client := w.client
			go func() {
				ctx, cancel := context.WithTimeout(w.ctx, time.Minute)
				defer cancel()
				r, _ := client.Retrieve(ctx, req)
				ended <- r
			}()
			select {
			case <-dead:
			case r := <-ended:
				ended <- r
			}
		}
		crashed = sw.Crashed()
		if !crashed {
			w.check(t, <-ended, c.price, 0)
			return
		}
		if started {
			stop, cancel := context.WithTimeout(w.ctx, 2*time.Second)
			_ = victim.Stop(stop)
			cancel()
			if side == "client" {
				<-ended
			}
		}
		require.NoError(t, victim.Start(w.ctx, nil), "crash at write %d", n)
		if side == "provider" && !started {
			require.NoError(t, w.client.Start(w.ctx, nil))
		}
		req := w.request()
		req.Transport = c.transport
		r, err := w.client.Retrieve(w.ctx, req)
		require.NoError(t, err, "crash at write %d: %+v", n, r)
		w.check(t, r, c.price, 0)
		deals, err := w.client.Client.ListDeals()
		require.NoError(t, err)
		require.Len(t, deals, 1, "the deal goes on: no second one is made")
	})
	return crashed
}
