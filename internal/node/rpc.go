package node

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/filecoin-project/go-jsonrpc"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/internal/blob"
	"github.com/cartage-dev/cartage/internal/config"
)

// Serve answers the API over loopback HTTP until ctx ends. HOME/api holds the URL while it runs; every call needs the
// token of HOME/token.
func (n *Node) Serve(ctx context.Context, h config.Home, ln net.Listener) error {
	if a, ok := ln.Addr().(*net.TCPAddr); !ok || !a.IP.IsLoopback() {
		return fmt.Errorf("refusing to serve the API on %s: only loopback addresses are allowed", ln.Addr())
	}
	token, err := ReadToken(h.Path("token"))
	if err != nil {
		return err
	}
	rpc := jsonrpc.NewServer(jsonrpc.WithServerErrors(api.Errors()), jsonrpc.WithMaxRequestSize(1<<20))
	rpc.Register(api.Namespace, Service{n})
	mux := http.NewServeMux()
	mux.Handle("/rpc/v1", guard(token, rpc))
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10}
	url := "http://" + ln.Addr().String() + "/rpc/v1"
	if err := blob.WriteFile(blob.OS{}, h.Path("api"), []byte(url+"\n"), 0o600); err != nil {
		return err
	}
	defer os.Remove(h.Path("api"))
	drained := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(drained)
		sctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if srv.Shutdown(sctx) != nil {
			_ = srv.Close()
		}
	})
	err = srv.Serve(ln)
	if stop() || !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	<-drained // Serve returns when the shutdown begins; the node may be closed only when calls have ended
	return nil
}

// guard checks the token and that the call was meant for this host, not sent by a page of another one.
func guard(token string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.Host)
		if ip := net.ParseIP(host); err != nil || host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		got := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		if subtle.ConstantTimeCompare([]byte(got), []byte(token)) != 1 {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// Dial returns the API of a running daemon, or nil when none runs on the home.
func Dial(ctx context.Context, h config.Home) (*api.Node, func(), error) {
	data, err := os.ReadFile(h.Path("api"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	token, err := ReadToken(h.Path("token"))
	if err != nil {
		return nil, nil, err
	}
	url := strings.TrimSpace(string(data))
	c, err := (&net.Dialer{Timeout: 2 * time.Second}).DialContext(ctx, "tcp", strings.TrimSuffix(strings.TrimPrefix(url, "http://"), "/rpc/v1"))
	if err != nil {
		return nil, nil, nil // left over by a daemon that was killed
	}
	_ = c.Close()
	return api.Dial(ctx, url, token)
}
