package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/internal/config"
	"github.com/cartage-dev/cartage/internal/node"
)

func (c *cli) initCmd() *cobra.Command {
	var o node.InitOptions
	var yes bool
	cmd := &cobra.Command{
		Use: "init", Short: "Make a home: configuration, keys, token, a TCP port", Args: c.args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			h, err := c.home()
			if err != nil {
				return err
			}
			if !yes && isTerminal(os.Stdin) && isTerminal(os.Stderr) && !c.json && !agree(fmt.Sprintf("Make a home in %s?", h.Dir)) {
				return nil
			}
			if o.Passphrase, err = c.passphrase(); err != nil {
				return err
			}
			cfg, err := node.Init(h, o)
			if err != nil {
				return err
			}
			w, err := node.OpenWallet(h, o.Passphrase)
			if err != nil {
				return err
			}
			addr, err := w.Default()
			if err != nil {
				return err
			}
			return c.show(map[string]any{"home": h.Dir, "wallet": addr.String(), "listen": cfg.Network.Listen, "ledger": cfg.Ledger.URL},
				[][2]string{{"home", h.Dir}, {"wallet", addr.String()}, {"listens on", strings.Join(cfg.Network.Listen, " ")}, {"ledger", orNone(cfg.Ledger.URL)}})
		},
	}
	cmd.Flags().StringVar(&o.LedgerURL, "ledger", "", "URL of the ledger, as cartage ledger serve prints it")
	cmd.Flags().StringVar(&o.LedgerTokenFile, "ledger-token-file", "", "file with the token of the ledger")
	cmd.Flags().StringVar(&o.LedgerCertFile, "ledger-cert", "", "file with the certificate of a ledger of another machine")
	cmd.Flags().StringVar(&o.ChainView, "chain-view", "", "JSON file with what storage deals have to know of a chain")
	cmd.Flags().StringVar(&o.Miner, "miner", "", "address of this provider on that chain, to take storage deals")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask first")
	return cmd
}

// agree asks the person at the terminal.
func agree(question string) bool {
	note("%s [Y/n] ", question)
	line, err := bufio.NewReader(os.Stdin).ReadString('\n')
	a := strings.ToLower(strings.TrimSpace(line))
	return err == nil && (a == "" || a == "y" || a == "yes")
}

// orNothing shows what may be absent.
func orNothing(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// orNone shows a ledger or a budget: without one only what is free is bought and sold.
func orNone(s string) string {
	if s == "" {
		return "none (free deals only)"
	}
	return s
}

func (c *cli) daemonCmd() *cobra.Command {
	var o node.Options
	var g gatewayFlags
	var readyFile string
	cmd := &cobra.Command{
		Use: "daemon", Short: "Run the node until SIGINT or SIGTERM", Args: c.args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.daemon(cmd.Context(), o, g, readyFile)
		},
	}
	cmd.Flags().BoolVar(&o.Provide, "provide", false, "answer queries and serve deals")
	cmd.Flags().StringArrayVar(&o.Listen, "listen", nil, "listen on this multiaddress instead of the configured ones (may be repeated): /ip4/0.0.0.0/tcp/7110, /ip4/0.0.0.0/tcp/7110/ws or /ip4/0.0.0.0/udp/7110/quic-v1")
	cmd.Flags().StringVar(&o.LedgerURL, "ledger", "", "URL of the ledger, or serve to run the one in HOME/ledger")
	cmd.Flags().StringVar(&o.TokenFile, "ledger-token-file", "", "file with the token of the ledger")
	cmd.Flags().StringVar(&o.Chain, "chain", "", "ledger, or lotus for a Filecoin chain (default: what the configuration has)")
	cmd.Flags().StringVar(&o.LotusAPI, "lotus-api", "", "JSON-RPC API of a Lotus node, for example http://127.0.0.1:1234/rpc/v1")
	cmd.Flags().StringVar(&o.LotusTokenFile, "lotus-token-file", "", "file with a token of that node that may sign")
	cmd.Flags().StringVar(&readyFile, "ready-file", "", "write the peer id into this file when the node is ready, and remove it at the end")
	g.declare(cmd)
	return cmd
}

