package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/cartage-dev/cartage/api"
)

// peersCmd is who owes this provider something.
func (c *cli) peersCmd() *cobra.Command {
	cmd := c.group(&cobra.Command{Use: "peers", Short: "Who left bytes unpaid here, and gets no credit"})
	cmd.AddCommand(
		&cobra.Command{Use: "debts", Short: "List the debts, the oldest first", Args: c.args(cobra.NoArgs),
			Long: "Debts lists the deals that ended with bytes unpaid by the fault of their payers. Such a peer, and whoever pays with the same address, pays in\nadvance until the debt is paid, forgiven, or over.",
			RunE: c.reads(func(ctx context.Context, n *api.Node, _ []string) error {
				list, err := n.PeerDebts(ctx)
				if err != nil {
					return err
				}
				return table(c, list, []string{"PEER", "UNPAID", "ATTOFIL", "SINCE", "UNTIL", "PAYER", "DEAL"}, func(d api.Debt) []string {
					return []string{d.Peer, size(d.Bytes), d.Amount, d.Since, d.Until, d.Payer, d.Deal}
				}, "nobody owes anything")
			})},
		&cobra.Command{Use: "forgive PEER...", Short: "End the debts of a peer: it gets credit again", Args: c.args(cobra.MinimumNArgs(1)),
			Example: "  cartage peers forgive 12D3KooWKF57VgriLWrwBwrCbqwiaT4cURundp1NyNpAYDF8iz4S",
			RunE: c.node(func(ctx context.Context, n *api.Node, args []string) error {
				var errs []error
				for _, peer := range args {
					ended, err := n.ForgivePeer(ctx, peer)
					if err == nil {
						err = c.show(map[string]any{"peer": peer, "forgiven": ended}, [][2]string{{"peer", peer}, {"debts forgiven", fmt.Sprint(ended)}})
					}
					errs = append(errs, err)
				}
				return errors.Join(errs...)
			})})
	return cmd
}

// spendCmd is what was bought.
func (c *cli) spendCmd() *cobra.Command {
	return &cobra.Command{Use: "spend", Short: "What this node paid: by order, by payment channel, and in advance for nothing", Args: c.args(cobra.NoArgs),
		RunE: c.reads(func(ctx context.Context, n *api.Node, _ []string) error {
			s, err := n.Spending(ctx)
			if err != nil {
				return err
			}
			if c.json {
				return errors.Join(c.show(s, nil), unknown(s.Channels...))
			}
			if err := c.show(nil, [][2]string{{"vouchered", s.Vouchered}, {"paid in advance and not sent", size(s.LostBytes)}}); err != nil {
				return err
			}
			say("\n")
			if err := table(c, s.Orders, []string{"ORDER", "STATE", "SPENT", "BUDGET", "BYTES", "ROOT"}, func(o api.Order) []string {
				return []string{o.ID, o.State, o.Spent, o.Budget, size(o.Bytes), o.Root}
			}, "nothing was ordered yet"); err != nil {
				return err
			}
			if len(s.Channels) > 0 {
				say("\n")
				if err := table(c, s.Channels, []string{"CHANNEL", "DEPOSIT", "VOUCHERED", "REDEEMED", "STATE"}, func(p api.PayChannel) []string {
					return []string{p.Channel, orUnknown(p.Deposit), p.Vouchered, orUnknown(p.Redeemed), channelState(p)}
				}, ""); err != nil {
					return err
				}
			}
			if len(s.Losses) > 0 {
				say("\n")
				if err := table(c, s.Losses, []string{"PAID IN ADVANCE AND NOT SENT", "SINCE", "PEER", "ROOT"}, func(l api.AdvanceLoss) []string {
					return []string{size(l.Bytes), l.Since, l.Peer, l.Root}
				}, ""); err != nil {
					return err
				}
			}
			return unknown(s.Channels...)
		})}
}
