package main

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/internal/reason"
)

// tokenVerbs are the verbs about the tokens of the API.
type tokenVerbs struct{ *cli }

func tokenCmd(c *cli) *cobra.Command {
	v := tokenVerbs{c}
	cmd := c.group(&cobra.Command{Use: "token", Short: "Tokens that let programs call the API of this node, each for what it may do"})
	cmd.AddCommand(v.createCmd(), v.listCmd(), v.revokeCmd())
	return cmd
}

func (v tokenVerbs) createCmd() *cobra.Command {
	var perms []string
	var budget, expires string
	cmd := &cobra.Command{Use: "create NAME", Short: "Make a token; its secret is shown once and stored nowhere", Args: v.args(cobra.ExactArgs(1)),
		Long: "Make a token; its secret is shown once and stored nowhere.\n\nread lists and asks; pay retrieves, for at most the budget (without one only what is free); provide sells and redeems;\n" +
			"admin may everything. pay and provide include read. Paths on this machine are open to pay and provide only below api.paths of the configuration.",
		Example: "  cartage token create grafana --perm read\n  cartage token create bot --perm pay --budget 0.5FIL/day --expires 720h",
		RunE: v.node(func(ctx context.Context, n *api.Node, args []string) error {
			r := api.TokenRequest{Name: args[0], Perms: perms}
			var amount string
			amount, r.Period, _ = strings.Cut(budget, "/")
			if amount != "" {
				var err error
				if r.Budget, err = parseAmount(amount); err != nil {
					return err
				}
			}
			if expires != "" {
				at, err := expiry(expires, time.Now())
				if err != nil {
					return err
				}
				r.Expires = at.UTC().Format(time.RFC3339)
			}
			t, err := n.TokenCreate(ctx, r)
			if err != nil {
				return err
			}
			if !v.json {
				note("cartage: %v\n", errors.New("keep the secret: it is not shown again"))
			}
			return v.show(t, append([][2]string{{"secret", t.Secret}}, tokenRows(t)...))
		})}
	cmd.Flags().StringSliceVar(&perms, "perm", nil, "what it may do: read, pay, provide or admin (may be repeated)")
	cmd.Flags().StringVar(&budget, "budget", "", "what its orders may cost together, such as 0.5FIL; 0.5FIL/day or 0.5FIL/month for each day or month (UTC)")
	cmd.Flags().StringVar(&expires, "expires", "", "when it ends: a time from now such as 720h, or a date such as 2027-01-31 (default: never)")
	_ = cmd.MarkFlagRequired("perm")
	return cmd
}

// expiry reads a time from now, a date or an RFC 3339 time.
func expiry(text string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(text); err == nil {
		return now.Add(d), nil
	}
	for _, form := range []string{time.DateOnly, time.RFC3339} {
		if at, err := time.Parse(form, text); err == nil {
			return at, nil
		}
	}
	return time.Time{}, reason.Usage.Errorf("%q is no time", text).WithHint("Write it as 720h, 2027-01-31 or 2027-01-31T12:00:00Z.")
}

func tokenRows(t *api.Token) [][2]string {
	return [][2]string{{"name", t.Name}, {"id", t.ID}, {"may", strings.Join(t.Perms, ",")}, {"budget", budgetOf(*t)}, {"expires", orNever(t.Expires)}, {"state", t.State}}
}

// budgetOf is what is used of a budget.
func budgetOf(t api.Token) string {
	if t.Budget == "" {
		return "-"
	}
	out := t.Used + " of " + t.Budget + " attoFIL"
	if t.Period != "" {
		out += " a " + t.Period
	}
	return out
}

func orNever(s string) string {
	if s == "" {
		return "never"
	}
	return s
}

func (v tokenVerbs) listCmd() *cobra.Command {
	return &cobra.Command{Use: "list", Short: "List tokens: what each may do, until when, and what is used of its budget", Args: v.args(cobra.NoArgs), Example: "  cartage token list",
		RunE: v.reads(func(ctx context.Context, n *api.Node, _ []string) error {
			list, err := n.TokenList(ctx)
			if err != nil {
				return err
			}
			return table(v.cli, list, []string{"NAME", "ID", "MAY", "BUDGET USED", "EXPIRES", "STATE"}, func(t api.Token) []string {
				return []string{t.Name, t.ID, strings.Join(t.Perms, ","), budgetOf(t), orNever(t.Expires), t.State}
			}, "there are no tokens: cartage token create NAME --perm read")
		})}
}

func (v tokenVerbs) revokeCmd() *cobra.Command {
	return &cobra.Command{Use: "revoke NAME", Short: "End a token, by its name or id: it opens nothing any more, and what it ordered is parked", Args: v.args(cobra.ExactArgs(1)),
		Example: "  cartage token revoke bot",
		RunE: v.node(func(ctx context.Context, n *api.Node, args []string) error {
			t, err := n.TokenRevoke(ctx, args[0])
			if err != nil {
				return err
			}
			return v.show(t, tokenRows(t))
		})}
}
