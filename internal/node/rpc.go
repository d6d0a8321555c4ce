package node

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/filecoin-project/go-jsonrpc"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/blob"
	"github.com/cartage-dev/cartage/internal/config"
	"github.com/cartage-dev/cartage/internal/dashboard"
	"github.com/cartage-dev/cartage/internal/limits"
	"github.com/cartage-dev/cartage/internal/rpc"
)

// Serve answers the API, and /metrics, over loopback HTTP until ctx ends. HOME/api holds the URL while it runs; every call needs the
// token of HOME/token, which permits everything, or one of cartage token create. ready is called when others can call.
func (n *Node) Serve(ctx context.Context, h config.Home, ln net.Listener, ready func() error) error {
	token, err := ReadToken(h.Path("token"))
	if err != nil {
		return err
	}
	srv := jsonrpc.NewServer(jsonrpc.WithServerErrors(api.Errors()), jsonrpc.WithMaxRequestSize(n.limits.Value(limits.RPCBody)), jsonrpc.WithServerMethodNameFormatter(methodName))
	in := newDoors(n, token)
	in.register(srv, n)
	pages, err := dashboard.New(dashboard.Config{API: n.API(), SignIn: in.guest})
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("/rpc/v1", srv)
	mux.Handle("GET /metrics", n.metrics())
	site := "http://" + ln.Addr().String()
	url := site + "/rpc/v1"
	if err := blob.WriteFile(blob.OS{}, h.Path("api"), []byte(url+"\n"), 0o600); err != nil {
		return err
	}
	defer os.Remove(h.Path("api"))
	n.entrance.open(site, pages.Code, in)
	if err := ready(); err != nil {
		return errors.Join(err, ln.Close())
	}
	n.overview.keep()
	var conns atomic.Int64
	n.limits.Use(limits.RPCConns, conns.Load)
	return rpc.Serve(ctx, ln, token, mux, rpc.Enter(in.enter, refuse), rpc.MaxConns(n.limits.Value(limits.RPCConns), &conns, func() { _ = n.limits.Hit(limits.RPCConns) }),
		rpc.Pages(pages))
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
	if err := h.CheckPrivate(); err != nil {
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
