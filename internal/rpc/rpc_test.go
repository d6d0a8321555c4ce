package rpc

import (
	"context"
	"net"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestServe(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	inside, release := make(chan struct{}), make(chan struct{})
	ended := make(chan error, 1)
	go func() {
		ended <- Serve(ctx, ln, "secret", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/slow" {
				close(inside)
				<-release
			}
			w.WriteHeader(http.StatusNoContent)
		}))
	}()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	call := func(path, host, token string) int {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+ln.Addr().String()+path, nil)
		require.NoError(t, err)
		if host != "" {
			req.Host = host
		}
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		resp, err := client.Do(req)
		if err != nil {
			return 0
		}
		require.NoError(t, resp.Body.Close())
		return resp.StatusCode
	}
	require.Equal(t, http.StatusNoContent, call("/", "", "secret"))
	require.Equal(t, http.StatusNoContent, call("/", "localhost:80", "secret"))
	require.Equal(t, http.StatusUnauthorized, call("/", "", ""))
	require.Equal(t, http.StatusUnauthorized, call("/", "", "secre"))
	require.Equal(t, http.StatusForbidden, call("/", "evil.example:80", "secret"))

	slow := make(chan int, 1)
	go func() { slow <- call("/slow", "", "secret") }()
	<-inside
	cancel()
	select {
	case err := <-ended:
		t.Fatalf("served no more while a call was in progress: %v", err)
	default:
	}
	close(release)
	require.Equal(t, http.StatusNoContent, <-slow)
	require.NoError(t, <-ended)
}

func TestServeRefusesOtherAddresses(t *testing.T) {
	ln, err := net.Listen("tcp", "0.0.0.0:0")
	require.NoError(t, err)
	defer ln.Close()
	require.ErrorContains(t, Serve(t.Context(), ln, "secret", nil), "only loopback")
}
