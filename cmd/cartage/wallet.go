package main

import (
	"context"
	"errors"
	"fmt"
	"github.com/cartage-dev/cartage/internal/reason"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/internal/node"
)

// passphraseVar names the file with the pass phrase of the wallet, if no flag does.
const passphraseVar = "CARTAGE_WALLET_PASSPHRASE_FILE"

// passphrase reads the pass phrase of the wallet; none is an empty one.
func (c *cli) passphrase() (string, error) {
	name := c.passphraseFile
	if name == "" {
		name = os.Getenv(passphraseVar)
	}
	if name == "" {
		return "", nil
	}
	return readPassphrase(name)
}

func readPassphrase(name string) (string, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return "", api.Errorf(api.CodeUsage, "", "read the pass phrase of the wallet: %w", err)
	}
	p := strings.TrimRight(string(data), "\r\n")
	if p == "" {
		return "", api.Errorf(api.CodeUsage, "Its first line is the pass phrase.", "the file %s is empty", name)
	}
	return p, nil
}

// readKey reads an exported key from a file; - is stdin.
func readKey(name string) (string, error) {
	in := io.Reader(os.Stdin)
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return "", err
		}
		defer f.Close()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, 64<<10))
	return strings.TrimSpace(string(data)), err
}

func (c *cli) walletCmd() *cobra.Command {
	list := func(ctx context.Context, n *api.Node, _ []string) error {
		l, err := n.WalletList(ctx)
		if err != nil {
			return err
		}
		evm, err := n.EVMKeys(ctx)
		if err != nil {
			return err
		}
		for i, a := range evm {
			l = append(l, api.Balance{Address: a, Default: i == 0})
		}
		return table(c, l, []string{"ADDRESS", "BALANCE (attoFIL)", "DEFAULT"}, func(b api.Balance) []string {
			return []string{b.Address, b.Balance, fmt.Sprint(b.Default)}
		}, "the wallet is empty: cartage wallet new")
	}
	one := func(b *api.Balance, err error) error {
		if err != nil {
			return err
		}
		return c.show(b, [][2]string{{"address", b.Address}, {"balance", b.Balance + " attoFIL"}, {"default", fmt.Sprint(b.Default)}})
	}
	cmd := c.group(&cobra.Command{Use: "wallet", Short: "The keys of this node"})
	kind := ""
	made := &cobra.Command{Use: "new", Short: "Make a key", Args: c.args(cobra.NoArgs),
		RunE: c.node(func(ctx context.Context, n *api.Node, _ []string) error {
			if kind == "evm" {
				return newEVMKey(ctx, c, n)
			}
			return one(n.WalletNew(ctx, kind))
		})}
	made.Flags().StringVar(&kind, "type", "secp256k1", "secp256k1; bls, whose vouchers cost providers twelve times the work; or evm, for what is sold over HTTP for a token")
	cmd.AddCommand(made,
		&cobra.Command{Use: "list", Short: "List the keys", Args: c.args(cobra.NoArgs), RunE: c.reads(list)},
		&cobra.Command{Use: "balance", Short: "What is on the ledger", Args: c.args(cobra.NoArgs), RunE: c.reads(list)},
		&cobra.Command{Use: "default ADDRESS", Short: "Choose the key that pays and is paid", Args: c.args(cobra.ExactArgs(1)),
			RunE: c.node(func(ctx context.Context, n *api.Node, args []string) error { return one(n.WalletDefault(ctx, args[0])) })},
		&cobra.Command{Use: "export ADDRESS", Short: "Print a key, in the form that Lotus imports", Args: c.args(cobra.ExactArgs(1)),
			Long: "Print a key, in the form that Lotus imports. Whoever has it has the money of the address.",
			RunE: c.reads(func(ctx context.Context, n *api.Node, args []string) error {
				key, err := n.WalletExport(ctx, args[0])
				if err != nil {
					return err
				}
				return c.show(map[string]string{"address": args[0], "key": key}, [][2]string{{key, ""}})
			})},
		&cobra.Command{Use: "import FILE", Short: "Add a key that cartage or lotus wallet export printed; - reads it from stdin", Args: c.args(cobra.ExactArgs(1)),
			RunE: c.node(func(ctx context.Context, n *api.Node, args []string) error {
				key, err := readKey(args[0])
				if err != nil {
					return err
				}
				return one(n.WalletImport(ctx, key))
			})},
		&cobra.Command{Use: "remove ADDRESS", Short: "Forget a key; its file stays, renamed to end in .removed", Args: c.args(cobra.ExactArgs(1)),
			RunE: c.node(func(ctx context.Context, n *api.Node, args []string) error { return n.WalletRemove(ctx, args[0]) })},
		c.walletSeal())
	return cmd
}

// walletSeal works on the files: the daemon has the keys in memory, and needs the new pass phrase when it starts next.
func (c *cli) walletSeal() *cobra.Command {
	next, open := "", false
	cmd := &cobra.Command{Use: "passphrase", Short: "Encrypt the keys of a stopped node with a pass phrase, change it, or decrypt them", Args: c.args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			h, err := c.home()
			if err != nil {
				return err
			}
			if _, done, err := node.Dial(cmd.Context(), h); err != nil || done != nil {
				return errors.Join(err, reason.HomeBusy.Errorf("the daemon of %s is running and has the keys open", h.Dir).WithHint("Stop it first."))
			}
			if (next == "") == !open {
				return api.Errorf(api.CodeUsage, "", "say --new-file FILE to encrypt, or --none to decrypt")
			}
			to := ""
			if next != "" {
				if to, err = readPassphrase(next); err != nil {
					return err
				}
			}
			from, err := c.passphrase()
			if err != nil {
				return err
			}
			w, err := node.OpenWallet(h, from)
			if err != nil {
				return err
			}
			tokens, err := node.OpenEVMKeys(h, from)
			if err != nil {
				return err
			}
			if err := errors.Join(w.Seal(to), tokens.Seal(to)); err != nil {
				return err
			}
			return c.show(map[string]any{"keys": len(w.List()), "encrypted": to != ""}, [][2]string{{"keys", fmt.Sprint(len(w.List()))}, {"encrypted", fmt.Sprint(to != "")}})
		}}
	cmd.Flags().StringVar(&next, "new-file", "", "file whose first line is the new pass phrase")
	cmd.Flags().BoolVar(&open, "none", false, "store the keys in the clear")
	return cmd
}

// newEVMKey makes a key of an EVM chain.
func newEVMKey(ctx context.Context, c *cli, n *api.Node) error {
	a, err := n.EVMKeyNew(ctx)
	if err != nil {
		return err
	}
	return c.show(map[string]string{"address": a}, [][2]string{{"address", a}})
}
