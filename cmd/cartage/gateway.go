package main

import (
	"context"
	"crypto/rand"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/internal/config"
	"github.com/cartage-dev/cartage/internal/lifecycle"
	"github.com/cartage-dev/cartage/internal/node"
	"github.com/cartage-dev/cartage/internal/ui"
)

// gatewayFlags say how a daemon serves pieces over HTTP; what is not given is as the configuration says.
type gatewayFlags struct {
	listen, hosts  []string
	tls, challenge string
	behindProxy    bool
}

func (f *gatewayFlags) declare(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&f.listen, "gateway", nil, "serve pieces over HTTP at this address, for example :443, 127.0.0.1:8080 or unix:///path (may be repeated)")
	cmd.Flags().StringArrayVar(&f.hosts, "gateway-host", nil, "name of the gateway, for which a certificate is asked (may be repeated)")
	cmd.Flags().StringVar(&f.tls, "gateway-tls", "", "acme, off, or CERT.pem,KEY.pem (default: acme with --gateway-host, else off)")
	cmd.Flags().StringVar(&f.challenge, "gateway-http", "", "where the CA may look over HTTP, for example :80 (default: it asks over TLS)")
	cmd.Flags().BoolVar(&f.behindProxy, "gateway-behind-proxy", false, "a proxy does TLS: serve plain HTTP at any address")
}

// over is a configuration with what was given instead.
func (f *gatewayFlags) over(g config.Gateway) config.Gateway {
	if len(f.listen) > 0 {
		g.Listen = f.listen
	}
	if len(f.hosts) > 0 {
		g.Hosts = f.hosts
	}
	if f.tls != "" {
		g.TLS = f.tls
	}
	if f.challenge != "" {
		g.Challenge = f.challenge
	}
	g.BehindProxy = g.BehindProxy || f.behindProxy
	return g
}

// webGateway is the gateway of a daemon, if it has one.
type webGateway struct{ *node.HTTPGateway }

func openGateway(ctx context.Context, n *node.Opened, g config.Gateway) (webGateway, error) {
	if len(g.Listen) == 0 {
		return webGateway{}, nil
	}
	h, err := n.OpenGateway(ctx, g)
	return webGateway{h}, err
}

// urls are where it is reached.
func (w webGateway) urls() []string {
	if w.HTTPGateway == nil {
		return []string{}
	}
	return w.URLs()
}

// serve answers until ctx ends. A gateway that cannot go on ends the daemon.
func (w webGateway) serve(ctx context.Context, end context.CancelFunc) <-chan error {
	ended := make(chan error, 1)
	if w.HTTPGateway == nil {
		ended <- nil
		return ended
	}
	go func() {
		err := w.Serve(ctx)
		end()
		ended <- err
	}()
	return ended
}

// buyFrom runs a retrieval to its end, from a provider or from a gateway.
func (c *cli) buyFrom(ctx, nctx context.Context, n *api.Node, req api.RetrieveRequest, stall time.Duration) (*api.Retrieval, error) {
	if !strings.HasPrefix(req.Provider, "https://") && !strings.HasPrefix(req.Provider, "http://") {
		return c.buy(ctx, nctx, n, req, stall)
	}
	req.Holder = rand.Text()
	wctx, stop := context.WithCancel(ctx)
	shown := make(chan struct{})
	go func() {
		defer close(shown)
		c.showWeb(wctx, n, "web/"+req.Holder)
	}()
	r, err := n.RetrieveWeb(ctx, req) // it ends with the command, and nothing is paid later
	stop()
	<-shown
	return r, err
}

// showWeb shows the progress of a retrieval from a gateway until ctx ends.
func (c *cli) showWeb(ctx context.Context, n *api.Node, key string) {
	bar := ui.NewProgress(os.Stderr, isTerminal(os.Stderr) && !c.json, c.json)
	defer bar.Close()
	for lifecycle.Sleep(ctx, 200*time.Millisecond) {
		if r, err := n.Retrieval(ctx, key); err == nil { // until it begins there is nothing to show
			bar.Update(ui.State{Received: r.Received, Total: r.Size, Spent: r.Spent, Status: r.Status})
		}
	}
}
