package ledger

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/abi"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/blob"
	"github.com/cartage-dev/cartage/internal/rpc"
	pay "github.com/cartage-dev/cartage/paych"
)

// TestServed: the typed client over each kind of connection, with and without the token.
func TestServed(t *testing.T) {
	cert, pem := certificate(t)
	for name, open := range map[string]func() (ln net.Listener, url string, options []DialOption){
		"loopback": func() (net.Listener, string, []DialOption) {
			ln := listen(t, "tcp", "127.0.0.1:0")
			return ln, "http://" + ln.Addr().String(), nil
		},
		"unix socket": func() (net.Listener, string, []DialOption) {
			path := filepath.Join(t.TempDir(), "sock")
			return listen(t, "unix", path), "unix://" + path, nil
		},
		"TLS on every address": func() (net.Listener, string, []DialOption) {
			ln := listen(t, "tcp", "0.0.0.0:0")
			return rpc.Encrypt(ln, cert), fmt.Sprintf("https://127.0.0.1:%d", ln.Addr().(*net.TCPAddr).Port), []DialOption{PinCertificate(pem)}
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			ln, url, options := open()
			calls(t, serve(t, b, ln), b, url, options)
		})
	}
}

func listen(t *testing.T, network, addr string) net.Listener {
	t.Helper()
	ln, err := net.Listen(network, addr)
	require.NoError(t, err)
	return ln
}

// certificate makes one, and its PEM.
func certificate(t *testing.T) (tls.Certificate, []byte) {
	t.Helper()
	dir := t.TempDir()
	cert, file, err := Certificate(blob.OS{}, dir)
	require.NoError(t, err)
	pem, err := os.ReadFile(file)
	require.NoError(t, err)
	again, _, err := Certificate(blob.OS{}, dir)
	require.NoError(t, err)
	require.Equal(t, cert.Certificate, again.Certificate, "it stays the same")
	return cert, pem
}

func calls(t *testing.T, ctx context.Context, b *bench, url string, options []DialOption) {
	w := wallet{b.payer.Address: b.payer}
	if len(options) > 0 {
		_, other := certificate(t)
		c, hangup, err := Dial(ctx, url, "token", w, PinCertificate(other))
		require.NoError(t, err)
		_, err = c.Balance(ctx, b.payer.Address)
		require.ErrorContains(t, err, "another certificate")
		hangup()
	}
	bad, hangup, err := Dial(ctx, url, "wrong", w, options...)
	require.NoError(t, err)
	_, err = bad.Balance(ctx, b.payer.Address)
	require.ErrorIs(t, err, ErrUnauthorised)
	hangup()

	c, hangup, err := Dial(ctx, url, "token", w, options...)
	require.NoError(t, err)
	defer hangup()
	op := pay.Op{Kind: pay.OpAddFunds, From: b.payer.Address, Channel: b.ch, Value: big.NewInt(5), Intent: uuid.New()}
	msg, err := c.Submit(ctx, op)
	require.NoError(t, err)
	again, err := c.Submit(ctx, op)
	require.NoError(t, err)
	require.Equal(t, msg, again, "one intent is one transaction")
	info, err := c.Channel(ctx, b.ch)
	require.NoError(t, err)
	require.Equal(t, abi.NewTokenAmount(1005), info.Balance)
	_, err = c.Channel(ctx, b.payer.Address)
	require.ErrorIs(t, err, pay.ErrUnknownChannel)
	found, err := c.Lookup(ctx, b.payer.Address, op.Intent)
	require.NoError(t, err)
	require.Equal(t, msg, found)
}

