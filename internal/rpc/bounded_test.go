package rpc_test

import (
	"bufio"
	"context"
	"errors"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cartage-dev/cartage/internal/rpc"
)

// TestConnsAtLimit: as many connections as the limit says are served, one beyond is told so, and a place that is given back is free again.
func TestConnsAtLimit(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	var inUse, over atomic.Int64
	served := make(chan error, 1)
	go func() {
		served <- rpc.Serve(ctx, ln, "t", http.NotFoundHandler(), rpc.MaxConns(2, &inUse, func() { over.Add(1) }))
	}()
	call := func() (net.Conn, int) {
		c, err := net.Dial("tcp", ln.Addr().String())
		require.NoError(t, err)
		_, _ = c.Write([]byte("GET / HTTP/1.1\r\nHost: localhost:1\r\nAuthorization: Bearer t\r\n\r\n"))
		require.NoError(t, c.SetReadDeadline(time.Now().Add(10*time.Second)))
		r, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil { // it was closed before the answer could be read
			return c, 0
		}
		_ = r.Body.Close()
		return c, r.StatusCode
	}
	one, code := call()
	require.Equal(t, http.StatusNotFound, code)
	two, code := call()
	require.Equal(t, http.StatusNotFound, code)
	three, code := call()
	require.NotEqual(t, http.StatusNotFound, code)
	require.EqualValues(t, 1, over.Load())
	require.EqualValues(t, 2, inUse.Load())
	require.NoError(t, one.Close())
	require.Eventually(t, func() bool { return inUse.Load() == 1 }, 10*time.Second, time.Millisecond)
	four, code := call()
	require.Equal(t, http.StatusNotFound, code)
	for _, c := range []net.Conn{two, three, four} {
		_ = c.Close()
	}
	cancel()
	require.NoError(t, ignoreClosed(<-served))
	require.Eventually(t, func() bool { return inUse.Load() == 0 }, 10*time.Second, time.Millisecond)
}

func ignoreClosed(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}
