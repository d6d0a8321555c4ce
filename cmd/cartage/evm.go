package main

import (
	"context"
	"fmt"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/internal/reason"
)

// showEVMEarnings shows what was earned for tokens.
func showEVMEarnings(ctx context.Context, c *cli, n *api.Node) error {
	e, err := n.EVMEarnings(ctx)
	if err != nil {
		return err
	}
	if c.json {
		err = c.show(e, nil)
	} else {
		err = showEVMTables(c, e)
	}
	if err == nil && e.Away != "" {
		err = reason.PartlyFailed.Errorf("chain: %s; what is shown is what was last known", e.Away)
	}
	return err
}

func showEVMTables(c *cli, e *api.EVMEarnings) error {
	err := table(c, e.Days, []string{"DAY", "NETWORK", "EARNED", "REDEEMED", "LOST", "BYTES", "PAYMENTS"}, func(d api.EVMDay) []string {
		return []string{d.Date, d.Network, d.EarnedText, d.RedeemedText, d.LostText, fmt.Sprint(d.Bytes), fmt.Sprint(d.Payments)}
	}, "nothing was sold for a token yet")
	if err != nil || len(e.Channels) == 0 {
		return err
	}
	return table(c, e.Channels, []string{"CHANNEL", "STATE", "DEPOSIT", "EARNED", "UNCLAIMED", "BYTES"}, func(ch api.EVMChannel) []string {
		return []string{ch.Channel, ch.State, ch.Deposit, ch.EarnedText, ch.UnclaimedText, fmt.Sprint(ch.Bytes)}
	}, "")
}
