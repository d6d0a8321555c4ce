package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/cartage-dev/cartage/internal/lifecycle"
	"github.com/cartage-dev/cartage/internal/reason"

	"github.com/spf13/cobra"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/internal/ui"
)

// How often it is looked whether data has arrived, and how long the provider may take to look at it.
const (
	pushPoll   = 200 * time.Millisecond
	verifyTime = 10 * time.Minute
)

// dealOnline proposes a deal and follows its data to the provider.
func (c *cli) dealOnline(ctx context.Context, args []string, f dealFlags) error {
	if len(args) != 4 {
		return api.Errorf(api.CodeUsage, "See cartage deal --help.", "a deal has 4 arguments: dataCid, miner, price, duration")
	}
	p, err := f.params(args)
	if err != nil {
		return err
	}
	return c.withNode(context.WithoutCancel(ctx), func(nctx context.Context, n *api.Node) error {
		name, err := n.ClientStartDeal(nctx, p)
		if err != nil {
			return err
		}
		if f.noWait {
			if c.json {
				return printJSON(os.Stdout, map[string]string{"proposal": name.String()})
			}
			say("%v\n", name)
			return nil
		}
		return c.followPush(ctx, nctx, n, name.String())
	})
}

// followPush shows how the data goes out until the provider has taken it, or does not want it.
func (c *cli) followPush(ctx, nctx context.Context, n *api.Node, name string) error {
	p, err := c.awaitPushed(ctx, nctx, n, name)
	if err != nil {
		return err
	}
	vctx, cancel := context.WithTimeout(nctx, verifyTime)
	defer cancel()
	for {
		s, err := n.ClientDealStatus(vctx, p.Miner, p.Wallet, name)
		if err != nil {
			return err
		}
		switch s.State {
		case "Active":
			return c.show(s, [][2]string{{"proposal", s.Proposal}, {"state", s.State}, {"deal id", fmt.Sprint(s.DealID)}, {"sent", size(p.Sent)}})
		case "Failing", "Error", "Rejecting":
			return api.Errorf(api.CodeRejected, "", "the provider does not take the data of deal %s: %s", name, s.Message)
		case "WaitingForData":
			return reason.PartlyFailed.Errorf("the provider still waits for the data of deal %s: %s", name, s.Message).WithHint("Send it again: cartage deal resume " + name)
		}
		if ctx.Err() != nil || !lifecycle.Sleep(vctx, pushPoll) {
			return api.Errorf(api.CodeTimeout, "Ask later: cartage deal status --miner "+p.Miner+" "+name, "the data was sent; the deal is in state %s", s.State)
		}
	}
}

// awaitPushed waits until all data was sent.
func (c *cli) awaitPushed(ctx, nctx context.Context, n *api.Node, name string) (*api.StoragePush, error) {
	bar := ui.NewProgress(os.Stderr, isTerminal(os.Stderr) && !c.json, c.json)
	defer bar.Close()
	for {
		p, err := n.StoragePush(nctx, name)
		switch {
		case err != nil:
			return nil, err
		case p.State == "Error":
			return nil, api.Errorf(api.CodeOther, "Blocks that have arrived are not sent again: cartage deal resume "+name, "deal %s: %s", name, p.Message)
		case !p.Pushing:
			return p, nil
		}
		bar.Update(ui.State{Received: p.Sent, Status: p.State})
		if !lifecycle.Sleep(ctx, pushPoll) {
			return nil, api.Errorf(api.CodeInterrupted, "It goes on with the daemon, or at the next start: cartage deal list", "deal %s: %s were sent", name, size(p.Sent))
		}
	}
}

func (c *cli) dealListCmd() *cobra.Command {
	return &cobra.Command{Use: "list", Short: "List the deals whose data this node sends, or has sent", Args: c.args(cobra.NoArgs),
		RunE: c.node(func(ctx context.Context, n *api.Node, _ []string) error {
			list, err := n.StoragePushes(ctx)
			if err != nil {
				return err
			}
			row := func(p api.StoragePush) []string {
				return []string{p.Proposal, p.State, p.Miner, size(p.Sent), p.Root, p.Message}
			}
			return table(c, list, []string{"PROPOSAL", "STATE", "MINER", "SENT", "ROOT", "MESSAGE"}, row, "no deals yet; stateless ones are not kept")
		})}
}

func (c *cli) dealResumeCmd() *cobra.Command {
	return &cobra.Command{Use: "resume PROPOSAL", Short: "Send what is missing of the data of a deal", Args: c.args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			return c.withNode(context.WithoutCancel(ctx), func(nctx context.Context, n *api.Node) error {
				if err := n.ResumeStoragePush(nctx, args[0]); err != nil {
					return err
				}
				return c.followPush(ctx, nctx, n, args[0])
			})
		}}
}