func (c *cli) daemon(ctx context.Context, o node.Options, g gatewayFlags, readyFile string) error {
	h, err := c.home()
	if err != nil {
		return err
	}
	o.Version = version
	before, err := node.ReadConfig(h)
	if err != nil {
		return err
	}
	o.LogLevel = new(slog.LevelVar)
	o.Log = slog.New(logTo(os.Stderr, before.Log, o.LogLevel))
	if o.Passphrase, err = c.passphrase(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var own *servedLedger
	if o.LedgerURL == "serve" {
		if own, err = serveLedger(ctx, config.Home{Dir: h.Path("ledger")}, serveOptions{listen: anyPort}); err != nil {
			return err
		}
		defer own.close()
		o.LedgerURL, o.TokenFile = own.url, own.tokenFile
	}
	n, err := node.Open(ctx, h, o)
	if err != nil {
		return err
	}
	settings := node.SettingsOf(n.Node)
	cfg := settings.Config()
	ln, err := settings.ListenAPI(ctx)
	if err != nil {
		return errors.Join(err, n.Close(context.WithoutCancel(ctx)))
	}
	ops, err := node.OpenOps(ctx, n.Node)
	if err != nil {
		return errors.Join(err, ln.Close(), n.Close(context.WithoutCancel(ctx)))
	}
	defer ops.Serve(ctx)()
	web, err := openGateway(ctx, n, g.over(cfg.Gateway))
	if err != nil {
		return errors.Join(err, ln.Close(), n.Close(context.WithoutCancel(ctx)))
	}
	ended := web.serve(ctx, cancel)
	defer settings.ReloadOn(hangups())()
	err = n.Serve(ctx, h, ln, func() error {
		if err := c.announce(ctx, n, "http://"+ln.Addr().String()+"/rpc/v1", web.urls(), ops.URL()); err != nil {
			return err
		}
		return tellReady(ctx, n, readyFile)
	})
	cancel()
	err = errors.Join(err, tellStopping(readyFile), <-ended)
	cctx, stop := context.WithTimeout(context.WithoutCancel(ctx), 4*time.Second)
	defer stop()
	return errors.Join(err, n.Close(cctx))
}

func (c *cli) announce(ctx context.Context, n *node.Opened, url string, web []string, ops string) error {
	info, err := n.API().Info(ctx)
	if err != nil {
		return err
	}
	if c.json {
		return printJSON(os.Stdout, map[string]any{"event": "ready", "peer_id": info.PeerID, "addresses": info.Addresses, "api": url, "wallet": info.Wallet, "gateway": web, "ops": ops})
	}
	say("peer id  %v\n", info.PeerID)
	for _, a := range info.Addresses {
		say("address  %v\n", a)
	}
	for _, u := range web {
		say("gateway  %v\n", u)
	}
	if ops != "" {
		say("watched  %v/readyz\n", ops)
	}
	say("wallet   %v\n", info.Wallet)
	say("ledger   %v\n", orNone(info.Ledger))
	if err := sayOrders(ctx, n.API()); err != nil {
		return err
	}
	say("ready; stop with Ctrl-C\n")
	return nil
}

// sayOrders says at a start what stands still and what goes on.
func sayOrders(ctx context.Context, n *api.Node) error {
	live, err := n.Orders(ctx)
	if err != nil {
		return err
	}
	count := map[string]int{}
	for _, o := range live {
		count[o.State]++
	}
	if p := count["parked"]; p > 0 {
		say("%d orders are parked: nothing is asked for or paid for them until cartage deals resume ID\n", p)
	}
	if g := count["running"] + count["waiting"]; g > 0 {
		say("%d orders go on by themselves\n", g)
	}
	return nil
}
