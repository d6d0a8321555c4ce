package gateway

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/cartage-dev/cartage/internal/lifecycle"
)

// Config is what a gateway is made of. Blocks is required, zero values of the rest are as their fields say.
type Config struct {
	Blocks  Blocks
	Pieces  Pieces       // nil: /piece is 404
	Seller  *Seller      // nil: everything is free
	Deny    Denier       // nil: nothing is denied
	Routing http.Handler // at /routing/v1/, with the same CORS; nil: 404
	// PublicURL is how clients reach the gateway, for what a challenge names; nil: scheme and Host of the request.
	PublicURL *url.URL
	Limits    Limits
	// ClientAddr is the address that a request comes from; nil: that of its connection.
	ClientAddr func(*http.Request) netip.Addr
	// Ready says why the gateway cannot serve now; nil: it always can.
	Ready   func() error
	Log     *slog.Logger
	Access  io.Writer // a JSON object a line; nil: none
	Metrics prometheus.Registerer
	Now     func() time.Time // nil: time.Now
}

// Gateway answers requests. It is safe for concurrent use.
type Gateway struct {
	cfg     Config
	planner *planner
	gate    *turnstile
	till    *till
	access  *accessLog
	metrics *metrics

	running lifecycle.Group // requests
}

var _ http.Handler = (*Gateway)(nil)

// New checks a configuration. It starts nothing.
func New(cfg Config) (*Gateway, error) {
	if cfg.Blocks == nil {
		return nil, errors.New("gateway: Config.Blocks is missing")
	}
	cfg.Limits.setDefaults()
	if l := cfg.Limits; l.Window > l.MaxWindow || int64(l.MaxWindow) > l.Memory {
		return nil, errors.New("gateway: the window must not be above the largest window, and that not above the memory of all windows")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.ClientAddr == nil {
		cfg.ClientAddr = connectionAddr
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	g := &Gateway{cfg: cfg, gate: newTurnstile(&cfg.Limits), access: newAccessLog(cfg.Access)}
	g.planner = &planner{blocks: cfg.Blocks, deny: cfg.Deny, limits: &g.cfg.Limits, cache: newPlanCache(cfg.Limits.PlanCache)}
	g.till = newTill(&g.cfg)
	var err error
	g.metrics, err = newMetrics(cfg.Metrics)
	return g, err
}

// connectionAddr is the address at the other end of a connection.
func connectionAddr(r *http.Request) netip.Addr {
	a, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return a.Addr()
}

// Close answers new requests with 503 and waits for the running ones until ctx ends.
func (g *Gateway) Close(ctx context.Context) error {
	return g.running.Close(ctx)
}

// ServeHTTP implements http.Handler.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := g.newExchange(w, r)
	x.commonHeaders()
	if !g.running.Enter() {
		x.fail(fail(http.StatusServiceUnavailable, Starting, "the gateway is closing").after(5))
		return
	}
	defer g.running.Leave()
	g.metrics.begin(x)
	defer x.finish()
	if err := g.route(x); err != nil {
		x.fail(err)
	}
}

// route answers a request by its path.
func (g *Gateway) route(x *exchange) error {
	if x.r.Method == http.MethodOptions {
		x.status(http.StatusNoContent)
		return nil
	}
	if m := x.r.Method; m != http.MethodGet && m != http.MethodHead {
		x.w.Header().Set("Allow", allowedMethods)
		return fail(http.StatusMethodNotAllowed, MethodNotAllowed, "the method %s is not served", quoted(m))
	}
	path := x.r.URL.EscapedPath()
	switch {
	case strings.HasPrefix(path, "/ipfs/"):
		x.route = "ipfs"
		return g.serveIPFS(x, strings.TrimPrefix(path, "/ipfs/"))
	case strings.HasPrefix(path, "/piece/"):
		x.route = "piece"
		return g.servePiece(x, strings.TrimPrefix(path, "/piece/"))
	case path == "/x402/channel":
		x.route = "channel"
		return g.serveChannel(x)
	case strings.HasPrefix(path, "/ipns/"):
		return fail(http.StatusNotImplemented, NotImplemented, "names are not resolved here").withHint("Ask for /ipfs/CID.")
	case strings.HasPrefix(path, "/routing/v1/") && g.cfg.Routing != nil:
		x.route = "routing"
		g.cfg.Routing.ServeHTTP(x.counted(), x.r)
		return nil
	case path == "/healthz":
		return x.text("ok\n")
	case path == "/readyz":
		if err := g.ready(); err != nil {
			return err
		}
		return x.text("ok\n")
	}
	return fail(http.StatusNotFound, NotFound, "there is nothing at %s", quoted(path)).withHint("Content is at /ipfs/CID, pieces are at /piece/CID.")
}

// ready says why the gateway cannot serve.
func (g *Gateway) ready() error {
	if g.cfg.Ready == nil {
		return nil
	}
	if err := g.cfg.Ready(); err != nil {
		g.cfg.Log.Warn("the gateway is not ready", "error", err)
		return fail(http.StatusServiceUnavailable, Starting, "the gateway is not ready").after(5)
	}
	return nil
}

// permitted refuses what a denylist has: a CID, or a path below it.
func (g *Gateway) permitted(c cid.Cid, path []string) error {
	if g.cfg.Deny == nil {
		return nil
	}
	if v, denied := g.cfg.Deny.Denied(c, ""); denied {
		return deniedFailure(v)
	}
	for n := 1; n <= len(path); n++ {
		if v, denied := g.cfg.Deny.Denied(c, strings.Join(path[:n], "/")); denied {
			return deniedFailure(v)
		}
	}
	return nil
}
