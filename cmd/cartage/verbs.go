package main

import (
	"context"
	"fmt"
	"github.com/cartage-dev/cartage/internal/reason"
	"math/big"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/internal/node"
)

// node wraps a verb that talks to the node.
func (c *cli) node(f func(ctx context.Context, n *api.Node, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		return c.withNode(cmd.Context(), func(ctx context.Context, n *api.Node) error { return f(ctx, n, args) })
	}
}

// reads wraps a verb that changes nothing: it works on a full disk too.
func (c *cli) reads(f func(ctx context.Context, n *api.Node, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		return c.onNode(cmd.Context(), func(ctx context.Context, n *api.Node) error { return f(ctx, n, args) }, true)
	}
}

func (c *cli) infoCmd() *cobra.Command {
	return &cobra.Command{Use: "info", Short: "What this node is", Args: c.args(cobra.NoArgs),
		RunE: c.reads(func(ctx context.Context, n *api.Node, _ []string) error {
			i, err := n.Info(ctx)
			if err != nil {
				return err
			}
			rows := [][2]string{{"peer id", i.PeerID}, {"addresses", strings.Join(i.Addresses, " ")}, {"wallet", i.Wallet}, {"ledger", orNone(i.Ledger)}, {"providing", fmt.Sprint(i.Providing)}}
			if i.Refuses != "" {
				rows = append(rows, [2]string{"new deals", "refused: " + i.Refuses})
			}
			return c.show(i, rows)
		})}
}

func (c *cli) piecesCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "pieces", Short: "What is for sale here", Args: c.args(cobra.NoArgs),
		Example: "  cartage pieces",
		RunE: c.reads(func(ctx context.Context, n *api.Node, _ []string) error {
			list, err := n.Pieces(ctx)
			if err != nil {
				return err
			}
			return table(c, list, []string{"ROOT", "PIECE", "BYTES", "BLOCKS", "STATE"}, func(p api.Piece) []string {
				return []string{p.Root, p.PieceCID, size(p.Bytes), fmt.Sprint(p.Blocks), p.State}
			}, "nothing is for sale: cartage provide PATH")
		})}
	cmd.AddCommand(operator{c}.verifyPieceCmd(), operator{c}.removePieceCmd())
	for _, sub := range cmd.Commands() {
		sub.ValidArgsFunction = operator{c}.completePieces
	}
	return cmd
}

func (c *cli) askCmd() *cobra.Command {
	cmd := c.group(&cobra.Command{Use: "ask", Short: "The price of what this node provides"})
	show := func(a *api.Ask) error {
		return c.show(a, [][2]string{{"price per byte", a.PricePerByte + " attoFIL"}, {"unseal price", a.UnsealPrice + " attoFIL"},
			{"payment interval", size(a.PaymentInterval)}, {"interval increase", size(a.PaymentIntervalIncrease)}})
	}
	cmd.AddCommand(&cobra.Command{Use: "show", Short: "Show the ask", Args: c.args(cobra.NoArgs),
		RunE: c.reads(func(ctx context.Context, n *api.Node, _ []string) error {
			a, err := n.Ask(ctx)
			if err != nil {
				return err
			}
			return show(a)
		})})
	var perByte, perGiB, unseal, interval, increase string
	set := &cobra.Command{Use: "set", Short: "Change the ask; what is not given stays", Args: c.args(cobra.NoArgs)}
	set.RunE = c.node(func(ctx context.Context, n *api.Node, _ []string) error {
		a, err := n.Ask(ctx)
		if err != nil {
			return err
		}
		if err := change(a, perByte, perGiB, unseal, interval, increase); err != nil {
			return err
		}
		if a, err = n.SetAsk(ctx, *a); err != nil {
			return err
		}
		return show(a)
	})
	set.Flags().StringVar(&perByte, "price-per-byte", "", "attoFIL for each byte")
	set.Flags().StringVar(&perGiB, "price-per-gib", "", "price of a GiB; must divide by 2^30")
	set.Flags().StringVar(&unseal, "unseal-price", "", "price before the first byte")
	set.Flags().StringVar(&interval, "payment-interval", "", "bytes sent before a payment is due")
	set.Flags().StringVar(&increase, "payment-interval-increase", "", "by how much the interval grows with each payment")
	set.MarkFlagsMutuallyExclusive("price-per-byte", "price-per-gib")
	cmd.AddCommand(set)
	return cmd
}

