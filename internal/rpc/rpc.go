// Package rpc serves JSON-RPC on a loopback listener to callers that hold a token.
package rpc

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"
)

// drain bounds how long calls in progress may take when the server ends.
const drain = 2 * time.Second

// Serve answers on ln until ctx ends. It returns after the calls in progress have ended, so that what they use may be
// closed. An address that is not loopback is refused: there is no TLS here.
func Serve(ctx context.Context, ln net.Listener, token string, h http.Handler) error {
	if a, ok := ln.Addr().(*net.TCPAddr); !ok || !a.IP.IsLoopback() {
		return fmt.Errorf("refusing to serve on %s: without TLS only loopback addresses are allowed", ln.Addr())
	}
	srv := &http.Server{
		Handler:           guard(token, h),
		ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
		// No ReadTimeout: it would end the context of calls that take longer.
	}
	drained := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(drained)
		sctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
		defer cancel()
		if srv.Shutdown(sctx) != nil {
			_ = srv.Close()
		}
	})
	err := srv.Serve(ln)
	if stop() || !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	<-drained // Serve itself returns when the shutdown begins
	return nil
}

// guard checks the token, and that the call was meant for this host and not sent by a page of another one.
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
