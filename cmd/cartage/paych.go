package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/internal/node"
	"github.com/cartage-dev/cartage/internal/reason"
)

func channelState(p api.PayChannel) string {
	switch {
	case p.Unknown != "":
		return "unknown: " + p.Unknown
	case p.Collected:
		return "collected"
	case p.SettlingAt != 0:
		return fmt.Sprintf("settles at epoch %d", p.SettlingAt)
	}
	return "open"
}

// orUnknown shows an amount that the chain did not tell.
func orUnknown(amount string) string {
	if amount == "" {
		return "unknown"
	}
	return amount
}

// unknown is the error of an answer in which the chain says nothing of some channels: the exit code is that of its reason.
func unknown(list ...api.PayChannel) error {
	n, why := 0, reason.None
	for _, p := range list {
		if p.Unknown == "" {
			continue
		}
		if n++; why == reason.None {
			why, _ = reason.Parse(p.Unknown)
		}
	}
	if n == 0 {
		return nil
	}
	return why.Errorf("what the chain knows of %d of %d payment channels is unknown: %w", n, len(list), why)
}

func (c *cli) paychCmd() *cobra.Command {
	cmd := c.group(&cobra.Command{Use: "paych", Short: "Payment channels"})
	cmd.AddCommand(
		&cobra.Command{Use: "list", Short: "List the payment channels", Args: c.args(cobra.NoArgs), RunE: c.reads(func(ctx context.Context, n *api.Node, _ []string) error {
			l, err := n.PayChannels(ctx)
			if err != nil {
				return err
			}
			err = table(c, l, []string{"CHANNEL", "DIRECTION", "DEPOSIT", "VOUCHERED", "REDEEMED", "STATE"}, func(p api.PayChannel) []string {
				return []string{p.Channel, p.Direction, orUnknown(p.Deposit), p.Vouchered, orUnknown(p.Redeemed), channelState(p)}
			}, "no payment channels yet")
			return errors.Join(err, unknown(l...))
		})},
		&cobra.Command{Use: "show CHANNEL", Short: "One payment channel with its lanes", Args: c.args(cobra.ExactArgs(1)), RunE: c.reads(c.paychShow)},
		&cobra.Command{Use: "vouchers CHANNEL", Short: "The best voucher of each lane, as Lotus reads it", Args: c.args(cobra.ExactArgs(1)),
			RunE: c.reads(func(ctx context.Context, n *api.Node, args []string) error {
				l, err := n.PayChVouchers(ctx, args[0])
				if err != nil {
					return err
				}
				return table(c, l, []string{"LANE", "NONCE", "AMOUNT", "DEAL", "VOUCHER"}, func(v api.Voucher) []string {
					return []string{fmt.Sprint(v.Lane), fmt.Sprint(v.Nonce), v.Amount, v.Deal, v.Text}
				}, "no vouchers yet")
			})},
		c.paychDo("redeem", "Put the best vouchers into the channel; it stays open", func(ctx context.Context, n *api.Node, ch string) error { return n.RedeemPayCh(ctx, ch) }),
		c.paychDo("settle", "Redeem the best vouchers and start to close", func(ctx context.Context, n *api.Node, ch string) error { return n.SettlePayCh(ctx, ch) }),
		c.paychDo("collect", "End a settled channel: everybody gets what is theirs", func(ctx context.Context, n *api.Node, ch string) error { return n.CollectPayCh(ctx, ch) }),
		c.paychRestored(),
	)
	return cmd
}

// paychRestored works on the store of a stopped node: deals go on as soon as it is opened.
func (c *cli) paychRestored() *cobra.Command {
	return &cobra.Command{Use: "restored", Short: "Say that this home was put back from a backup, before the node is started", Args: c.args(cobra.NoArgs),
		Long: "Say that this home was put back from a backup, before the node is started. What was signed since then is not known any more: the numbers of\nvouchers and lanes jump at the next start, so that none is used twice.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			h, err := c.home()
			if err != nil {
				return err
			}
			if err := node.MarkRestored(cmd.Context(), h); err != nil {
				return err
			}
			return c.show(map[string]bool{"restored": true}, [][2]string{{"restored", "nonces and lanes jump at the next start"}})
		}}
}

func (c *cli) paychShow(ctx context.Context, n *api.Node, args []string) error {
	l, err := n.PayChannels(ctx)
	if err != nil {
		return err
	}
	for _, p := range l {
		if p.Channel != args[0] {
			continue
		}
		rows := [][2]string{{"channel", p.Channel}, {"direction", p.Direction}, {"from", p.From}, {"to", p.To}, {"deposit", orUnknown(p.Deposit)}, {"vouchered", p.Vouchered},
			{"redeemed", orUnknown(p.Redeemed)}, {"state", channelState(p)}}
		for _, ln := range p.Lanes {
			rows = append(rows, [2]string{fmt.Sprintf("lane %d", ln.Lane), fmt.Sprintf("%s for deal %s (%d vouchers)", ln.Amount, ln.Deal, ln.Nonce)})
		}
		return errors.Join(c.show(p, rows), unknown(p))
	}
	return api.Errorf(api.CodeNotFound, "Channels are listed by cartage paych list.", "there is no payment channel %s here", args[0])
}

