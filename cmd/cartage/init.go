package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cartage-dev/cartage/api"
	"github.com/cartage-dev/cartage/internal/blob"
	"github.com/cartage-dev/cartage/internal/config"
	"github.com/cartage-dev/cartage/internal/node"
	"github.com/cartage-dev/cartage/internal/store"
	"github.com/cartage-dev/cartage/paych"
	"github.com/cartage-dev/cartage/paych/ledger"
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
			cfg, err := node.Init(h, o)
			if err != nil {
				return err
			}
			w, err := paych.OpenWallet(blob.OS{}, h.Path("wallet"))
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
	cmd.Flags().BoolVar(&yes, "yes", false, "ask nothing (there is nothing to ask at the moment)")
	return cmd
}

func orNone(s string) string {
	if s == "" {
		return "none (free deals only)"
	}
	return s
}

func (c *cli) daemonCmd() *cobra.Command {
	var o node.Options
	cmd := &cobra.Command{
		Use: "daemon", Short: "Run the node until SIGINT or SIGTERM", Args: c.args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.daemon(cmd.Context(), o)
		},
	}
	cmd.Flags().BoolVar(&o.Provide, "provide", false, "answer queries and serve deals")
	cmd.Flags().StringArrayVar(&o.Listen, "listen", nil, "listen on this multiaddress instead of the configured ones (may be repeated)")
	cmd.Flags().StringVar(&o.LedgerURL, "ledger", "", "URL of the ledger, or serve to run the one in HOME/ledger")
	cmd.Flags().StringVar(&o.TokenFile, "ledger-token-file", "", "file with the token of the ledger")
	return cmd
}

func (c *cli) daemon(ctx context.Context, o node.Options) error {
	h, err := c.home()
	if err != nil {
		return err
	}
	o.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var own *servedLedger
	if o.LedgerURL == "serve" {
		if own, err = serveLedger(ctx, config.Home{Dir: h.Path("ledger")}, anyPort); err != nil {
			return err
		}
		defer own.close()
		o.LedgerURL, o.TokenFile = own.url, own.tokenFile
	}
	n, err := node.Open(ctx, h, o)
	if err != nil {
		return err
	}
	cfg, err := h.Load()
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", cfg.Network.API)
	if err != nil {
		return errors.Join(err, n.Close(context.WithoutCancel(ctx)))
	}
	if err := c.announce(ctx, n, "http://"+ln.Addr().String()+"/rpc/v1"); err != nil {
		return err
	}
	err = n.Serve(ctx, h, ln)
	cctx, stop := context.WithTimeout(context.WithoutCancel(ctx), 4*time.Second)
	defer stop()
	return errors.Join(err, n.Close(cctx))
}

func (c *cli) announce(ctx context.Context, n *node.Opened, url string) error {
	info, err := n.API().Info(ctx)
	if err != nil {
		return err
	}
	if c.json {
		return printJSON(os.Stdout, map[string]any{"event": "ready", "peer_id": info.PeerID, "addresses": info.Addresses, "api": url, "wallet": info.Wallet})
	}
	fmt.Println("peer id ", info.PeerID)
	for _, a := range info.Addresses {
		fmt.Println("address ", a)
	}
	fmt.Println("wallet  ", info.Wallet)
	fmt.Println("ledger  ", orNone(info.Ledger))
	fmt.Println("ready; stop with Ctrl-C")
	return nil
}

// servedLedger is a ledger that this process runs.
type servedLedger struct {
	url, tokenFile string
	done           chan error
	stop           context.CancelFunc
	l              *ledger.Ledger
}

func (s *servedLedger) close() {
	s.stop()
	<-s.done
	_ = s.l.Close()
}

