// Command cartage sells and buys content-addressed data.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/filecoin-project/go-address"
	golog "github.com/ipfs/go-log/v2"
	"github.com/spf13/cobra"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/internal/config"
	"github.com/cartage-dev/cartage/internal/node"
	"github.com/cartage-dev/cartage/internal/reason"
	"github.com/cartage-dev/cartage/internal/ui"
)

// version is set by the release build.
var version = "dev"

func main() { os.Exit(run()) }

func run() int {
	address.CurrentNetwork = address.Mainnet
	_ = golog.SetLogLevel("rpc", "fatal")                           // the library logs whole calls: signed transactions, keys. What fails is told to the caller
	_ = os.Setenv("QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING", "true") // the library would print it between the lines of an answer
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends what does not listen to the first
	c := &cli{}
	root := c.root()
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	code := api.CodeOf(err)
	if !c.started || c.usage {
		code = api.CodeUsage
	}
	if ctx.Err() != nil && code == api.CodeOther {
		code = api.CodeInterrupted
	}
	c.complain(err, code)
	return code
}

// cli holds the global flags and what every verb shares.
type cli struct {
	homeFlag string
	json     bool
	wide     bool
	verbose  bool
	// passphraseFile holds the pass phrase of the wallet.
	passphraseFile string
	started        bool // a verb runs: what went wrong before is a fault of the call
	usage          bool // the error is one of how the program was called
}

func (c *cli) root() *cobra.Command {
	root := &cobra.Command{
		Use: "cartage", Short: "Sell and buy content-addressed data", SilenceErrors: true, SilenceUsage: true, Version: version,
		Long: "Cartage sells and buys content-addressed data: a provider puts files and CAR archives up for sale, a client retrieves\nthem block by block, verifies each block, and pays in small signed vouchers as the data arrives.",
	}
	root.PersistentFlags().StringVar(&c.homeFlag, "home", "", "folder of this node (default $CARTAGE_HOME, else the XDG data folder)")
	root.PersistentFlags().BoolVar(&c.json, "json", false, "print JSON")
	root.PersistentFlags().BoolVar(&c.wide, "wide", false, "do not shorten or leave out what a row of a table has no room for")
	root.PersistentFlags().BoolVarP(&c.verbose, "verbose", "v", false, "log to stderr")
	root.PersistentFlags().StringVar(&c.passphraseFile, "wallet-passphrase-file", "", "file with the pass phrase of the wallet (default $"+passphraseVar+", else none)")
	root.AddCommand(c.initCmd(), c.daemonCmd(), c.ledgerCmd(), c.importCmd(), c.provideCmd(), c.piecesCmd(), c.askCmd(), c.findCmd(), c.retrieveCmd(), c.gatewayCmd(),
		c.dealsCmd(), c.peersCmd(), c.walletCmd(), c.faucetCmd(), c.paychCmd(), c.earningsCmd(), c.spendCmd(), c.limitsCmd(), configCmd(c), logCmd(c), tokenCmd(c), c.infoCmd(), c.demoCmd(), c.commpCmd(), c.generateCarCmd(),
		c.dealCmd(), c.queryAskCmd(), c.storageCmd(), c.dagstoreCmd(), c.localCmd(), c.dropCmd(), c.repointCmd(), c.statCmd(), c.lsCmd(), c.catCmd())
	root.AddCommand(operator{c}.commands()...)
	completeHelp(root)
	c.noteStart(root)
	return root
}

// noteStart makes every verb note that it runs: arguments, flags and groups of flags are checked before.
func (c *cli) noteStart(cmd *cobra.Command) {
	if run := cmd.RunE; run != nil {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			c.started = true
			return run(cmd, args)
		}
	}
	for _, sub := range cmd.Commands() {
		c.noteStart(sub)
	}
}

// group makes a command that only has others below it refuse what is none of them: a mistyped verb is not a success.
func (c *cli) group(cmd *cobra.Command) *cobra.Command {
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		if len(a) == 0 {
			return cmd.Help()
		}
		c.usage = true
		return fmt.Errorf("unknown command %q for %q: see %s --help", a[0], cmd.CommandPath(), cmd.CommandPath())
	}
	return cmd
}

// args is cobra's check of the number of arguments, as an error of usage.
func (c *cli) args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, a []string) error {
		err := check(cmd, a)
		c.usage = c.usage || err != nil
		return err
	}
}

func (c *cli) home() (config.Home, error) { return config.Find(c.homeFlag) }

// complain prints an error: a sentence with its reason and a hint, or one JSON object.
func (c *cli) complain(err error, code int) {
	e := *api.ErrorOf(err)
	if e.Code != code { // how the program was called, or ended, says more
		e.Code, e.Reason = code, reason.ForExit(code).String()
	}
	if c.json {
		out := map[string]any{"error": e.Message, "hint": e.Hint, "code": code}
		for key, value := range map[string]string{"reason": e.Reason, "blame": e.Blame, "detail": e.Detail, "spent": e.Spent} {
			if value != "" {
				out[key] = value
			}
		}
		_ = printJSON(os.Stderr, out)
		return
	}
	line := e.Message
	if e.Reason != "" && e.Reason != reason.Unknown.String() {
		line += " (" + e.Reason + ")"
	}
	note("cartage: %v\n", errors.New(line))
	if e.Spent != "" && e.Spent != "0" {
		note("         %s attoFIL were spent before that, for %s that are kept here.\n", e.Spent, size(e.Bytes))
	}
	if e.Detail != "" {
		note("         The other side said: %v\n", ui.Quoted(e.Detail))
	}
	if e.Hint != "" {
		note("         %v\n", errors.New(e.Hint))
	}
}

// withNode runs f against the daemon of the home, or, with none running, against the home itself under its lock.
func (c *cli) withNode(ctx context.Context, f func(ctx context.Context, n *api.Node) error) error {
	return c.onNode(ctx, f, false)
}

// onNode is withNode; for a verb that only reads the disk of the home may be full.
func (c *cli) onNode(ctx context.Context, f func(ctx context.Context, n *api.Node) error, reads bool) error {
	h, err := c.home()
	if err != nil {
		return err
	}
	if _, err := node.ReadConfig(h); err != nil {
		return err
	}
	remote, done, err := node.Dial(ctx, h)
	if err != nil {
		return err
	}
	if remote != nil {
		defer done()
		return f(ctx, remote)
	}
	pass, err := c.passphrase()
	if err != nil {
		return err
	}
	o := node.Options{Listen: []string{"/ip4/127.0.0.1/tcp/0"}, Log: c.logger(), Passphrase: pass, Version: version}
	n, err := node.Open(ctx, h, o)
	if reads && reason.From(err) == reason.DiskFull {
		note("cartage: the disk is full: this is what the home holds, and nothing in it goes on\n")
		o.Reading = true
		n, err = node.Open(ctx, h, o)
	}
	if err != nil {
		return err
	}
	err = f(ctx, n.API())
	return errors.Join(err, n.Close(context.WithoutCancel(ctx)))
}
