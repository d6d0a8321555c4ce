// Package node puts a whole Cartage node into a program: it buys, sells, or both, with the same wiring as the command line.
//
// A node lives in a folder, its home, which has one node at a time. It holds keys, deals, vouchers, pieces and what was bought, and outlives the process:
// what was in progress goes on, or stands still until it is asked for, at the next Open.
//
//	n, err := node.Open(ctx, dir, node.WithLedger(url, tokenFile))
//	...
//	p, err := n.Buy(ctx, "bafy…/movie.mp4", node.From(addr), node.Budget(money.MustParse("0.1FIL")))
//	...
//	err = p.Save("bought.mp4")
//
// Guarantees: each block is verified before it counts; a purchase never spends more than its budget over all attempts; nothing is paid for a purchase
// that nobody waits for; a seller is never owed more than its configuration lends. The package prints nothing, ends no process, keeps no state outside
// its nodes, and logs only to the logger that it is given. All methods are safe for concurrent use. Errors are *api.Error with a reason, the side at
// fault and what was spent; errors.Is tells their class: ErrFunds, ErrNotFound and so on.
package node

import (
	"context"
	"errors"
	"sync"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/internal/config"
	inner "github.com/cartage-dev/cartage/internal/node"
)

// Classes of errors, for errors.Is.
const (
	ErrNotFound     = api.ErrNotFound
	ErrFunds        = api.ErrFunds
	ErrRejected     = api.ErrRejected
	ErrVerification = api.ErrVerification
	ErrTimeout      = api.ErrTimeout
	ErrUnreachable  = api.ErrUnreachable
	ErrInterrupted  = api.ErrInterrupted
)

// Node is a running node.
type Node struct {
	opened  *inner.Opened
	api     *api.Node
	selling *selling
	metrics prometheus.Registerer // nil: none
	counts  prometheus.Collector

	once     sync.Once
	closeErr error
}

// Open starts a node on the home in dir, and makes the home if there is none: keys, a wallet with one address, and a configuration with its defaults. The
// context bounds the start only. The caller closes the node.
func Open(ctx context.Context, dir string, opts ...Option) (*Node, error) {
	o, err := gather(opts)
	if err != nil {
		return nil, err
	}
	home, err := config.Find(dir)
	if err != nil {
		return nil, api.ErrorOf(err)
	}
	if dir == "" {
		return nil, api.Errorf(api.CodeUsage, "Name a folder that is this program's own.", "a node needs a home")
	}
	if _, err := home.Load(); errors.Is(err, config.ErrNoHome) {
		if _, err := inner.Init(home, inner.InitOptions{}); err != nil {
			return nil, api.ErrorOf(err)
		}
	}
	s := &selling{}
	o.inner.Selling, o.inner.Provide = s.check, true
	opened, err := inner.Open(ctx, home, o.inner)
	if err != nil {
		return nil, api.ErrorOf(err)
	}
	n := &Node{opened: opened, api: opened.API(), selling: s, metrics: o.metrics, counts: opened.Collector()}
	if n.metrics != nil {
		if err := n.metrics.Register(n.counts); err != nil {
			n.metrics = nil
			return nil, errors.Join(api.Errorf(api.CodeUsage, "Give each node a registry of its own, or one that adds a label.", "%w", err), n.Close(ctx))
		}
	}
	return n, nil
}

// Close stops the node, bounded by the context: purchases in progress are parked, deals of buyers go on at the next Open. Calls after the first return the
// same error.
func (n *Node) Close(ctx context.Context) error {
	n.once.Do(func() {
		if n.metrics != nil {
			n.metrics.Unregister(n.counts)
		}
		n.closeErr = n.opened.Close(context.WithoutCancel(ctx))
	})
	return n.closeErr
}

// ID is the peer id of the node.
func (n *Node) ID() peer.ID { return n.opened.Host.ID() }

// Addrs are the multiaddresses that others reach the node at, with its peer id, as From takes them.
func (n *Node) Addrs() []string { return n.opened.Addresses() }

// Status is how the node stands.
func (n *Node) Status(ctx context.Context) (*api.Info, error) { return told(n.api.Info(ctx)) }

// API has every other call of the node, those of its JSON-RPC server.
func (n *Node) API() *api.Node { return n.api }

// told gives an error its reason and class.
func told[T any](v T, err error) (T, error) {
	if err != nil {
		return v, api.ErrorOf(err)
	}
	return v, nil
}
