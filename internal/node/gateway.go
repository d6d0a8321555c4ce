package node

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	"golang.org/x/crypto/acme/autocert"

	"github.com/cartage-dev/cartage/gateway"
	"github.com/cartage-dev/cartage/gateway/server"
	"github.com/cartage-dev/cartage/internal/config"
	"github.com/cartage-dev/cartage/internal/denylist"
	"github.com/cartage-dev/cartage/internal/lifecycle"
	"github.com/cartage-dev/cartage/internal/limits"
	"github.com/cartage-dev/cartage/internal/reason"
)

// HTTPGateway is the gateway of a node behind its listeners.
type HTTPGateway struct {
	n       *Node
	handler *gateway.Gateway
	server  *server.Server
	deny    *denylist.Set
	access  io.Closer // nil: no file
}

// OpenGateway makes the gateway of a configuration and opens its listeners; the caller serves it, or closes it. Denylists are read to their end
// first.
func (n *Node) OpenGateway(ctx context.Context, cfg config.Gateway) (_ *HTTPGateway, err error) {
	h := &HTTPGateway{n: n}
	defer func() {
		if err != nil {
			err = errors.Join(err, h.Close())
		}
	}()
	if h.deny, err = denylist.Open(n.parts.Home.Path("denylists"), n.log); err != nil {
		return nil, err
	}
	proxies, err := server.ParseProxies(cfg.TrustedProxies)
	if err != nil {
		return nil, reason.ConfigValue.Errorf("gateway.trusted_proxies: %w", err)
	}
	gc := gateway.Config{Blocks: servedBlocks{n.Pieces}, Pieces: servedPieces{n.Pieces}, Deny: denier{h.deny}, ClientAddr: server.ClientAddr(proxies), Log: n.log, Metrics: n.registry, Now: n.parts.Now}
	if gc.PublicURL, err = cfg.Public(); err != nil {
		return nil, err
	}
	gc.Limits = n.gatewayLimits()
	if gc.Limits.Window, gc.Limits.MaxWindow, err = cfg.Windows(); err != nil {
		return nil, err
	}
	if gc.Seller, err = n.seller(cfg, gc.Limits.Window); err != nil {
		return nil, err
	}
	if gc.Access, err = h.openAccess(cfg.AccessLog); err != nil {
		return nil, err
	}
	if h.handler, err = gateway.New(gc); err != nil {
		return nil, err
	}
	h.server, err = server.Listen(ctx, server.Config{Listen: cfg.Listen, TLS: cfg.Encryption(), BehindProxy: cfg.BehindProxy, Hosts: cfg.Hosts, Challenge: cfg.Challenge,
		Directory: cfg.Directory, Cache: certificates{n.space("/gateway/acme")}, Handler: h.handler, Log: n.log,
		Conns: n.limits.Int(limits.GatewayConns), PerHost: n.limits.Int(limits.GatewayConnsHost), Refused: func(ofHost bool) {
			if ofHost {
				_ = n.limits.Hit(limits.GatewayConnsHost)
				return
			}
			_ = n.limits.Hit(limits.GatewayConns)
		}})
	if err != nil {
		return nil, reason.ConfigValue.Wrap(err)
	}
	n.limits.Use(limits.GatewayConns, h.server.Connections)
	return h, nil
}

// gatewayLimits are those of the registry, which counts how often they are reached.
func (n *Node) gatewayLimits() gateway.Limits {
	l := n.limits
	names := map[gateway.Bound]limits.Name{gateway.BoundRequests: limits.GatewayRequests, gateway.BoundAllRequests: limits.GatewayRequestsAll, gateway.BoundFree: limits.GatewayFree,
		gateway.BoundFreePerAddress: limits.GatewayFreeHost, gateway.BoundFailedPayments: limits.GatewayFailures, gateway.BoundMemory: limits.GatewayMemory}
	return gateway.Limits{Requests: float64(l.Int(limits.GatewayRequests)), AllRequests: float64(l.Int(limits.GatewayRequestsAll)), Free: l.Int(limits.GatewayFree),
		FreePerAddress: l.Int(limits.GatewayFreeHost), FailedPayments: l.Int(limits.GatewayFailures), Memory: l.Value(limits.GatewayMemory),
		Reached: func(b gateway.Bound) { _ = l.Hit(names[b]) }}
}

// openAccess opens the log of requests.
func (h *HTTPGateway) openAccess(name string) (io.Writer, error) {
	switch name {
	case "":
		return nil, nil
	case "-":
		return os.Stderr, nil
	}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	h.access = f
	return f, nil
}

// URLs are where clients reach the gateway.
func (h *HTTPGateway) URLs() []string { return h.server.URLs() }

// denyRefresh is how often denylists are looked at.
const denyRefresh = time.Second

// Serve answers until ctx ends.
func (h *HTTPGateway) Serve(ctx context.Context) error {
	watch, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		h.watchDenied(watch)
	}()
	err := h.server.Serve(ctx)
	stop()
	<-done
	cctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	err = errors.Join(err, h.handler.Close(cctx))
	h.server = nil
	return errors.Join(err, h.Close())
}

func (h *HTTPGateway) watchDenied(ctx context.Context) {
	lifecycle.Every(ctx, denyRefresh, func() {
		if err := h.deny.Refresh(); err != nil {
			h.n.log.Warn("a denylist cannot be read; the rules that were read hold", "error", err)
		}
	})
}

// Close closes what Serve did not.
func (h *HTTPGateway) Close() error {
	var errs []error
	if h.server != nil {
		errs = append(errs, h.server.Close())
	}
	if h.access != nil {
		errs = append(errs, h.access.Close())
		h.access = nil
	}
	return errors.Join(errs...)
}

// certificates keeps what ACME has brought in the state of the node.
type certificates struct{ ds datastore.Batching }

var _ autocert.Cache = certificates{}

// Get implements autocert.Cache.
func (c certificates) Get(ctx context.Context, name string) ([]byte, error) {
	data, err := c.ds.Get(ctx, datastore.NewKey(name))
	if errors.Is(err, datastore.ErrNotFound) {
		return nil, autocert.ErrCacheMiss
	}
	return data, err
}

// Put implements autocert.Cache.
func (c certificates) Put(ctx context.Context, name string, data []byte) error {
	k := datastore.NewKey(name)
	return errors.Join(c.ds.Put(ctx, k, data), c.ds.Sync(ctx, k))
}

// Delete implements autocert.Cache.
func (c certificates) Delete(ctx context.Context, name string) error {
	return c.ds.Delete(ctx, datastore.NewKey(name))
}

// seller is what costs money over HTTP: what the ask says, but for what the configuration gives away.
func (n *Node) seller(cfg config.Gateway, window uint64) (*gateway.Seller, error) {
	list, err := cfg.FreeCIDs()
	if err != nil {
		return nil, err
	}
	free := map[cid.Cid]bool{}
	for _, c := range list {
		free[c] = true
	}
	return &gateway.Seller{Cashiers: n.cashiers(window), Free: func(root cid.Cid, piece uint64) bool {
		return free[root] || n.isFreePiece(list, piece)
	}}, nil
}

// isFreePiece reports whether a piece is given away.
func (n *Node) isFreePiece(list []cid.Cid, number uint64) bool {
	for _, c := range list {
		if sh, err := n.Pieces.Info(c); err == nil && sh.Number == number {
			return true
		}
	}
	return false
}
