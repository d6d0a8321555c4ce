package main

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"os"
	"time"

	fbig "github.com/filecoin-project/go-state-types/big"
	"github.com/spf13/cobra"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/internal/reason"
	"github.com/cartage-dev/cartage/internal/ui"
	"github.com/cartage-dev/cartage/money"
)

// operator has the verbs of who runs a node.
type operator struct{ c *cli }

func (o operator) commands() []*cobra.Command {
	return []*cobra.Command{o.statusCmd(), o.doctorCmd(), o.versionCmd(), o.dashboardCmd(), o.manCmd()}
}

func (o operator) statusCmd() *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "How this node stands: one screen, and what needs you", Args: o.c.args(cobra.NoArgs),
		Long: "Status says whether the node can be reached, how its ledger, its payment channels and its disk are, what moves now, and what was earned and spent.\n" +
			"What is not known is said as unknown. A line with ! needs you.\n\nExit codes: 0 ready, 1 a check is bad, 3 no daemon runs on the home.",
		Example: "  cartage status\n  cartage status --json",
		RunE:    o.c.reads(func(ctx context.Context, n *api.Node, _ []string) error { return o.showStatus(ctx, n) }),
	}
}

func (o operator) showStatus(ctx context.Context, n *api.Node) error {
	s, err := n.Status(ctx)
	if err != nil {
		return err
	}
	if o.c.json {
		err = printSchema(os.Stdout, "status", s)
	} else {
		printStatus(s)
	}
	switch {
	case err != nil:
		return err
	case !s.Running:
		return reason.DaemonAway.Errorf("no daemon runs on this home: this is what it holds").WithHint("Start it: cartage daemon, with --provide to sell.")
	case !s.Ready:
		return errNotWell
	}
	return nil
}

// errNotWell ends a command that has shown what is bad.
var errNotWell error = reason.PartlyFailed.Errorf("a check is bad").WithHint("cartage doctor says more, and what helps.")

// printStatus is the screen.
func printStatus(s *api.Status) {
	need := 0
	for _, c := range s.Checks {
		if c.State == "bad" || c.State == "warn" {
			need++
		}
	}
	head := fmt.Sprintf("cartage %s  %s  ", s.Version, ui.Short(s.PeerID))
	if begun, err := time.Parse(time.RFC3339, s.Started); err == nil && s.Running {
		head += "up " + ui.Lasting(time.Since(begun))
	} else {
		head += "not running"
	}
	if need > 0 {
		head += fmt.Sprintf("   %d need you", need)
	}
	say("%s\n", head)
	shown := map[string]string{"reach": "reachable", "ledger": "ledger", "settle": "settling", "disk": "disk"}
	for _, c := range s.Checks {
		name, always := shown[c.ID]
		if !always && c.State == "ok" {
			continue
		}
		if !always {
			name = c.ID
		}
		statusLine(mark(c.State), name, checkText(c))
	}
	statusLine(" ", "moving", movingText(s))
	statusLine(" ", "earned", fmt.Sprintf("%s today, %s in 30 d; %s not yet redeemed on %d channels, %s settling",
		amountOr(s, "earned_today", s.EarnedToday), amountOr(s, "earned_30d", s.Earned30), amountOr(s, "unredeemed", s.Unredeemed), s.Channels, countOr(s, "settling", s.Settling)))
	statusLine(" ", "spent", fmt.Sprintf("%s in all; %s today", amountOr(s, "spent", s.Spent), amountOr(s, "spent_today", s.SpentToday)))
	statusLine(" ", "ended well", endedText(s))
}

// statusWidth is how wide a line of the screen may be.
const statusWidth = 78

// statusLine prints a line, broken between words.
func statusLine(mark, name, text string) {
	ui.Paragraph(os.Stdout, fmt.Sprintf("%s %-10s ", mark, name), statusWidth, text)
}

// mark tells the states apart without colour.
func mark(state string) string {
	switch state {
	case "ok":
		return " "
	case "unknown":
		return "?"
	}
	return "!"
}

// checkText is what was found, since when, and what helps.
func checkText(c api.Check) string {
	text := c.Text
	if c.State == "ok" {
		return text
	}
	if at, err := time.Parse(time.RFC3339, c.Since); err == nil && time.Since(at) >= time.Minute {
		text += " (since " + at.Local().Format("15:04") + ", " + ui.Lasting(time.Since(at)) + ")"
	}
	if c.Fix != "" {
		text += ": " + c.Fix
	}
	return text
}

func movingText(s *api.Status) string {
	text := fmt.Sprintf("%d deals with %d peers", s.DealsOpen, s.Peers)
	if s.DealsOpen > 0 {
		text += fmt.Sprintf(", %s out, %s in", rateOr(s, "bytes_out_s", s.BytesOut), rateOr(s, "bytes_in_s", s.BytesIn))
	}
	if s.Waiting > 0 {
		text += fmt.Sprintf(", %d wait", s.Waiting)
	}
	if s.Parked > 0 {
		text += fmt.Sprintf(", %d parked: cartage deals", s.Parked)
	}
	return text
}

func endedText(s *api.Status) string {
	window := ui.Lasting(time.Duration(s.EndedSeconds * float64(time.Second)))
	total := s.Ended.Total()
	if total == 0 {
		return "no deal ended in " + window
	}
	return fmt.Sprintf("%.1f %% of %d in %s (ours %d, theirs %d, network %d, whose is unknown %d)", 100*float64(s.Ended.Well)/float64(total), total, window,
		s.Ended.Ours, s.Ended.Theirs, s.Ended.Network, s.Ended.Unclear)
}

// amountOr is an amount for people, or that and why it is unknown.
func amountOr(s *api.Status, field, atto string) string {
	if why, unknown := s.Unknown[field]; unknown {
		return unknownFor(why)
	}
	return tableAmount(atto)
}

// tableAmount is an amount for people.
func tableAmount(atto string) string {
	n, ok := new(big.Int).SetString(atto, 10)
	if !ok {
		return "unknown"
	}
	return money.AttoFIL(fbig.NewFromGo(n)).Table()
}

func rateOr(s *api.Status, field string, bytes float64) string {
	if why, unknown := s.Unknown[field]; unknown {
		return unknownFor(why)
	}
	return size(uint64(bytes)) + "/s"
}

func countOr(s *api.Status, field string, n int) string {
	if why, unknown := s.Unknown[field]; unknown {
		return unknownFor(why)
	}
	return fmt.Sprint(n)
}

func unknownFor(why string) string {
	if why == reason.Unknown.String() {
		return "unknown"
	}
	return "unknown (" + why + ")"
}

// printSchema prints an object as one line of JSON that names its schema.
func printSchema(w *os.File, name string, v any) error {
	line, err := withSchema(name, v)
	if err != nil {
		return err
	}
	return printJSON(w, line)
}

var errNoObject = errors.New("only an object has a schema")
