package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/internal/config"
	"github.com/cartage-dev/cartage/internal/node"
	"github.com/cartage-dev/cartage/internal/reason"
	"github.com/cartage-dev/cartage/internal/ui"
)

// withSchema is an object of JSON with the name of its schema as its first field.
func withSchema(name string, v any) (json.RawMessage, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	rest, ok := bytes.CutPrefix(body, []byte("{"))
	if !ok {
		return nil, errNoObject
	}
	head := fmt.Sprintf(`{"schema":"cartage.%s/1"`, name)
	if !bytes.Equal(rest, []byte("}")) {
		head += ","
	}
	return append([]byte(head), rest...), nil
}

func (o operator) doctorCmd() *cobra.Command {
	var strict, rescue bool
	cmd := &cobra.Command{
		Use: "doctor [CHECK...]", Short: "Look at every part of this node, and say what helps",
		Long: "Doctor takes all checks of the node, or those that are named, with the daemon or without. It reads the stores and the pieces through, and changes\n" +
			"nothing. With --rescue it shows what can still be read of a home whose store is damaged.\n\nExit codes: 0 all are well, 1 one is bad (with --strict: or a warning).",
		Example: "  cartage doctor\n  cartage doctor ledger disk\n  cartage doctor --rescue",
		RunE: func(cmd *cobra.Command, args []string) error {
			if rescue {
				return o.rescue(cmd.Context())
			}
			return o.doctor(cmd.Context(), args, strict)
		},
	}
	cmd.Flags().BoolVar(&strict, "strict", false, "a warning is a failure too")
	cmd.Flags().BoolVar(&rescue, "rescue", false, "show what can be read of a damaged home; no daemon may run on it")
	return cmd
}

// doctor takes the checks of the node; of a home that cannot be opened those that need no node.
func (o operator) doctor(ctx context.Context, names []string, strict bool) error {
	var checks []api.Check
	err := o.c.onNode(ctx, func(ctx context.Context, n *api.Node) (err error) {
		checks, err = n.Doctor(ctx, api.DoctorRequest{Checks: names, Deep: true})
		return err
	}, true)
	if err != nil && checks == nil {
		if code := api.CodeOf(err); code == api.CodeUsage || code == api.CodeInterrupted {
			return err
		}
		h, herr := o.c.home()
		if herr != nil {
			return errors.Join(err, herr)
		}
		checks = closedHome(h, err)
	}
	if err := o.printChecks(checks); err != nil {
		return err
	}
	for _, c := range checks {
		if c.State == "bad" || strict && c.State == "warn" {
			return errFound
		}
	}
	return nil
}

// errFound ends a doctor that has shown what is bad.
var errFound error = reason.PartlyFailed.Errorf("not all is well").WithHint("What helps is told below each finding.")

// closedHome is what can be said of a home that cannot be opened.
func closedHome(h config.Home, cause error) []api.Check {
	r := node.CheckHome(h.Dir, h.CheckPrivate())
	e := api.ErrorOf(cause)
	fix := e.Hint
	if fix == "" {
		fix = reason.From(cause).Next()
	}
	return []api.Check{
		{ID: "home", State: r.State.String(), Text: r.Text, Fix: r.Fix},
		{ID: "open", State: "bad", Text: e.Message, Fix: fix},
	}
}

func (o operator) printChecks(checks []api.Check) error {
	count := map[string]int{}
	for _, c := range checks {
		count[c.State]++
		if o.c.json {
			if err := printSchema(os.Stdout, "check", c); err != nil {
				return err
			}
			continue
		}
		head := fmt.Sprintf("%-7s %-7s ", c.State, c.ID)
		text := []string{c.Text}
		if c.Fix != "" {
			text = append(text, c.Fix)
		}
		ui.Paragraph(os.Stdout, head, statusWidth, text...)
	}
	if !o.c.json {
		say("%d checks: %d ok, %d warn, %d bad, %d unknown\n", len(checks), count["ok"], count["warn"], count["bad"], count["unknown"])
	}
	return nil
}

// rescue shows what can be read of a home whose store is damaged.
func (o operator) rescue(ctx context.Context) error {
	h, err := o.c.home()
	if err != nil {
		return err
	}
	found, err := node.Rescue(ctx, h)
	if err != nil {
		return err
	}
	if o.c.json {
		return printSchema(os.Stdout, "rescue", found)
	}
	for _, m := range found.Missing {
		say("missing  %s\n", m)
	}
	if len(found.Missing) == 0 {
		say("nothing is missing: the store of this home is whole\n")
	}
	say("\n")
	t := ui.Table{Header: []string{"CAN BE READ", "RECORDS"}}
	for _, k := range found.Kinds {
		t.Rows = append(t.Rows, []string{k.Name, fmt.Sprint(k.Records)})
	}
	if err := t.Write(os.Stdout); err != nil {
		return err
	}
	if len(found.Deals) > 0 {
		say("\n")
		t = ui.Table{Header: []string{"DEAL", "ROLE", "STATUS", "BYTES", "VOUCHERED", "ROOT"}}
		for _, d := range found.Deals {
			t.Rows = append(t.Rows, []string{d.ID, d.Role, d.Status, size(d.Bytes), d.Vouchered, d.Root})
		}
		if err := t.Write(os.Stdout); err != nil {
			return err
		}
	}
	for _, v := range found.Vouchers {
		say("\nvoucher of %s, lane %d, %s attoFIL: %s\n", v.Channel, v.Lane, v.Amount, v.Text)
	}
	return nil
}
