package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/filecoin-project/go-address"
	"github.com/filecoin-project/go-state-types/big"
	"github.com/spf13/cobra"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/blob"
	"github.com/cartage-dev/cartage/internal/config"
	"github.com/cartage-dev/cartage/internal/node"
	"github.com/cartage-dev/cartage/internal/reason"
	"github.com/cartage-dev/cartage/paych"
	"github.com/cartage-dev/cartage/paych/ledger"
)

// asked is a served ledger that is asked as its operator.
type asked struct {
	*ledger.Client
	url string
	end func()
}

// askLedger reaches the ledger of the home: the process that serves it, or one that is served for this call.
func (c *cli) askLedger(ctx context.Context) (*asked, error) {
	h, err := c.home()
	if err != nil {
		return nil, err
	}
	end := func() {}
	s, err := serveLedger(ctx, h, serveOptions{listen: unixSocket})
	switch {
	case err == nil:
		end = s.close
	case errors.Is(err, reason.HomeBusy): // somebody serves it
	default:
		return nil, err
	}
	a, err := dialOperator(ctx, h)
	if err != nil {
		end()
		return nil, err
	}
	hangup := a.end
	a.end = func() {
		hangup()
		end()
	}
	return a, nil
}

func dialOperator(ctx context.Context, h config.Home) (*asked, error) {
	url, err := os.ReadFile(h.Path("api"))
	if err != nil {
		return nil, err
	}
	token, err := node.ReadToken(h.Path("token"))
	if err != nil {
		return nil, err
	}
	operator, err := paych.OpenWallet(blob.OS{}, h.Path("operator"))
	if err != nil {
		return nil, err
	}
	var options []ledger.DialOption
	if pem, err := os.ReadFile(h.Path("tls.crt")); err == nil {
		options = append(options, ledger.PinCertificate(pem))
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	a := &asked{url: strings.TrimSpace(string(url))}
	a.Client, a.end, err = ledger.Dial(ctx, a.url, token, operator, options...)
	return a, err
}

func (c *cli) ledgerInfo() *cobra.Command {
	return &cobra.Command{
		Use: "info", Short: "What the ledger is, where its clock and its log are, and whether its money adds up", Args: c.args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := c.askLedger(cmd.Context())
			if err != nil {
				return err
			}
			defer a.end()
			info, err := a.API.Info(cmd.Context())
			if err != nil {
				return err
			}
			head, err := a.API.Head(cmd.Context())
			if err != nil {
				return err
			}
			audit, err := a.Audit(cmd.Context())
			if err != nil {
				return err
			}
			epoch := time.Duration(info.EpochNanos)
			return c.show(map[string]any{"url": a.url, "network": info.Network, "schema": info.Schema, "operator": info.Operator.String(), "faucet": info.Dev,
				"epoch_seconds": epoch.Seconds(), "settle_delay": info.SettleDelay, "epoch": head.Epoch, "log_position": head.LogPosition, "log_hash": head.LogHash,
				"minted": audit.Minted.String(), "accounts": audit.Accounts.String(), "channels": audit.Channels.String(), "conserved": audit.Conserved,
			}, [][2]string{
				{"url", a.url}, {"network", info.Network}, {"operator", info.Operator.String()}, {"faucet", fmt.Sprint(info.Dev)},
				{"epoch", fmt.Sprintf("%d, of %s each", head.Epoch, epoch)}, {"settle delay", fmt.Sprint(info.SettleDelay, " epochs")},
				{"log", fmt.Sprintf("%d transactions, hash %s", head.LogPosition, head.LogHash)},
				{"minted", audit.Minted.String()}, {"in accounts", audit.Accounts.String()}, {"in channels", audit.Channels.String()}, {"adds up", fmt.Sprint(audit.Conserved)},
			})
		},
	}
}

func (c *cli) ledgerMint() *cobra.Command {
	return &cobra.Command{
		Use: "mint ADDRESS AMOUNT", Short: "Create money (attoFIL, or 5FIL) with the operator's key of the home; it is in the log", Args: c.args(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			to, err := address.NewFromString(args[0])
			if err != nil || to.Protocol() != address.SECP256K1 && to.Protocol() != address.BLS {
				return api.Errorf(api.CodeUsage, "Addresses are listed by cartage wallet list.", "%q is not an address of a key (f1 or f3)", args[0])
			}
			text, err := parseAmount(args[1])
			if err != nil {
				return err
			}
			amount, err := big.FromString(text)
			if err != nil || amount.Sign() <= 0 {
				return api.Errorf(api.CodeUsage, "Write it as 1000 (attoFIL), 0.5FIL or 20nanoFIL.", "%q is not an amount above 0", args[1])
			}
			a, err := c.askLedger(cmd.Context())
			if err != nil {
				return err
			}
			defer a.end()
			tx, err := a.Mint(cmd.Context(), to, amount)
			if err != nil {
				return err
			}
			balance, err := a.Balance(cmd.Context(), to)
			if err != nil {
				return err
			}
			return c.show(map[string]any{"transaction": tx.String(), "address": to.String(), "amount": amount.String(), "balance": balance.String()},
				[][2]string{{"transaction", tx.String()}, {"minted", amount.String() + " to " + to.String()}, {"balance now", balance.String()}})
		},
	}
}

// ledgerVerify checks the whole history of a ledger that nobody serves.
func (c *cli) ledgerVerify() *cobra.Command {
	return &cobra.Command{
		Use: "verify", Short: "Check that the state follows from the signed transactions of the log", Args: c.args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			h, err := c.home()
			if err != nil {
				return err
			}
			l, err := openLedger(cmd.Context(), h)
			if err != nil {
				return err
			}
			defer l.Close()
			if err := l.Verify(); err != nil {
				return api.Errorf(api.CodeVerification, "The store was edited or its disk is bad: cartage ledger repair --from-log makes it again from the journal. Or restore a backup.", "%w", err)
			}
			a, err := l.Audit()
			if err != nil {
				return err
			}
			return c.show(map[string]any{"ok": a.Conserved, "minted": a.Minted.String(), "accounts": a.Accounts.String(), "channels": a.Channels.String()},
				[][2]string{{"log and state", "agree"}, {"minted", a.Minted.String()}, {"in accounts", a.Accounts.String()}, {"in channels", a.Channels.String()}})
		},
	}
}
