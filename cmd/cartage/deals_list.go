package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/internal/lifecycle"
	"github.com/cartage-dev/cartage/internal/reason"
	"github.com/cartage-dev/cartage/internal/ui"
)

// dealFilter chooses the orders and deals that are shown.
type dealFilter struct {
	role, state, peer, root string
	page                    page
	watch                   time.Duration
}

func (f *dealFilter) declare(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.role, "role", "", "only those of this role: order, client or provider")
	cmd.Flags().StringVar(&f.state, "state", "", "only those that are open, waiting, parked, ended or failed")
	cmd.Flags().StringVar(&f.peer, "peer", "", "only those with this peer")
	cmd.Flags().StringVar(&f.root, "root", "", "only those of this root")
	cmd.Flags().DurationVar(&f.watch, "watch", 0, "show them again after each such time (2s if none is given), until Ctrl-C; where the output is no terminal, only what has changed")
	cmd.Flags().Lookup("watch").NoOptDefVal = "2s"
	f.page.declare(cmd)
}

// check refuses what no deal can be.
func (f *dealFilter) check() error {
	for _, v := range []struct {
		flag, value string
		allowed     []string
	}{{"role", f.role, dealRoles[:]}, {"state", f.state, dealGroups[:]}} {
		if v.value != "" && !slices.Contains(v.allowed, v.value) {
			return api.Errorf(api.CodeUsage, "Say "+strings.Join(v.allowed, ", ")+".", "--%s %q is none", v.flag, v.value)
		}
	}
	if f.watch < 0 || f.watch > 0 && f.watch < 100*time.Millisecond {
		return api.Errorf(api.CodeUsage, "", "--watch %s is shorter than 100ms", f.watch)
	}
	return nil
}

var (
	dealRoles  = [...]string{"order", "client", "provider"}
	dealGroups = [...]string{"open", "waiting", "parked", "ended", "failed"}
)

// groupOf is the group that a deal is in. What was cancelled has ended.
func groupOf(d api.Deal) string {
	status, _, _ := strings.Cut(d.Status, ":")
	switch {
	case status == "waiting", status == "parked":
		return status
	case d.Final && d.Status != "Completed" && d.Status != "Cancelled":
		return "failed"
	case d.Final:
		return "ended"
	case d.Reason != "": // it stands still
		return "parked"
	}
	return "open"
}

func (f *dealFilter) takes(d api.Deal) bool {
	return (f.role == "" || f.role == d.Role) && (f.state == "" || f.state == groupOf(d)) &&
		(f.peer == "" || strings.HasSuffix(d.Peer, f.peer)) && (f.root == "" || f.root == d.Root)
}

// dealRows are the orders that go on and the deals of both roles that a filter takes, the newest first.
func (f *dealFilter) dealRows(ctx context.Context, n *api.Node) ([]api.Deal, error) {
	orders, err := liveOrders(ctx, n)
	if err != nil {
		return nil, err
	}
	deals, err := n.Deals(ctx)
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(deals, func(a, b api.Deal) int { return strings.Compare(dealNumber(b.ID), dealNumber(a.ID)) })
	slices.Reverse(orders)
	return slices.DeleteFunc(append(orders, deals...), func(d api.Deal) bool { return !f.takes(d) }), nil
}

// dealNumber is the number of a deal, in as many digits as any has.
func dealNumber(id string) string {
	digits := id[strings.LastIndexAny(id, "/cpo")+1:]
	n, err := strconv.ParseUint(digits, 10, 64)
	if err != nil {
		return digits
	}
	return fmt.Sprintf("%020d", n)
}

// list shows the deals once, or until ctx ends.
func (o operator) listDeals(ctx context.Context, n *api.Node, f *dealFilter) error {
	rows, err := f.dealRows(ctx, n)
	if err != nil {
		return err
	}
	if f.watch == 0 {
		return showPage(rows, &f.page, func(d api.Deal) string { return d.ID }, o.dealTable)
	}
	redraw := isTerminal(os.Stdout) && !o.c.json
	before := map[string]string{}
	for {
		var shown []api.Deal
		if redraw {
			ui.Clear(os.Stdout)
			shown = rows[:min(len(rows), f.page.limit)]
		} else {
			shown = changed(rows, before)
		}
		if redraw || len(shown) > 0 {
			if err := o.dealTable(shown); err != nil {
				return err
			}
		}
		if !lifecycle.Sleep(ctx, f.watch) {
			return reason.Interrupted
		}
		if rows, err = f.dealRows(ctx, n); err != nil {
			return err
		}
	}
}

// changed are the rows that are not as they were.
func changed(rows []api.Deal, before map[string]string) (out []api.Deal) {
	for _, d := range rows {
		var line bytes.Buffer
		if err := ui.JSON(&line, d); err == nil && before[d.ID] != line.String() {
			before[d.ID] = line.String()
			out = append(out, d)
		}
	}
	return out
}

func (o operator) dealTable(rows []api.Deal) error {
	return table(o.c, rows, []string{"ID", "ROLE", "STATUS", "BYTES", "OWED", "VOUCHERED", "ROOT", "MESSAGE"}, func(d api.Deal) []string {
		return []string{d.ID, d.Role, d.Status, size(d.Bytes), d.Owed, d.Vouchered, d.Root, d.Message}
	}, "no deals yet")
}

// named reports whether an id is meant by what was typed: it, or its two ends as tables show them.
func named(id, typed string) bool { return id == typed || ui.Short(id) == typed }