// paychDo is a command that changes a channel, or says with --dry-run what it would change.
func (c *cli) paychDo(name, short string, do func(ctx context.Context, n *api.Node, ch string) error) *cobra.Command {
	dry := false
	cmd := &cobra.Command{Use: name + " CHANNEL", Short: short, Args: c.args(cobra.ExactArgs(1)),
		RunE: c.node(func(ctx context.Context, n *api.Node, args []string) error {
			if !dry {
				return do(ctx, n, args[0])
			}
			p, err := n.PayChPlan(ctx, args[0])
			if err != nil {
				return err
			}
			return c.show(p, planRows(name, p))
		})}
	cmd.Flags().BoolVar(&dry, "dry-run", false, "only say what would happen")
	return cmd
}

// planRows says what a command would do to a channel.
func planRows(name string, p *api.PayChPlan) [][2]string {
	if p.Collected {
		return [][2]string{{"channel", p.Channel}, {name, "nothing to do: it is collected"}}
	}
	rows := [][2]string{{"channel", p.Channel}}
	if name != "collect" {
		for _, r := range p.Redeem {
			rows = append(rows, [2]string{fmt.Sprintf("redeem lane %d", r.Lane), "adds " + r.Adds})
		}
		rows = append(rows, [2]string{"redeem in all", "adds " + p.Adds})
	}
	switch {
	case name == "redeem":
	case name == "settle" && p.SettlingAt != 0:
		rows = append(rows, [2]string{"settle", fmt.Sprintf("it settles already, at epoch %d", p.SettlingAt)})
	case name == "settle":
		rows = append(rows, [2]string{"settle", "vouchers are taken until the end of the settle delay; then it can be collected"})
	case p.SettlingAt == 0:
		return append(rows, [2]string{"collect", "refused: settle it first"})
	case p.Epoch < p.SettlingAt:
		return append(rows, [2]string{"collect", fmt.Sprintf("refused until epoch %d; it is epoch %d", p.SettlingAt, p.Epoch)})
	}
	switch name {
	case "settle":
		rows = append(rows, [2]string{"collect pays", fmt.Sprintf("%s to the payee, %s back to the payer", p.ToPayee, p.ToPayer)})
	case "collect":
		rows = append(rows, [2]string{"collect pays", fmt.Sprintf("%s to the payee, %s back to the payer", p.Redeemed, p.Rest)})
	}
	return rows
}

func (c *cli) earningsCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "earnings", Short: "What this node was paid: by day, what can still be redeemed, and until when", Args: c.args(cobra.NoArgs),
		RunE: c.reads(func(ctx context.Context, n *api.Node, _ []string) (err error) {
			e, err := n.Earnings(ctx)
			if err != nil {
				return err
			}
			if e.Unknown != "" {
				defer func() { err = errors.Join(err, stale(e)) }()
			}
			if c.json {
				return c.show(e, nil)
			}
			if err := c.show(nil, [][2]string{{"owed", e.Owed}, {"vouchered", e.Vouchered}, {"redeemed", e.Redeemed}, {"redeemable", e.Redeemable}, {"lost", e.Lost},
				{"may be out unpaid", fmt.Sprintf("%s lent to payers without a record, %s on records", size(e.LentStrangers), size(e.LentRecords))}}); err != nil {
				return err
			}
			say("\n")
			if err := table(c, e.Days, []string{"DAY (UTC)", "VOUCHERED", "REDEEMED", "LOST"}, func(d api.EarnedDay) []string {
				return []string{d.Date, d.Vouchered, d.Redeemed, d.Lost}
			}, "nothing was paid yet"); err != nil || len(e.Claims) == 0 {
				return err
			}
			say("\n")
			return table(c, e.Claims, []string{"CHANNEL", "STILL REDEEMABLE", "UNTIL", "FROM"}, func(k api.Claim) []string {
				return []string{k.Channel, k.Redeemable, until(k, e.Epoch), k.From}
			}, "")
		})}
	cmd.AddCommand(&cobra.Command{Use: "deals", Short: "The same for each deal", Args: c.args(cobra.NoArgs),
		RunE: c.reads(func(ctx context.Context, n *api.Node, _ []string) error {
			e, err := n.Earnings(ctx)
			if err != nil {
				return err
			}
			err = table(c, e.Deals, []string{"DEAL", "OWED", "VOUCHERED", "REDEEMED", "REDEEMABLE", "LOST", "CHANNEL", "LANE"}, func(d api.EarnedDeal) []string {
				return []string{d.Deal, d.Owed, d.Vouchered, d.Redeemed, d.Redeemable, d.Lost, d.Channel, fmt.Sprint(d.Lane)}
			}, "nothing was sold yet")
			return errors.Join(err, stale(e))
		})})
	return cmd
}

// stale is the error of earnings of which the chain did not tell all.
func stale(e *api.Earnings) error {
	if e.Unknown == "" {
		return nil
	}
	why, _ := reason.Parse(e.Unknown)
	return why.Errorf("what was redeemed and until when is as it was last known: %w", why)
}

// until says how long a channel takes vouchers.
func until(k api.Claim, now int64) string {
	epoch := k.Until
	switch {
	case k.Unknown != "", epoch != 0 && now == 0:
		return "unknown"
	case epoch == 0:
		return "somebody settles it"
	case now >= epoch:
		return fmt.Sprintf("epoch %d (over)", epoch)
	}
	return fmt.Sprintf("epoch %d (%d from now)", epoch, epoch-now)
}
