package gateway_test

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/gateway"
)

// denyList denies CIDs, and paths below them.
type denyList struct {
	mu     sync.Mutex
	denied map[string]gateway.Verdict
	n      uint64
}

func (d *denyList) Denied(c cid.Cid, path string) (gateway.Verdict, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	v, ok := d.denied[strings.TrimSuffix(c.String()+"/"+path, "/")]
	return v, ok
}

func (d *denyList) Generation() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.n
}

func (d *denyList) add(what string, v gateway.Verdict) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.denied[what], d.n = v, d.n+1
}

// TestG_90_Denied: what a list has is not served: a root, a path, a block inside a plan, also one that was planned before.
func TestG_90_Denied(t *testing.T) {
	tr := newTree(t)
	d := &denyList{denied: map[string]gateway.Verdict{}}
	c := tr.serve(func(cfg *gateway.Config) { cfg.Deny = d })
	whole, docs := "/ipfs/"+tr.root.String()+"?format=car", "/ipfs/"+tr.root.String()+"/docs/small.txt?format=car"
	require.Equal(t, 200, c.get(whole).StatusCode)
	d.add(tr.big.String(), gateway.Verdict{List: "mine", Line: 3})
	a := c.get(whole)
	require.Equal(t, 410, a.StatusCode)
	require.Equal(t, failureOf{Error: "denied", Message: "this is not served", List: "mine", Line: 3}, a.failure(t))
	require.Equal(t, 410, c.get("/ipfs/"+tr.big.String()+"?format=raw").StatusCode)
	require.Equal(t, 200, c.get(docs).StatusCode)
	d.add(tr.root.String()+"/docs", gateway.Verdict{Legal: true})
	require.Equal(t, 451, c.get(docs).StatusCode)
	require.Equal(t, 200, c.get("/ipfs/"+tr.root.String()+"/shards?format=car").StatusCode)
}

// TestG_95_Limits: an address that asks for too much is told to wait, and others are not hurt by it.
func TestG_95_Limits(t *testing.T) {
	tr := newTree(t)
	from := "192.0.2.1"
	var reached atomic.Int64
	c := tr.serve(func(cfg *gateway.Config) {
		cfg.ClientAddr = func(r *http.Request) netip.Addr { return netip.MustParseAddr(r.Header.Get("From")) }
		cfg.Limits = gateway.Limits{Requests: 0.001, AllRequests: 1000, Lookups: 0.001, Reached: func(b gateway.Bound) {
			if b == gateway.BoundRequests {
				reached.Add(1)
			}
		}}
	})
	at := "/ipfs/" + tr.small.String() + "?format=raw"
	require.Equal(t, 200, c.get(at, "From", from).StatusCode)
	a := c.get(at, "From", from)
	require.Equal(t, 429, a.StatusCode)
	require.NotEmpty(t, a.Header.Get("Retry-After"))
	require.Equal(t, "too_many_requests", a.failure(t).Error)
	require.Equal(t, 200, c.get(at, "From", "192.0.2.2").StatusCode)
	require.Equal(t, 200, c.get(at, "From", "2001:db8:1::1").StatusCode)
	require.Equal(t, 429, c.get(at, "From", "2001:db8:1:ffff::1").StatusCode, "of the same /48")
	require.EqualValues(t, 2, reached.Load())
	// More look-ups than an address has.
	require.Equal(t, 429, c.get("/ipfs/"+tr.root.String()+"?format=car", "From", "192.0.2.3").StatusCode)
}

// slowReader reads a block when it is let.
type slowReader struct {
	*memory
	let     chan struct{}
	waiting chan struct{}
}

func (s *slowReader) Read(ctx context.Context, c cid.Cid, p gateway.Place, buf []byte) ([]byte, error) {
	s.waiting <- struct{}{}
	<-s.let
	return s.memory.Read(ctx, c, p, buf)
}

// TestConcurrentAnswers: an address has so many answers at once; Close waits for those that run, and refuses others.
func TestConcurrentAnswers(t *testing.T) {
	tr := newTree(t)
	s := &slowReader{tr.blocks, make(chan struct{}), make(chan struct{}, 9)}
	c := tr.serve(func(cfg *gateway.Config) { cfg.Blocks = s; cfg.Limits.FreePerAddress = 2 })
	at := "/ipfs/" + tr.small.String() + "?format=raw"
	codes := make(chan int, 2)
	for range 2 {
		go func() {
			a, err := c.try(http.MethodGet, at)
			if err != nil {
				codes <- 0
				return
			}
			codes <- a.StatusCode
		}()
		<-s.waiting
	}
	require.Equal(t, 429, c.get(at).StatusCode)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, c.gateway.Close(ctx), context.Canceled)
	a := c.get(at)
	require.Equal(t, 503, a.StatusCode)
	require.Equal(t, "starting", a.failure(t).Error)
	close(s.let)
	require.Equal(t, 200, <-codes)
	require.Equal(t, 200, <-codes)
	require.NoError(t, c.gateway.Close(t.Context()))
}

// TestObserved: the access log has a line for each request, without whole addresses, and the metrics count it.
func TestObserved(t *testing.T) {
	tr := newTree(t)
	var log bytes.Buffer
	r := prometheus.NewRegistry()
	c := tr.serve(func(cfg *gateway.Config) {
		cfg.Access, cfg.Metrics = &log, r
		cfg.ClientAddr = func(*http.Request) netip.Addr { return netip.MustParseAddr("192.0.2.77") }
		cfg.Now = func() time.Time { return time.Unix(1_800_000_000, 0) }
	})
	c.get("/ipfs/"+tr.small.String()+"?format=raw", "User-Agent", "probe")
	c.get("/ipfs/x?format=raw")
	require.NoError(t, c.gateway.Close(t.Context()))
	var lines []map[string]any
	for line := range strings.Lines(log.String()) {
		var m map[string]any
		require.NoError(t, json.Unmarshal([]byte(line), &m))
		lines = append(lines, m)
	}
	require.Len(t, lines, 2)
	require.Equal(t, "192.0.2.0/24", lines[0]["ip"])
	require.InDelta(t, 200, lines[0]["status"], 0)
	require.InDelta(t, len("hello, gateway"), lines[0]["bytes"], 0)
	require.Equal(t, "probe", lines[0]["ua"])
	require.Equal(t, "bad_cid", lines[1]["code"])
	require.NotContains(t, log.String(), "192.0.2.77")
	families, err := r.Gather()
	require.NoError(t, err)
	found := 0.0
	for _, f := range families {
		if f.GetName() == "cartage_gateway_bytes_total" {
			found = f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	require.InDelta(t, len("hello, gateway"), found, 0)
}

// TestConfiguration: what cannot work is refused before anything is served.
func TestConfiguration(t *testing.T) {
	_, err := gateway.New(gateway.Config{})
	require.ErrorContains(t, err, "Blocks")
	tr := newTree(t)
	_, err = gateway.New(gateway.Config{Blocks: tr.blocks, Limits: gateway.Limits{Window: 8 << 20, MaxWindow: 4 << 20}})
	require.ErrorContains(t, err, "window")
	g, err := gateway.New(gateway.Config{Blocks: tr.blocks, Ready: func() error { return context.Canceled }})
	require.NoError(t, err)
	w := httptest.NewRecorder()
	g.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/readyz", nil))
	require.Equal(t, 503, w.Code)
	require.NotContains(t, w.Body.String(), "canceled")
}
