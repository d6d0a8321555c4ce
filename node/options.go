package node

import (
	"log/slog"
	"sort"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/internal/config"
	inner "github.com/cartage-dev/cartage/internal/node"
	"github.com/cartage-dev/cartage/paych"
)

// Option is a choice of Open. Options do not fail: Open checks them.
type Option func(*options)

type options struct {
	inner   inner.Options
	metrics prometheus.Registerer
	err     error
}

// gather applies options in their order.
func gather(opts []Option) (options, error) {
	var o options
	for _, set := range opts {
		set(&o)
	}
	return o, o.err
}

// WithHost runs the node on a libp2p host of the caller's, which is not closed with the node. The node listens on no other address of it than those of
// WithListen, and its peer id is that of the host. A host has one node at a time.
func WithHost(h host.Host) Option {
	return func(o *options) {
		if o.inner.Host = h; h == nil {
			o.err = api.Errorf(api.CodeUsage, "Leave the option out: the node makes a host of its own.", "WithHost was given no host")
		}
	}
}

// WithListen sets the multiaddresses to listen on, instead of those of the home's configuration, which are of the loopback device.
func WithListen(addrs ...string) Option { return func(o *options) { o.inner.Listen = addrs } }

// WithLedger sets the ledger that payment channels live on, by its URL and the file with the token for it. Without a chain only free deals are possible.
func WithLedger(url, tokenFile string) Option {
	return func(o *options) { o.inner.LedgerURL, o.inner.TokenFile, o.inner.Chain = url, tokenFile, "ledger" }
}

// WithChain sets the chain that payment channels live on. The caller closes it after the node.
func WithChain(c paych.Chain) Option {
	return func(o *options) {
		if o.inner.Money = c; c == nil {
			o.err = api.Errorf(api.CodeUsage, "Leave the option out for free deals only.", "WithChain was given no chain")
		}
	}
}

// WithPassphrase opens a wallet whose keys are encrypted, or encrypts those of a new one.
func WithPassphrase(text string) Option { return func(o *options) { o.inner.Passphrase = text } }

// WithLogger sets where the node logs; without it nothing is logged.
func WithLogger(l *slog.Logger) Option { return func(o *options) { o.inner.Log = l } }

// WithRegisterer adds the numbers of the node to a Prometheus registry until it closes.
func WithRegisterer(r prometheus.Registerer) Option { return func(o *options) { o.metrics = r } }

// WithConfig changes keys of the home's configuration for this run, by their names in config.toml: retrieval.max_exposure. A key that there is not is an
// error of Open.
func WithConfig(values map[string]string) Option {
	return func(o *options) {
		o.inner.Set = func(c *config.Loaded) error {
			keys := make([]string, 0, len(values))
			for k := range values {
				keys = append(keys, k)
			}
			sort.Strings(keys)
			for _, k := range keys {
				if err := c.Override(k, values[k], "WithConfig"); err != nil {
					return api.Errorf(api.CodeUsage, "Names and values are those of config.toml.", "%w", err)
				}
			}
			return nil
		}
	}
}
