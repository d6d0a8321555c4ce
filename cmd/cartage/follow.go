package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/filecoin-project/go-jsonrpc"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/internal/lifecycle"
	"github.com/cartage-dev/cartage/internal/node"
	"github.com/cartage-dev/cartage/internal/reason"
	"github.com/cartage-dev/cartage/internal/ui"
)

// redialTime is how long a command waits for a daemon that is started again.
const redialTime = 30 * time.Second

// holder is a command that waits for an order, and so keeps it running.
type holder struct {
	name  string
	again func(n *api.Node) (*api.Retrieval, error) // asks a daemon that was started again for the same
}

// follow shows progress until the end. Ctrl-C parks the order, says what was spent and how to go on.
func (c *cli) follow(ctx, nctx context.Context, n *api.Node, r *api.Retrieval, h holder) (*api.Retrieval, error) {
	bar := ui.NewProgress(os.Stderr, isTerminal(os.Stderr) && !c.json, c.json)
	defer bar.Close()
	done := func() {}
	defer func() { done() }()
	for !r.Done {
		bar.Update(ui.State{Received: r.Received, Total: r.Size, Spent: r.Spent, Status: r.Status})
		next, err := n.OrderWatch(ctx, api.OrderWatch{Key: r.Key, Holder: h.name, Seq: r.Seq})
		switch {
		case ctx.Err() != nil:
			return r, c.interrupt(nctx, n, r, h)
		case gone(err):
			done()
			n, next, done, err = c.redial(ctx, err, h)
		}
		if err != nil {
			return r, err
		}
		r = next
	}
	bar.Update(ui.State{Received: r.Received, Total: r.Received, Spent: r.Spent, Status: r.Status})
	if r.OK {
		return r, nil
	}
	return r, failure(r)
}

// failure is why a retrieval has not brought what was wanted, with what it cost and how it goes on.
func failure(r *api.Retrieval) *api.Error {
	e := r.Failure()
	if r.State == "parked" {
		e.Hint = fmt.Sprintf("%s were received and %s attoFIL spent in all. Nothing more is paid. Go on: cartage deals resume %s, or the same command. Give up: cartage deals cancel %s",
			size(r.Received), r.TotalSpent(), r.Order, r.Order)
		return e
	}
	if spent := r.TotalSpent(); spent != "0" {
		e.Hint = fmt.Sprintf("%s attoFIL were spent; what was received is kept: the same command again pays for the rest only. %s", spent, e.Hint)
	}
	return e
}

// interrupt lets go of an order: it is parked unless somebody else holds it.
func (c *cli) interrupt(ctx context.Context, n *api.Node, r *api.Retrieval, h holder) error {
	if r.Order == "" {
		return api.ErrorOf(reason.Interrupted)
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	now, err := n.OrderRelease(ctx, api.OrderWatch{Key: r.Key, Holder: h.name})
	if err != nil {
		return err
	}
	if !now.Done {
		return reason.Interrupted.Errorf("interrupted; order %s goes on for somebody else who waits for it", now.Order)
	}
	e := failure(now)
	e.Message = fmt.Sprintf("interrupted: order %s is %s", now.Order, now.State)
	return e
}

// gone reports whether an error is that the daemon cannot be reached any more.
func gone(err error) bool {
	var lost *jsonrpc.RPCConnectionError
	return errors.As(err, &lost)
}

// redial waits for a daemon that is started again, and asks it for the same.
func (c *cli) redial(ctx context.Context, cause error, of holder) (*api.Node, *api.Retrieval, func(), error) {
	h, err := c.home()
	if err != nil {
		return nil, nil, func() {}, err
	}
	note("The daemon is away; waiting up to %s for it.\n", redialTime)
	wait, cancel := context.WithTimeout(ctx, redialTime)
	defer cancel()
	for {
		n, done, err := node.Dial(context.WithoutCancel(ctx), h)
		if err == nil && n != nil {
			r, err := of.again(n)
			if !gone(err) { // what answered was not the one that was dying
				return n, r, done, err
			}
			done()
		}
		if !lifecycle.Sleep(wait, 200*time.Millisecond) {
			return nil, nil, func() {}, reason.DaemonAway.Errorf("the daemon has gone: %w", cause).
				WithHint("Start it, and run the same command again: what was received is kept, and nothing is paid meanwhile.")
		}
	}
}