// TestPace: an account that sends too fast is slowed down, and refused when that takes too long; others are not.
func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPaces()
		fast, slow := newKey(t).Address, newKey(t).Address
		begun := time.Now()
		for range accountBurst + 5*accountRate {
			require.NoError(t, p.wait(t.Context(), fast))
		}
		require.Equal(t, 5*time.Second, time.Since(begun))
		require.NoError(t, p.wait(t.Context(), slow))
		require.Equal(t, 5*time.Second, time.Since(begun))
		var wg sync.WaitGroup
		var refused atomic.Int64
		for range 20 * accountRate {
			wg.Go(func() {
				if err := p.wait(t.Context(), fast); err != nil {
					refused.Add(1)
				}
			})
		}
		wg.Wait()
		require.EqualValues(t, 10*accountRate, refused.Load())
		for range maxAccounts {
			p.of(newAddress(t))
		}
		require.Nil(t, p.of(newAddress(t)))
		time.Sleep(2 * paceRetention)
		require.NotNil(t, p.of(newAddress(t)))
		require.Len(t, p.accounts, 1)
	})
}

func newAddress(t *testing.T) address.Address {
	id := uuid.New()
	a, err := address.NewActorAddress(id[:])
	require.NoError(t, err)
	return a
}

// wallet is keys in memory.
type wallet map[address.Address]*pay.Key

func (w wallet) Has(a address.Address) bool { return w[a] != nil }

func (w wallet) Key(a address.Address) (*pay.Key, error) {
	if k := w[a]; k != nil {
		return k, nil
	}
	return nil, pay.ErrNoKey
}

// serve serves a ledger until the test ends, as the context that it returns does.
func serve(t *testing.T, b *bench, ln net.Listener) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- b.Serve(ctx, ln, "token") }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-served)
	})
	return ctx
}

// TestHostileCaller: a caller with the token cannot get around the limits of a call, and slow ones are in nobody's way.
func TestHostileCaller(t *testing.T) {
	b := newBench(t)
	ln := listen(t, "tcp", "127.0.0.1:0")
	ctx := serve(t, b, ln)
	for range 2 * maxCalls { // a byte of a body, and no more
		c, err := net.Dial("tcp", ln.Addr().String())
		require.NoError(t, err)
		defer c.Close()
		_, err = fmt.Fprintf(c, "POST /rpc/v1 HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer token\r\nContent-Length: 100\r\n\r\n{", ln.Addr())
		require.NoError(t, err)
	}
	c, hangup, err := Dial(ctx, "http://"+ln.Addr().String(), "token", wallet{})
	require.NoError(t, err)
	defer hangup()
	_, _, err = c.Head(ctx)
	require.NoError(t, err)

	for name, tc := range map[string]struct {
		head http.Header
		body string
		code int
	}{
		"a WebSocket":  {http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}}, "", http.StatusNotImplemented},
		"a large call": {http.Header{}, strings.Repeat("x", maxBody+1), http.StatusRequestEntityTooLarge},
	} {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+ln.Addr().String()+"/rpc/v1", strings.NewReader(tc.body))
		require.NoError(t, err)
		req.Header = tc.head
		req.Header.Set("Authorization", "Bearer token")
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		resp, err := client.Do(req)
		require.NoError(t, err, name)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, tc.code, resp.StatusCode, name)
	}
}

// TestRefusalTravels: a client knows each refusal for what it is, whatever its text says.
func TestRefusalTravels(t *testing.T) {
	for _, k := range kinds() {
		var told *Refusal
		require.ErrorAs(t, refusalOf(fmt.Errorf("account f1: %w", k.err)), &told)
		data, err := told.MarshalJSON()
		require.NoError(t, err)
		var r Refusal
		require.NoError(t, r.UnmarshalJSON(data))
		for _, other := range kinds() {
			require.Equal(t, errors.Is(k.err, other.err), errors.Is(&r, other.err), "%s as %s", k.name, other.name)
		}
	}
	require.Equal(t, ErrFaucet, refusalOf(ErrFaucet))

	b := newBench(t)
	ln := listen(t, "tcp", "127.0.0.1:0")
	ctx := serve(t, b, ln)
	c, hangup, err := Dial(ctx, "http://"+ln.Addr().String(), "token", wallet{b.payer.Address: b.payer})
	require.NoError(t, err)
	defer hangup()
	_, err = c.API.Submit(ctx, []byte("no transaction"))
	require.ErrorIs(t, err, ErrRefused)
	require.NotErrorIs(t, err, ErrQueueFull)
}
