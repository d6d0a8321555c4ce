package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/internal/reason"
)

// dealsCmd lists orders and deals, and says which go on.
func (c *cli) dealsCmd() *cobra.Command {
	var f dealFilter
	cmd := &cobra.Command{Use: "deals", Short: "The orders and deals of this node, in both roles", Args: c.args(cobra.NoArgs),
		PreRunE: func(*cobra.Command, []string) error { return f.check() },
		RunE:    c.reads(func(ctx context.Context, n *api.Node, _ []string) error { return operator{c}.listDeals(ctx, n, &f) }),
		Example: "  cartage deals --state parked\n  cartage deals --role provider --limit 10\n  cartage deals --watch",
		Long:    "Deals lists what this node buys and sells. An order (o17) is what a retrieve command asked for; its deals (c31) are with one provider\nafter another. A parked order asks for nothing and pays nothing until it is resumed."}
	f.declare(cmd)
	cmd.AddCommand(
		&cobra.Command{Use: "show ID", Short: "One deal or order", Args: c.args(cobra.ExactArgs(1)), RunE: c.reads(c.showDeal)},
		c.resumeCmd(),
		&cobra.Command{Use: "park ID...", Short: "Stop an order: what is due is paid, and nothing else until it is resumed", Args: c.args(cobra.MinimumNArgs(1)),
			Example: "  cartage deals park o17",
			RunE: c.node(func(ctx context.Context, n *api.Node, args []string) error {
				return c.eachOrder(args, func(id string) (*api.Retrieval, error) { return n.OrderPark(ctx, id) })
			})},
		&cobra.Command{Use: "cancel ID...", Short: "Cancel an order and its deals, or a deal, on both sides; what arrived stays", Args: c.args(cobra.MinimumNArgs(1)),
			Example: "  cartage deals cancel o17", RunE: c.node(c.cancelDeals)})
	for _, sub := range cmd.Commands() {
		sub.ValidArgsFunction = operator{c}.completeIDs
	}
	return cmd
}

// liveOrders are the orders that have not ended, as rows of deals.
func liveOrders(ctx context.Context, n *api.Node) ([]api.Deal, error) {
	orders, err := n.Orders(ctx)
	var out []api.Deal
	for _, o := range orders {
		switch o.State {
		case "running", "waiting", "parked":
			status := o.State
			if o.Reason != "" {
				status += ": " + o.Reason
			}
			out = append(out, api.Deal{ID: o.ID, Role: "order", Peer: o.Provider, Root: o.Root, Status: status, Bytes: o.Bytes, Owed: o.Spent, Vouchered: o.Spent})
		}
	}
	return out, err
}

func (c *cli) showDeal(ctx context.Context, n *api.Node, args []string) error {
	orders, err := n.Orders(ctx)
	if err != nil {
		return err
	}
	for _, o := range orders {
		if named(o.ID, args[0]) {
			return c.show(o, [][2]string{{"id", o.ID}, {"state", o.State}, {"reason", o.Reason}, {"asked by", o.Owner}, {"root", o.Root}, {"path", o.Path}, {"provider", o.Provider},
				{"budget", orNone(o.Budget)}, {"spent", o.Spent}, {"bytes", fmt.Sprint(o.Bytes)}, {"deals", fmt.Sprint(o.Deals)}, {"output", orNothing(o.Output)},
				{"created", o.Created}, {"changed", o.Changed}})
		}
	}
	list, err := n.Deals(ctx)
	if err != nil {
		return err
	}
	for _, d := range list {
		if named(d.ID, args[0]) {
			return c.show(d, [][2]string{{"id", d.ID}, {"role", d.Role}, {"peer", d.Peer}, {"root", d.Root}, {"status", d.Status}, {"reason", orNothing(d.Reason)}, {"blame", orNothing(d.Blame)}, {"message", d.Message},
				{"price per byte", d.PricePerByte}, {"unseal price", d.UnsealPrice}, {"bytes", fmt.Sprint(d.Bytes)}, {"owed", d.Owed}, {"vouchered", d.Vouchered},
				{"payment channel", d.PayCh}, {"lane", fmt.Sprint(d.Lane)}, {"vouchers", fmt.Sprint(d.Vouchers)}})
		}
	}
	return reason.IDUnknown.Errorf("there is no deal %s", args[0]).WithHint("Ids are listed by cartage deals.")
}

// resumeCmd goes on with an order and holds it until it is over.
func (c *cli) resumeCmd() *cobra.Command {
	var budget string
	var stall time.Duration
	cmd := &cobra.Command{Use: "resume ID", Short: "Go on with a parked order, or with a deal that has none", Args: c.args(cobra.ExactArgs(1)),
		Long:    "Resume goes on with an order until everything that it wants is here. What is written where is said by the retrieve command: run it again\nafterwards, nothing is fetched or paid again.",
		Example: "  cartage deals resume o17\n  cartage deals resume o17 --budget 0.2FIL"}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		return c.withNode(context.WithoutCancel(ctx), func(nctx context.Context, n *api.Node) error {
			q := api.OrderResume{ID: args[0], Holder: rand.Text(), StallSeconds: stall.Seconds()}
			if budget != "" {
				var err error
				if q.Budget, err = parseAmount(budget); err != nil {
					return err
				}
			}
			again := func(n *api.Node) (*api.Retrieval, error) { return n.OrderResume(nctx, q) }
			r, err := again(n)
			if err != nil {
				return err
			}
			if r, err = c.follow(ctx, nctx, n, r, holder{q.Holder, again}); err != nil {
				return err
			}
			return c.sayOrder(r)
		})
	}
	cmd.Flags().StringVar(&budget, "budget", "", "the most to spend in all, instead of what was given: attoFIL, or with FIL or nanoFIL")
	cmd.Flags().DurationVar(&stall, "stall", 2*time.Minute, "park it after so long without progress")
	return cmd
}

// sayOrder prints how an order stands.
func (c *cli) sayOrder(r *api.Retrieval) error {
	return c.show(r, [][2]string{{"order", r.Order}, {"state", r.State}, {"reason", orNothing(r.Reason)}, {"received", size(r.Received)}, {"spent", r.TotalSpent() + " attoFIL"}, {"root", r.Root}})
}

func (c *cli) eachOrder(ids []string, f func(id string) (*api.Retrieval, error)) error {
	var errs []error
	for _, id := range ids {
		r, err := f(id)
		if err == nil {
			err = c.sayOrder(r)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (c *cli) cancelDeals(ctx context.Context, n *api.Node, args []string) error {
	var errs []error
	for _, id := range args {
		if id[:min(1, len(id))] == "o" {
			errs = append(errs, c.eachOrder([]string{id}, func(id string) (*api.Retrieval, error) { return n.OrderCancel(ctx, id) }))
			continue
		}
		err := n.CancelDeal(ctx, id)
		if err == nil {
			err = c.show(map[string]string{"id": id, "state": "cancelled"}, [][2]string{{"deal", id}, {"state", "cancelled"}})
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
