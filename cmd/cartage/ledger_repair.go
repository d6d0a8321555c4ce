package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/internal/reason"
	"github.com/cartage-dev/cartage/paych/ledger"
)

// ledgerRepair makes the store of a ledger that nobody serves again.
func (c *cli) ledgerRepair() *cobra.Command {
	var fromLog, giveUp bool
	cmd := &cobra.Command{
		Use: "repair --from-log", Short: "Make the store of a ledger again from its journal", Args: c.args(cobra.NoArgs),
		Long: "Make the store of a ledger again from its journal: every signed transaction that was answered is in both. The old store is put aside,\nnothing is deleted. Nobody may serve the ledger meanwhile.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !fromLog {
				return reason.Usage.Errorf("a store is made again from its journal, there is no other way").WithHint("Say so with --from-log.")
			}
			h, err := c.home()
			if err != nil {
				return err
			}
			r, err := ledger.Repair(cmd.Context(), h.Dir, giveUp)
			if errors.Is(err, ledger.ErrJournalDamaged) && !giveUp {
				return reason.StoreFailed.Errorf("%w", err).WithHint("Restore a backup; or go on with what is whole: cartage ledger repair --from-log --give-up-rest.")
			}
			if err != nil {
				return err
			}
			l, err := openLedger(cmd.Context(), h)
			if err != nil {
				return err
			}
			defer l.Close()
			if err := l.Verify(); err != nil {
				return api.Errorf(api.CodeVerification, "Restore a backup.", "%w", err)
			}
			a, err := l.Audit()
			if err != nil {
				return err
			}
			return c.show(map[string]any{"transactions": r.Transactions, "unread_bytes": r.Unread, "old_store": r.Aside, "minted": a.Minted.String(), "ok": a.Conserved},
				[][2]string{{"applied again", fmt.Sprint(r.Transactions, " transactions")}, {"given up", size(uint64(r.Unread))}, {"old store", r.Aside}, {"minted", a.Minted.String()}})
		},
	}
	cmd.Flags().BoolVar(&fromLog, "from-log", false, "from the journal of signed transactions in the home")
	cmd.Flags().BoolVar(&giveUp, "give-up-rest", false, "give up what is behind a damage of the journal itself")
	return cmd
}