// listenAgain takes the port of the last time if none is asked for, so that the URL stays the same.
func listenAgain(h config.Home, listen string) (net.Listener, error) {
	file := h.Path("listen")
	if data, err := os.ReadFile(file); err == nil && listen == anyPort {
		if ln, err := net.Listen("tcp", strings.TrimSpace(string(data))); err == nil {
			return ln, nil
		}
	}
	ln, err := net.Listen("tcp", listen)
	if err != nil {
		return nil, err
	}
	if err := blob.WriteFile(blob.OS{}, file, []byte(ln.Addr().String()+"\n"), 0o600); err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	return ln, nil
}

const anyPort = "127.0.0.1:0"

func serveLedger(ctx context.Context, h config.Home, listen string) (*servedLedger, error) {
	l, err := ledger.Open(ctx, h.Dir)
	if errors.Is(err, store.ErrLocked) {
		return nil, api.Errorf(api.CodeOther, "Its URL is in "+h.Path("api")+".", "another process serves the ledger in %s: %w", h.Dir, err)
	}
	if errors.Is(err, ledger.ErrNotLedger) {
		return nil, api.Errorf(api.CodeUsage, "Make one with cartage ledger init.", "%w", err)
	}
	if err != nil {
		return nil, err
	}
	if err := node.MakeToken(blob.OS{}, h.Path("token")); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	token, err := node.ReadToken(h.Path("token"))
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	ln, err := listenAgain(h, listen)
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	ctx, cancel := context.WithCancel(ctx)
	s := &servedLedger{url: "http://" + ln.Addr().String(), tokenFile: h.Path("token"), done: make(chan error, 1), stop: cancel, l: l}
	if err := blob.WriteFile(blob.OS{}, h.Path("api"), []byte(s.url+"\n"), 0o600); err != nil {
		cancel()
		return nil, errors.Join(err, ln.Close(), l.Close())
	}
	go func() { s.done <- l.Serve(ctx, ln, token) }()
	return s, nil
}

func (c *cli) ledgerCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "ledger", Short: "The embedded ledger: a process and a home of its own"}
	o := ledger.Options{}
	initCmd := &cobra.Command{
		Use: "init", Short: "Make a ledger in the home", Args: c.args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			h, err := c.home()
			if err != nil {
				return err
			}
			if err := os.MkdirAll(h.Dir, 0o700); err != nil {
				return err
			}
			if err := ledger.Init(h.Dir, o); err != nil {
				return err
			}
			return c.show(map[string]any{"home": h.Dir, "dev": o.Dev, "epoch": o.Epoch.String(), "settle_delay": o.SettleDelay},
				[][2]string{{"ledger", h.Dir}, {"epoch", o.Epoch.String()}, {"settle delay", fmt.Sprint(o.SettleDelay, " epochs")}, {"faucet", fmt.Sprint(o.Dev)}})
		},
	}
	initCmd.Flags().BoolVar(&o.Dev, "dev", false, "with a faucet that gives money away")
	initCmd.Flags().DurationVar(&o.Epoch, "epoch", 30*time.Second, "length of an epoch")
	initCmd.Flags().Uint64Var(&o.SettleDelay, "settle-delay", 1440, "epochs between settle and collect")
	var listen string
	serve := &cobra.Command{
		Use: "serve", Short: "Serve the ledger over loopback HTTP until SIGINT or SIGTERM", Args: c.args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			h, err := c.home()
			if err != nil {
				return err
			}
			s, err := serveLedger(cmd.Context(), h, listen)
			if err != nil {
				return err
			}
			if c.json {
				err = printJSON(os.Stdout, map[string]any{"event": "ready", "url": s.url, "token_file": s.tokenFile})
			} else {
				fmt.Println("url       ", s.url)
				fmt.Println("token file", s.tokenFile)
				fmt.Println("ready; stop with Ctrl-C")
			}
			<-cmd.Context().Done()
			s.close()
			return err
		},
	}
	serve.Flags().StringVar(&listen, "listen", anyPort, "loopback address and port")
	cmd.AddCommand(initCmd, serve)
	return cmd
}