func change(a *api.Ask, perByte, perGiB, unseal, interval, increase string) (err error) {
	if perByte != "" {
		if a.PricePerByte, err = parseAmount(perByte); err != nil {
			return err
		}
	}
	if perGiB != "" {
		if a.PricePerByte, err = perByteOf(perGiB); err != nil {
			return err
		}
	}
	if unseal != "" {
		if a.UnsealPrice, err = parseAmount(unseal); err != nil {
			return err
		}
	}
	if interval != "" {
		if a.PaymentInterval, err = parseSize(interval); err != nil {
			return err
		}
	}
	if increase != "" {
		if a.PaymentIntervalIncrease, err = parseSize(increase); err != nil {
			return err
		}
	}
	return nil
}

// perByteOf divides a price of a GiB; one that does not divide is refused with the two nearest that do.
func perByteOf(perGiB string) (string, error) {
	s, err := parseAmount(perGiB)
	if err != nil {
		return "", err
	}
	n, _ := new(big.Int).SetString(s, 10)
	gib := big.NewInt(1 << 30)
	q, r := new(big.Int).QuoRem(n, gib, new(big.Int))
	if r.Sign() == 0 {
		return q.String(), nil
	}
	low := new(big.Int).Mul(q, gib)
	return "", api.Errorf(api.CodeUsage, fmt.Sprintf("The nearest that do are %s and %s.", low, new(big.Int).Add(low, gib)),
		"a price of %s attoFIL per GiB does not divide by 2^30 bytes", n)
}

func (c *cli) findCmd() *cobra.Command {
	var providers []string
	var piece string
	cmd := &cobra.Command{Use: "find CID", Short: "Ask providers for their offers", Args: c.args(cobra.ExactArgs(1)),
		RunE: c.node(func(ctx context.Context, n *api.Node, args []string) error {
			root, err := node.ParseCID(args[0])
			if err != nil {
				return err
			}
			local, err := n.ClientHasLocal(ctx, root)
			if err != nil {
				return err
			}
			if local && !c.json {
				say("LOCAL\n")
			}
			if local && len(providers) == 0 {
				return nil
			}
			list, err := n.FindIn(ctx, args[0], piece, providers)
			if err != nil {
				return err
			}
			any := false
			for _, o := range list {
				any = any || o.Available
			}
			err = table(c, list, []string{"PROVIDER", "PRICE (AT MOST)", "UNSEAL", "INTERVAL", "SIZE (AT MOST)", "ROUND TRIP"}, func(o api.Offer) []string {
				if !o.Available {
					return []string{o.Provider, "-", "-", "-", "-", o.Message + " (" + o.Reason + ")"}
				}
				return []string{o.Provider, o.Price, o.UnsealPrice, size(o.Interval), size(o.Size), fmt.Sprintf("%.1f ms", o.RoundTripMS)}
			}, "no offers")
			if err == nil && !any {
				err = reason.NoOffer.Errorf("no provider has %s", args[0])
			}
			return err
		})}
	cmd.Flags().StringArrayVar(&providers, "provider", nil, "multiaddress with /p2p/ (may be repeated)")
	cmd.Flags().StringVar(&piece, "piece", "", "CID of the piece that has to serve it, of version 1 or 2 (default: any)")
	return cmd
}

func (c *cli) faucetCmd() *cobra.Command {
	return &cobra.Command{Use: "faucet", Short: "Get money for the default wallet from a development ledger", Args: c.args(cobra.NoArgs),
		RunE: c.node(func(ctx context.Context, n *api.Node, _ []string) error {
			b, err := n.Faucet(ctx)
			if err != nil {
				return err
			}
			return c.show(b, [][2]string{{"address", b.Address}, {"balance", b.Balance + " attoFIL"}})
		})}
}
