// Package rpc serves JSON-RPC to callers that hold a token: on this machine over a loopback port or a Unix socket, elsewhere over TLS.
package rpc

import (
	"context"
	"crypto/subtle"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// drain bounds how long calls in progress may take when the server ends.
const drain = 2 * time.Second

// Serve answers on ln until ctx ends. It returns after the calls in progress have ended, so that what they use may be
// closed. A TCP address that is not loopback is refused, unless the listener is one of Encrypt.
func Serve(ctx context.Context, ln net.Listener, token string, h http.Handler, options ...Option) error {
	var o settings
	for _, option := range options {
		option(&o)
	}
	if o.enter == nil {
		oneToken(token)(&o)
	}
	h = o.guard(h)
	if o.pages != nil {
		h = split(h, o.pages)
	}
	switch a := ln.Addr().(type) {
	case *net.UnixAddr:
	case *net.TCPAddr:
		_, secret := ln.(encrypted)
		if !secret && !a.IP.IsLoopback() {
			return fmt.Errorf("refusing to serve on %s: without TLS only loopback addresses are allowed", a)
		}
		if !secret {
			h = local(h)
		}
	default:
		return fmt.Errorf("refusing to serve on %s: it is neither TCP nor a Unix socket", a)
	}
	if o.conns > 0 {
		ln = &bounded{Listener: ln, settings: o}
	}
	srv := &http.Server{
		Handler:           h,
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

// encrypted is a listener whose connections nobody else reads.
type encrypted struct{ net.Listener }

// Encrypt serves the connections of a listener over TLS 1.3.
func Encrypt(ln net.Listener, cert tls.Certificate) net.Listener {
	return encrypted{tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13, NextProtos: []string{"http/1.1"}})}
}

// local checks that a call was meant for this host and not sent by a page of another one.
func local(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil || !isLocal(host) || !ownPage(r.Header.Get("Origin")) {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func isLocal(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// ownPage reports whether a call was not sent by a page of another host; a program sends no origin.
func ownPage(origin string) bool {
	if origin == "" {
		return true
	}
	u, err := url.Parse(origin)
	return err == nil && isLocal(u.Hostname())
}

// errToken is that a call does not have the one token.
var errToken = errors.New("another token is needed")

// oneToken lets those in who bear a token.
func oneToken(token string) Option {
	return Enter(func(ctx context.Context, bearer string) (context.Context, error) {
		if subtle.ConstantTimeCompare([]byte(bearer), []byte(token)) != 1 {
			return ctx, errToken
		}
		return ctx, nil
	}, func(w http.ResponseWriter, _ error) { w.WriteHeader(http.StatusUnauthorized) })
}

// split sends calls one way and everything else, which has a door of its own, the other.
func split(calls, pages http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/rpc/", calls)
	mux.Handle("/metrics", calls)
	mux.Handle("/", pages)
	return mux
}

// guard checks the token.
func (o *settings) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, err := o.enter(r.Context(), strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
		if err != nil {
			o.refuse(w, err)
			return
		}
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}
